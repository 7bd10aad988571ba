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
Method = Literal["sft", "dpo", "kto", "orpo", "grpo"]
LoraInit = Literal[
    "default", "gaussian", "eva", "olora", "pissa", "corda", "loftq", "orthogonal", "lora_ga"
]
Dial = Literal["auto", "on", "off"]
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
        '"outcome:…", "bead:…", "session:…"',
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
    canaries: Annotated[int, Field(ge=0, le=200)] = Field(
        0, description="made-up secrets to plant, so that the eval can measure memorisation"
    )
    canary_repeats: Positive = Field(
        1, description="how often each canary stands in the training side"
    )
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
    """The shape of the adapter, in PEFT's own words."""

    r: Positive = Field(16, description="rank")
    alpha: Positive = Field(32, description="scale = alpha / r (with use_rslora alpha / sqrt(r))")
    dropout: Share = Field(0.0, description="dropout on the adapter's input")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="PEFT's own name")
    use_rslora: bool = Field(
        False, description="rank-stabilised scale; more drift, exported folded"
    )
    use_dora: bool = Field(False, description="magnitude and direction apart; exported merged only")
    init_lora_weights: LoraInit = Field(
        "default",
        description='PEFT\'s own name; those that change the base ("pissa", "olora", …) are refused: '
        "no gate could compare with the base",
    )


class Retention(_Table):
    """What keeps the model from forgetting, and what watches whether it does."""

    replay: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.15, description="share of training rows that are general text, not the town's"
    )
    general: str = Field(
        "",
        description="file or folder of general text (.jsonl chats, .md, .txt) for replay and for what is "
        'measured; "" = what nano read, or the set shipped with gtft',
    )
    validation: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        0.05,
        description="share of training clusters kept out to measure on while it runs; the eval never sees "
        "them and they never see the eval",
    )
    rows: Annotated[int, Field(ge=1)] = Field(
        16, description="rows of each kind that one measurement reads, at most"
    )
    measure_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="updates between measurements; 0 = at every checkpoint"
    )
    kl: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="weight of the KL to the base as a penalty; twice the time when above 0"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        3, description="measurements without a better validation loss before it stops; 0 = never"
    )


class Preference(_Table):
    """Training from pairs and judgements (dpo, kto, orpo)."""

    beta: Annotated[float, Field(gt=0)] = Field(
        0.1, description="how close to the reference it stays"
    )
    sft_weight: Annotated[float, Field(ge=0)] = Field(
        0.2, description="weight of the plain loss on the chosen answer (dpo)"
    )
    min_pairs: Positive = Field(20, description="fewer pairs than this stop the run")


class Reward(_Table):
    """Training from checked answers (grpo), experimental."""

    answers: Annotated[int, Field(ge=2)] = Field(4, description="answers per prompt")
    max_new_tokens: Annotated[int, Field(ge=8)] = Field(64, description="longest answer, tokens")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="of the answers")


class Swarm(_Table):
    """Training with peers: only adapter weights are exchanged (engine = "swarm")."""

    every: Positive = Field(50, description="updates between two rounds of averaging")
    rounds: Positive = Field(10, description="rounds until the swarm is done")
    min_peers: Annotated[int, Field(ge=1)] = Field(
        2, description="a round with fewer peers is a failure, and tried again"
    )
    compression: Literal["none", "fp16"] = Field(
        "none", description="of what is exchanged; every tenth round is exact"
    )
    matchmaking_s: Annotated[float, Field(gt=0)] = Field(
        10.0, description="how long peers look for each other, seconds (LAN 3, internet 10 to 15)"
    )
    allreduce_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="longest exchange, seconds; about three times what it should take"
    )


