"""The corpus on disk: examples, manifest, health, prose. Its id is the content's."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from gtft import __version__
from gtft.artifact import MANIFEST as ARTIFACT_FILE
from gtft.artifact import (
    Artifact,
    hash_json,
    stage_artifact,
    verify_artifact,
    write_file,
    write_json,
)
from gtft.contract import SUMMARY_FILE, Governance
from gtft.corpus import canary
from gtft.corpus.cleaning import Cleaner
from gtft.corpus.draft import Block, Draft
from gtft.corpus.example import Example, map_tree
from gtft.corpus.files import name_source
from gtft.corpus.governance.quarantine import Held
from gtft.corpus.harvest import Report, Timings, harvest
from gtft.corpus.health.commands import load_commands
from gtft.corpus.health.conflict import mark_examples
from gtft.corpus.health.measure import Figures, Meter, make_flow
from gtft.corpus.health.render import render_health
from gtft.corpus.intake import Listed, digest_code, list_sources, stamp_file
from gtft.corpus.linking.noise import is_own
from gtft.corpus.linking.town_record import read_recorded
from gtft.corpus.redaction.redactor import RedactionConfig, digest_rules
from gtft.corpus.settings import Harvested, Settings
from gtft.corpus.shard import Bodies
from gtft.errors import EvidenceError

KIND = "corpus"
TRAIN, HELDOUT, PROSE = "train.jsonl", "heldout.jsonl", "base.txt"
MANIFEST, HEALTH, HEALTH_PAGE = "manifest.json", "health.json", "health.md"
# Copies of databases and changed texts, while a harvest runs.
_ASIDE = "aside-"
FLAGS, PAIRS = "flags.jsonl", "preferences.jsonl"


def make_corpus(
    settings: Settings,
    root: Path,
    artifacts: Path,
    workdir: Path,
    suites: Sequence[Path],
    report: Report,
    cache: Path | None = None,
    timings: Timings | None = None,
    hold: Callable[[Sequence[Held]], object] = len,
) -> Artifact:
    """Harvest and publish a corpus artifact below ``artifacts``; nothing is left there on an error.

    The same input, settings and gtft version give the same id, wherever it runs. ``cache`` keeps what was
    read (default: in ``workdir``): an unchanged file is not read again, and where nothing has changed the
    corpus that is there is given back. ``hold`` is given the examples that go to quarantine.
    """
    timings = timings or Timings()
    cache = cache or workdir / "cache"
    workdir.mkdir(parents=True, exist_ok=True)
    for left in workdir.glob(f"{_ASIDE}*"):
        # A harvest that was killed could not do it.
        shutil.rmtree(left)
    with TemporaryDirectory(prefix=_ASIDE, dir=workdir) as aside:
        with timings.phase("list"):
            recorded = read_recorded(settings.records.hook) if settings.records.hook else {}
            listed = list_sources(
                settings.sources,
                root,
                settings.governance.rigs,
                recorded,
                aside=Path(aside),
                password=settings.password,
            )
            made = cache / "made" / describe_everything(settings, listed, suites)
            found = _find_made(made, artifacts)
        if found is not None:
            # The newest is what was asked for last.
            (found.path / ARTIFACT_FILE).touch()
            return found
        out, cleaner = harvest(settings, listed, cache, Path(aside), suites, report, timings)
        hold(cleaner.held)
        with stage_artifact(artifacts, KIND) as staging, timings.phase("write"):
            report(0, None, "files", "writing and scanning what is on disk")
            _write(staging.path, out, settings, cleaner, timings)
        cleaner.close()
    made.parent.mkdir(parents=True, exist_ok=True)
    write_file(made, staging.result.path.name.encode())
    return staging.result


def describe_everything(
    settings: Settings, listed: Sequence[Listed], suites: Sequence[Path]
) -> str:
    """A digest of all that a corpus depends on: equal ones give equal corpora.

    Of files it takes name, inode, size and time, not the content.
    """
    records = settings.records
    paths = [records.hook, records.rigs, *records.events, *records.costs, *records.beads]
    paths += [*records.commits, *settings.settings_files, *suites]
    return hash_json(
        [
            digest_code(),
            digest_rules(settings.key, settings.redaction),
            describe_governance(settings.governance),
            sorted(settings.released),
            sorted(settings.sent_away),
            dict(sorted(settings.conventions.items())),
            describe_settings(settings),
            [[stamp_file(f) for f in one.files] for one in listed],
            [_stamp(p) for p in paths if p is not None],
        ]
    )


def describe_governance(governance: Governance) -> list[object]:
    """Whose data may be used. The day counts only where a consent ends."""
    ends = any(c.until for c in governance.consents)
    return [governance.model_dump(mode="json", exclude={"today"}), governance.today if ends else ""]


def _stamp(path: Path) -> list[object]:
    try:
        s = path.stat()
    except FileNotFoundError:
        return [path.name]
    return [path.name, s.st_ino, s.st_size, s.st_mtime_ns]


def _find_made(made: Path, artifacts: Path) -> Artifact | None:
    """The corpus that was made of exactly this, when it is still there and whole."""
    try:
        return verify_artifact(artifacts / made.read_text("utf-8"), kind=KIND)
    except (FileNotFoundError, EvidenceError):
        return None


def _write(
    path: Path, out: Harvested, settings: Settings, cleaner: Cleaner, timings: Timings
) -> None:
    redact = cleaner.make_label_cleaner()
    known = load_commands().with_formulas(frozenset(out.formulas))
    meter = Meter(settings.role, settings.window_tokens, known)
    marks = mark_examples(out.conflicts)
    bodies = Bodies()
    planted = canary.draw_canaries(settings.canaries, settings.key, settings.seed)
    made = canary.make_examples(planted, settings.canary_repeats)
    canary.check_canaries(made, redact)
    with (path / FLAGS).open("wb") as flags:
        for side, name, drafts, besides in (
            ("train", TRAIN, out.train, made),
            ("heldout", HELDOUT, out.heldout, []),
        ):
            finished = (_finish(d, bodies, settings, redact) for d in drafts)
            with (path / name).open("wb") as f:
                for e in heapq.merge(finished, besides, key=lambda e: e.id):
                    f.write(msgspec.json.encode(e.to_json(), order="sorted") + b"\n")
                    if e.source == canary.SOURCE:
                        continue
                    if found := meter.add(e, side, marks.get(e.id, ())):
                        flags.write(msgspec.json.encode({"id": e.id, "flags": found}) + b"\n")
    (path / PROSE).write_text("\n\n".join(out.prose) + ("\n" if out.prose else ""), "utf-8")
    with (path / PAIRS).open("wb") as f:
        for block in out.pairs:
            f.write(msgspec.json.encode(_finish_pair(block, redact), order="sorted") + b"\n")
    figures = replace(
        _gather_figures(out, cleaner, bodies, redact),
        canaries=canary.describe_canaries(planted, settings.canary_repeats),
    )
    health = meter.finish(measure_flow(out), figures)
    bodies.close()
    if planted:
        lines = canary.write_canaries(planted, settings.canary_repeats, settings.key, settings.seed)
        (path / canary.FILE).write_bytes(canary.encode_lines(lines))
    manifest: dict[str, Any] = {
        "format": 2,
        "gtft": __version__,
        "harvest": describe_settings(settings),
        "inputs": out.inputs,
        "sources": {name: t.rename(redact).as_dict() for name, t in out.tallies.items()},
        "links": out.links.rename(redact).as_dict(),
        "flow": health["flow"],
        "quarantined": sorted(h.id for h in cleaner.held),
        "consent": out.figures["consent"],
        "left out": dict(sorted(out.left_out.items())),
        "redaction": health["redaction"],
        "split": {**health["examples"], "leakage": health["leakage"]},
        "canaries": {**health["canaries"], "names": [c.name for c in planted]},
    }
    write_json(path / MANIFEST, map_tree(manifest, redact))
    health = map_tree(health, redact)
    write_json(path / HEALTH, health)
    (path / HEALTH_PAGE).write_text(render_health(health), "utf-8")
    summary = summarize(health)
    if settings.conventions:
        summary["conventions"] = dict(sorted(settings.conventions.items()))
    write_json(path / SUMMARY_FILE, summary)
    with timings.phase("scan"):
        cleaner.scan_files([p for p in sorted(path.iterdir()) if p.is_file()])


def measure_flow(out: Harvested) -> list[dict[str, Any]]:
    """What came in and what became of it, stage by stage. Raises InternalError when it does not add up."""
    rows: list[dict[str, Any]] = []
    for name, tally in sorted(out.tallies.items()):
        dropped: Mapping[str, int] = tally.tables.get("dropped", {})
        rows.append(
            make_flow(f"records: {name}", tally.total("records"), tally.total("kept"), dropped)
        )
        dropped = tally.tables.get("noise", {})
        talks = tally.total("conversations")
        rows.append(
            make_flow(f"conversations: {name}", talks, talks - sum(dropped.values()), dropped)
        )
        dropped = tally.tables.get("segments dropped", {})
        cut = tally.total("segments")
        rows.append(make_flow(f"segments: {name}", cut, cut - sum(dropped.values()), dropped))
    kept = len(out.train) + len(out.heldout)
    rows.append(make_flow("examples", out.staged, kept, out.dropped))
    return rows


def _gather_figures(
    out: Harvested, cleaner: Cleaner, bodies: Bodies, redact: Callable[[str], str]
) -> Figures:
    drafts = {d.id: d for d in (*out.train, *out.heldout)} | out.outvoted

    def fetch(example: str) -> list[dict[str, Any]] | None:
        found = drafts.get(example)
        return None if found is None else found.read_body(bodies)["messages"]

    return Figures(
        tallies={n: t.rename(redact) for n, t in (*out.tallies.items(), ("links", out.links))},
        leakage=out.figures["leakage"],
        prose={
            "blocks": len(out.prose),
            "characters": sum(map(len, out.prose)),
            "held out": out.left_out["prose held out"],
            "left out as leak": out.left_out["prose left out as leak"],
        },
        near_duplicate_pairs=out.figures["near-duplicate pairs"],
        suspects=cleaner.suspects,
        licences=out.licences,
        conflicts=out.conflicts,
        rules=[map_tree(r, redact) for r in out.rules],
        fetch=fetch,
    )


def summarize(health: dict[str, Any]) -> dict[str, Any]:
    """The figures that the store keeps of a harvest."""
    return {
        **health["examples"],
        "by_source": health["by"]["train"]["source"],
        "by_role": health["by"]["train"]["role"],
        "by_rig": health["by"]["train"]["rig"],
        "by_source_and_role": health["train by source and role"],
        "provenance": health["by"]["train"]["provenance"],
        "canaries": health["canaries"],
        "dropped": health["flow"][-1]["dropped"],
        "redaction": health["redaction"],
        "leakage": health["leakage"],
        "length": health["length"],
        "prose_characters": health["prose"]["characters"],
        "verdict": health["verdict"],
        "words": health["words"],
    }


def _finish(d: Draft, bodies: Bodies, settings: Settings, redact: Callable[[str], str]) -> Example:
    """The example with its labels redacted and its own models named."""
    by = tuple([_name_author(b, settings) for b in d.piece.by])
    model = settings.governance.served.get(d.row.session or "", "")
    if d.provenance == "own" and model and not any(b.startswith("own:") for b in by):
        own = f"own:{model}:{settings.own_models.get(model, 0)}"
        by = tuple([own if b.startswith("agent") else b for b in by])
    e = d.build(d.read_body(bodies), by)
    return e.map_labels(redact)


def _finish_pair(block: Block, redact: Callable[[str], str]) -> dict[str, Any]:
    """A preference row for TRL, and where it came from."""
    row = block.row
    place = block.place
    return {
        **block.read(),
        "why": block.why,
        "role": redact(row.role) if row.role else None,
        "rig": redact(row.rig) if row.rig else None,
        "cluster": redact(block.link),
        "origin": place and {"file": redact(place.file), "lines": list(place.lines)},
    }


def _name_author(by: str, settings: Settings) -> str:
    model = by.removeprefix("agent:")
    generation = is_own(model, settings.own_models) if model != by else None
    return by if generation is None else f"own:{model}:{generation}"


def describe_settings(settings: Settings) -> dict[str, Any]:
    """The harvest table as a corpus states it: without absolute paths and without names to hide."""
    return {
        "role": settings.role,
        "sources": [
            {"type": s.type, "path": name_source(s.path), "licence": s.licence, "rig": s.rig}
            for s in settings.sources
        ],
        "scope": list(settings.scope),
        "select": list(settings.select),
        "min_examples": settings.min_examples,
        "heldout": settings.heldout,
        "window_tokens": settings.window_tokens,
        "tool_result_chars": settings.tool_result_chars,
        "near_duplicate": settings.near_duplicate,
        "outcomes": dict(sorted(settings.outcomes.items())),
        "own_model": settings.own_model,
        "own_models": dict(sorted(settings.own_models.items())),
        "scenarios": settings.scenarios,
        "synthetic": settings.synthetic,
        "canaries": settings.canaries,
        "canary_repeats": settings.canary_repeats,
        "suites": sorted(settings.suites),
        # Which rules: equal for equal ones in any town, so without its key, names and hosts.
        "redaction": digest_rules(b"rules", RedactionConfig(rules=settings.redaction.rules)),
        "on_hit": "stop" if settings.stop_on_hit else "quarantine",
        "seed": settings.seed,
    }
