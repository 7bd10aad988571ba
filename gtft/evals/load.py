"""Loading what is evaluated: one base as it was trained on, with the adapter that can be switched off."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, hash_file
from gtft.errors import BaseMissing, EvidenceError, translate_os_error

ADAPTER = "adapter_model.safetensors"
# Bytes of bfloat16 weights up to which 4-bit layers are kept unpacked while answering.
_MOST_UNPACKED = 1 << 30


@dataclass(frozen=True)
class BaseRecord:
    """``base.json`` of an adapter: which base it was trained on, by content."""

    name: str
    id: str
    path: str
    revision: str | None
    quantization: str
    files: dict[str, str]


@dataclass(frozen=True)
class Candidates:
    """One model for both candidates: base = the adapter switched off. ``context`` in tokens."""

    model: Any
    tokenizer: Any
    context: int
    quantized_layers: int


def read_base(adapter: Artifact) -> BaseRecord:
    """Raises EvidenceError when the adapter does not say what it was trained on."""
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


def load_candidates(adapter: Artifact, record: BaseRecord, folder: Path) -> Candidates:
    """Load base and adapter for answering.

    The base is stored as it was in training (NF4, bfloat16 compute), because another storage is another
    model; the tokenizer and its template are the adapter's own.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    settings: dict[str, Any] = {}
    if record.quantization == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    base = AutoModelForCausalLM.from_pretrained(
        folder,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        dtype="auto",
        device_map={"": 0} if torch.cuda.is_available() else {"": "cpu"},
        **settings,
    )
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
    model = PeftModel.from_pretrained(base, adapter.path, is_trainable=False)
    model.eval()
    if guarded and model.device.type == "cpu":
        unpack_linear4bit(model, tokenizer)
    context = int(getattr(base.config, "max_position_embeddings", 0) or tokenizer.model_max_length)
    return Candidates(model, tokenizer, context, guarded)


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
