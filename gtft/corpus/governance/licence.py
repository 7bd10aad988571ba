"""Licence per source: what a model may be trained on. Asked before anything is read or written.

Ids are SPDX's (https://spdx.org/licenses), joined with OR and AND. A model counts as a derivative: nobody has
shown that it is not, and who publishes one should not be the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from gtft.corpus.governance.consent import Refusal
from gtft.errors import Problem, RecipeError

OWN = "own"
# Families whose licences allow derivatives for any use. What share-alike asks of the model is on its card.
_FREE = re.compile(
    r"(?:MIT(?:-0)?|Apache-[12]\.\d|0?BSD(?:-[1-4]-Clause)?(?:-[A-Za-z-]+)?|ISC|Zlib|BSL-1\.0|Unlicense|WTFPL"
    r"|X11|PostgreSQL|Python-2\.0|PSF-2\.0|Artistic-[12]\.0|CC0-1\.0|CC-PDDC|PDDL-1\.0|CC-BY(?:-SA)?-[1-4]\.\d"
    r"|ODC-By-1\.0|ODbL-1\.0|CDLA-(?:Permissive|Sharing)-[12]\.0|OGL-UK-[123]\.0|OFL-1\.1|MPL-[12]\.\d|EPL-[12]\.0"
    r"|CDDL-1\.[01]|EUPL-1\.[012]|[AL]?GPL-[123]\.\d(?:-only|-or-later|\+)?)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")
_ALIASES = {"": "unknown", "none": "unknown", "noassertion": "unknown"}


class Licensed(Protocol):
    """A source of a recipe."""

    @property
    def type(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def licence(self) -> str: ...


def refuse(licence: str, allowed: Sequence[str] = (), model: str = "") -> Refusal | None:
    """Why a text of this licence may not be used; None when it may.

    ``allowed`` are ids that the recipe accepts in so many words, ``model`` the licence of the model:
    text for non-commercial use is taken when the model's own licence is non-commercial too.
    """
    accepted = {a.casefold() for a in allowed}
    if licence.casefold() in accepted:
        return None
    refusals = [_refuse_all(part, accepted, model) for part in re.split(r"\s+OR\s+", licence)]
    return None if None in refusals else refusals[0]


def check_licences(
    sources: Sequence[Licensed], allowed: Sequence[str] = (), model: str = ""
) -> None:
    """Raises RecipeError that names every source whose licence forbids its use."""
    problems = tuple(
        Problem("", 0, f"{s.type} {s.path}", f"licence {s.licence or '(empty)'}: {r.reason}")
        for s in sources
        if (r := refuse(s.licence, allowed, model)) is not None
    )
    if problems:
        raise RecipeError(
            "a source may not be trained on",
            problems=problems,
            why="the licence that the recipe states for it does not allow a derivative work",
            fix='take the source out; or, with the owner\'s leave: licences = ["…"] in [gtft.harvest]',
        )


def _refuse_all(expression: str, accepted: set[str], model: str) -> Refusal | None:
    for part in re.split(r"\s+AND\s+", expression):
        refusal = _refuse_one(part.strip(), accepted, model)
        if refusal is not None:
            return refusal
    return None


def _refuse_one(text: str, accepted: set[str], model: str) -> Refusal | None:
    name = text.partition(" WITH ")[0].strip()
    name = _ALIASES.get(name.casefold(), name)
    if name.casefold() in (OWN, *accepted):
        return None
    fix = f'licences = ["{name}"] if its owner agrees'
    words = name.casefold().split("-")
    if words[0] == "cc" and "nd" in words:
        return Refusal("no derivatives: a model trained on it is one", fix)
    if words[0] == "cc" and "nc" in words:
        if "nc" in model.casefold().split("-"):
            return None
        return Refusal("non-commercial, and the model's licence is not", fix)
    if _WORD.fullmatch(name) and _FREE.fullmatch(name):
        return None
    if name.casefold() == "unknown":
        return Refusal("nobody has said what it is", fix)
    if name.casefold() == "proprietary" or name.casefold().startswith("licenseref-"):
        return Refusal("proprietary: its owner has allowed nothing", fix)
    return Refusal("not a licence that gtft knows to allow derivatives", fix)
