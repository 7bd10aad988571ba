"""kill -9 at each step of deploy, promote and rollback: the town's files are the old bytes or the new ones, and after
``gtft doctor --fix`` the store, the routes and the town agree."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy_case import (
    URL,
    make_agent,
    make_model,
    make_town,
    open_town,
    snapshot,
    write,
)
from gtft.errors import GtftError
from gtft.records.deployments import Deployments
from gtft.runner.deployment import carry_out, find_town, plan_deployment
from gtft.runner.deployment_files import Wanted
from gtft.runner.doctor_deployments import check_deployments, mend_deployments
from gtft.runner.rollback import finish_removal
from gtft.runner.switch import (
    Removal,
    Step,
    find_journal,
    list_journals,
    no_step,
    read_journal,
    remove,
)
from gtft.runner.switch_lock import let_others, lock_deploy
from gtft.runner.workspace import Workspace
from gtft.service import Mode, read_routes

BACK = Removal(reason="rolled-back", text="by hand", actor="me", at_us=1)
# More steps than any way has: the last ones find nothing to kill.
MOST = 12
Way = Callable[[Workspace, Step], None]


def put(
    ws: Workspace,
    mark: str,
    mode: Mode,
    step: Step = no_step,
    deployment: str = "",
    check: Callable[[], None] = lambda: None,
) -> None:
    model = next(m for m in ws.store.list_models() if m.run_id == f"run-{mark}")
    launcher = ("gtft", "deploy", "launch", "J", "--")
    # Another server for each model, so that the settings of one are not those of the other.
    url = f"{URL}{ord(mark)}"
    wanted = Wanted(model, mode, "witness", "", url, "me", launcher=launcher)
    name = deployment or f"dep-{mark}-{mode}"
    plan = plan_deployment(ws, find_town(ws), wanted, name, ws.environ)
    carry_out(ws, plan, check, step)


def back(ws: Workspace, step: Step) -> None:
    journal = read_journal(ws.path, "witness")
    assert journal is not None
    off, _ = remove(ws.path, journal, BACK, step)
    finish_removal(ws, off, step)


# name → (what is in service before, what is killed)
WAYS: dict[str, tuple[tuple[tuple[str, Mode], ...], Way]] = {
    "deploy": ((), lambda ws, step: put(ws, "a", "live", step)),
    "promote": ((("a", "advise"),), lambda ws, step: put(ws, "a", "live", step)),
    "replace": ((("a", "live"),), lambda ws, step: put(ws, "b", "live", step)),
    "rollback": ((("a", "advise"), ("a", "live")), back),
}
MARKS = {"deploy": "a", "promote": "a", "replace": "b"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A town with two models and nothing in service."""
    folder = tmp_path_factory.mktemp("plain")
    root = make_town(folder)
    write(root / "directives" / "witness.md", "# Ours\n")
    ws = open_town(root, make_agent(folder))
    make_model(ws, "a")
    make_model(ws, "b")
    return folder


