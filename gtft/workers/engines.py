"""Which engine answers for the serve worker: our own, another server that is started for a model, or one that runs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from gtft.artifact import Artifact, short_id
from gtft.errors import UsageError
from gtft.evals.asking.load import load_tokenizer
from gtft.serving.engine import Ask, Engine, Served
from gtft.serving.launching import Program, find_program, launch, stage_complete
from gtft.serving.loading import Checked, Places, Wanted, check_wanted, find_folder
from gtft.serving.many import load_engines
from gtft.serving.template import PromptWriter
from gtft.serving.upstream import Upstream, UpstreamEngine
from gtft.shelf import list_shelf, read_document

LOCAL, LLAMA = "local", "llama.cpp"
# The key of a server that is asked at its address, when it wants one.
KEY_VARIABLE = "GTFT_UPSTREAM_KEY"
_STARTED = ("transformers", "vllm")


def open_engine(
    name: str,
    wanted: Sequence[Wanted],
    places: Places,
    *,
    queue: int,
    environ: Mapping[str, str],
    stack: ExitStack,
) -> Engine:
    """``name``: local, llama.cpp, transformers, vllm or an address. What is started ends with ``stack``, and with the thread
    that called this.

    Raises UsageError, EvidenceError, BaseMissing, MissingExtra or WorkerFailed.
    """
    if name == LOCAL:
        return load_engines(wanted, places, queue=queue)
    checked = [check_wanted(w, places) for w in wanted]
    if name.startswith(("http://", "https://")):
        there = [_describe(c, places, name, c.wanted.name) for c in checked]
        key = environ.get(KEY_VARIABLE, "")
        return UpstreamEngine(there, key=key, queue=queue, count=_make_counter(checked))
    if name != LLAMA and name not in _STARTED:
        raise UsageError(f"there is no engine {name[:40]}", fix="gtft model serve --help")
    if len(checked) != 1:
        raise UsageError(
            f"{name} answers with one model",
            why=f"{len(checked)} were named",
            fix="gtft model serve MODEL, or serve them all with --engine local",
        )
    program = _find_llama() if name == LLAMA else find_program(name)
    one = checked[0]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gtft-engine-")))
    launched = stack.enter_context(
        launch(
            program,
            _find_model(program, one, places, folder),
            name=one.wanted.name,
            log=folder / "server.log",
            environ=environ,
            adapter=one.artifact.path,
            context=_read_context(one, places),
        )
    )
    there = [_describe(one, places, launched.url, launched.asked, program.lacks)]
    count = _make_counter(checked)
    return UpstreamEngine(there, parallel=program.parallel, queue=queue, count=count)


def _find_model(program: Program, one: Checked, places: Places, folder: Path) -> Path:
    """What a program reads a model from."""
    if program.takes == "gguf":
        return _find_gguf(one.artifact, one.wanted.name, places.artifacts)
    base = find_folder(one, places)
    if program.takes == "complete folder":
        return stage_complete(one.artifact, base, folder / "model")
    return base


def _find_gguf(adapter: Artifact, name: str, artifacts: Path) -> Path:
    """The newest GGUF export of a model. Raises UsageError when there is none."""
    made = [a for a in list_shelf(artifacts, "export").found if adapter.id in a.parents]
    for export in reversed(made):
        if read_document(export, "summary.json").get("format") == "gguf":
            files = [f.name for f in export.files if f.name.endswith(".gguf")]
            if files:
                return export.file(files[0])
    raise UsageError(
        f"{name} has no GGUF export, which llama.cpp reads",
        why=f"{len(made)} exports of the adapter {short_id(adapter.id)} are on the shelf",
        fix=f"gtft model export {name} --format gguf",
    )


def _find_llama() -> Program:
    return find_program("llama-server" if shutil.which("llama-server") else "llama-cpp-python")


def _describe(
    one: Checked, places: Places, url: str, asked: str, lacks: frozenset[str] = frozenset()
) -> Upstream:
    wanted = one.wanted
    context = _read_context(one, places)
    served = Served(wanted.name, one.artifact.id, wanted.role, one.kind, context, wanted.aliases)
    return Upstream(served, url, asked, lacks)


def _read_context(one: Checked, places: Places) -> int:
    config = json.loads((find_folder(one, places) / "config.json").read_text("utf-8"))
    return int(config.get("max_position_embeddings") or 0)


def _make_counter(checked: Sequence[Checked]) -> Callable[[Ask], int]:
    """Counts with the models' own tokenizers, which are here."""
    writers = {c.wanted.name: PromptWriter(load_tokenizer(c.artifact)) for c in checked}
    names = {a: c.wanted.name for c in checked for a in (c.wanted.name, *c.wanted.aliases)}
    return lambda ask: len(writers[names[ask.model]].render(ask.messages, ask.tools))
