"""The card is valid for the Hub, says what the store says, and nothing in the store can break it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from card_case import (
    ADAPTER,
    CONSENT,
    CORPUS,
    EVAL,
    FOUND,
    RETENTION,
    RUN,
    WORKER,
    Case,
)
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import validate_repo_id
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from gtft.markdown import code, command, plain, prose, table
from gtft.models.card import summarise_card, write_card
from gtft.models.card_making import hide_folders
from gtft.models.corpus_figures import RigConsent
from gtft.models.eval_figures import Finding, Grid
from gtft.models.figures import CardFigures, gather_figures
from gtft.models.front_matter import LICENCES, write_front_matter

HOSTILE = (
    "---\nlicense: mit\n---",
    "a | b | c\n| --- |",
    "</td><script>alert(1)</script>",
    "![x](http://evil.example/x.png) [y](javascript:z) www.evil.example me@evil.example",
    "```\n# A heading\n```",
    "# heading",
    "1. list",
    "- item",
    "\u202egnp.exe\u200b\x00\x1b[31m",
    "\ud800 lone",
    "$\\frac{1}{0}$",
    "*b* _i_ ~~s~~ `c` \\",
    "'; rm -rf / #",
    "yes",
    "{{ card_data }}",
    "&lt;x&gt; & <!-- -->",
    "",
)


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> CardFigures:
    case = Case(
        tmp_path_factory.mktemp("ws"),
        summaries={
            "harvest": {**CORPUS, "consent": CONSENT},
            "train": {**ADAPTER, "retention": RETENTION},
            "eval": {**EVAL, **FOUND},
        },
        sets=["train.epochs=3"],
        durations={"train": 210.0},
        recipe={
            "scope": ["rig:gizmo", "rig:harbor"],
            "card": {"licence": "apache-2.0", "limits": ["A trial on a made-up town."]},
            "harvest": {
                "sources": [
                    {"type": "claude-code", "path": "town/transcripts"},
                    {"type": "beads", "path": "/home/somebody/beads", "licence": "mit"},
                ]
            },
        },
    )
    return gather_figures(case.fill(), RUN)


def parse(card: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(ModelCard(card).text)


def list_tokens(tokens: list[Token]) -> list[Token]:
    return [t for token in tokens for t in (token, *(token.children or ()))]


def test_front_matter_is_what_the_hub_reads(figures: CardFigures, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(write_card(figures), "utf-8")
    head = metadata_load(path)
    assert head is not None
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "peft"
    assert head["pipeline_tag"] == "text-generation"
    assert head["language"] == "en"
    assert {"gtft", "gas-town", "role-witness", "qlora"} <= set(head["tags"])
    # nano is nothing the Hub could link to
    assert "base_model" not in head
    card = ModelCard(path.read_text("utf-8"))
    assert isinstance(card.data, ModelCardData)
    assert card.data.to_dict() == head
    assert card.data.model_name == figures.model


def test_model_index_holds_the_store_s_figures(figures: CardFigures) -> None:
    data = ModelCard(write_card(figures)).data
    results = {(r.dataset_type, r.dataset_config): r for r in data.eval_results}
    assert len(results) == 6
    whole = results["gtft-heldout", None]
    assert whole.metric_type == "accuracy" and whole.metric_value == 0.75
    assert whole.metric_args == {"items": 52, "interval_95": [0.6, 0.9], "base": 0.0192}
    assert results["gtft-authored", "formula"].metric_value == 0


def test_a_hub_base_is_linked(figures: CardFigures) -> None:
    base = replace(
        figures.adapter.base, hub_id="Qwen/Qwen3-0.6B", name="Qwen/Qwen3-0.6B", nano=False
    )
    hub = replace(figures, adapter=replace(figures.adapter, base=base))
    card = ModelCard(write_card(hub))
    assert card.data.base_model == "Qwen/Qwen3-0.6B"
    assert card.data.base_model_relation == "adapter"
    validate_repo_id(card.data.base_model)
    assert "revision not pinned" in card.text


@pytest.mark.parametrize(
    ("given_licence", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("other", {"license": "other"}),
        ("Town Licence 1.0", {"license": "other", "license_name": "town-licence-1.0"}),
        ("mit\n---\nx: y", {"license": "other", "license_name": "mit-x-y"}),
    ],
)
def test_licences_are_the_hub_s_or_named(
    figures: CardFigures, given_licence: str, fields: dict[str, str]
) -> None:
    recipe = figures.recipe.model_copy(
        update={"card": figures.recipe.card.model_copy(update={"licence": given_licence})}
    )
    head = ModelCard(write_front_matter(replace(figures, recipe=recipe))).data.to_dict()
    assert {k: v for k, v in head.items() if k.startswith("license")} == fields
    assert head["license"] in LICENCES


def test_the_card_says_what_the_store_says(figures: CardFigures) -> None:
    text = write_card(figures)
    for told in (
        "75 % of 52 items passed, base 2 %",
        "| patrol-decision | 40 | 0 % (0–15) | 80 % (65–95) | +80 (+70 to +90) | < 0.001 |",
        "240 examples for training and 60 held out",
        "github-token 4",
        "e-mail 7",
        "exact duplicate 3, near-duplicate 2",
        "By rig: gizmo 150, harbor 90.",
        "By provenance: agent 200, human 40.",
        "Shared with what it was measured on: shared clusters 0.",
        "12,000 trained tokens",
        "2 rows without a trained token",
        "effort `standard`, seed 7",
        "`--set train.epochs=3`",
        "accepted by `gizmo/witness` on 2026-03-01 09:15 UTC",
        "carried out none of the stages",
        "**not met**",
        "| safety | at least 100 % of the safety items; measured 7 of 12 |",
        "Scored items that stand in the training set, whole or nearly: 0. 1 items were left out",
        "shares 41 % of its five-word pieces",
        "Not scored: no check fits 3.",
        "decoding greedy, at most 96 new tokens",
        "A trial on a made-up town.",
        f"gtft model show {figures.model}",
        f"gtft runs show {RUN}",
        *figures.artifact_ids.values(),
        figures.recipe_hash,
    ):
        assert told in text, told


def test_the_card_says_for_whom_at_what_cost_and_with_whose_consent(figures: CardFigures) -> None:
    text = write_card(figures).replace("\\", "")
    for told in (
        "- The work of a witness in the rigs gizmo, harbor of the town it was trained on",
        "Acting by itself (mode live): not met: safety.",
        "its examples of polecat were only read along",
        "Consent: the recipe's scope is gizmo, harbor. Used, and what allowed it: gizmo (the run's own rig), "
        "harbor (a standing consent until 2026-12-31). Left out: lantern (outside the recipe's scope).",
        "| 0 (base) | 2.500 | 1.000 | 0.000 |",
        "| 40 **kept** | 0.750 | 1.120 | 0.230 |",
        "Machine of the training: 2 cores, 22.9 GiB of memory, no GPU. The runner said of the training: 40 steps, 823.9 MiB of memory at most.",
        "| train | 3.5 min | 2 |",
        "| tuned+prime | 80 % (70–90) of 52 | not asked |",
        "gtft corpus show ",
        "gtft model card ",
    ):
        assert told in text, told
    bare = replace(
        figures,
        cost=replace(figures.cost, machine=None, told=""),
        corpus=replace(figures.corpus, consent=None),
        adapter=replace(figures.adapter, measured=()),
        eval=replace(figures.eval, candidates=figures.eval.candidates[:2]),
    )
    text = write_card(bare)
    assert "Machine of the training: not recorded. Time from" in text
    assert "What the rigs were asked: not recorded." in text
    assert "What it kept while" not in text and "Everyone who answered" not in text


def test_what_may_be_missing_is_said_to_be(figures: CardFigures) -> None:
    bare = replace(
        figures,
        corpus=replace(figures.corpus, by_rig=None, by_provenance=None, leakage=None),
        eval=replace(figures.eval, in_training=None, overlap=None, unscored=None, gates=()),
    )
    text = write_card(bare)
    for told in ("By rig", "By provenance", "Shared with what it was measured on"):
        assert f"{told}: not recorded." in text
    assert "Items that training holds: not recorded." in text
    assert "The recipe sets none." in text
    kinds = replace(figures, corpus=replace(figures.corpus, by_kind={"patrol": 9}))
    assert "By kind: patrol 9." in write_card(kinds) and "By kind" not in text


def test_the_card_repeats_what_the_eval_found(figures: CardFigures) -> None:
    text = write_card(figures).replace("\\", "")
    for told in (
        "Its advice: do not deploy, because 5 of 12 safety items fail.",
        "### Who answered the same items",
        "| base | 2 % (0–10) of 52 |",
        "It gives away text that it was trained on",
        "endpoint:today does better than it by 20 points",
        "Prompting alone gets 60 %.",
        "Fit: it forgets.",
        "abstains or escalates in 35 %",
    ):
        assert told in text, told


def test_a_suite_without_a_safety_item_says_so(figures: CardFigures) -> None:
    _, authored = figures.eval.suites
    assert "Held-out sessions: 12 items, tuned 58 %" in write_card(figures)
    text = write_card(replace(figures, eval=replace(figures.eval, suites=(authored,))))
    assert "Not measured: the suites hold no safety item." in text


def test_the_card_names_no_folder_of_the_machine(figures: CardFigures, tmp_path: Path) -> None:
    changes = ("--set base.model=/home/somebody/models/qwen", "overlay C:\\Users\\al\\more.toml")
    text = write_card(replace(figures, changes=changes))
    assert "somebody" not in text and "Users" not in text
    assert "`…/beads`" in text and "…/qwen" in text and "…/more.toml" in text
    assert str(tmp_path) not in text
    assert hide_folders("town/transcripts and a/b") == "town/transcripts and a/b"


def test_an_approval_by_the_worker_is_said_loudly(figures: CardFigures) -> None:
    review = replace(figures.people.review, reviewer=WORKER, self_approved=True)
    text = write_card(replace(figures, people=replace(figures.people, review=review)))
    assert "this is not an independent review" in text
    assert "carried out none of the stages" not in text


def test_pictures_with_alt_text(figures: CardFigures) -> None:
    images = [t for t in list_tokens(parse(write_card(figures))) if t.type == "image"]
    assert [t.attrs["src"] for t in images] == [
        "plots/eval.png",
        "plots/candidates.png",
        "plots/composition.png",
        "plots/loss.png",
    ]
    assert "patrol-decision base 0 %, tuned 80 % (n = 40)" in images[0].content
    assert "base+prime heldout 60 %" in images[1].content
    assert "witness 120" in images[2].content
    assert "from 3.50 to 0.75" in images[3].content


def test_the_summary_is_small_and_plain(figures: CardFigures) -> None:
    summary = summarise_card(figures, ("plots/loss.png",))
    assert summary["model"] == figures.model
    assert summary["gates_met"] is False
    assert summary["reviewer"] == "gizmo/witness"
    assert "A trial on a made-up town." in summary["limits"]  # type: ignore[operator]


def outline(tokens: list[Token]) -> list[str]:
    """Headings and tables, in their order."""
    return [t.tag for t in tokens if t.type in ("heading_open", "table_open")]


@pytest.fixture(scope="module")
def honest(figures: CardFigures) -> list[str]:
    return outline(parse(write_card(figures)))


def poison(f: CardFigures, text: str) -> CardFigures:
    """Every name and sentence of the store that a stranger may choose."""
    suite = f.eval.suites[0]
    first, *others = suite.capabilities
    measured = replace(
        f.eval,
        verdict=text,
        decoding=text,
        unscored={text: 1},
        suites=(
            replace(suite, capabilities=(replace(first, name=text), *others)),
            *f.eval.suites[1:],
        ),
        gates=(replace(f.eval.gates[0], name=text, told=text), *f.eval.gates[1:]),
        advice=text,
        reasons=(text,),
        prompting=text,
        against=(replace(f.eval.against[0], other=text, suite=text),),
        fit_warnings=(text,),
        findings=(Finding(text, (text, Grid((text, text), ((text, text), (text, text))))),),
        candidates=(replace(f.eval.candidates[0], name=text), *f.eval.candidates[1:]),
    )
    corpus = replace(
        f.corpus,
        by_role={**f.corpus.by_role, text: 1},
        by_rig={text: 5},
        dropped={text: 2},
        secrets={text: 2},
        consent=(RigConsent(text, True, text), RigConsent(text, False, text)),
    )
    base = replace(f.adapter.base, name=text, nano=False, revision=text, quantization=text)
    people = replace(
        f.people,
        dispatched_by=text,
        workers={"harvest": (text,), "train": (text, text), "eval": ()},
        review=replace(f.people.review, reviewer=text, text=text),
    )
    source = f.recipe.harvest.sources[0].model_copy(update={"path": text, "licence": text})
    recipe = f.recipe.model_copy(
        update={
            "card": f.recipe.card.model_copy(
                update={"licence": text, "contact": text, "limits": (text,)}
            ),
            "harvest": f.recipe.harvest.model_copy(update={"sources": (source,)}),
            "scope": (f"rig:{text}", text),
        }
    )
    adapter = replace(f.adapter, base=base, hyperparameters={text: text, "x": {text: [text]}})
    return replace(
        f, model=f"{text}-0", role=text, run_id=text, recipe_name=text, changes=(text,), people=people,
        cost=replace(f.cost, machine=text, told=text), corpus=corpus, adapter=adapter, eval=measured, recipe=recipe,
    )  # fmt: skip


def check_whole(card: str, honest: list[str]) -> None:
    """The same shape as an honest card: headings, tables, pictures; no markup from outside."""
    card.encode("utf-8")
    read = ModelCard(card)
    assert set(read.data.to_dict()) <= {
        "language", "library_name", "license", "license_name", "pipeline_tag", "tags", "model-index",
    }  # fmt: skip
    assert read.data.license in LICENCES
    assert len(read.data.eval_results) == 6
    assert all(re.fullmatch(r"[a-z0-9.+-]+", tag) for tag in read.data.tags)
    found = list_tokens(parse(card))
    kinds = [t.type for t in found]
    assert not {"html_block", "html_inline", "link_open"} & set(kinds)
    assert kinds.count("image") == 4
    assert outline(found) == honest
    fences = [t for t in found if t.type == "fence"]
    assert len(fences) == 1 and len(fences[0].content.splitlines()) == 6
    assert kinds.count("code_block") == 0
    assert not {"\x00", "\u202e", "\u200b", "\x1b"} & set(card)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_cannot_break_the_card(
    figures: CardFigures, honest: list[str], text: str
) -> None:
    check_whole(write_card(poison(figures, text)), honest)


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(), max_size=60))
def test_no_text_breaks_the_card(figures: CardFigures, honest: list[str], text: str) -> None:
    check_whole(write_card(poison(figures, text)), honest)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(), max_size=80))
def test_escaped_text_is_one_inert_line(text: str) -> None:
    parser = MarkdownIt("commonmark").enable("table")
    shown = plain(text)
    (paragraph,) = [t for t in parser.parse(f"x {prose(text)} x") if t.type == "inline"]
    assert paragraph.content.count("\n") == 0
    children = paragraph.children or []
    assert {c.type for c in children} <= {"text", "text_special"}
    assert "".join(c.content for c in children) == f"x {shown} x"
    rows = parser.parse(table(("a", "b"), [[prose(text), code(text)]]))
    assert [t.type for t in rows].count("td_open") == 2
    assert "\n" not in command("gtft", text)
