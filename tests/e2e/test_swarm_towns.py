"""Two workspaces, each with its own sessions, train one adapter: the commands that people type."""

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gtft.artifact import hash_file
from gtft.contract import SUMMARY_FILE
from gtft.recipe.schema import Nano
from gtft.runner.admission import FOLDER_VARIABLE
from gtft.runner.workspace import open_workspace
from gtft.swarm.report import check_table
from gtft.training.nano import ensure_nano
from tiny_town import gtft, make_town, start_gtft, write_session
from training_case import Recorder

KEYS = (
    'base.quantization="none"',
    "train.max_unsupervised=0.5",
    "train.retention.validation=0.0",
    "train.retention.replay=0.0",
    "train.swarm.every=2",
    "train.swarm.rounds=3",
    "train.swarm.matchmaking_s=3",
    "train.swarm.allreduce_s=20",
)


class Towns:
    """Ada's and bob's towns on one box: two workspaces, two histories, one base."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for n, name in enumerate(("ada", "bob")):
            make_town(root / name)
            write_session(root / name / "transcripts" / "own.jsonl", 900 + n)
            (root / f"queue-{name}").mkdir(mode=0o700)
        text = root / "text.txt"
        text.write_text(
            "\n".join(p.read_text() for p in sorted((root / "ada" / "transcripts").glob("*.jsonl")))
        )
        nano = Nano(vocab=512, hidden=32, layers=2, heads=2, context=256, steps=2)
        self.base = ensure_nano(text, nano, root / "bases", Recorder(), time.monotonic).path

    def environ(self, name: str) -> dict[str, str]:
        queue = str(self.root / f"queue-{name}")
        return {**os.environ, FOLDER_VARIABLE: queue, "OMP_NUM_THREADS": "1"}

    def call(self, name: str, *argv: str) -> dict[str, Any]:
        done = gtft(*argv, "--json", cwd=self.root / name, environ=self.environ(name))
        assert done.returncode == 0, done.stdout + done.stderr
        data = json.loads(done.stdout)["data"]
        assert isinstance(data, dict)
        return data

    def work(self, *names: str) -> None:
        """One bead in each of these towns, at the same time."""
        started = [
            start_gtft("work", "--once", cwd=self.root / n, environ=self.environ(n)) for n in names
        ]
        try:
            for child in started:
                said, _ = child.communicate(timeout=400)
                assert child.returncode == 0, said
        finally:
            for child in started:
                # Not a kill: a worker outlives its runner.
                if child.poll() is None:
                    child.send_signal(signal.SIGINT)
                child.wait(120)

    def recipe(self) -> tuple[str, ...]:
        sets = [f'base.model="{self.base}"', *KEYS]
        return ("mol-gtft-tiny", *(part for s in sets for part in ("--set", s)))


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory) -> Towns:
    return Towns(tmp_path_factory.mktemp("towns"))


def test_two_towns_end_with_one_adapter_and_the_beads_say_so(towns: Towns) -> None:
    card = towns.call("bob", "swarm", "id", "--name", "bob")
    (towns.root / "bob.json").write_text(json.dumps(card))
    # Any free port: the member file must name it before anybody listens there.
    port = 20000 + os.getpid() % 20000
    made = towns.call(
        "ada", "swarm", "create", *towns.recipe(), "--name", "crew", "--as-member", "ada",
        "--allow", "../bob.json", "--listen", f"/ip4/127.0.0.1/tcp/{port}",
    )  # fmt: skip
    joined = towns.call(
        "bob", "swarm", "join", str(made["invitation"]), *towns.recipe(),
        "--listen", "/ip4/127.0.0.1/tcp/0", "--offline",
    )  # fmt: skip
    towns.work("ada", "bob")
    towns.work("ada", "bob")
    files = [towns.root / n / ".gtft" for n in ("ada", "bob")]
    adapters = [next(home.glob("artifacts/adapter-*")) for home in files]
    corpora = [next(home.glob("artifacts/corpus-*")) for home in files]
    assert corpora[0].name != corpora[1].name, "each trained on its own history"
    assert len({hash_file(a / "adapter_model.safetensors") for a in adapters}) == 1
    for home, run, adapter in zip(files, (made["run"], joined["run"]), adapters, strict=True):
        block = json.loads((adapter / SUMMARY_FILE).read_text())["swarm"]
        rows = dict(check_table(block))
        assert set(rows) == {"ada", "bob"}
        assert {r.final for r in rows.values()} == {block["final"]}
        assert all(r.round == 3 and r.samples > 0 for r in rows.values())
        ws = open_workspace(home)
        train = ws.store.find_stage(str(run), "train")
        assert train.state == "done"
        note = ws.ledger.look([train.bead_id or ""])[train.bead_id or ""]
        assert re.search(r"swarm crew-[0-9a-f]{12}: [1-3] rounds, \d+ samples", str(note))
        assert not (home / "swarms" / str(made["swarm"]) / "leave").exists()
    view = towns.call("bob", "swarm", "status", "--offline")
    assert [m["state"] for m in view["members"]] == ["finished", "finished"]
