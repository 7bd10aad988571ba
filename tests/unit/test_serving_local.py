"""The engine of this machine: the eval's answers, many at once; limits, cancelling, memory, models that come and go."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine_case import Bench, make_ask, make_bench, make_texts, read, read_all
from gtft.errors import EvidenceError, UsageError
from gtft.evals.asking.decode import Limits
from gtft.evals.asking.load import load_candidates
from gtft.evals.asking.local import LocalCandidate
from gtft.evals.item import CheckSpec, Item
from gtft.serving.engine import Busy, End, Token, Unanswerable
from gtft.serving.loading import Wanted, check_memory, check_wanted, find_folder
from gtft.serving.many import ManyEngines, load_engines

NEW = 24
MODELS = ("role", "task", "other", "base")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def engine(bench: Bench) -> Iterator[ManyEngines]:
    made = load_engines([bench.wanted(n) for n in ("role", "task", "other")], bench.places)
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(scope="module")
def loaded(bench: Bench) -> dict[str, Any]:
    """Each model as the eval loads it, by itself."""
    found = {}
    for name in MODELS[:3]:
        one = check_wanted(bench.wanted(name), bench.places)
        folder = find_folder(one, bench.places)
        found[name] = load_candidates(one.artifact, one.record, folder, one.below)
    return found


def ask_eval(loaded: dict[str, Any], model: str, texts: list[str]) -> list[Any]:
    candidate = LocalCandidate(
        model,
        loaded["role" if model == "base" else model],
        as_base=model == "base",
        limits=Limits(NEW, 60.0),
        clock=time.monotonic,
    )
    spec = CheckSpec("", {})
    prompts, left = candidate.write(
        [
            Item(str(n), "", "", None, "", "", ({"role": "user", "content": t},), (), spec, "")
            for n, t in enumerate(texts)
        ]
    )
    assert not left
    return candidate.answer(prompts, 0)


def test_greedy_answers_are_those_of_the_eval(
    engine: ManyEngines, loaded: dict[str, Any], bench: Bench
) -> None:
    texts = make_texts(24)
    expected = {m: ask_eval(loaded, m, texts) for m in MODELS}
    asks = [make_ask(m, t, max_tokens=NEW) for t in texts for m in MODELS]
    wanted = [expected[a.model][texts.index(str(a.messages[0]["content"]))] for a in asks]
    together = read_all(engine, asks)
    alone = [read_all(engine, [ask])[0] for ask in asks[::7]]
    for (_, end), reply in [
        *zip(together, wanted, strict=True),
        *zip(alone, wanted[::7], strict=True),
    ]:
        assert (end.text, end.finish, end.tokens) == (reply.text, reply.finish, reply.tokens)
        assert end.prompt_tokens == reply.prompt_tokens
        assert end.confidence == pytest.approx(reply.confidence, rel=0.02)
    # The models differ, or the test would say nothing about adapters.
    assert len({tuple(r.text for r in expected[m]) for m in MODELS}) == len(MODELS)


def test_models_have_names_aliases_and_kinds(engine: ManyEngines, bench: Bench) -> None:
    listed = {m.name: m for m in engine.list_models()}
    assert {n: m.kind for n, m in listed.items()} == {
        "role": "role",
        "task": "task",
        "other": "role",
        "base": "base",
    }
    assert listed["role"].id == bench.role.id
    by_alias, by_name = read_all(engine, [make_ask("role-alias"), make_ask("role")])
    assert by_alias[1].text == by_name[1].text
    with pytest.raises(Unanswerable) as refused:
        read_all(engine, [make_ask("nobody")])
    assert refused.value.missing


def test_logprobs_are_those_of_the_model(engine: ManyEngines, loaded: dict[str, Any]) -> None:
    import torch

    ((tokens, end), (plain, _)) = read_all(
        engine, [make_ask("other", top_logprobs=3), make_ask("other")]
    )
    told = [t for t in tokens if t.logprob is not None]
    assert len(told) == end.tokens > 3
    assert all(len(t.top) == 3 and t.top[0][1] == max(p for _, p in t.top) for t in told)
    # Greedy: what was said is the likeliest.
    assert [t.logprob for t in told] == [t.top[0][1] for t in told]
    assert not any(t.logprob or t.top for t in plain)
    one = loaded["other"]
    ids = one.tokenizer.apply_chat_template(
        [{"role": "user", "content": "which pump leaks?"}],
        add_generation_prompt=True,
        return_dict=False,
    )
    with torch.inference_mode():
        chances = one.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
    assert told[0].logprob == pytest.approx(float(chances.max()), rel=1e-2)
    assert end.confidence == pytest.approx(
        math.exp(sum(t.logprob for t in told) / len(told)), rel=1e-3
    )


def test_draws_depend_on_the_seed_and_on_nothing_else(engine: ManyEngines) -> None:
    def draw(count: int, **settings: Any) -> list[str]:
        asks = [make_ask("role", temperature=1.5, seed=n, **settings) for n in range(count)]
        return [end.text for _, end in read_all(engine, asks)]

    assert draw(6) == draw(6)
    assert draw(6)[:2] == draw(2)
    assert len(set(draw(6))) > 1
    # Of a nucleus that holds one token only, nothing but the likeliest can be drawn.
    assert set(draw(3, top_p=1e-9)) == {read_all(engine, [make_ask("role")])[0][1].text}


def test_a_stop_string_ends_the_answer_before_it(engine: ManyEngines) -> None:
    ((_, whole),) = read_all(engine, [make_ask("other")])
    stop = whole.text[5:8]
    ((tokens, end),) = read_all(engine, [make_ask("other", stop=(stop, "never to be seen"))])
    assert end.finish == "stop" and end.stopped_by == stop and whole.stopped_by == ""
    assert end.text == whole.text[: whole.text.index(stop)].rstrip()
    assert end.tokens < whole.tokens and not any(stop in t.text for t in tokens)


def test_leaving_early_frees_the_row(engine: ManyEngines) -> None:
    async def leave() -> None:
        answers = engine.answer(make_ask("role", max_tokens=200))
        assert isinstance(await anext(answers), Token)
        await answers.aclose()  # type: ignore[attr-defined]
        while engine.count_running():
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    local = engine._engines[0]
    deadline = time.monotonic() + 30
    while local._batcher.rows and time.monotonic() < deadline:
        time.sleep(0.01)
    assert local._batcher.rows == []


def test_an_answer_that_takes_too_long_ends_as_such(engine: ManyEngines) -> None:
    slow, fast = read_all(engine, [make_ask(seconds=1e-4), make_ask(max_tokens=3)])
    assert slow[1].finish == "timeout" and fast[1].finish == "length"


def test_what_does_not_fit_is_cut_as_in_training_or_refused_with_figures(
    engine: ManyEngines,
) -> None:
    turns = [
        {"role": role, "content": f"{n} the harbor leaks when the tide is high"}
        for n in range(20)
        for role in ("user", "assistant")
    ]
    last = {"role": "user", "content": "which pump?"}
    ((_, end),) = read_all(engine, [make_ask(messages=(*turns, last))])
    # What was left out is counted: an agent ends or shortens its session by it.
    whole = asyncio.run(engine.count_tokens(make_ask(messages=(*turns, last))))
    assert end.left_out > 0 and end.prompt_tokens == whole > 256
    with pytest.raises(Unanswerable, match=r"\d+ tokens .* room for 232"):
        read_all(engine, [make_ask(text="tide " * 400)])
    # More than the context leaves is not refused: the answer ends where the context does.
    ((_, end),) = read_all(engine, [make_ask(text="tide " * 30, max_tokens=32_000)])
    assert end.prompt_tokens + end.tokens <= 256
    for wrong in ({"messages": ()}, {"max_tokens": 0}, {"text": "half \ud800"}):
        with pytest.raises(Unanswerable):
            read_all(engine, [make_ask(**wrong)])


def test_a_full_queue_refuses_and_loses_nothing(bench: Bench) -> None:
    small = load_engines([bench.wanted("role")], bench.places, queue=3, rows=1)

    async def ask(n: int) -> str:
        try:
            return (await read(small, make_ask(text=f"pump {n}")))[1].finish
        except Busy as e:
            return "busy" if e.after >= 1 else "wrong"

    async def gather() -> list[str]:
        found = await asyncio.gather(*(ask(n) for n in range(40)))
        assert small.count_waiting() == small.count_running() == 0
        return found

    finishes = asyncio.run(gather())
    assert finishes.count("busy") >= 20 and len(finishes) == 40
    assert finishes.count("length") + finishes.count("stop") == 40 - finishes.count("busy") >= 3

    async def end() -> list[str]:
        running = [asyncio.create_task(ask(n)) for n in range(3)]
        await asyncio.sleep(0.05)
        await small.aclose()
        return await asyncio.gather(*running)

    assert set(asyncio.run(end())) <= {"cancelled", "length", "stop"}
    assert small.fault


def test_without_memory_one_answer_ends_and_the_engine_lives(
    engine: ManyEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gtft.serving import batching

    real = batching.call_model

    def call(model: Any, ids: Any, **given: Any) -> Any:
        if ids.shape[1] > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return real(model, ids, **given)

    before = read_all(engine, [make_ask()])[0][1].text
    monkeypatch.setattr(batching, "call_model", call)
    long, short = read_all(engine, [make_ask(text="qz7 " * 40), make_ask()])
    assert long[1].finish == "error" and "no memory" in long[1].error
    assert short[1].finish in ("length", "stop")
    assert short[1].text == before and not engine.fault


def test_models_come_and_go_while_it_runs(bench: Bench, loaded: dict[str, Any]) -> None:
    lean = load_engines([bench.wanted("role")], bench.places, most=1)
    texts = make_texts(5)
    expected = {m: [r.text for r in ask_eval(loaded, m, texts)] for m in MODELS}

    async def run() -> None:
        running = asyncio.create_task(read(lean, make_ask("role", texts[3], max_tokens=NEW)))
        await lean.add_model(bench.wanted("task"))
        for name in ("role", "role-alias", "base"):
            with pytest.raises(UsageError, match="cannot be served together"):
                await lean.add_model(replace(bench.wanted("other"), name=name))
        await lean.add_model(bench.wanted("other"))
        assert (await running)[1].text == expected["role"][3]
        # One adapter has room besides the first: they take turns.
        for _ in range(2):
            for m in MODELS:
                found = await asyncio.gather(
                    *(read(lean, make_ask(m, t, max_tokens=NEW)) for t in texts)
                )
                assert [end.text for _, end in found] == expected[m], m
        await lean.remove_model("other")
        with pytest.raises(Unanswerable):
            await read(lean, make_ask("other"))
        await lean.aclose()

    asyncio.run(run())


def test_a_model_that_cannot_be_added_ends_nobody_elses_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engines([bench.wanted("role")], bench.places)

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(engine._engines[0]._adapters, "add", fail)

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(engine.add_model(bench.wanted("task")), 60)
        assert (await read(engine, make_ask("role")))[1].finish in ("stop", "length")
        await engine.aclose()

    asyncio.run(run())
    assert "ending" in engine.fault


def test_what_is_loaded_is_what_was_recorded(bench: Bench, tmp_path: Path) -> None:
    changed = tmp_path / "adapter"
    changed.mkdir()
    for entry in bench.role.path.iterdir():
        (changed / entry.name).write_bytes(entry.read_bytes())
    (changed / "adapter_config.json").write_text("{}")
    with pytest.raises(EvidenceError):
        load_engines([Wanted("role", changed)], bench.places)
    with pytest.raises(UsageError, match="cannot be served together"):
        load_engines([bench.wanted("role"), bench.wanted("role")], bench.places)
    one = check_wanted(bench.wanted("role"), bench.places)
    with pytest.raises(UsageError) as refused:
        check_memory([(bench.base, one)], 1 << 30, free=lambda: 600 << 20)
    assert "600 MiB are free" in refused.value.why


def test_an_error_of_ours_ends_every_answer_and_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = load_engines([bench.wanted("role")], bench.places)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def fail() -> list[Any]:
        raise ZeroDivisionError

    monkeypatch.setattr(broken._engines[0]._batcher, "advance", fail)

    async def ask() -> End:
        return (await read(broken, make_ask()))[1]

    assert asyncio.run(ask()).finish == "error"
    assert "error in gtft" in broken.fault
    assert asyncio.run(ask()).error == broken.fault
    with pytest.raises(UsageError, match="answers nothing any more"):
        asyncio.run(asyncio.wait_for(broken.add_model(bench.wanted("task")), 60))
    asyncio.run(broken.aclose())
