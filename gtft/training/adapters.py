"""What is trained, put on its base: a fresh adapter, an earlier one gone on from, a task on top of a role."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gtft.artifact import Artifact, short_id, verify_artifact
from gtft.errors import TrainingError
from gtft.recipe.methods import refuse_methods
from gtft.recipe.schema import Base, Train
from gtft.shelf import find_adapter, read_document
from gtft.training.base import BaseModel
from gtft.training.watch import Watch
from gtft.weights import inspect_weights

KIND = "adapter"
# PEFT's name for the adapter that is trained: the only one that is saved.
TRAINED = "default"
WEIGHTS = "adapter_model.safetensors"
# Above this, float32 weights, gradients and two moments do not fit the boxes that gtft is for.
FULL_AT_MOST = 600_000_000
_BYTES_PER_FULL = 16
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Ancestors:
    """The earlier adapters that a training builds on, their files verified."""

    continues: Artifact | None = None
    role: Artifact | None = None

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(a.id for a in (self.continues, self.role) if a is not None)

    @property
    def below(self) -> dict[str, str]:
        """What ``base.json`` states besides the base: the role that it was trained on top of."""
        return {"stacks_on": self.role.id} if self.role else {}

    def as_dict(self) -> dict[str, str]:
        """What ``summary.json`` states; nothing for a training that starts from its base."""
        given = {"continues": self.continues, "stacks_on": self.role}
        return {name: a.id for name, a in given.items() if a is not None}


def require_trainable(base: Base, train: Train) -> None:
    """Raises TrainingError for what `gtft recipe lint` refuses: a job may come from elsewhere."""
    for path, text in refuse_methods(base, train):
        raise TrainingError(
            f"{'.'.join(map(str, path))} {text}",
            why="such a training would not be what the recipe says",
            fix="gtft recipe lint RECIPE, then run it again",
        )


def find_ancestors(train: Train, artifacts: Path, base: BaseModel, watch: Watch) -> Ancestors:
    """Find what ``train.continues`` and ``train.stacks_on`` name, and check that it fits; a notice says so.

    Raises UsageError for an id that is not there, EvidenceError for a changed file, TrainingError with the
    reason for one that does not fit this base and shape.
    """
    continued = _find(train.continues, "train.continues", artifacts)
    role = _find(train.stacks_on, "train.stacks_on", artifacts)
    if role is not None:
        _check_base(role, "train.stacks_on", base)
        _check_role(role)
        watch.warn(
            "stacks-on",
            f"trained on top of adapter {short_id(role.id)}, which stays as it is: switched off means that role",
        )
    if continued is not None:
        _check_base(continued, "train.continues", base)
        _check_shape(continued, train, role)
        watch.warn(
            "continues",
            f"goes on from adapter {short_id(continued.id)} with a fresh optimizer",
        )
    return Ancestors(continued, role)


def configure_lora(train: Train) -> Any:
    """The recipe's ``[gtft.train.lora]`` as PEFT takes it."""
    from peft import LoraConfig

    lora = train.lora
    modules = lora.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else sorted(modules),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=True if lora.init_lora_weights == "default" else lora.init_lora_weights,
        bias="none",
    )


def attach(model: Any, train: Train, ancestors: Ancestors) -> Any:
    """Put on a loaded base what is trained, in float32; the rest is frozen. Returns the model to train.

    Switching the adapter off (PEFT's ``disable_adapter``) leaves the base, or with a role below it the base with
    that role. A full training has nothing to switch off. Raises TrainingError.
    """
    from peft import get_peft_model
    from transformers.trainer_utils import set_seed

    if train.adapter == "full":
        return _open_all(model)
    if ancestors.role is not None:
        lay_role(model, ancestors.role)
    set_seed(train.seed)
    try:
        attached = get_peft_model(model, configure_lora(train))
    except ValueError as e:
        raise TrainingError(
            "the base has no module that train.lora.target_modules names",
            why=" ".join(str(e).split())[:300],
            fix='gtft run RECIPE --set train.lora.target_modules="all-linear"',
        ) from e
    if ancestors.continues is not None:
        _load_trained(attached, ancestors.continues)
    return attached


def lay_role(model: Any, role: Artifact) -> int:
    """Make a role adapter part of the base: every layer it names adds its share, frozen. Returns how many.

    The sum is the one that PEFT forms with both adapters active; but the one that is trained can be
    switched off, saved and averaged alone.
    """
    config = read_document(role, "adapter_config.json")
    r, alpha = int(config["r"]), float(config["lora_alpha"])
    scale = alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r
    weights = _read_weights(role, "train.stacks_on")
    names = sorted({k.rpartition(".lora_")[0] for k in weights})
    for name in names:
        try:
            layer = model.get_submodule(name.removeprefix(_PREFIX))
            down, up = (weights[f"{name}.lora_{x}.weight"] for x in "AB")
            fits = (layer.in_features, layer.out_features) == (down.shape[1], up.shape[0])
        except (AttributeError, KeyError):
            fits = False
        if not fits:
            why = f"the base has no such layer as its {name.removeprefix(_PREFIX)}"
            raise _misfit(role, "train.stacks_on", why)
        down, up = (x.to(layer.weight.device).float() for x in (down, up))
        layer.register_forward_hook(_add_share(down, up, scale))
    return len(names)


