"""The health of a corpus in figures and in plain words: is training worth starting?"""

from gtft.corpus.health.conflict import (
    Conflict,
    Conflicts,
    Rules,
    Taught,
    find_conflicts,
    mark_examples,
    read_taught,
)
from gtft.corpus.health.measure import Figures, Meter, make_flow
from gtft.corpus.health.render import render_health

__all__ = [
    "Conflict",
    "Conflicts",
    "Figures",
    "Meter",
    "Rules",
    "Taught",
    "find_conflicts",
    "make_flow",
    "mark_examples",
    "read_taught",
    "render_health",
]
