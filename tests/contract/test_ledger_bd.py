"""The ledger over real ``bd``: what bd shows is what gtft shows, what is done by hand is seen, and what bd
cannot do is told. Where bd must misbehave, a small program stands before the real one on PATH."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gtft.beads.bd import BdLedger
from gtft.beads.bd_program import Busy, explain, follow_redirect, read_payload
from gtft.beads.ledger import LABEL, REVIEW_LABEL, Bead, NewBead, map_state
from gtft.beads.local import LocalLedger
from gtft.beads.rules import word_reason
from gtft.errors import ConflictError, GtftError, TownError
from gtft.tool import Ran
from town_case import (
    TOOLS,
    DoltServer,
    find_port,
    make_beads,
    make_server,
    need_tools,
    run,
    wait_for,
)

ME = "gtft/box/1"
REASON = "accepted by the machine, hash equal"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoltServer]:
    need_tools("dolt", "bd")
    made = make_server(tmp_path_factory.mktemp("server"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def beads_dir(server: DoltServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_beads(tmp_path_factory.mktemp("rig") / "rig", server)


@pytest.fixture
def ledger(server: DoltServer, beads_dir: Path) -> BdLedger:
    return BdLedger(beads_dir, server.environ)


@pytest.fixture
def bd(server: DoltServer, beads_dir: Path) -> Callable[..., Any]:
    """``bd`` by hand: a person in the rig's folder, no setting of ours."""

    def call(*argv: str) -> Any:
        done = run("bd", *argv, "--json", environ=server.environ, cwd=beads_dir.parent)
        return json.loads(done.stdout)

    return call


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A label that only this test's beads carry."""
    return str(request.node.name).translate(str.maketrans("[]", "__"))[:100]


def make_one(ledger: BdLedger, name: str, **fields: Any) -> str:
    new = NewBead(key="x", title="One", description="Run: gtft run {id}", labels=(name,))
    return ledger.create_graph((replace(new, **fields),), actor=ME)["x"]


def make_chain(ledger: BdLedger, name: str) -> dict[str, str]:
    """An epic with two children, the second after the first."""
    epic = NewBead(key="epic", title=name, description="", type="epic", labels=(LABEL, name))
    a = NewBead(key="a", title="First", description="", parent="epic", labels=(LABEL, name))
    b = replace(a, key="b", title="Second", needs=("a",))
    return ledger.create_graph((epic, a, b), actor=ME)


# What bd shows equals what gtft shows.


def test_bd_shows_what_gtft_shows(ledger: BdLedger, bd: Callable[..., Any], name: str) -> None:
    ids = make_chain(ledger, name)

    def compare() -> None:
        seen = ledger.look(ids.values())
        for i, bead in seen.items():
            (row,) = bd("show", i)
            assert (row["status"], row.get("assignee")) == (bead.status, bead.assignee)
            assert row.get("labels", []) == list(bead.labels)
            assert row.get("close_reason") == bead.close_reason
            assert row.get("parent") == bead.parent
            assert [c["text"] for c in bd("comments", i)] == list(bead.notes)
            needs = [d["id"] for d in bd("dep", "list", i) if d["dependency_type"] == "blocks"]
            assert needs == list(bead.needs)
        listed = bd("list", "--all", "-l", name, "--limit", "0")
        assert {r["id"] for r in listed} == {b.id for b in ledger.find(label=name)} == set(seen)
        # gtft offers no epic as work; bd lists it with the rest.
        ready = bd("ready", "-l", name, "--unassigned", "--limit", "0")
        offered = [b.id for b in ledger.list_ready(label=name)]
        assert offered == [r["id"] for r in ready if r["issue_type"] != "epic"]

    compare()
    assert [b.id for b in ledger.list_ready(label=name)] == [ids["a"]]
    ledger.claim(ids["a"], ME)
    ledger.submit(ids["a"], "evidence sha256:00", actor=ME)
    compare()
    ledger.close(ids["a"], REASON, actor=ME)
    compare()
    assert [b.id for b in ledger.list_ready(label=name)] == [ids["b"]]


