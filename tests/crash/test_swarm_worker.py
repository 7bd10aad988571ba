"""Two train workers, each with its own corpus, train one adapter over loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from gtft.artifact import hash_file, verify_artifact
from gtft.recipe.schema import Recipe
from gtft.swarm.founding import found_swarm
from gtft.swarm.place import SeatFile, write_seat
from gtft.swarm.tensors import hash_adapter
from gtft.training.base import locate_base
from swarm_case import hand_over, make_peer
from training_case import Recorder, make_corpus, make_job, read_events

LIMIT_S = 240.0
RULES = {"every": 2, "rounds": 2, "matchmaking_s": 3.0, "allreduce_s": 20.0}


def start(job: Path) -> subprocess.Popen[bytes]:
    with (job / "worker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gtft.workers.train", str(job)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def find_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError("the creator never listened")


def test_two_workers_with_their_own_corpora_end_with_one_adapter_file(tmp_path: Path) -> None:
    towns = {"ada": tmp_path / "ada", "bob": tmp_path / "bob"}
    jobs = {}
    for (name, root), examples in zip(towns.items(), (12, 16), strict=True):
        corpus = make_corpus(root / "artifacts", examples)
        jobs[name] = make_job(root, corpus, engine="swarm", swarm=RULES)
    doc = json.loads((jobs["ada"] / "job.json").read_text())
    recipe = Recipe.model_validate_json(json.dumps(doc["recipe"]))
    base = locate_base(
        recipe.base,
        text_file=Path(doc["inputs"][0]["path"]) / "base.txt",
        root=towns["ada"],
        workspace=towns["ada"],
        watch=Recorder(),
        clock=time.monotonic,
    )
    shutil.copytree(towns["ada"] / "bases", towns["bob"] / "bases")
    port = find_port()
    own, identity = make_peer(towns["ada"], "ada", port)
    folder = found_swarm(
        towns["ada"],
        "crew",
        own,
        identity,
        [make_peer(towns["bob"], "bob")[0]],
        recipe=recipe,
        formula="mol-test",
        base=(base.id, base.name),
        bootstrap=(),
        days=1,
        now=time.time() - 60,
    )
    write_seat(folder, SeatFile(run="run-1", listen=(f"/ip4/127.0.0.1/tcp/{port}",)))
    hand_over(folder, towns["bob"], run="run-1")

    ada = start(jobs["ada"])
    try:
        wait_for_port(port)
        bob = start(jobs["bob"])
        try:
            codes = [ada.wait(LIMIT_S), bob.wait(LIMIT_S)]
        finally:
            bob.kill()
    finally:
        ada.kill()
    logs = [(j / "worker.log").read_text()[-3000:] for j in jobs.values()]
    assert codes == [0, 0], "\n".join(logs)

    made = [read_events(j)[-1] for j in jobs.values()]
    adapters = [verify_artifact(Path(m["path"]), kind="adapter", expect=m["id"]) for m in made]
    files = [a.file("adapter_model.safetensors") for a in adapters]
    assert len({hash_file(f) for f in files}) == 1
    for adapter, file, job in zip(adapters, files, jobs.values(), strict=True):
        told = json.loads(adapter.file("summary.json").read_text())["swarm"]
        assert told["final"] == hash_adapter(file)
        assert [m["name"] for m in told["members"]] == ["ada", "bob"]
        # What left the machine is written down: four numbers per peer, no text of a corpus.
        assert "pump" not in json.dumps(told)
        rounds = [e["value"] for e in read_events(job) if e.get("name") == "swarm_round"]
        assert rounds[-1] == RULES["rounds"]