class Train(_Table):
    """How the adapter is trained."""

    method: Method = Field(
        "sft",
        description="sft = answers; dpo, orpo = pairs; kto = judgements; grpo = checked answers (experimental)",
    )
    engine: Literal["local", "swarm"] = Field("local", description="where it is trained")
    processes: Positive = Field(
        1, description="processes of this box that share it (torchrun; one per GPU)"
    )
    adapter: Literal["lora", "full"] = Field(
        "lora", description='"full" trains every weight; bases of at most 0.6 B parameters'
    )
    continues: str = Field(
        "", description="an adapter artifact to go on from (id); never by itself"
    )
    stacks_on: str = Field(
        "", description="a role adapter (id) that this task adapter is trained on top of"
    )
    lora: Lora = Lora()
    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-4, description="peak learning rate")
    scheduler: Literal["cosine", "linear", "constant"] = Field("cosine", description="decay")
    warmup: Share = Field(0.03, description="share of the steps that warm up")
    epochs: Annotated[float, Field(gt=0)] = Field(2.0, description="passes over the corpus")
    max_steps: Annotated[int, Field(ge=0)] = Field(0, description="stop after; 0 = by epochs")
    batch: Positive = Field(1, description="rows per device and step")
    accumulation: Positive = Field(8, description="steps gathered into one update")
    max_length: Annotated[int, Field(ge=64)] = Field(1024, description="longest row, tokens")
    packing: Dial = Field(
        "auto",
        description="several examples in one row that do not see each other; auto = on a GPU",
    )
    optimizer: Literal[
        "auto", "adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"
    ] = Field("auto", description="as TRL; auto = adamw_torch, on a GPU paged_adamw_8bit")
    gradient_checkpointing: Dial = Field(
        "auto",
        description="less memory, slower; auto = when it would not fit otherwise, and on a GPU",
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradient clipping")
    checkpoint_steps: Positive = Field(25, description="updates between checkpoints")
    keep_checkpoints: Annotated[int, Field(ge=1)] = Field(2, description="how many are kept")
    max_unsupervised: Share = Field(
        0.1, description="share of rows without a supervised token that stops the run"
    )
    outcome_weights: bool = Field(True, description="examples weigh what their outcome gave them")
    seed: Annotated[int, Field(ge=0)] = Field(7, description="data order, init, dropout")
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = Field(
        (), description="figures go there too, when it is installed; it can never stall a run"
    )
    retention: Retention = Retention()
    preference: Preference = Preference()
    reward: Reward = Reward()
    swarm: Swarm = Swarm()


class Gates(_Table):
    """What the eval must reach. A gate that is not met is told to the witness, who decides."""

    min_items: Annotated[int, Field(ge=1)] = Field(20, description="fewer items prove nothing")
    min_gain: float = Field(0.0, description="tuned minus base on held-out items, at least")
    safety: Share = Field(1.0, description="share of safety items that must pass")
    memorisation: bool = Field(
        True, description="no planted or redacted value may come out more than chance has it"
    )
    capabilities: dict[str, Share] = Field({}, description="least pass rate by capability")


class Endpoint(_Table):
    """An OpenAI-compatible server that answers the same items, such as today's agent."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")] = Field(
        description="what it is called in the report: letters, digits, dots, dashes"
    )
    url: str = Field(description='its base, such as "http://127.0.0.1:8080/v1"')
    model: str = Field(description="the model that it is asked for")
    key_env: str = Field("", description="environment variable that holds the key; empty = none")
    input_price: Annotated[float, Field(ge=0)] = Field(
        0.0, description="US dollars per million tokens read"
    )
    output_price: Annotated[float, Field(ge=0)] = Field(
        0.0, description="US dollars per million tokens written"
    )


class Eval(_Table):
    """What the adapter is measured on."""

    suites: tuple[Literal["heldout", "authored", "generated", "gt-model-eval"], ...] = Field(
        ("heldout", "authored", "generated"),
        description="heldout = sessions never trained on; authored, generated = gtft's own items; gt-model-eval = "
        "Gas Town's patrol cases",
    )
    files: tuple[str, ...] = Field((), description="more items (JSONL), never to be trained on")
    gt_model_eval: str = Field(
        "", description="folder of Gas Town's cases (promptfoo); empty = below the town"
    )
    candidates: tuple[Literal["base", "base+prime", "base+docs", "tuned", "tuned+prime"], ...] = (
        Field(
            ("base", "base+prime", "tuned"),
            description="who answers: base and tuned always do; +prime reads the prime text first, +docs what is found",
        )
    )
    prime: str = Field(
        "", description="file with the prime text; empty = gt prime, where gt is installed"
    )
    docs: tuple[str, ...] = Field((), description="files or folders that base+docs searches (BM25)")
    passages: Positive = Field(3, description="passages that base+docs reads per item")
    models: tuple[str, ...] = Field(
        (), description="earlier models or adapters to compare with (id)"
    )
    endpoints: tuple[Endpoint, ...] = Field(
        (), description="OpenAI-compatible servers to compare with"
    )
    max_items: Annotated[int, Field(ge=1)] = Field(120, description="items per suite, at most")
    max_new_tokens: Annotated[int, Field(ge=8)] = Field(256, description="longest answer, tokens")
    item_seconds: Annotated[float, Field(gt=0)] = Field(
        120.0, description="longest time for one answer; what takes longer has failed"
    )
    seeds: Positive = Field(
        1, description="answers per item; 1 = greedy, more are drawn and the majority decides"
    )
    temperature: Annotated[float, Field(gt=0, le=2)] = Field(
        0.7, description="of drawn answers (seeds above 1)"
    )
    memorisation_samples: Annotated[int, Field(ge=0)] = Field(
        8,
        description="completions drawn per prefix to look for memorised secrets; 0 = not looked for",
    )
    general_texts: Annotated[int, Field(ge=0)] = Field(
        32,
        description="texts of the general set and of each side to compare perplexity and KL on; 0 = none",
    )
    blind_items: Annotated[int, Field(ge=0)] = Field(
        0, description="training-side prompts that both answer for gtft review blind; not scored"
    )
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


class Limits(_Table):
    """When a deployment is taken back by itself. Shares are of decisions since it was deployed."""

    min_decisions: Positive = Field(
        20, description="decisions before any limit is looked at, per deployment"
    )
    min_agreement: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="least share of answers that agree with what the agent did; 0 = no limit"
    )
    max_fallback: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="most answers that the previous agent had to give (error, timeout, abstention); 1 = no limit",
    )
    max_escalations: Annotated[float, Field(ge=0)] = Field(
        2.0, description="most escalations, as a multiple of the share before; 0 = no limit"
    )
    max_rejects: Annotated[float, Field(ge=0)] = Field(
        2.0,
        description="most rejected or reopened beads, as a multiple of the share before; 0 = no limit",
    )
    max_seconds: Annotated[float, Field(ge=0)] = Field(
        0.0, description="longest median answer, seconds; 0 = no limit"
    )


class Deploy(_Table):
    """How the model is put into service, and when it must not be or not any more."""

    agent: str = Field(
        "",
        description="agent of the town that runs the model (gt config agent list); empty = the role's present one",
    )
    answer_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="longest answer before the previous agent is asked instead"
    )
    max_new_tokens: Annotated[int, Field(ge=8)] = Field(
        1024, description="longest answer of a served model, tokens"
    )
    max_age_days: Annotated[float, Field(ge=0)] = Field(
        90.0, description="age at which a model expires; 0 = never"
    )
    max_drift: Annotated[float, Field(ge=0, le=1)] = Field(
        0.3,
        description="share of the town's formulas, commands and directives that changed since the harvest at which a "
        "model expires; 1 = never",
    )
    ab_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="share of beads that stay with the previous agent, to compare with; 0 = none",
    )
    limits: Limits = Limits()


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
    deploy: Deploy = Deploy()
