"""The installed gt and bd, asked for their version and commands as a harvest asks them."""

from pathlib import Path

from gtft.town.conventions import read_conventions
from gtft.town.locate import Town
from town_case import make_environ, need_tools


def test_the_real_programs_answer_alike_each_time_and_leave_nothing(tmp_path: Path) -> None:
    need_tools("gt", "bd")
    environ = make_environ(tmp_path)
    town = Town(tmp_path / "town", "t", ())
    found = read_conventions(town, environ)
    assert set(found) == {"commands gt", "commands bd"}
    assert all(value.split(" ")[0].count(".") == 2 for value in found.values())
    assert read_conventions(town, environ) == found
    assert not town.root.exists()
