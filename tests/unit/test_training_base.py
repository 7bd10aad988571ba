"""Where the base comes from: clear words when it is not there, and no foreign code."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gtft.artifact import verify_artifact
from gtft.errors import BaseMissing, InputError
from gtft.recipe.schema import Base, Nano
from gtft.training.watch import StopRequested
from training_case import NANO, TEXT, Recorder

if TYPE_CHECKING:
    from gtft.training.base import BaseModel


def locate(
    tmp_path: Path, base: Base, watch: Recorder | None = None, text: str = TEXT
) -> BaseModel:
    from gtft.training.base import locate_base

    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "base.txt").write_text(text)
    return locate_base(
        base,
        text_file=tmp_path / "base.txt",
        root=tmp_path,
        workspace=tmp_path / "ws",
        watch=watch or Recorder(),
        clock=time.monotonic,
    )


@pytest.mark.parametrize("given", ["./models/none", "models", "not a hub id", "~nobody-here/x"])
def test_missing_folder_is_told_with_what_to_do(tmp_path: Path, given: str) -> None:
    with pytest.raises(BaseMissing) as e:
        locate(tmp_path, Base(model=given))
    assert given in e.value.what
    assert e.value.why
    assert e.value.fix


def test_folder_without_config_weights_or_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for name, words in (
        ("config.json", "no config.json"),
        ("pytorch_model.bin", "no safetensors"),
        ("model.safetensors", "pickle"),
        ("tokenizer.json", "no tokenizer"),
    ):
        with pytest.raises(BaseMissing) as e:
            locate(tmp_path, Base(model="m"))
        assert words in str(e.value) or "no safetensors" in str(e.value)
        (folder / name).write_bytes(b"{}")


def test_pickled_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        (folder / name).write_bytes(b"{}")
    with pytest.raises(BaseMissing, match="no safetensors") as e:
        locate(tmp_path, Base(model="./m"))
    assert "pytorch_model.bin is a pickle" in e.value.why


def test_hub_id_without_network_names_the_download_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BaseMissing, match="nobody/nothing@abc") as e:
        locate(tmp_path, Base(model="nobody/nothing", revision="abc"))
    assert "hf download nobody/nothing --revision abc" in e.value.fix


def test_nano_is_built_once_and_found_again(tmp_path: Path) -> None:
    base = Base(nano=Nano(**NANO))
    first = locate(tmp_path, base)
    watch = Recorder()
    second = locate(tmp_path, base, watch)
    assert first == second
    assert any("reused" in n for n in watch.notes)
    assert not Path(first.given).is_absolute()
    assert verify_artifact(first.path, kind="nano").id
    other = locate(tmp_path, Base(nano=Nano(**{**NANO, "steps": 2})))
    assert other.id != first.id


def test_same_text_gives_the_same_base_anywhere(tmp_path: Path) -> None:
    base = Base(nano=Nano(**NANO))
    here, there = locate(tmp_path / "a", base), locate(tmp_path / "b", base)
    assert here.path != there.path
    assert here.id == there.id
    assert here.path.name == there.path.name


def test_damaged_nano_is_built_again_and_named(tmp_path: Path) -> None:
    base = Base(nano=Nano(**NANO))
    first = locate(tmp_path, base)
    weights = first.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    watch = Recorder()
    again = locate(tmp_path, base, watch)
    assert [c for c, _ in watch.warnings] == ["base-damaged"]
    assert again.id == first.id
    verify_artifact(again.path, kind="nano")


def test_stopping_while_nano_is_built_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StopRequested):
        locate(tmp_path, Base(nano=Nano(**NANO)), Recorder(stop_at=1))
    assert list((tmp_path / "ws" / "bases").glob("*")) == [] or not (tmp_path / "ws").exists()


def test_empty_text_cannot_make_a_base(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no text"):
        locate(tmp_path, Base(nano=Nano(**NANO)), text=" \n\n")


def test_exercises_are_repeatable_and_hold_one_right_answer() -> None:
    from itertools import islice

    from gtft.training.nano_exercises import compose_exercises

    some = list(islice(compose_exercises([TEXT], 3), 200))
    assert some == list(islice(compose_exercises([TEXT], 3), 200))
    for exercise in some:
        *_, answer, end = exercise
        assert answer.trained
        assert not end.trained
        if "As JSON." in exercise[0].text:
            assert json.loads(answer.text.removesuffix("<|im_end|>"))
    assert list(compose_exercises(["too short"], 3)) == []
