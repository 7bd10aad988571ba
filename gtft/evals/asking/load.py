"""Loading what is evaluated: one base as it was trained on, with the adapter that can be switched off.

A task adapter is loaded on top of its role, which then is what it is compared with. A full training has nothing
to switch off: its base is loaded beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, hash_file, short_id, verify_artifact
from gtft.errors import BaseMissing, EvidenceError, UsageError, translate_os_error
from gtft.shelf import find_on_shelf
from gtft.weights import inspect_weights, list_loaded

ADAPTER = "adapter_model.safetensors"
# Of a full training: all weights, in place of an adapter.
WHOLE = "model.safetensors"
# Bytes of bfloat16 weights up to which 4-bit layers are kept unpacked while answering.
_MOST_UNPACKED = 1 << 30


@dataclass(frozen=True)
class BaseRecord:
    """``base.json`` of an adapter: which base it was trained on, by content; ``stacks_on``: on top of which
    role adapter (id), "" for none."""

    name: str
    id: str
    path: str
    revision: str | None
    quantization: str
    files: dict[str, str]
    stacks_on: str = ""


@dataclass(frozen=True)
class Candidates:
    """Both candidates. ``model`` is the tuned one; ``plain`` its base, where it had to be loaded apart.
    ``stacked``: the adapter lies on top of a role's. ``context`` in tokens. ``base`` and ``adapter``: ids.

    ``beside``: earlier models on the same base, by id. They share ``model``, where their adapters have names that
    begin with ``mark``.
    """

    model: Any
    tokenizer: Any
    context: int
    quantized_layers: int
    plain: Any = None
    stacked: bool = False
    base: str = ""
    adapter: str = ""
    mark: str = ""
    beside: Mapping[str, Candidates] = field(default_factory=dict)

    @contextmanager
    def answering(self, *, as_base: bool) -> Iterator[Any]:
        """The model that answers: tuned, or what it is compared with."""
        if self.plain is not None:
            yield self.plain if as_base else self.model
            return
        tuned = _name_adapters(self.mark, self.stacked)
        wanted = tuned[:-1] if as_base else tuned
        if not wanted:
            with self.model.disable_adapter():
                yield self.model
            return
        before = list(self.model.base_model.active_adapters)
        if wanted != before:
            self.model.base_model.set_adapter(wanted, inference_mode=True)
        try:
            yield self.model
        finally:
            if wanted != before:
                self.model.base_model.set_adapter(before, inference_mode=True)


def read_base(adapter: Artifact) -> BaseRecord:
    """Raises EvidenceError when the adapter does not say what it was trained on."""
    if not any(f.name == WHOLE for f in adapter.files):
        adapter.file(ADAPTER)
    path = adapter.file("base.json")
    try:
        doc = json.loads(path.read_text("utf-8"))
        return BaseRecord(
            str(doc["name"]),
            str(doc["id"]),
            str(doc["path"]),
            doc["revision"],
            str(doc["quantization"]),
            dict(doc["files"]),
            str(doc.get("stacks_on", "")),
        )
    except OSError as e:
        raise translate_os_error(e, "reading base.json") from e
    except (ValueError, KeyError, TypeError) as e:
        raise EvidenceError(
            f"{path} does not describe a base model", why=repr(e), fix="gtft runs resume RUN"
        ) from e


def find_base(record: BaseRecord, workspace: Path, root: Path) -> Path:
    """The base's folder, every file hashed again, and none added that loading would take in.

    Looks below the workspace, below ``root``, at the path as given, then in the hub's cache. Raises BaseMissing,
    or EvidenceError when it is not the base that the adapter was trained on, or a folder that could run code.
    """
    given = Path(record.path).expanduser()
    places = [given] if given.is_absolute() else [workspace / given, root / given]
    folder = next((p for p in places if (p / "config.json").is_file()), None)
    if folder is None:
        folder = _find_cached(record)
    inspect_weights(folder)
    for name, sha256 in record.files.items():
        path = folder / name
        if not path.is_file():
            raise EvidenceError(
                f"the base {record.name} has no {name}",
                why="the adapter was trained on a base that has it",
                fix="gtft runs resume RUN",
            )
        if hash_file(path) != sha256:
            raise EvidenceError(
                f"the base {record.name} has changed since the adapter was trained",
                why=f"the sha256 of {name} differs from the one in base.json",
                fix="gtft doctor",
            )
    for name in list_loaded(folder):
        if name not in record.files:
            raise EvidenceError(
                f"the base {record.name} has changed since the adapter was trained",
                why=f"{name} was added; the adapter was trained on a base without it",
                fix=f"take {name} out of the base's folder",
            )
    return folder


def find_role(record: BaseRecord, artifacts: Path) -> Artifact | None:
    """The role adapter below a task adapter, hashed again; None when there is none.

    Raises EvidenceError when it is not on the shelf any more.
    """
    if not record.stacks_on:
        return None
    try:
        found = find_on_shelf(artifacts, "adapter", record.stacks_on)
    except UsageError as e:
        raise EvidenceError(
            "the role adapter that this adapter lies on top of is not here any more",
            why=e.what,
            fix="gtft doctor",
        ) from e
    return verify_artifact(found.path, kind="adapter", expect=record.stacks_on)


def load_candidates(
    adapter: Artifact,
    record: BaseRecord,
    folder: Path,
    role: Artifact | None = None,
    beside: Sequence[tuple[Artifact, Artifact | None]] = (),
) -> Candidates:
    """Load base and adapter for answering; ``role``: the adapter below it (`find_role`).

    The base is stored as it was in training (NF4, bfloat16 compute), because another storage is another
    model; the tokenizer and its template are the adapter's own. ``beside``: earlier models of the same base, each with
    its role, to be asked too. Raises UsageError when one has another base.
    """
    records = [read_base(other) for other, _ in beside]
    for (other, _), its in zip(beside, records, strict=True):
        if its.id != record.id:
            raise UsageError(
                f"the model {short_id(other.id)} has another base",
                why=f"it was trained on {its.name}, this one on {record.name}",
                fix="leave it out of eval.models",
            )
    _inspect(adapter, role)
    tokenizer = load_tokenizer(adapter)
    base = _load_model(folder, record)
    guarded = _guard(base) if record.quantization == "nf4" else 0
    context = _read_context(base, tokenizer)
    ids: dict[str, Any] = {"base": record.id, "adapter": adapter.id}
    found: dict[str, Candidates] = {}
    if is_whole(adapter):
        tuned = _load_model(adapter.path, record)
        for (other, its_role), its in zip(beside, records, strict=True):
            found[other.id] = load_candidates(other, its, folder, its_role)
        return Candidates(tuned, tokenizer, context, guarded, base, **ids, beside=found)
    model = _attach(base, adapter, role)
    for (other, its_role), its in zip(beside, records, strict=True):
        if shares(other, its_role, its, model, record):
            found[other.id] = _add(other, its_role, its, model, context, guarded)
        else:
            found[other.id] = load_candidates(other, its, folder, its_role)
    model.eval()
    made = Candidates(
        model, tokenizer, context, guarded, stacked=role is not None, **ids, beside=found
    )
    if guarded and model.device.type == "cpu":
        unpack_linear4bit(made)
    return made


def add_candidate(
    loaded: Candidates, other: Artifact, record: BaseRecord, role: Artifact | None
) -> Candidates:
    """Another model on the base of ``loaded``, which holds its adapters from now on (it must, `shares`)."""
    model = loaded.model
    packed = pack_again(model)
    added = _add(other, role, record, model, loaded.context, loaded.quantized_layers)
    model.eval()
    if packed:
        unpack_linear4bit(replace(loaded, beside={**loaded.beside, other.id: added}))
    return added


def remove_candidate(loaded: Candidates) -> None:
    """Take what `add_candidate` or ``beside`` added out of the model; its first adapters stay."""
    for name in _name_adapters(loaded.mark, loaded.stacked):
        loaded.model.delete_adapter(name)


def _add(
    other: Artifact, role: Artifact | None, its: BaseRecord, model: Any, context: int, guarded: int
) -> Candidates:
    _inspect(other, role)
    mark = f"{short_id(other.id)}-"
    names = _name_adapters(mark, role is not None)
    paths = [role.path, other.path] if role else [other.path]
    tokenizer = load_tokenizer(other)
    for name, path in zip(names, paths, strict=True):
        model.load_adapter(path, name, is_trainable=False)
    ids: dict[str, Any] = {"base": its.id, "adapter": other.id}
    return Candidates(
        model, tokenizer, context, guarded, stacked=role is not None, **ids, mark=mark
    )


def _inspect(*adapters: Artifact | None) -> None:
    """What is on the shelf was hashed, but anyone can make an artifact."""
    for adapter in adapters:
        if adapter is not None:
            inspect_weights(adapter.path)


def _load_model(folder: Path, record: BaseRecord) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings: dict[str, Any] = {}
    if record.quantization == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    settings |= {
        "trust_remote_code": False,
        "use_safetensors": True,
        "local_files_only": True,
        "dtype": "auto",
        "device_map": {"": 0} if torch.cuda.is_available() else {"": "cpu"},
    }
    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()


def load_tokenizer(adapter: Artifact) -> Any:
    """The adapter's own, with the chat template that it was trained with. Raises EvidenceError without one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        adapter.path, trust_remote_code=False, local_files_only=True
    )
    if not tokenizer.chat_template:
        raise EvidenceError(
            f"the adapter at {adapter.path} has no chat template",
            why="its prompts could not be written as they were trained",
            fix="gtft runs resume RUN",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def _read_context(model: Any, tokenizer: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 0) or tokenizer.model_max_length)