def test_the_history_of_a_bead_names_who_did_it(
    ledger: BdLedger, server: DoltServer, name: str
) -> None:
    a = make_one(ledger, name)
    ledger.claim(a, "gtft/box/7")
    ledger.close(a, REASON, actor="gtft/box/8")
    rows = server.query(f"SELECT event_type, actor FROM events WHERE issue_id = '{a}'", "tt")
    assert ("created", ME) in rows
    assert ("claimed", "gtft/box/7") in rows
    assert ("closed", "gtft/box/8") in rows
    # Committed, not only in the working set: else no history would show it.
    left = server.query("SELECT table_name FROM dolt_status", "tt")
    assert not {"issues", "labels", "dependencies"} & {str(r[0]) for r in left}


# What is done by hand is seen at the next look.


def test_what_is_done_by_hand_is_seen(ledger: BdLedger, bd: Callable[..., Any], name: str) -> None:
    a = make_one(ledger, name)
    bd("update", a, "--claim", "--actor=someone")
    assert (map_state(ledger.show(a)), ledger.show(a).assignee) == ("active", "someone")
    assert not ledger.claim(a, ME)
    bd("update", a, "--assignee=another", "--add-label=by-hand")
    assert ledger.show(a).assignee == "another"
    ledger.submit(a, "evidence", actor=ME)
    assert ledger.show(a).labels == tuple(sorted((REVIEW_LABEL, "by-hand", name)))
    bd("close", a, "--reason=closed by hand")
    assert (map_state(ledger.show(a)), ledger.show(a).close_reason) == ("done", "closed by hand")
    ledger.close(a, REASON, actor=ME)
    assert ledger.show(a).close_reason == "closed by hand"
    bd("reopen", a)
    seen = ledger.show(a)
    assert (seen.status, seen.assignee, seen.close_reason) == ("open", "another", None)
    assert not ledger.claim(a, ME)
    bd("update", a, "--status=deferred")
    with pytest.raises(ConflictError, match="deferred"):
        ledger.claim(a, "another")
    ledger.release(a, failed=False, actor=ME)
    bd("delete", a, "--force")
    assert ledger.look([a]) == {}
    assert ledger.find(label=name) == []
    for call in (
        lambda: ledger.show(a),
        lambda: ledger.claim(a, ME),
        lambda: ledger.close(a, REASON, actor=ME),
        lambda: ledger.note(a, "x", actor=ME),
    ):
        with pytest.raises(ConflictError, match=a):
            call()


def test_a_bead_hooked_to_a_polecat_is_that_polecats(
    ledger: BdLedger, bd: Callable[..., Any], name: str
) -> None:
    a = make_one(ledger, name)
    bd("update", a, "--status=hooked", "--assignee=rig/polecats/Toast")
    assert not ledger.claim(a, ME)
    assert ledger.show(a).status == "hooked"
    assert ledger.claim(a, "rig/polecats/Toast")
    assert ledger.show(a).status == "in_progress"


def test_a_bead_deleted_from_a_graph_comes_back_and_the_others_stay(
    ledger: BdLedger, bd: Callable[..., Any], name: str
) -> None:
    ids = make_chain(ledger, name)
    ledger.claim(ids["a"], ME)
    bd("delete", ids["b"], "--force")
    assert make_chain(ledger, name) == ids
    assert ledger.show(ids["a"]).assignee == ME
    assert ledger.show(ids["b"]).needs == (ids["a"],)


def test_numbers_typed_by_hand_are_read_as_text(
    ledger: BdLedger, bd: Callable[..., Any], name: str
) -> None:
    a = make_one(ledger, name, metadata={"gtft.hash": "123e4567"})
    bd("update", a, "--set-metadata=n=12", "--set-metadata=b=true", "--set-metadata=gtft.x=1.50")
    seen = ledger.show(a).metadata
    assert (seen["n"], seen["b"], seen["gtft.hash"]) == ("12", "true", "123e4567")
    assert float(seen["gtft.x"]) == 1.5


# Two writers.


