"""The harvest worker: sources in, a corpus artifact out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gtft
from gtft.artifact import Artifact, canonical_json, write_file
from gtft.contract import Job
from gtft.corpus.files import list_files, name_source
from gtft.corpus.governance.licence import check_licences
from gtft.corpus.governance.quarantine import Quarantine
from gtft.corpus.governance.withdrawal import KEY_FILE
from gtft.corpus.intake import Source
from gtft.corpus.linking.preference import Judged
from gtft.corpus.linking.town_record import RecordPaths, find_records
from gtft.corpus.partition.suite import list_suites
from gtft.corpus.redaction.redactor import RedactionConfig, load_key
from gtft.corpus.redaction.rule_files import read_rule_file
from gtft.corpus.settings import Settings
from gtft.corpus.snapshot import make_corpus
from gtft.errors import EvidenceError
from gtft.evals.blind import JUDGEMENTS, read_judgements, settle, write_message
from gtft.evals.item import read_jsonl
from gtft.evals.promptfoo import find_cases_folders
from gtft.recipe.schema import Harvest, Recipe
from gtft.service import FOLDER, PREFERENCES_FOLDER
from gtft.workers.frame import Reporter, Stopped, main

_EVERY_S = 0.25
# Sources that say who a session was; no example is made of them.
RECORDS = ("events", "costs")
# Eval items are read as data: training must hold none of them.
_SUITES = Path(gtft.__file__).parent / "evals" / "suites"


def work(job: Job, report: Reporter) -> Artifact:
    """Read the recipe's sources and publish the corpus. A harvest that was stopped goes on from what it read."""
    recipe = Recipe.model_validate_json(json.dumps(job.recipe))
    settings = make_settings(job, recipe)
    started: dict[str, float] = {}
    told = 0.0

    def progress(done: int, total: int | None, unit: str, note: str) -> None:
        nonlocal told
        if report.stop_requested:
            raise Stopped(None, "what was read is kept: the next start goes on from there")
        now = time.monotonic()
        since = started.setdefault(note, now)
        last = total is not None and done >= total
        if not last and done and now - told < _EVERY_S:
            return
        told = now
        eta = (now - since) / done * (total - done) if total and done else None
        report.progress(done, total, unit, eta_s=eta, note=note)

    quarantine = Quarantine(job.workspace)
    return make_corpus(
        settings,
        job.root,
        job.artifacts,
        job.workdir,
        find_suites(job, recipe),
        progress,
        cache=job.workspace / "cache" / "harvest",
        hold=quarantine.add,
    )


def find_suites(job: Job, recipe: Recipe) -> list[Path]:
    """Files of eval items that training must not hold: what ships with gtft, what the recipe names, Gas Town's own
    cases wherever they lie (sessions that ran one are known by its phrases), and items made from incidents."""
    suites = sorted(_SUITES.rglob("*.jsonl"))
    named = [*recipe.harvest.suites, *recipe.eval.files]
    suites += list_suites([_locate(job, path) for path in named])
    suites += list_suites(find_cases_folders(recipe.eval.gt_model_eval, job.workspace, job.root))
    if job.incidents:
        path = job.workdir / "incidents.jsonl"
        lines = "".join(canonical_json(item) + "\n" for item in job.incidents).encode()
        # As it was: a file that is not touched lets a harvest find what it made before.
        if not path.is_file() or path.read_bytes() != lines:
            write_file(path, lines)
        suites.append(path)
    return suites


def make_settings(job: Job, recipe: Recipe) -> Settings:
    """The recipe's harvest table with what the workspace and the town add."""
    table = recipe.harvest
    check_licences(table.sources, table.licences, recipe.card.licence)
    rules = [
        rule for path in table.redaction.rules for rule in read_rule_file(_locate(job, path)).rules
    ]
    decisions = Quarantine(job.workspace).decisions()
    return Settings(
        sources=tuple(
            Source(s.type, s.path, s.licence, s.rig) for s in table.sources if s.type not in RECORDS
        ),
        min_examples=table.min_examples,
        heldout=table.heldout,
        window_tokens=table.window_tokens,
        tool_result_chars=table.tool_result_chars,
        near_duplicate=table.near_duplicate,
        seed=job.seed,
        role=recipe.role,
        key=load_key(job.workspace / KEY_FILE),
        scope=recipe.scope,
        select=table.select,
        outcomes=table.outcomes,
        own_model=table.own_model,
        own_models=job.governance.own_models,
        scenarios=table.scenarios,
        synthetic=table.synthetic,
        canaries=table.canaries,
        canary_repeats=table.canary_repeats,
        redaction=RedactionConfig(table.redaction.names, table.redaction.hosts, tuple(rules)),
        settings_files=tuple(_locate(job, path) for path in table.redaction.settings),
        suites=tuple(name_source(path) for path in table.suites),
        stop_on_hit=table.redaction.on_hit == "stop",
        released=frozenset(i for i, d in decisions.items() if d == "released"),
        sent_away=frozenset(i for i, d in decisions.items() if d == "dropped"),
        harmful=frozenset(o["session"] for i in job.incidents if (o := i.get("origin"))) - {""},
        judged=tuple(_list_judged(job)),
        workers=table.workers or len(os.sched_getaffinity(0)),
        governance=job.governance,
        conventions=job.conventions,
        records=_find_records(job, table),
        password=os.environ.get("GT_DOLT_PASSWORD", ""),
    )


def _list_judged(job: Job) -> Iterator[Judged]:
    """What people preferred (gtft review blind), and what the town's agents did better than a model beside them, as
    pairs to train on."""
    for j in settle(read_judgements(job.workspace / JUDGEMENTS)):
        chosen, rejected = write_message(j.chosen), write_message(j.rejected)
        yield Judged(j.example, j.prompt, j.tools, chosen, rejected)
    for path in sorted((job.workspace / FOLDER / PREFERENCES_FOLDER).glob("*.jsonl")):
        for number, doc in read_jsonl(path):
            try:
                yield Judged(
                    str(doc["example"]),
                    tuple(doc["prompt"]),
                    tuple(doc["tools"]),
                    write_message(str(doc["chosen"])),
                    write_message(str(doc["rejected"])),
                    "shadow",
                )
            except (KeyError, TypeError) as e:
                raise EvidenceError(
                    f"{path.name}:{number} is no preference", why=repr(e), fix=f"remove {path}"
                ) from e


def _find_records(job: Job, table: Harvest) -> RecordPaths:
    """What tells who a session was and how it ended: the town's own records, and those that the recipe names."""
    town = job.workspace.parent
    found = RecordPaths()
    if (town / "mayor" / "town.json").is_file():
        found = find_records(town, Path.home())
    hook = job.workspace / "sessions.jsonl"
    named = {kind: tuple(_list_named(job, table, kind)) for kind in (*RECORDS, "beads")}
    return replace(
        found,
        hook=hook if hook.is_file() else None,
        events=tuple(dict.fromkeys([*found.events, *named["events"]])),
        costs=tuple(dict.fromkeys([*found.costs, *named["costs"]])),
        beads=tuple(
            dict.fromkeys([*found.beads, *(p for p in named["beads"] if p.suffix == ".jsonl")])
        ),
    )


def _list_named(job: Job, table: Harvest, kind: str) -> Iterator[Path]:
    for source in table.sources:
        if source.type == kind and not source.path.startswith("sql:"):
            yield from (f.path for f in list_files(job.root, source.path))


def _locate(job: Job, path: str) -> Path:
    found = Path(path).expanduser()
    return found if found.is_absolute() else job.root / found


if __name__ == "__main__":
    main(work)