def is_whole(adapter: Artifact) -> bool:
    """Whether it is a full training: all weights, and no adapter."""
    return any(f.name == WHOLE for f in adapter.files)


def shares(
    other: Artifact, role: Artifact | None, its: BaseRecord, model: Any, record: BaseRecord
) -> bool:
    """Whether an earlier model can lie in ``model`` beside its adapter: stored alike, and adapters of one kind."""
    from peft import PeftConfig

    if is_whole(other) or its.quantization != record.quantization:
        return False
    kinds = {PeftConfig.from_pretrained(a.path).peft_type for a in (other, role) if a is not None}
    kinds |= {c.peft_type for c in model.peft_config.values()}
    return len(kinds) == 1


def _attach(base: Any, adapter: Artifact, role: Artifact | None) -> Any:
    from peft import PeftModel

    names = _name_adapters("", role is not None)
    if role is None:
        return PeftModel.from_pretrained(
            base, adapter.path, adapter_name=names[0], is_trainable=False
        )
    model = PeftModel.from_pretrained(base, role.path, adapter_name=names[0], is_trainable=False)
    model.load_adapter(adapter.path, names[1], is_trainable=False)
    model.base_model.set_adapter(names, inference_mode=True)
    return model


def _name_adapters(mark: str, stacked: bool) -> list[str]:
    """The adapters of a tuned model, the lowest first."""
    return [f"{mark}role", f"{mark}task"] if stacked else [f"{mark}default"]