def copy(frm: Path, to: Path, before: tuple[tuple[str, Mode], ...]) -> Workspace:
    """In place of an earlier one: the settings name the folder."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(frm, to)
    ws = open_town(to / "town", make_agent(to))
    for mark, mode in before:
        put(ws, mark, mode)
    return ws


def run_killed(work: Callable[[Step], None], at: int) -> bool:
    """``work`` in a process of its own that is killed at its step number ``at``; False when it has fewer."""
    pid = os.fork()
    if pid == 0:
        left = [at]

        def step(name: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            work(step)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def assert_agree(ws: Workspace) -> None:
    assert [f.text for f in check_deployments(ws) if f.level == "wrong"] == []
    active = {d.id: d for d in Deployments(ws.store).list_deployments() if d.state != "ended"}
    journals = list_journals(ws.path)
    assert {j.deployment for j in journals} == set(active)
    assert all(d.state == "active" for d in active.values())
    assert {r.deployment for r in read_routes(ws.path).routes if r.model} == set(active)
    serving = {d.model_id for d in active.values()}
    for model in ws.store.list_models():
        assert (model.status == "deployed") == (model.id in serving)


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_each_step(name: str, plain: Path, tmp_path: Path) -> None:
    before, way = WAYS[name]
    root = tmp_path / "here" / "town"
    calm = copy(plain, root.parent, before)
    old = snapshot(root)
    way(calm, no_step)
    new = snapshot(root)
    assert old != new
    ends = set()
    for at in range(MOST):
        ws = copy(plain, root.parent, before)
        killed = run_killed(lambda step, ws=ws: way(ws, step), at)  # type: ignore[misc]
        for path, found in snapshot(root).items():
            # Each file is whole: what it was, or what it was to be.
            assert found in (old.get(path), new.get(path)), f"{path} after step {at}"
        list(mend_deployments(ws))
        assert_agree(ws)
        after = snapshot(root)
        assert after in (old, new)
        assert (after == new) == is_done(ws, name)
        ends.add(after == new)
        if not killed:
            break
        # And on from there: what was killed can be done again.
        if after == old:
            if name == "rollback":
                back(ws, no_step)
            else:
                put(ws, MARKS[name], "live", deployment="dep-again")
            assert snapshot(root) == new
            assert_agree(ws)
    else:
        raise AssertionError(f"{name} has more steps than {MOST}")
    assert ends == {True, False}


def is_done(ws: Workspace, name: str) -> bool:
    """Whether the store says so."""
    row = Deployments(ws.store).find(f"dep-{MARKS.get(name, 'a')}-live")
    active = row is not None and row.state == "active"
    return active != (name == "rollback")


def test_killed_again_while_it_is_mended(plain: Path, tmp_path: Path) -> None:
    ws = copy(plain, tmp_path / "twice", (("a", "advise"),))
    old = snapshot(tmp_path / "twice" / "town")
    # Before the store hears of it: both files are written by then.
    assert run_killed(lambda step: put(ws, "a", "live", step), 6)
    assert snapshot(tmp_path / "twice" / "town") != old

    def mend_until(name: str) -> Callable[[Step], None]:
        def work(step: Step) -> None:
            import gtft.runner.switch as switch

            def killed(*_: object, **__: object) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            setattr(switch, name, killed)
            list(mend_deployments(ws))

        return work

    for name in ("swap_file", "put_routes", "write_journal"):
        assert run_killed(mend_until(name), MOST)
    list(mend_deployments(ws))
    assert_agree(ws)
    assert snapshot(tmp_path / "twice" / "town") == old
    rows = Deployments(ws.store).list_deployments()
    assert [(d.mode, d.state, d.reason) for d in rows] == [
        ("advise", "active", None), ("live", "ended", "failed"),
    ]  # fmt: skip


def test_rollback_needs_only_the_journal_also_of_a_deployment_that_was_cut_off(
    plain: Path, tmp_path: Path
) -> None:
    """As while the store is away: nothing of it is opened."""
    ws = copy(plain, tmp_path / "away", ())
    root = tmp_path / "away" / "town"
    untouched = snapshot(root)
    put(ws, "a", "advise")
    for at in range(MOST):
        folder = tmp_path / f"cut-{at}"
        shutil.copytree(tmp_path / "away", folder)
        cut = open_town(folder / "town", make_agent(folder))
        killed = run_killed(lambda step, cut=cut: put(cut, "a", "live", step), at)  # type: ignore[misc]
        (folder / "town/.gtft/gtft.db").rename(folder / "gone.db")
        journal = read_journal(cut.path, "witness")
        assert journal is not None
        remove(cut.path, journal, BACK)
        assert snapshot(folder / "town") == untouched
        assert not [r for r in read_routes(cut.path).routes if r.model]
        (folder / "gone.db").rename(folder / "town/.gtft/gtft.db")
        list(mend_deployments(cut))
        assert_agree(cut)
        assert all(d.state == "ended" for d in Deployments(cut.store).list_deployments())
        if not killed:
            return
    raise AssertionError(f"more steps than {MOST}")


@pytest.mark.parametrize("name", WAYS)
def test_a_disk_that_is_full_from_the_nth_write_on(
    name: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun cannot even be taken back then: it is once there is room."""
    before, way = WAYS[name]
    root = tmp_path / "here" / "town"
    calm = copy(plain, root.parent, before)
    old = snapshot(root)
    way(calm, no_step)
    new = snapshot(root)
    fsync = os.fsync
    for at in range(3 * MOST):
        ws = copy(plain, root.parent, before)
        left = [at]

        def full(fd: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(fd)

        monkeypatch.setattr(os, "fsync", full)
        stopped = False
        try:
            way(ws, no_step)
        except GtftError:
            stopped = True
        monkeypatch.undo()
        for path, found in snapshot(root).items():
            assert found in (old.get(path), new.get(path)), f"{path} at write {at}"
        list(mend_deployments(ws))
        assert_agree(ws)
        after = snapshot(root)
        assert after in (old, new) and (after == new) == is_done(ws, name)
        if not stopped and left[0] >= 0:
            return
    raise AssertionError("it never came to an end")


def test_killed_while_the_endpoint_is_asked(plain: Path, tmp_path: Path) -> None:
    ws = copy(plain, tmp_path / "asked", (("a", "advise"),))
    root = tmp_path / "asked" / "town"
    old = snapshot(root)

    def work(_: Step) -> None:
        def ask() -> None:
            with let_others(lock, find_journal(ws.path, "witness", "")):
                os.kill(os.getpid(), signal.SIGKILL)

        with lock_deploy(ws.path) as lock:
            put(ws, "a", "live", check=ask)

    assert run_killed(work, MOST)
    assert [j.state for j in list_journals(ws.path)] == ["applying"]
    list(mend_deployments(ws))
    assert_agree(ws)
    assert snapshot(root) == old


def test_killed_between_the_new_bytes_and_their_rename(plain: Path, tmp_path: Path) -> None:
    ws = copy(plain, tmp_path / "aside", ())
    root = tmp_path / "aside" / "town"
    (root / "settings" / "config.json").unlink()
    (root / "settings").rmdir()
    old = snapshot(root)

    def work(step: Step) -> None:
        replace = Path.replace

        def killed(self: Path, target: Path) -> Path:
            if target.name == "config.json":
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)

        Path.replace = killed  # type: ignore[method-assign]
        put(ws, "a", "live", step)

    assert run_killed(work, MOST)
    assert len(list((root / "settings").iterdir())) == 1
    list(mend_deployments(ws))
    assert_agree(ws)
    assert snapshot(root) == old
