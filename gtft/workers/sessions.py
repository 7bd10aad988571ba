"""The sessions of a role as a harvest reads them: the same sources, linking, redaction, consents and withdrawals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from gtft.contract import Job
from gtft.corpus.example import Example
from gtft.corpus.harvest import Timings, harvest
from gtft.corpus.intake import list_sources
from gtft.corpus.linking.chronicle import read_time
from gtft.corpus.linking.outcome import WEIGHTS
from gtft.corpus.linking.town_record import read_recorded
from gtft.corpus.settings import Settings
from gtft.corpus.shard import Bodies
from gtft.corpus.sources import SESSIONS
from gtft.recipe.schema import Recipe
from gtft.workers.harvest import find_suites, make_settings


@dataclass(frozen=True)
class Told:
    """An example with what is only known while it is read. Times are seconds since 1970, NaN when not known."""

    example: Example
    session: str
    started: float
    ended: float


@dataclass(frozen=True)
class Sessions:
    """``told`` by time. ``dropped``: why examples are not among them → how many. ``redact``: for what is written of them."""

    told: tuple[Told, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    redact: Callable[[str], str] = str


def read_sessions(
    job: Job,
    recipe: Recipe,
    *,
    select: Sequence[str],
    since: float = 0.0,
    own: bool = False,
    bare: bool = False,
    listen: Callable[[], None] = lambda: None,
) -> Sessions:
    """What sessions that ``select`` admits (`gtft.corpus.governance.select`) and that began after ``since`` (seconds since
    1970) hold. ``select`` stands in place of what the recipe says of the same keys.

    ``own``: those that a model of ours answered too. ``bare``: also those that share a phrase with an eval suite, and
    those that ended badly. What training leaves out as a copy is left out here too, what incidents were made of is not.
    Raises what a harvest raises; ``listen`` may raise to stop it.
    """
    settings = _narrow(make_settings(job, recipe), select, since, own, bare)
    if not settings.sources:
        return Sessions()
    recorded = read_recorded(settings.records.hook) if settings.records.hook else {}
    cache = job.workspace / "cache" / "harvest"
    job.workdir.mkdir(parents=True, exist_ok=True)
    # What an incident's item was made of is no eval case: it is trained on by nobody, and looked at like the others.
    suites = [] if bare else find_suites(job.model_copy(update={"incidents": ()}), recipe)
    with TemporaryDirectory(prefix="aside-", dir=job.workdir) as aside:
        listed = list_sources(
            settings.sources,
            job.root,
            settings.governance.rigs,
            recorded,
            aside=Path(aside),
            password=settings.password,
        )
        out, cleaner = harvest(
            settings,
            listed,
            cache,
            Path(aside),
            suites,
            lambda *_: listen(),
            Timings(time.perf_counter),
        )
        redact = cleaner.make_label_cleaner()
        bodies = Bodies()
        told = [
            Told(
                d.build(d.read_body(bodies), d.piece.by).map_labels(redact),
                d.row.session or "",
                read_time(d.talk.evidence.started),
                read_time(d.talk.evidence.ended),
            )
            for d in out.train
            if d.row.source in SESSIONS
        ]
        bodies.close()
        cleaner.close()
    late = [t for t in told if t.started >= since]
    late.sort(key=lambda t: (t.started, t.session, t.example.origin.lines, t.example.id))
    dropped = {why: n for why, n in out.dropped.items() if not why.startswith("not selected")}
    return Sessions(tuple(late), dropped, redact)


def _narrow(
    settings: Settings, select: Sequence[str], since: float, own: bool, bare: bool
) -> Settings:
    """The recipe's harvest, cut to the sessions in question: nothing made up, nothing held out."""
    given = {_name_key(s) for s in select} | {"since", "until"}
    kept = [s for s in settings.select if _name_key(s) not in given]
    day = [f"since:{datetime.fromtimestamp(since, UTC):%Y-%m-%d}"] if since > 0 else []
    return replace(
        settings,
        sources=tuple(s for s in settings.sources if s.type in SESSIONS or s.type == "auto"),
        select=(*kept, *select, *day),
        min_examples=0,
        heldout=0.0,
        scenarios=0,
        synthetic=0.0,
        canaries=0,
        judged=(),
        own_model=1.0 if own else 0.0,
        outcomes=dict.fromkeys(WEIGHTS, 1.0) if bare else settings.outcomes,
        harmful=frozenset(),
        stop_on_hit=False,
        workers=1,
    )


def _name_key(item: str) -> str:
    return item.partition(":")[0]
