"""``.beads/interactions.jsonl``: what `bd audit` recorded of model calls, and how people judged them.

A ``label`` row points to its call by ``parent_id``; the last one counts, its value is free text. Files that
exist hold hardly any calls; some hold beads under this name: each row is told by its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gtft.corpus.claims import Claims
from gtft.corpus.example import Conversation, Entry, Evidence, Labels, Mark
from gtft.corpus.files import InputFile
from gtft.corpus.jsonl import Row, read_rows
from gtft.corpus.linking.link import parse_actor
from gtft.corpus.sources.block import name_kind, note_drift, read_text
from gtft.corpus.sources.clues import Held, read_time
from gtft.corpus.tally import Tally

_KNOWN = frozenset({"llm_call", "tool_call", "label", "field_change"})
_BAD = frozenset({"bad", "wrong", "reject", "rejected", "negative", "fail", "failed", "no", "-1"})


def read(files: Sequence[InputFile], tally: Tally, claims: Claims) -> Iterator[Conversation]:
    """One conversation per model call that has an answer; one that was judged bad is marked ``denied``.

    Tables: ``records`` (kind), ``dropped`` (reason), ``kept``, ``labels`` (value), ``models``, ``drift``.
    """
    for file in files:
        held = Held(claims)
        labels = _read_labels(file)
        for row in read_rows(file, tally):
            r = row.value
            kind = read_text(r.get("kind"))
            tally.add("records", name_kind(kind))
            reason = ""
            if not isinstance(r.get("id"), str) or kind not in _KNOWN:
                note_drift(f"row {name_kind(kind)}", r, file, row.line, tally)
                reason = "no interaction"
            elif kind == "label":
                tally.add("labels", name_kind(r.get("label"), "none"))
                reason = "label"
            elif kind != "llm_call":
                reason = kind
            elif r.get("error"):
                reason = "failed call"
            elif not read_text(r.get("prompt")).strip() or not read_text(r.get("response")).strip():
                reason = "no prompt or no response"
            elif not held.take(f"interaction {r['id']}"):
                reason = "copy of another call"
            if reason:
                tally.add("dropped", reason)
            else:
                tally.add("kept", kind)
                yield _convert(row, file, labels.get(r["id"], ("", ""))[1], tally)
        held.note(f"interactions:{file.name}")


def _read_labels(file: InputFile) -> dict[str, tuple[str, str]]:
    """The last judgement of each call, with its time."""
    found: dict[str, tuple[str, str]] = {}
    for row in read_rows(file, Tally()):
        r = row.value
        if r.get("kind") == "label" and isinstance(r.get("parent_id"), str):
            said = (read_text(r.get("created_at")), read_text(r.get("label")))
            found[r["parent_id"]] = max(said, found.get(r["parent_id"], said), key=lambda x: x[0])
    return found


def _convert(row: Row, file: InputFile, label: str, tally: Tally) -> Conversation:
    r = row.value
    actor = parse_actor(read_text(r.get("actor")))
    bead = read_text(r.get("issue_id")) or None
    who = Labels(
        role=actor.role if actor else None,
        rig=actor.rig if actor else None,
        actor=actor.actor if actor else None,
        bead=bead,
        rung="interaction" if actor or bead else "none",
        confidence=0.95 if actor else 0.0,
    )
    model = read_text(r.get("model"))
    tally.add("models", name_kind(model, "unknown"))
    mark: Mark = "denied" if label.strip().lower() in _BAD else ""
    when = read_time(r.get("created_at"))
    prompt, response = r["prompt"].strip(), r["response"].strip()
    return Conversation(
        source="interactions",
        file=file.name,
        links=(f"interaction:{r['id']}", *((f"bead:{bead}",) if bead else ())),
        entries=(
            Entry("user", row.line, text=prompt, by="harness"),
            Entry("assistant", row.line, response, response=r["id"], model=model, mark=mark),
        ),
        evidence=Evidence(session=r["id"], candidates=(who,), started=when, ended=when),
        header=prompt,
    )
