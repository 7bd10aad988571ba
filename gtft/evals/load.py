"""Loading what is evaluated: one base as it was trained on, with the adapter that can be switched off.

A task adapter is loaded on top of its role, which then is what it is compared with. A full training has nothing
to switch off: its base is loaded beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, hash_file, verify_artifact
from gtft.errors import BaseMissing, EvidenceError, UsageError, translate_os_error
from gtft.shelf import find_on_shelf

ADAPTER = "adapter_model.safetensors"
# Of a full training: all weights, in place of an adapter.
WHOLE = "model.safetensors"
_ROLE, _TASK = "role", "task"
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
    ``stacked``: the adapter lies on top of a role's. ``context`` in tokens."""

    model: Any
    tokenizer: Any
    context: int
    quantized_layers: int
    plain: Any = None
    stacked: bool = False

    @contextmanager
    def answering(self, *, as_base: bool) -> Iterator[Any]:
        """The model that answers: tuned, or what it is compared with."""
        if not as_base:
            yield self.model
        elif self.plain is not None:
            yield self.plain
        elif self.stacked:
            self.model.base_model.set_adapter([_ROLE], inference_mode=True)
            try:
                yield self.model
            finally:
                self.model.base_model.set_adapter([_ROLE, _TASK], inference_mode=True)
        else:
            with self.model.disable_adapter():
                yield self.model


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
    """The base's folder, every file hashed again.

    Looks below the workspace, below ``root``, at the path as given, then in the hub's cache. Raises BaseMissing,
    or EvidenceError when it is not the base that the adapter was trained on.
    """
    given = Path(record.path).expanduser()
    places = [given] if given.is_absolute() else [workspace / given, root / given]
    folder = next((p for p in places if (p / "config.json").is_file()), None)
    if folder is None:
        folder = _find_cached(record)
    for name, sha256 in record.files.items():
        path = folder / name
        if not path.is_file():
            raise EvidenceError(
                f"the base {record.name} has no {name}",
                why="the adapter was trained on a base that has it",
                fix="gtft runs resume RUN --stage train",
            )
        if hash_file(path) != sha256:
            raise EvidenceError(
                f"the base {record.name} has changed since the adapter was trained",
                why=f"the sha256 of {name} differs from the one in base.json",
                fix="gtft doctor",
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
    adapter: Artifact, record: BaseRecord, folder: Path, role: Artifact | None = None
) -> Candidates:
    """Load base and adapter for answering; ``role``: the adapter below it (`find_role`).

    The base is stored as it was in training (NF4, bfloat16 compute), because another storage is another
    model; the tokenizer and its template are the adapter's own.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

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
    base = AutoModelForCausalLM.from_pretrained(folder, **settings)
    guarded = _guard(base) if record.quantization == "nf4" else 0
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
    context = int(getattr(base.config, "max_position_embeddings", 0) or tokenizer.model_max_length)
    if any(f.name == WHOLE for f in adapter.files):
        tuned = AutoModelForCausalLM.from_pretrained(adapter.path, **settings)
        return Candidates(tuned.eval(), tokenizer, context, guarded, plain=base.eval())
    model = _attach(base, adapter, role)
    model.eval()
    if guarded and model.device.type == "cpu":
        unpack_linear4bit(model, tokenizer)
    return Candidates(model, tokenizer, context, guarded, stacked=role is not None)


def _attach(base: Any, adapter: Artifact, role: Artifact | None) -> Any:
    from peft import PeftModel

    if role is None:
        return PeftModel.from_pretrained(base, adapter.path, is_trainable=False)
    model = PeftModel.from_pretrained(base, role.path, adapter_name=_ROLE, is_trainable=False)
    model.load_adapter(adapter.path, _TASK, is_trainable=False)
    model.base_model.set_adapter([_ROLE, _TASK], inference_mode=True)
    return model


def unpack_linear4bit(model: Any, tokenizer: Any) -> int:
    """Keep small NF4 layers dequantized on a CPU, where unpacking at every token is most of the time.

    The 4-bit values stay what they are and the arithmetic is the same; that is proven by comparing every logit of a probe,
    with and without the adapter. If one differs, the layers stay packed. Returns how many were unpacked.
    """
    import bitsandbytes
    import torch

    layers = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, bitsandbytes.nn.Linear4bit) and not hasattr(child, "base_layer")
    ]
    size = sum(c.in_features * c.out_features * 2 for _, _, c in layers)
    if not layers or size > _MOST_UNPACKED:
        return 0
    probe = torch.tensor([tokenizer("probe of the unpacked layers: 0 1 2 3")["input_ids"]])
    before = _probe(model, probe)
    plain = _unpacked_class()
    for parent, name, child in layers:
        setattr(parent, name, plain(child))
    if all(torch.equal(a, b) for a, b in zip(before, _probe(model, probe), strict=True)):
        return len(layers)
    for parent, name, child in layers:
        setattr(parent, name, child)
    return 0


def _probe(model: Any, ids: Any) -> list[Any]:
    import torch

    with torch.inference_mode():
        tuned = model(input_ids=ids, use_cache=False).logits
        with model.disable_adapter():
            base = model(input_ids=ids, use_cache=False).logits
    return [tuned, base]


def _unpacked_class() -> Any:
    """A linear layer that computes as bitsandbytes' Linear4bit does, from weights unpacked once."""
    import bitsandbytes.functional
    import torch

    class Unpacked(torch.nn.Module):
        def __init__(self, packed: Any) -> None:
            super().__init__()
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
            fix="gtft runs resume RUN --stage train, or put the base back where it was",
        ) from e