def test_a_slower_maker_of_the_same_graph_changes_nothing(
    ledger: BdLedger, server: DoltServer, beads_dir: Path, name: str
) -> None:
    quick = BdLedger(beads_dir, server.environ)
    write = ledger._bd.write

    def write_late(*arguments: str, **how: Any) -> Any:
        if arguments[0] == "import":
            made = make_one(quick, name)
            # bd keeps seconds; what is older than the row is skipped.
            time.sleep(1.1)
            assert quick.claim(made, "quick")
        return write(*arguments, **how)

    ledger._bd.write = write_late  # type: ignore[method-assign]
    a = make_one(ledger, name)
    assert (ledger.show(a).status, ledger.show(a).assignee) == ("in_progress", "quick")


def test_many_claim_and_one_wins(ledger: BdLedger, name: str) -> None:
    beads = tuple(NewBead(key=str(n), title="x", description="", labels=(name,)) for n in range(3))
    ids = list(ledger.create_graph(beads, actor=ME).values())
    actors = [f"gtft/box/{n}" for n in range(5)]
    with ThreadPoolExecutor(len(actors)) as pool:
        won = list(pool.map(lambda who: [i for i in ids if ledger.claim(i, who)], actors))
    for bead in ledger.look(ids).values():
        assert [who for who, mine in zip(actors, won, strict=True) if bead.id in mine] == [
            bead.assignee
        ]


def test_a_claim_lost_between_look_and_write_is_lost(
    ledger: BdLedger, server: DoltServer, beads_dir: Path, name: str
) -> None:
    other = BdLedger(beads_dir, server.environ)
    a = make_one(ledger, name)
    write = ledger._bd.write

    def write_late(*arguments: str, **how: Any) -> Any:
        assert other.claim(a, "other")
        return write(*arguments, **how)

    ledger._bd.write = write_late  # type: ignore[method-assign]
    assert not ledger.claim(a, ME)
    assert ledger.show(a).assignee == "other"


@pytest.mark.parametrize(("times", "holds"), [(1, True), (2, False)])
def test_a_row_that_goes_back_is_set_once_more(
    ledger: BdLedger, bd: Callable[..., Any], name: str, times: int, holds: bool
) -> None:
    a = make_one(ledger, name)
    write = ledger._bd.write
    calls = 0

    def write_and_lose(*arguments: str, **how: Any) -> Any:
        nonlocal calls
        calls += 1
        done = write(*arguments, **how)
        if calls <= times:
            bd("update", a, "--status=open", "--assignee=")
        return done

    ledger._bd.write = write_and_lose  # type: ignore[method-assign]
    if holds:
        ledger.hand_over(a, ME)
        assert ledger.show(a).assignee == ME
    else:
        with pytest.raises(ConflictError, match="does not stay"):
            ledger.hand_over(a, ME)
    assert calls == 2


def stand_before(folder: Path, environ: dict[str, str], script: str) -> dict[str, str]:
    """An environment in which ``bd`` is ``script``; ``$REAL`` in it is the real one."""
    folder.mkdir()
    fake = folder / "bd"
    fake.write_text(f"#!/bin/sh\nREAL={TOOLS / 'bd'}\n{script}\n")
    fake.chmod(0o755)
    return {**environ, "PATH": f"{folder}:{environ['PATH']}"}


def test_a_busy_database_is_tried_again_and_nothing_is_doubled(
    server: DoltServer, beads_dir: Path, tmp_path: Path, name: str
) -> None:
    # The write went through, but its answer was an error, twice.
    environ = stand_before(
        tmp_path / "fake",
        server.environ,
        f'echo "$1" >> {tmp_path}/log\n"$REAL" "$@"; code=$?\n'
        f'if [ "$1" = comments ] && [ "$(grep -c comments {tmp_path}/log)" -lt 3 ]; then\n'
        '  echo "Error 1213 (40001): serialization failure" >&2; exit 1; fi\nexit $code',
    )
    waited: list[float] = []
    ledger = BdLedger(beads_dir, environ, waited.append)
    a = make_one(ledger, name)
    ledger.note(a, "once", actor=ME)
    assert ledger.show(a).notes == ("once",)
    assert (tmp_path / "log").read_text().split().count("comments") == 1
    assert len(waited) == 1


