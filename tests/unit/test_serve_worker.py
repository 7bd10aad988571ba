"""A tiny real model behind the server, asked by the endpoint candidate as any other server would be; and the worker itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import evals_case as case
from gtft.artifact import Artifact
from gtft.errors import UsageError
from gtft.evals.asking.decode import Limits
from gtft.evals.asking.endpoint import EndpointCandidate
from gtft.evals.asking.load import Candidates, load_candidates, read_base
from gtft.evals.asking.local import LocalCandidate
from gtft.evals.item import CheckSpec, Item
from gtft.recipe.schema import Endpoint
from gtft.service import Address, read_address, write_address
from gtft.serving.loading import Places, Wanted
from gtft.serving.many import load_engines
from gtft.workers.serve import Asked
from serving_case import Running, deploy, make_route, serve

TOKENS = 12


@dataclass(frozen=True)
class World:
    root: Path
    adapter: Artifact
    loaded: Candidates
    server: Running


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("serve")
    corpus = case.make_corpus(root / "artifacts", [case.example(1)], [case.example(2)])
    base = case.make_base(root)
    adapter = case.make_adapter(root / "artifacts", base, root, corpus)
    loaded = load_candidates(adapter, read_base(adapter), base)
    engine = load_engines([Wanted("tuned", adapter.path)], Places(root, root, root / "artifacts"))
    with serve(engine, root) as server:
        yield World(root, adapter, loaded, server)


def describe(root: Path, **more: Any) -> dict[str, Any]:
    places = {"workspace": str(root), "root": str(root), "artifacts": str(root / "artifacts")}
    return {"max_new_tokens": TOKENS, **places, **more}


def make_items() -> list[Item]:
    texts = ("which pump leaks?", "the tide is 12 high", "case of the harbor, again and again")
    return [
        Item("", "s", "c", None, "t", "s", ({"role": "user", "content": t},), (), CheckSpec("", {}), "").identified()
        for t in texts
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["base", "tuned"])
@pytest.mark.parametrize("seed", [0, 5])
def test_over_the_network_a_model_answers_as_it_does_here(
    world: World, model: str, seed: int
) -> None:
    entry = {"name": "own", "url": f"{world.server.url}/v1", "model": model}
    there = EndpointCandidate(
        Endpoint.model_validate(entry),
        max_new_tokens=TOKENS,
        item_seconds=120,
        temperature=0.7,
        environ={},
    )
    here = LocalCandidate(
        model,
        world.loaded,
        as_base=model == "base",
        limits=Limits(TOKENS, 120),
        clock=time.monotonic,
        temperature=0.7,
    )
    asked, _ = there.write(make_items())
    replies = there.answer(asked, seed)
    assert [r.error for r in replies] == [""] * 3
    if seed:
        assert replies[0].text == there.answer(asked[:1], seed)[0].text
        return
    for item, reply in zip(make_items(), replies, strict=True):
        prompts, _ = here.write([item])
        (own,) = here.answer(prompts, seed)
        assert (reply.text, reply.tokens, reply.prompt_tokens, reply.finish) == (
            own.text, own.tokens, own.prompt_tokens, own.finish,
        )  # fmt: skip
        assert reply.confidence == pytest.approx(own.confidence, abs=1e-5)


def test_base_and_tuned_are_two_models(world: World) -> None:
    listed = world.server.send("GET", "/v1/models")[2]
    assert [m["id"] for m in listed["data"]] == ["tuned", "base"]
    said = [world.server.chat(model=m, max_tokens=8)[2] for m in ("base", "tuned")]
    assert said[0]["choices"] != said[1]["choices"]


def test_what_the_model_cannot_take_is_refused_and_the_next_is_answered(world: World) -> None:
    status, _, doc = world.server.chat("x " * 4000, model="tuned")
    assert status == 400
    assert "tokens" in doc["error"]["message"]
    assert world.server.chat(model="gpt")[0] == 404
    assert world.server.chat(model="tuned", max_tokens=4)[0] == 200


def start(folder: Path, /, **more: Any) -> subprocess.Popen[str]:
    file = folder / "serve.json"
    file.write_text(json.dumps({**describe(folder), **more}))
    return subprocess.Popen(
        [sys.executable, "-m", "gtft.workers.serve", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(os.environ),
        text=True,
    )


def read_line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def test_the_worker_says_where_it_listens_and_ends_with_whoever_started_it(world: World) -> None:
    process = start(world.root, adapter=str(world.adapter.path), announce=True)
    said = read_line(process)
    assert said["models"] == ["tuned", "base"]
    assert said["url"].startswith("http://127.0.0.1:")
    assert said["url"].endswith("/v1")
    address = read_address(world.root)
    assert address == Address(
        url=said["url"].removesuffix("/v1"), pid=process.pid, models=("tuned", "base")
    )
    with urllib.request.urlopen(address.url + "/health", timeout=30) as health:
        assert json.load(health)["ready"] is True
    # A second one for the same workspace would answer for the roles too; one model by its address takes nothing away.
    deploy(world.root, make_route(model="live-1", adapter=world.adapter.id))
    second = start(world.root, deployed=True, announce=True)
    assert read_line(second)["error"]["kind"] == "conflict"
    assert second.wait(60) == 8
    third = start(world.root, adapter=str(world.adapter.path), announce=True)
    assert read_line(third)["models"] == ["tuned", "base"]
    assert third.stdin is not None
    third.stdin.close()
    assert third.wait(60) == 0
    assert read_address(world.root) == address
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
    assert read_address(world.root) is None
    assert not (world.root / "service" / "address.json").exists()


def test_a_signal_ends_it_also_while_it_loads_and_a_dead_one_is_in_nobodys_way(
    world: World,
) -> None:
    # Its number may be somebody else's by now.
    write_address(world.root, Address(url="http://127.0.0.1:1", pid=os.getpid(), models=()))
    deploy(world.root, make_route(model="live-1", adapter=world.adapter.id))
    process = start(world.root, deployed=True, announce=True)
    while (found := read_address(world.root)) is None or found.pid != process.pid:
        assert process.poll() is None
        time.sleep(0.02)
    assert found.models == ("live-1",)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert read_address(world.root) is None


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"adapter": "."}, "evidence"),
        ({"deployed": True}, "usage"),
        ({"adapter": "ADAPTER", "host": "0.0.0.0"}, "usage"),
        ({"adapter": "ADAPTER", "engine": "no-such-engine"}, "usage"),
        ({"adapter": "ADAPTER", "engine": "llama.cpp"}, "usage"),
        ({"unknown": 1}, "usage"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is_asked(
    world: World, tmp_path: Path, asked: dict[str, Any], kind: str
) -> None:
    given = {k: str(world.adapter.path) if v == "ADAPTER" else v for k, v in asked.items()}
    process = start(tmp_path, **{**describe(world.root), "workspace": str(tmp_path), **given})
    error = read_line(process)["error"]
    assert (error["kind"], process.wait(60)) == (kind, error["exit_code"])


def test_what_is_deployed_is_found_on_the_shelf(world: World) -> None:
    asked = Asked.model_validate(describe(world.root, deployed=True))
    deploy(
        world.root,
        make_route(model="a", adapter=world.adapter.id),
        make_route(model="a", rig="gizmo", adapter=world.adapter.id),
    )
    assert asked.list_wanted() == [Wanted("a", world.adapter.path, "witness")]
    named = {"name": "a", "adapter": str(world.adapter.path), "role": "mayor"}
    both = Asked.model_validate(describe(world.root, deployed=True, models=[named]))
    assert both.list_wanted() == [Wanted("a", world.adapter.path, "mayor")]
    deploy(world.root)
    with pytest.raises(UsageError, match="no model to serve"):
        asked.list_wanted()
