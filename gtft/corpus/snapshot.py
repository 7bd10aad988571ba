"""The corpus on disk: examples, manifest, health, prose. Its id is the content's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gtft import __version__
from gtft.artifact import Artifact, canonical_json, stage_artifact, write_json
from gtft.contract import SUMMARY_FILE
from gtft.corpus.example import Example
from gtft.corpus.files import name_source
from gtft.corpus.harvest import Harvested, Settings, harvest
from gtft.corpus.health import measure_health, write_health_page
from gtft.corpus.verify import Verifier

KIND = "corpus"
TRAIN, HELDOUT, PROSE = "train.jsonl", "heldout.jsonl", "base.txt"
MANIFEST, HEALTH, HEALTH_PAGE = "manifest.json", "health.json", "health.md"


def make_corpus(
    settings: Settings,
    root: Path,
    artifacts: Path,
    workdir: Path,
    suites: Sequence[Path],
    report: Callable[[int, int | None, str, str], None],
) -> Artifact:
    """Harvest and publish a corpus artifact below ``artifacts``; nothing is left there on an error.

    The same input, settings and gtft version give the same id, wherever it runs.
    """
    out, verifier = harvest(settings, root, workdir / "staged.jsonl", suites, report)
    health = measure_health(out, settings, verifier.suspects)
    with stage_artifact(artifacts, KIND) as staging:
        report(0, None, "files", "writing and scanning what is on disk")
        _write(staging.path, out, settings, health, verifier)
    return staging.result


def _write(
    path: Path, out: Harvested, settings: Settings, health: dict[str, Any], verifier: Verifier
) -> None:
    write_examples(path / TRAIN, out.train)
    write_examples(path / HELDOUT, out.heldout)
    (path / PROSE).write_text("\n\n".join(out.prose) + ("\n" if out.prose else ""), "utf-8")
    redact = verifier.redactor.redact
    manifest = {
        "format": 1,
        "gtft": __version__,
        "harvest": describe_settings(settings),
        "inputs": [{**i, "file": redact(str(i["file"]))} for i in out.inputs],
        "sources": {name: _hide_names(t.as_dict(), redact) for name, t in out.tallies.items()},
        "flow": health["flow"],
        "redaction": health["redaction"],
        "split": {**health["examples"], "leakage": health["leakage"]},
    }
    write_json(path / MANIFEST, manifest)
    write_json(path / HEALTH, health)
    write_health_page(path / HEALTH_PAGE, health)
    write_json(path / SUMMARY_FILE, summarize(health))
    verifier.scan_files(
        [
            path / name
            for name in (TRAIN, HELDOUT, PROSE, MANIFEST, HEALTH, HEALTH_PAGE, SUMMARY_FILE)
        ]
    )


def write_examples(path: Path, examples: Sequence[Example]) -> None:
    with path.open("w", encoding="utf-8") as f:
        for e in examples:
            f.write(canonical_json(e.to_json()) + "\n")


def describe_settings(settings: Settings) -> dict[str, Any]:
    """The harvest table as a corpus states it: without absolute paths."""
    return {
        "role": settings.role,
        "sources": [
            {"type": s.type, "path": name_source(s.path), "licence": s.licence}
            for s in settings.sources
        ],
        "min_examples": settings.min_examples,
        "heldout": settings.heldout,
        "window_tokens": settings.window_tokens,
        "tool_result_chars": settings.tool_result_chars,
        "near_duplicate": settings.near_duplicate,
        "rigs": sorted(settings.rigs),
        "seed": settings.seed,
    }


def summarize(health: dict[str, Any]) -> dict[str, Any]:
    """The figures that the store keeps of a harvest."""
    return {
        **health["examples"],
        "by_source": health["by"]["train"]["source"],
        "by_role": health["by"]["train"]["role"],
        "by_rig": health["by"]["train"]["rig"],
        "by_source_and_role": health["train by source and role"],
        "provenance": health["by"]["train"]["provenance"],
        "dropped": health["flow"][-1]["dropped"],
        "redaction": health["redaction"],
        "leakage": health["leakage"],
        "length": health["length"],
        "prose_characters": health["prose"]["characters"],
        "words": health["words"],
    }


def _hide_names(doc: dict[str, Any], redact: Callable[[str], str]) -> dict[str, Any]:
    named = [{**n, "file": redact(n["file"]), "detail": redact(n["detail"])} for n in doc["named"]]
    return json.loads(json.dumps({**doc, "named": named}))  # type: ignore[no-any-return]