def test_a_database_that_stays_busy_is_told_after_five_tries(
    server: DoltServer, beads_dir: Path, tmp_path: Path, name: str, ledger: BdLedger
) -> None:
    a = make_one(ledger, name)
    environ = stand_before(
        tmp_path / "fake",
        server.environ,
        'case "$1" in update) echo "Error 1105: database is read only" >&2; exit 1;;\n'
        'esac\nexec "$REAL" "$@"',
    )
    waited: list[float] = []
    with pytest.raises(TownError, match="busy") as e:
        BdLedger(beads_dir, environ, waited.append).hand_over(a, ME)
    assert "read only" in e.value.why
    assert len(waited) == 4
    assert all(0.05 * 2**n <= w <= 0.15 * 2**n for n, w in enumerate(waited, start=1))
    assert ledger.show(a).status == "open"


# What bd cannot do is told.


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ('echo "bd version 1.0.4 (abc)"', "bd 1.0.4"),
        ('echo "bd version 2.0.0 (abc)"', "bd 2.0.0"),
        ('echo "bd version 0.57.0"', "bd 0.57.0"),
        ('echo "Boot Diagnostics 4"', "does not answer as bd"),
        ("exit 3", "does not answer as bd"),
    ],
)
def test_another_bd_is_refused_before_anything_is_written(
    server: DoltServer, beads_dir: Path, tmp_path: Path, script: str, what: str
) -> None:
    log = tmp_path / "log"
    environ = stand_before(tmp_path / "fake", server.environ, f'echo "$@" >> {log}\n{script}')
    with pytest.raises(TownError, match=what) as e:
        make_one(BdLedger(beads_dir, environ), "never")
    assert e.value.why
    assert "gtft doctor" in e.value.fix
    assert log.read_text() == "version\n"


