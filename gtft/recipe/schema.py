"""The typed ``[gtft…]`` tables of a formula. Every default stands here and nowhere else."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Effort = Literal["quick", "standard", "thorough"]
SourceType = Literal[
    "auto",
    "claude-code",
    "codex",
    "gemini",
    "opencode",
    "pi",
    "beads",
    "formulas",
    "docs",
    "interactions",
    "events",
    "costs",
]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Nano(_Table):
    """The base that gtft builds from scratch on the town's own text, for trials without a download."""

    vocab: Annotated[int, Field(ge=512, le=65536)] = Field(
        2048, description="size of the byte-level BPE vocabulary"
    )
    hidden: Annotated[int, Field(ge=32, le=2048)] = Field(192, description="width of the model")
    layers: Annotated[int, Field(ge=1, le=32)] = Field(4, description="transformer layers")
    heads: Positive = Field(6, description="attention heads")
    context: Annotated[int, Field(ge=128, le=8192)] = Field(1024, description="longest row, tokens")
    steps: Annotated[int, Field(ge=0)] = Field(
        300, description="optimizer steps on the town's text (0 = random weights)"
    )


class Base(_Table):
    """The model that the adapter is trained on, and how it is loaded."""

    model: str = Field("nano", description='a hub id, a local path, or "nano"')
    revision: str | None = Field(None, description="git revision of a hub id; pin it")
    quantization: Literal["nf4", "none"] = Field("nf4", description="how the base is stored")
    nano: Nano = Nano()


class Source(_Table):
    """One place that history is read from."""

    type: SourceType = Field(description='which reader; "auto" = what the content says')
    path: str = Field(description="file or folder; relative to where gtft runs")
    licence: str = Field("own", description='licence of the text, as SPDX id; "own" = the town\'s')
    rig: str | None = Field(None, description="the rig it belongs to, where files do not say")


class Redaction(_Table):
    """What is hidden besides what the rules know."""

    names: tuple[str, ...] = Field(
        (), description="names of people, hidden wherever they stand as whole words"
    )
    hosts: tuple[str, ...] = Field((), description="host names, hidden wherever they stand")
    rules: tuple[str, ...] = Field((), description="more rules: gitleaks TOML, kingfisher files")
    settings: tuple[str, ...] = Field(
        (), description="files such as .env whose values are hidden wherever they stand"
    )
    on_hit: Literal["quarantine", "stop"] = Field(
        "quarantine", description="what a secret does that the second reader still finds"
    )


class Harvest(_Table):
    """What is read, and how it becomes a corpus."""

    sources: tuple[Source, ...] = Field((), description="what is read")
    select: tuple[str, ...] = Field(
        (),
        description='only what fits: "type:…", "rig:…", "role:…", "since:…", "until:…", "label:…", '
        '"outcome:…", "bead:…"',
    )
    licences: tuple[str, ...] = Field((), description="licences to accept that gtft would refuse")
    min_examples: Annotated[int, Field(ge=1)] = Field(
        20, description="fewer training examples than this stop the run"
    )
    heldout: Share = Field(0.2, description="share of clusters kept away from training")
    window_tokens: Annotated[int, Field(ge=128, le=32768)] = Field(
        4096, description="longest segment of a session, estimated tokens (4 characters each)"
    )
    tool_result_chars: Annotated[int, Field(ge=80)] = Field(
        2000, description="head and tail kept of a tool result"
    )
    near_duplicate: Share = Field(
        0.8, description="Jaccard of word 5-grams from which two examples are the same"
    )
    outcomes: dict[str, Annotated[float, Field(ge=0.0, le=10.0)]] = Field(
        {}, description="weight by outcome, over the shipped table; 0 leaves it out"
    )
    own_model: Share = Field(0.0, description="largest share written by gtft's own models")
    scenarios: Annotated[int, Field(ge=0)] = Field(
        0, description="made-up decision examples to add, for small towns"
    )
    synthetic: Share = Field(0.3, description="largest share that may be made up")
    suites: tuple[str, ...] = Field(
        (), description="more eval items (JSONL or promptfoo YAML) that training must not hold"
    )
    workers: Annotated[int, Field(ge=0)] = Field(0, description="processes; 0 = every core")
    redaction: Redaction = Redaction()


class Lora(_Table):
    """The shape of the adapter."""

    r: Positive = Field(16, description="rank")
    alpha: Positive = Field(32, description="scale = alpha / r")
    dropout: Share = Field(0.0, description="dropout on the adapter's input")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="PEFT's own name")


