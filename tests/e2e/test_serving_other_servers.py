"""Real servers of others, started for one of our models and asked through the engine: transformers serve, llama.cpp's."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from engine_case import Bench, make_ask, make_bench, read
from gtft.evals.asking.load import read_base
from gtft.exports.making import make_export
from gtft.exports.source import Asked, find_source
from gtft.serving.engine import End, Served, Token
from gtft.serving.launching import Program, find_program, launch, stage_complete
from gtft.serving.upstream import Upstream, UpstreamEngine

TEXTS = ("which pump leaks?", "the tide is high", "bd create")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return make_bench(tmp_path_factory.mktemp("servers"))


def need(name: str) -> Program:
    """Skip (or, in CI, fail) where the server is not installed."""
    program = find_program(name)
    missing = [m for m in program.modules if importlib.util.find_spec(m) is None]
    if missing and os.environ.get("GTFT_NEED_TOWN_TOOLS"):
        pytest.fail(f"{', '.join(missing)} missing: {program.fix}")
    if missing:
        pytest.skip(f"{', '.join(missing)} missing: {program.fix}")
    return program


def ask_server(program: Program, model: Path, log: Path) -> list[tuple[list[Token], End]]:
    """Each text, all at once; then the first again with a stop string, and one that runs out of time."""

    async def ask(url: str, name: str) -> list[tuple[list[Token], End]]:
        served = Served("m", "", "witness", "role", 256)
        upstream = Upstream(served, url, name, program.lacks)
        engine = UpstreamEngine([upstream], parallel=program.parallel)
        found = await asyncio.gather(
            *(read(engine, make_ask("m", t, max_tokens=12, top_logprobs=2)) for t in TEXTS)
        )
        stop = found[0][1].text[2:5]
        found.append(await read(engine, make_ask("m", TEXTS[0], max_tokens=12, stop=(stop,))))
        found.append(await read(engine, make_ask("m", TEXTS[0], max_tokens=12, seconds=0.001)))
        await engine.aclose()
        return found

    given: dict[str, Any] = {"name": "m", "log": log, "environ": os.environ, "context": 256}
    with launch(program, model, **given) as launched:
        return asyncio.run(ask(launched.url, launched.asked))


def check(found: list[tuple[list[Token], End]]) -> None:
    *whole, (_, stopped), (_, late) = found
    assert all(end.finish in ("stop", "length") and end.tokens > 1 for _, end in whole)
    text = whole[0][1].text
    assert text.startswith(stopped.text) and len(stopped.text) < len(text)
    assert late.finish == "timeout"


def test_transformers_serve_answers_with_the_adapter(bench: Bench, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    program = need("transformers")
    folder = stage_complete(bench.role, bench.base, tmp_path / "model")
    found = ask_server(program, folder, tmp_path / "log")
    check(found)
    tokenizer = AutoTokenizer.from_pretrained(bench.role.path)
    base = AutoModelForCausalLM.from_pretrained(bench.base)
    model = PeftModel.from_pretrained(base, bench.role.path).eval()
    for text, (_, end) in zip(TEXTS, found, strict=False):
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            made = model.generate(**given, max_new_tokens=12, do_sample=False)
        ids = made[0, given["input_ids"].shape[1] :]
        expected = tokenizer.decode(ids, skip_special_tokens=True).strip()
        # It leaves out a last character that is not whole.
        assert end.text.rstrip("\ufffd") == expected.rstrip("\ufffd")


def test_llama_cpp_answers_with_the_export(bench: Bench, tmp_path: Path) -> None:
    program = need("llama-cpp-python")
    source = find_source(
        "m",
        bench.role.path,
        workspace=bench.places.workspace,
        root=bench.places.root,
        artifacts=bench.places.artifacts,
    )
    assert source.record == read_base(bench.role)
    export = make_export(source, Asked("gguf", verify=False), tmp_path, lambda *_: None)
    (file,) = (f.name for f in export.files if f.name.endswith(".gguf"))
    found = ask_server(program, export.file(file), tmp_path / "log")
    check(found)
    for tokens, end in found[: len(TEXTS)]:
        assert end.confidence is not None and 0 < end.confidence <= 1
        told = [t for t in tokens if t.logprob is not None]
        # Alternatives that are spelled alike (halves of characters) it tells once.
        assert told and all(t.logprob <= 0 and 1 <= len(t.top) <= 2 for t in told)