def test_without_bd_the_refusal_names_it(beads_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(TownError, match="bd is not on PATH"):
        BdLedger(beads_dir, {"PATH": str(tmp_path)}).show("tt-1")


def test_a_folder_without_a_database_is_not_replaced_by_another(
    server: DoltServer, beads_dir: Path
) -> None:
    # bd itself would walk up and use the database that it finds there.
    below = beads_dir.parent / "below" / ".beads"
    below.mkdir(parents=True)
    with pytest.raises(TownError, match="holds no bead database"):
        make_one(BdLedger(below, server.environ), "never")


def test_a_server_that_is_away_is_told_and_never_started(
    server: DoltServer, beads_dir: Path
) -> None:
    environ = {**server.environ, "BEADS_DOLT_SERVER_PORT": str(find_port())}
    for call in (
        lambda x: x.look(["tt-1"]),
        lambda x: x.find(label=LABEL),
        lambda x: make_one(x, "never"),
    ):
        with pytest.raises(TownError, match="does not answer") as e:
            call(BdLedger(beads_dir, environ))
        assert "gt dolt" in e.value.fix


def test_a_server_that_comes_back_is_used_again(
    server: DoltServer, ledger: BdLedger, name: str
) -> None:
    a = make_one(ledger, name)
    ledger.claim(a, ME)
    server.stop(kill=True)
    # More often than bd's own circuit breaker bears.
    for _ in range(6):
        with pytest.raises(TownError, match="does not answer"):
            ledger.submit(a, "evidence", actor=ME)
    server.start()

    def is_delivered() -> bool:
        try:
            ledger.submit(a, "evidence", actor=ME)
        except TownError:
            return False
        return True

    wait_for(is_delivered, seconds=60)
    assert (ledger.show(a).notes, map_state(ledger.show(a))) == (("evidence",), "review")


def test_a_read_only_bd_is_told(
    server: DoltServer, beads_dir: Path, ledger: BdLedger, name: str
) -> None:
    a = make_one(ledger, name)
    sandboxed = BdLedger(beads_dir, {**server.environ, "BD_READONLY": "true"})
    assert sandboxed.show(a).status == "open"
    with pytest.raises(TownError, match="only read"):
        sandboxed.claim(a, ME)
    with pytest.raises(TownError, match="only read"):
        make_one(sandboxed, f"{name}2")
    assert ledger.find(label=f"{name}2") == []


def test_a_database_of_a_later_bd_is_refused(server: DoltServer, tmp_path: Path) -> None:
    later = make_beads(tmp_path / "later", server, "lt")
    ledger = BdLedger(later, server.environ)
    a = make_one(ledger, "schema")
    server.query("INSERT INTO schema_migrations (version) VALUES (999)", "lt")
    before = server.query("SELECT COUNT(*) FROM issues", "lt")
    for call in (lambda: ledger.show(a), lambda: make_one(ledger, "never")):
        with pytest.raises(TownError, match="another schema"):
            call()
    assert server.query("SELECT COUNT(*) FROM issues", "lt") == before


def test_a_polecats_environment_leads_nowhere_else(
    server: DoltServer, beads_dir: Path, name: str, ledger: BdLedger, tmp_path: Path
) -> None:
    other = make_beads(tmp_path / "other", server, "ot")
    polecat = {
        **server.environ,
        "BEADS_DIR": str(other),
        "BEADS_DB": str(other / "x.db"),
        "BEADS_DOLT_SERVER_DATABASE": "ot",
        "BD_ACTOR": "rig/polecats/Toast",
        "BD_DOLT_AUTO_COMMIT": "off",
    }
    a = make_one(BdLedger(beads_dir, polecat), name)
    BdLedger(beads_dir, polecat).claim(a, ME)
    assert ledger.show(a).assignee == ME
    (by,) = server.query(f"SELECT created_by FROM issues WHERE id = '{a}'", "tt")
    assert by == (ME,)
    assert server.query("SELECT COUNT(*) FROM issues", "ot") == [(0,)]
    assert ("issues",) not in server.query("SELECT table_name FROM dolt_status", "tt")


def test_a_worktrees_redirect_is_followed(
    server: DoltServer, beads_dir: Path, tmp_path: Path, ledger: BdLedger, name: str
) -> None:
    worktree = tmp_path / "worktree" / ".beads"
    worktree.mkdir(parents=True)
    (worktree / "redirect").write_text(f"# where they are\n{beads_dir}\n")
    assert follow_redirect(worktree) == beads_dir.resolve()
    a = make_one(BdLedger(worktree, server.environ), name)
    assert ledger.show(a).id == a
    assert [p.name for p in worktree.iterdir()] == ["redirect"]


# The shapes of bd's JSON.


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ('{"schema_version": 1, "data": [{"id": "x"}]}', [{"id": "x"}]),
        ('[{"id": "x"}]', [{"id": "x"}]),
        ('{"id": "x", "schema_version": 1}', {"id": "x", "schema_version": "1"}),
        ('Warning: something [odd]\n{"data": {"n": 123e4567}, "schema_version": 1}\n', {"n": "123e4567"}),
        ('{"id": "x"}\ntrailing words', {"id": "x"}),
        ("", None),
        ("No updates specified", None),
        ('{"half": ', None),
    ],
)  # fmt: skip
def test_every_shape_of_answer_is_read(text: str, payload: object) -> None:
    assert read_payload(text) == payload


@pytest.mark.parametrize(
    ("stdout", "stderr", "kind", "word"),
    [
        (
            '{"schema_version": 1, "data": {"error": "no issues found matching"}}',
            "",
            ConflictError,
            "",
        ),
        (
            "",
            '{"schema_version": 1, "data": {"error": "not allowed in read-only mode"}}',
            TownError,
            "r",
        ),
        ("", '{"error": "title is required: validation failed"}', ConflictError, "validation"),
        ("", "cannot close x: blocked by open issues [y]", ConflictError, "blocked by"),
        ("", "Error claiming x: issue already claimed by z", ConflictError, "claimed by z"),
        ("", "Error 1213: serialization failure", Busy, "1213"),
        ("", "Error: dial tcp 127.0.0.1:1: connection refused", TownError, "refused"),
        ("", "", TownError, "said nothing"),
        ("", "panic: out of luck\nUsage:\n bd", TownError, "out of luck"),
    ],
)
def test_every_shape_of_error_is_read(
    stdout: str, stderr: str, kind: type[GtftError], word: str
) -> None:
    found = explain(Ran(("bd", "close", "x"), 1, stdout, stderr))
    assert type(found) is kind or (kind is ConflictError and isinstance(found, ConflictError))
    assert word in found.why
    assert "Usage" not in found.why
    assert found.fix


