"""What the store knows of a corpus: how much of what, what was left out, what was replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gtft.models.summary import Summary, read_summary
from gtft.records.rows import ArtifactRow


@dataclass(frozen=True)
class RigConsent:
    """Whether the data of a rig was used, and what allowed or forbade it."""

    rig: str
    used: bool
    why: str


@dataclass(frozen=True)
class CorpusFigures:
    """Counts of examples; the ``by_…`` tables are of the training side, largest first.

    A table that the harvest did not record is None: "not recorded", not zero.
    """

    id: str
    train: int
    heldout: int
    by_source: dict[str, int]
    by_role: dict[str, int]
    by_rig: dict[str, int] | None
    by_kind: dict[str, int] | None
    by_provenance: dict[str, int] | None
    # source → role → examples
    cells: dict[str, dict[str, int]] | None
    dropped: dict[str, int]
    # placeholders that stand in the corpus, by type
    secrets: dict[str, int]
    personal: dict[str, int]
    # what training shares with held-out clusters and eval suites, as the harvest counted it
    leakage: dict[str, int] | None
    # whose data was asked for, and whether and why it could be used
    consent: tuple[RigConsent, ...] | None = None


def read_corpus(row: ArtifactRow) -> CorpusFigures:
    """The figures of a corpus artifact. Raises EvidenceError for what must be there and is not."""
    s = read_summary(row)
    return CorpusFigures(
        id=row.id,
        train=s.count("train"),
        heldout=s.count("heldout"),
        by_source=s.counts("by_source"),
        by_role=s.counts("by_role"),
        by_rig=s.find_counts("by_rig"),
        by_kind=s.find_counts("by_kind"),
        by_provenance=s.find_counts("provenance"),
        cells=_read_cells(s),
        dropped=s.counts("dropped"),
        secrets=s.counts("redaction.secrets"),
        personal=s.counts("redaction.personal"),
        leakage=_read_leakage(s),
        consent=tuple(_read_consents(s)) if s.has("consent") else None,
    )


def _read_consents(s: Summary) -> Iterator[RigConsent]:
    for n, found in enumerate(s.array("consent")):
        if not isinstance(found, dict):
            raise s.refuse(f"consent[{n}]", "a table", found)
        row = Summary(f"{s.label}: consent[{n}]", found)
        yield RigConsent(row.text("rig"), found.get("used") is True, row.text("why"))


def _read_cells(s: Summary) -> dict[str, dict[str, int]] | None:
    if not s.has("by_source_and_role"):
        return None
    table = s.table("by_source_and_role")
    return {source: table.counts(source) for source in table.data}


def _read_leakage(s: Summary) -> dict[str, int] | None:
    if not s.has("leakage"):
        return None
    table = s.table("leakage")
    return {k: table.count(k) for k, v in table.data.items() if not isinstance(v, list)}
