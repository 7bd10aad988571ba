"""The rules, one file per family. Rules with a form of their own stand before those that go by context."""

from __future__ import annotations

from gtft.corpus.redaction.rule import Rule
from gtft.corpus.redaction.rules import (
    assignments,
    chat,
    cloud,
    commands,
    hosting,
    keys,
    models,
    payment,
    prose,
    services,
    urls,
)
from gtft.corpus.redaction.rules.assignments import SENSITIVE_KEY
from gtft.corpus.redaction.rules.guards import is_stand_in

RULES: tuple[Rule, ...] = (
    *keys.RULES,
    *hosting.RULES,
    *cloud.RULES,
    *models.RULES,
    *chat.RULES,
    *payment.RULES,
    *services.RULES,
    *urls.RULES,
    *assignments.RULES,
    *commands.RULES,
    *prose.RULES,
)

__all__ = ["RULES", "SENSITIVE_KEY", "is_stand_in"]