@pytest.mark.parametrize(
    ("reason", "worded"),
    [
        ("artifact whole; eval error 0.12", "artifact whole; eval deviation 0.12"),
        ("accepted: UNBLOCKED and not Aborted", "accepted: freed and not stopped"),
        ("rejected by w: 3 of 9 items failed", "rejected by w: 3 of 9 items failed"),
        ("cancelled by the overseer", "cancelled by the overseer"),
        ("ok", "closed by gtft, reason: ok"),
        (" ", "closed by gtft, reason: none given"),
    ],
)
def test_a_reason_is_read_by_bd_as_it_is_meant(reason: str, worded: str) -> None:
    assert word_reason(reason) == worded


@given(st.text())
def test_a_success_never_reads_as_a_failure(text: str) -> None:
    # types.FailureCloseKeywords of bd 1.0.5.
    words = [
        "failed",
        "rejected",
        "wontfix",
        "canceled",
        "cancelled",
        "abandoned",
        "blocked",
        "error",
        "timeout",
        "aborted",
    ]
    for hidden in (text, f"{text} error {text}", f"timeOUT{text}won't fix"):
        worded = word_reason(hidden, success=True)
        assert not any(w in worded.lower() for w in [*words, "won't fix"])
        assert len(worded) >= 20


# The same calls leave the same beads in either ledger.

KEYS = ("epic", "a", "b")
CALLS = st.sampled_from(
    ["claim", "steal", "submit", "fail", "release", "hand", "close", "reopen", "block", "note"]
)
STEPS = st.lists(st.tuples(CALLS, st.sampled_from(KEYS)), min_size=4, max_size=9)


def do(ledger: BdLedger | LocalLedger, call: str, bead: str) -> object:
    """What the call gave, or that it was refused."""
    made: dict[str, Callable[[], object]] = {
        "claim": lambda: ledger.claim(bead, ME),
        "steal": lambda: ledger.claim(bead, "thief"),
        "submit": lambda: ledger.submit(bead, "evidence", actor=ME),
        "fail": lambda: ledger.release(bead, failed=True, actor=ME),
        "release": lambda: ledger.release(bead, failed=False, actor=ME),
        "hand": lambda: ledger.hand_over(bead, "heir"),
        "close": lambda: ledger.close(bead, "done", actor=ME),
        "reopen": lambda: ledger.reopen(bead, "once more", actor=ME),
        "block": lambda: ledger.block(bead, "no room", actor=ME),
        "note": lambda: ledger.note(bead, "a note", actor=ME),
    }
    try:
        return made[call]()
    except ConflictError:
        return "refused"


def translate(bead: Bead, keys: dict[str, str]) -> Bead:
    return replace(
        bead,
        id=keys[bead.id],
        parent=keys.get(bead.parent or ""),
        needs=tuple(sorted(keys[x] for x in bead.needs)),
    )


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_any_calls_leave_the_same_beads_in_both_ledgers(
    ledger: BdLedger, tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    name = f"any{time.monotonic_ns()}"
    local = LocalLedger(tmp_path / f"{name}.db", "tt", time.time)
    seen = []
    for one in (local, ledger):
        ids = make_chain(one, name)  # type: ignore[arg-type]
        keys = {v: k for k, v in ids.items()}
        said = [do(one, call, ids[key]) for call, key in steps]
        beads = [translate(b, keys) for b in one.find(label=name)]
        seen.append((said, beads, [keys[b.id] for b in one.list_ready(label=name)]))
    assert seen[0] == seen[1]
