"""The model card: README.md in Hugging Face's format, from `CardFigures` alone."""

from __future__ import annotations

from gtft.artifact import short_id
from gtft.markdown import bullets, code, command, prose, table
from gtft.models.card_making import write_composition, write_recipe
from gtft.models.card_results import summarise_results, write_results
from gtft.models.figures import CardFigures
from gtft.models.front_matter import write_front_matter
from gtft.models.limits import list_limits
from gtft.models.people import Review


def write_card(f: CardFigures) -> str:
    """The whole README. The same figures give the same text; it holds no time but those of the store."""
    parts = [
        write_front_matter(f).rstrip("\n"),
        f"# {prose(f.model)}",
        _write_opening(f),
        _write_use(f),
        _write_limits(f),
        write_results(f),
        write_composition(f),
        write_recipe(f),
        _write_people(f),
        _write_proof(f),
    ]
    return "\n\n".join(parts) + "\n"


def summarise_card(f: CardFigures, plots: tuple[str, ...]) -> dict[str, object]:
    """The card artifact's summary.json."""
    return {
        "model": f.model,
        "role": f.role,
        "run": f.run_id,
        "base": f.adapter.base.hub_id or f.adapter.base.name,
        "licence": f.recipe.card.licence,
        "headline": summarise_results(f),
        "gates_met": all(g.met for g in f.eval.gates),
        "limits": [*list_limits(f), *f.recipe.card.limits],
        "reviewer": f.people.review.reviewer,
        "self_approved": f.people.review.self_approved,
        "plots": list(plots),
    }


def describe_base(f: CardFigures) -> str:
    """What the adapter sits on, in Markdown."""
    base = f.adapter.base
    if base.nano:
        return f"nano, a small model built from scratch on the training side of the corpus ({code(base.name)})"
    if base.hub_id is not None:
        pinned = (
            f" at revision {code(base.revision)}" if base.revision else " (revision not pinned)"
        )
        return code(base.hub_id) + pinned
    return f"a base from a local folder ({code(base.name)})"


def _write_opening(f: CardFigures) -> str:
    a = f.adapter
    whole = a.rank is None
    shape = "A whole model (" if whole else f"A LoRA adapter (rank {a.rank}, "
    what = (
        f"{shape}{a.trainable:,} trained parameters) for the Gas Town role **{prose(f.role)}**. "
        f"It {'started from' if whole else 'sits on'} {describe_base(f)} and was trained by gtft on a town's own history."
    )
    contact = f.recipe.card.contact
    answers = f"Who answers for it: {prose(contact) if contact.strip() else 'not recorded'}."
    return "\n\n".join([what, bullets([prose(line) for line in summarise_results(f)]), answers])


def _write_use(f: CardFigures) -> str:
    """The role and rigs of the recipe, and what the eval itself speaks against."""
    rigs = ", ".join(prose(s.removeprefix("rig:")) for s in f.recipe.scope)
    where = f"the rigs {rigs} of the town" if rigs else "the town"
    meant = [
        f"The work of a {prose(f.role)} in {where} it was trained on, with that town's agents and people as its "
        "readers, and with the agent of before to fall back on."
    ]
    others = [prose(r) for r in f.corpus.by_role if r not in (f.role, "unknown")]
    not_meant = [
        "Other towns, and anything that no one reviews.",
        "Other roles"
        + (f": its examples of {', '.join(others)} were only read along." if others else "."),
    ]
    unmet = [prose(g.name) for g in f.eval.gates if not g.met]
    if unmet:
        not_meant.append(f"Acting by itself (mode live): not met: {', '.join(unmet)}.")
    if f.adapter.base.nano:
        not_meant.append("Any real work: its base is nano, made for trials.")
    return "\n\n".join(["## What it is for", bullets(meant), "Not for:", bullets(not_meant)])


def _write_limits(f: CardFigures) -> str:
    measured = bullets([prose_long(line) for line in list_limits(f)])
    stated = [line for line in f.recipe.card.limits if line.strip()]
    parts = ["## Limits", measured]
    if stated:
        parts += ["Stated by the recipe:", bullets([prose_long(line) for line in stated])]
    return "\n\n".join(parts)


def prose_long(text: str) -> str:
    return prose(text, longest=1500)


def _write_people(f: CardFigures) -> str:
    review = f.people.review
    workers = [
        [stage, ", ".join(code(w) for w in f.people.workers.get(stage, ())) or "not recorded"]
        for stage in ("harvest", "train", "eval")
    ]
    return "\n\n".join(
        [
            "## Who worked and who reviewed",
            table(("stage", "carried out by"), workers),
            f"Dispatched by {code(f.people.dispatched_by)}. {_describe_review(f, review)}",
        ]
    )


def _describe_review(f: CardFigures, review: Review) -> str:
    said = f", saying: “{prose(review.text)}”" if review.text.strip() else ""
    accepted = f"The eval was accepted by {code(review.reviewer)} on {prose(review.at)}{said}."
    if review.self_approved:
        return (
            f"{accepted} **{prose(review.reviewer)} also worked on this run: this is not an independent "
            "review.**"
        )
    return f"{accepted} The reviewer carried out none of the stages."


def _write_proof(f: CardFigures) -> str:
    rows = [[kind, code(i)] for kind, i in f.artifact_ids.items()]
    rows += [["base", code(f.adapter.base.id)], ["recipe", code(f.recipe_hash)]]
    shown = "\n".join(
        (
            command("gtft", "model", "show", f.model),
            command("gtft", "model", "card", f.model, "--out", "card"),
            command("gtft", "runs", "show", f.run_id),
            command("gtft", "corpus", "show", short_id(f.corpus.id)),
            command("gtft", "eval", "show", short_id(f.eval.id)),
            command("gtft", "doctor"),
        )
    )
    return "\n\n".join(
        [
            "## How to verify",
            "Every figure above was read from gtft's store, where it was recorded with these artifacts. "
            "An id is the sha256 of the artifact's `artifact.json` without its `id`, as canonical JSON; that file "
            "holds the sha256 of every file beside it.",
            table(("what", "id"), rows),
            "In the town's workspace (`gtft model card` hashes the card and its files again and writes what has "
            f"happened to the model since):\n\n```sh\n{shown}\n```",
        ]
    )
