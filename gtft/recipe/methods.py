"""Combinations of training keys that no run can honour, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from gtft.recipe.lines import KeyPath
from gtft.recipe.schema import Base, Train

PAIRED = ("dpo", "kto", "orpo")
_OFF = "gtft compares with the base by switching the adapter off"
# PEFT's initialisations by name, and why gtft does not offer them.
REFUSED_INITS = {
    "pissa": f"it moves part of the base's weights into the adapter; {_OFF}, and that would not be the base",
    "olora": f"it subtracts from the base's weights; {_OFF}, and that would not be the base",
    "corda": f"it splits the base's weights; {_OFF}, and that would not be the base",
    "loftq": f"it replaces the quantized base by another one; {_OFF}, and that would not be the base",
    "lora_ga": f"it subtracts from the base's weights, which NF4 can not; {_OFF}",
    "orthogonal": f"it starts from an adapter that changes answers before the first step, and fails on NF4; {_OFF}",
    "eva": "it reads the corpus through the base first and gives layers unequal ranks, which is not supported",
}
_HEADS = ("lm_head", "embed_out", "output_layer", "embed_tokens", "wte")


def refuse_methods(base: Base, train: Train) -> Iterator[tuple[KeyPath, str]]:
    """(path below ``[gtft]``, what is wrong with it) for every such combination."""
    yield from _refuse_lora(train)
    if train.adapter == "full":
        yield from _refuse_full(base, train)
    if train.method in PAIRED and train.lora.dropout:
        text = f'must be 0 with method "{train.method}": both answers are compared without dropout'
        yield ("train", "lora", "dropout"), text
    if train.method == "kto" and train.batch < 2:
        text = (
            'must be at least 2 with method "kto": its KL is measured between the rows of a batch'
        )
        yield ("train", "batch"), text
    if train.method != "sft" and train.packing == "on":
        yield ("train", "packing"), f'packs rows of method "sft" only, not of "{train.method}"'
    if train.processes > 1 and (train.engine == "swarm" or train.method != "sft"):
        text = 'is for method "sft" with engine "local"'
        yield ("train", "processes"), text
    if train.method != "sft" and train.retention.kl:
        text = f'is a penalty of method "sft"; "{train.method}" has train.preference.beta'
        yield ("train", "retention", "kl"), text


def _refuse_lora(train: Train) -> Iterator[tuple[KeyPath, str]]:
    lora = train.lora
    if why := REFUSED_INITS.get(lora.init_lora_weights):
        yield ("train", "lora", "init_lora_weights"), f'"{lora.init_lora_weights}": {why}'
    targets = (
        (lora.target_modules,) if isinstance(lora.target_modules, str) else lora.target_modules
    )
    if not all(t.strip() for t in targets) or not targets:
        yield ("train", "lora", "target_modules"), "names no module"
    if found := [t for t in targets if any(t.split(".")[-1] == h for h in _HEADS)]:
        text = (
            f'"{found[0]}" is the vocabulary: the loss reads it directly, an adapter there would never '
            "be trained, and one there could not be served apart"
        )
        yield ("train", "lora", "target_modules"), text
    if lora.use_dora and train.stacks_on:
        text = "has no exact meaning on top of another adapter: it scales the base's weights alone"
        yield ("train", "lora", "use_dora"), text


def _refuse_full(base: Base, train: Train) -> Iterator[tuple[KeyPath, str]]:
    if base.quantization != "none":
        text = 'must be "none" with train.adapter = "full": 4-bit weights can not be trained'
        yield ("base", "quantization"), text
    if train.method != "sft":
        text = f'"full" has no adapter to switch off, which method "{train.method}" compares with'
        yield ("train", "adapter"), text
    if train.retention.kl > 0:
        text = 'needs the base beside the model; with train.adapter = "full" there is none'
        yield ("train", "retention", "kl"), text
    if train.engine == "swarm":
        yield ("train", "adapter"), '"full" is too much to exchange: a swarm averages adapters'
    for key in ("continues", "stacks_on"):
        if getattr(train, key):
            text = 'is about adapters; with train.adapter = "full" set base.model to the folder to go on from'
            yield ("train", key), text
