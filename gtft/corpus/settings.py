"""What a harvest is asked to do, and what it decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gtft.contract import Governance
from gtft.corpus.draft import Block, Draft
from gtft.corpus.health.conflict import Conflict
from gtft.corpus.intake import Source
from gtft.corpus.linking.preference import Judged
from gtft.corpus.linking.town_record import RecordPaths
from gtft.corpus.redaction.redactor import RedactionConfig
from gtft.corpus.tally import Tally


@dataclass(frozen=True)
class Settings:
    """A recipe's harvest table, the seed of the split, and what the workspace and the town add.

    ``key`` makes placeholders and pseudonyms: the same input and key give the same corpus. ``own_models``:
    name that a model of ours answers under → its generation. ``settings_files`` hold values to hide.
    """

    sources: tuple[Source, ...]
    min_examples: int
    heldout: float
    window_tokens: int
    tool_result_chars: int
    near_duplicate: float
    seed: int
    role: str
    key: bytes
    scope: tuple[str, ...] = ()
    select: tuple[str, ...] = ()
    outcomes: Mapping[str, float] = field(default_factory=dict)
    own_model: float = 0.0
    own_models: Mapping[str, int] = field(default_factory=dict)
    scenarios: int = 0
    synthetic: float = 0.3
    # Made-up secrets to plant in the training side, and in how many examples each.
    canaries: int = 0
    canary_repeats: int = 1
    redaction: RedactionConfig = field(default_factory=RedactionConfig)
    settings_files: tuple[Path, ...] = ()
    stop_on_hit: bool = False
    # What the recipe calls the suites that it adds; their files are given to the harvest.
    suites: tuple[str, ...] = ()
    # Examples that a person let out of quarantine.
    released: frozenset[str] = frozenset()
    # Examples that a person dropped there.
    sent_away: frozenset[str] = frozenset()
    # Sessions in which a model of ours did harm: an eval item was made of each.
    harmful: frozenset[str] = frozenset()
    # Pairs that people judged blind.
    judged: tuple[Judged, ...] = ()
    workers: int = 1
    governance: Governance = field(default_factory=Governance)
    # What the town worked by when it was harvested: name → hash.
    conventions: Mapping[str, str] = field(default_factory=dict)
    records: RecordPaths = field(default_factory=RecordPaths)
    # Of the user that reads the beads of a database.
    password: str = field(default="", repr=False)


@dataclass
class Harvested:
    """What a harvest decided, before it is written: both sides sorted by id, and every figure."""

    train: list[Draft] = field(default_factory=list)
    heldout: list[Draft] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)
    pairs: list[Block] = field(default_factory=list)
    # Prose and pairs that stay out, by reason.
    left_out: Counter[str] = field(default_factory=Counter)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    # By source.
    licences: dict[str, str] = field(default_factory=dict)
    # How sessions were tied to roles and beads, over all sources.
    links: Tally = field(default_factory=Tally)
    staged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    # What documents both demand and forbid.
    rules: Sequence[Mapping[str, Any]] = ()
    # The town's own formulas, by name: their commands are not stale.
    formulas: set[str] = field(default_factory=set)
    # What conflicts dropped, by id: both sides are shown.
    outvoted: dict[str, Draft] = field(default_factory=dict)