def save_trained(model: Any, folder: Path) -> None:
    """Write what was trained, as PEFT (or, of a full training, transformers) reads it."""
    if is_full(model):
        # Off for the training only: it is how answers are generated.
        model.config.use_cache = True
        model.save_pretrained(folder)
    else:
        model.save_pretrained(folder, selected_adapters=[TRAINED], save_embedding_layers=False)


def is_full(model: Any) -> bool:
    """Whether every weight is trained: there is no adapter to switch off."""
    return not hasattr(model, "disable_adapter")


def _add_share(down: Any, up: Any, scale: float) -> Callable[..., Any]:
    import torch

    linear = torch.nn.functional.linear

    def hook(_layer: Any, args: tuple[Any, ...], out: Any) -> Any:
        share = linear(linear(args[0].to(down.dtype), down), up) * scale
        return out + share.to(out.dtype)

    return hook


def _open_all(model: Any) -> Any:
    import torch

    count = model.num_parameters()
    if count > FULL_AT_MOST:
        raise TrainingError(
            f"the base has {count / 1e6:.0f} M parameters, too many to train all of them",
            why=f"it needs {_BYTES_PER_FULL} bytes each ({count * _BYTES_PER_FULL / 1e9:.0f} GB), and is for "
            f"bases of at most {FULL_AT_MOST / 1e6:.0f} M",
            fix="gtft run RECIPE --set train.adapter=lora, or a smaller base",
        )
    model.to(torch.float32)
    model.requires_grad_(True)
    return model


def _find(given: str, key: str, artifacts: Path) -> Artifact | None:
    if not given:
        return None
    found = find_adapter(artifacts, given, key)
    verified = verify_artifact(found.path, kind=KIND, expect=found.id)
    inspect_weights(verified.path)
    return verified


def _check_base(adapter: Artifact, key: str, base: BaseModel) -> None:
    if not any(f.name == WEIGHTS for f in adapter.files):
        raise _misfit(adapter, key, "it holds all weights of a model, not an adapter")
    doc = read_document(adapter, "base.json")
    if doc.get("id") != base.id:
        raise _misfit(
            adapter,
            key,
            f"it was trained on {doc.get('name')} ({short_id(str(doc.get('id')))}), "
            f"this base is {base.name} ({short_id(base.id)})",
        )
    if doc.get("quantization") != base.quantization:
        raise _misfit(
            adapter,
            key,
            f"it was trained on the base stored as {doc.get('quantization')}, not {base.quantization}",
        )
    config = read_document(adapter, "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("task_type") != "CAUSAL_LM":
        raise _misfit(adapter, key, "it is not a LoRA adapter of a causal language model")
    for name in ("rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(name):
            raise _misfit(adapter, key, f"its {name} is not one that gtft writes")


def _check_role(role: Artifact) -> None:
    key = "train.stacks_on"
    if read_document(role, "adapter_config.json").get("use_dora"):
        why = "it is a DoRA adapter, which scales the base's weights: two of those do not add up"
        raise _misfit(role, key, why)
    if below := read_document(role, "base.json").get("stacks_on"):
        why = f"it is a task adapter itself, on top of {short_id(str(below))}; two floors are the most"
        raise _misfit(role, key, why)


def _check_shape(adapter: Artifact, train: Train, role: Artifact | None) -> None:
    key = "train.continues"
    config = read_document(adapter, "adapter_config.json")
    wanted = configure_lora(train)
    for name in ("r", "lora_alpha", "use_rslora", "use_dora"):
        there, here = config.get(name), getattr(wanted, name)
        if there != here:
            raise _misfit(adapter, key, f"its {name} is {there}, the recipe's is {here}")
    below = read_document(adapter, "base.json").get("stacks_on")
    if below != (role.id if role else None):
        told = f"it stands on adapter {short_id(str(below))}" if below else "it stands on no other"
        raise _misfit(adapter, key, f"{told}; train.stacks_on must say the same")


def _load_trained(model: Any, adapter: Artifact) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    key = "train.continues"
    weights = _read_weights(adapter, "train.continues")
    own = get_peft_model_state_dict(model, adapter_name=TRAINED, save_embedding_layers=False)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())[0]
        which = "the recipe adapts" if odd in own else "it adapts"
        why = f"{which} {odd.removeprefix(_PREFIX)}, the other does not"
        raise _misfit(adapter, key, why)
    for name, value in own.items():
        if value.shape != weights[name].shape:
            why = f"its {name} is {list(weights[name].shape)}, here {list(value.shape)}"
            raise _misfit(adapter, key, why)
    set_peft_model_state_dict(model, weights, adapter_name=TRAINED)


def _read_weights(adapter: Artifact, key: str) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    weights: dict[str, Any] = load_file(adapter.file(WEIGHTS))
    for name, value in weights.items():
        if ".lora_" not in name or not name.startswith(_PREFIX):
            raise _misfit(adapter, key, f"{name} is not a weight of a LoRA layer")
        if not bool(torch.isfinite(value).all()):
            raise _misfit(adapter, key, f"{name} holds numbers that are not finite")
    return weights


def _misfit(adapter: Artifact, key: str, why: str) -> TrainingError:
    return TrainingError(
        f"{key}: adapter {short_id(adapter.id)} does not fit this training",
        why=why,
        fix=f"gtft recipe explain {key}; gtft model list tells what each adapter was trained on",
    )