def unpack_linear4bit(loaded: Candidates) -> int:
    """Keep small NF4 layers dequantized on a CPU, where unpacking at every token is most of the time.

    The 4-bit values stay what they are and the arithmetic is the same; that is proven by comparing every logit of a probe,
    with and without each adapter. If one differs, the layers stay packed. Returns how many were unpacked.
    """
    import bitsandbytes
    import torch

    layers = [
        (parent, name, child)
        for parent in loaded.model.modules()
        for name, child in parent.named_children()
        if isinstance(child, bitsandbytes.nn.Linear4bit) and not hasattr(child, "base_layer")
    ]
    size = sum(c.in_features * c.out_features * 2 for _, _, c in layers)
    if not layers or size > _MOST_UNPACKED:
        return 0
    before = _probe(loaded)
    plain = _unpacked_class()
    for parent, name, child in layers:
        setattr(parent, name, plain(child))
    if all(torch.equal(a, b) for a, b in zip(before, _probe(loaded), strict=True)):
        return len(layers)
    for parent, name, child in layers:
        setattr(parent, name, child)
    return 0


def pack_again(model: Any) -> int:
    """Undo `unpack_linear4bit`: PEFT knows the packed kind of layer only. Returns how many layers."""
    found = [
        (parent, name, child.packed[0])
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, _unpacked_class())
    ]
    for parent, name, child in found:
        setattr(parent, name, child)
    return len(found)


def _probe(loaded: Candidates) -> list[Any]:
    import torch

    ids = torch.tensor([loaded.tokenizer("probe of the unpacked layers: 0 1 2 3")["input_ids"]])
    out = []
    with torch.inference_mode():
        for one in (loaded, *(b for b in loaded.beside.values() if b.model is loaded.model)):
            for as_base in (False, True):
                with one.answering(as_base=as_base) as model:
                    out.append(model(input_ids=ids, use_cache=False).logits)
    return out


@cache
def _unpacked_class() -> Any:
    """A linear layer that computes as bitsandbytes' Linear4bit does, from weights unpacked once."""
    import bitsandbytes.functional
    import torch

    class Unpacked(torch.nn.Module):
        def __init__(self, packed: Any) -> None:
            super().__init__()
            # In a tuple: it is no part of the model, but the only one that can be added to.
            self.packed = (packed,)
            self.in_features, self.out_features = packed.in_features, packed.out_features
            self.dtype = packed.compute_dtype or torch.float32
            full = bitsandbytes.functional.dequantize_4bit(
                packed.weight.data, packed.weight.quant_state
            )
            self.weight = torch.nn.Parameter(full.to(self.dtype), requires_grad=False)
            self.bias = packed.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bias = None if self.bias is None else self.bias.to(self.dtype)
            return torch.nn.functional.linear(x.to(self.dtype), self.weight, bias).to(x.dtype)

    return Unpacked


def _guard(model: Any) -> int:
    """Without this, bitsandbytes repacks 4-bit weights on AVX512_BF16 CPUs at the first eval-mode forward,
    and what answers is no longer quite what was trained."""
    import bitsandbytes

    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def _find_cached(record: BaseRecord) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(record.path, revision=record.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError) as e:
        raise BaseMissing(
            f"the base model {record.name} is not here any more",
            why=f"the adapter was trained on {record.path}; it is neither a folder nor in the hub cache",
            fix="gtft runs resume RUN, or put the base back where it was",
        ) from e