class Train(_Table):
    """How the adapter is trained."""

    method: Literal["sft"] = Field("sft", description="how the adapter is trained")
    engine: Literal["local"] = Field("local", description="where it is trained")
    lora: Lora = Lora()
    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-4, description="peak learning rate")
    scheduler: Literal["cosine", "linear", "constant"] = Field("cosine", description="decay")
    warmup: Share = Field(0.03, description="share of the steps that warm up")
    epochs: Annotated[float, Field(gt=0)] = Field(2.0, description="passes over the corpus")
    max_steps: Annotated[int, Field(ge=0)] = Field(0, description="stop after; 0 = by epochs")
    batch: Positive = Field(1, description="rows per device and step")
    accumulation: Positive = Field(8, description="steps gathered into one update")
    max_length: Annotated[int, Field(ge=64)] = Field(1024, description="longest row, tokens")
    optimizer: Literal["adamw_torch", "adamw_8bit"] = Field("adamw_torch", description="as TRL")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradient clipping")
    checkpoint_steps: Positive = Field(25, description="updates between checkpoints")
    keep_checkpoints: Annotated[int, Field(ge=1)] = Field(2, description="how many are kept")
    gradient_checkpointing: bool = Field(False, description="less memory, slower")
    max_unsupervised: Share = Field(
        0.1, description="share of rows without a supervised token that stops the run"
    )
    seed: Annotated[int, Field(ge=0)] = Field(7, description="data order, init, dropout")


class Gates(_Table):
    """What the eval must reach. A gate that is not met is told to the witness, who decides."""

    min_items: Annotated[int, Field(ge=1)] = Field(20, description="fewer items prove nothing")
    min_gain: float = Field(0.0, description="tuned minus base on held-out items, at least")
    safety: Share = Field(1.0, description="share of safety items that must pass")
    capabilities: dict[str, Share] = Field({}, description="least pass rate by capability")


class Eval(_Table):
    """What the adapter is measured on."""

    suites: tuple[Literal["heldout", "authored"], ...] = Field(
        ("heldout", "authored"),
        description="heldout = sessions never trained on; authored = templates never trained on",
    )
    max_items: Annotated[int, Field(ge=1)] = Field(120, description="items per suite, at most")
    max_new_tokens: Annotated[int, Field(ge=8)] = Field(96, description="longest answer, tokens")
    gates: Gates = Gates()


class Card(_Table):
    """What the model card states besides what was measured."""

    licence: str = Field("other", description="licence of the adapter, as a Hub id")
    contact: str = Field("", description="who answers for this model")
    limits: tuple[str, ...] = Field((), description="limits to state besides the measured ones")


class Review(_Table):
    """Who decides on the eval."""

    approvers: tuple[str, ...] = Field(
        ("witness",), description="who may review the eval: roles, or full actor names"
    )
    self_approval: bool = Field(False, description="may the worker approve; the card says so")


class Notify(_Table):
    """Who is told what."""

    verbosity: Literal["quiet", "normal", "loud"] = Field("normal", description="what is told")
    to: tuple[str, ...] = Field(("mayor/",), description="mail addresses")


class Retrain(_Table):
    """When the sweep dispatches this recipe again by itself, after a run of it is done."""

    enabled: bool = Field(False, description="may the sweep dispatch it again")
    min_new_sessions: Annotated[int, Field(ge=0)] = Field(
        50,
        description="closed beads with their sessions since the last harvest that call for it; 0 = never",
    )
    max_age_days: Annotated[float, Field(ge=0)] = Field(
        30.0, description="age of the role's newest model that calls for it; 0 = never"
    )
    budget_runs: Positive = Field(1, description="runs dispatched by the sweep in 7 days, at most")


class Recipe(_Table):
    """The whole ``[gtft]`` table, after variables, effort and overlays."""

    role: str = Field(description="the Gas Town role that the model is for")
    scope: tuple[str, ...] = Field((), description='whose data, as "rig:NAME"')
    effort: Effort = Field("standard", description="one dial; explicit keys win over it")
    base: Base = Base()
    harvest: Harvest = Harvest()
    train: Train = Train()
    eval: Eval = Eval()
    card: Card = Card()
    review: Review = Review()
    notify: Notify = Notify()
    retrain: Retrain = Retrain()
