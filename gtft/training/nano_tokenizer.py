"""The nano base's tokenizer: byte-level BPE with ChatML tokens and a template with generation markers."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from gtft.training.nano_text import END, END_TURN, SPECIAL


def read_template() -> str:
    """The chat template that the nano base is trained and served with."""
    return files("gtft.training").joinpath("chatml.jinja").read_text("utf-8").strip("\n")


def train_tokenizer(texts: Iterable[str], vocab: int, context: int) -> Any:
    """A ``PreTrainedTokenizerFast`` of at most ``vocab`` tokens, learned from ``texts``.

    Digits stand alone, so that a bead id or a number is never one rare token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_TURN,
        pad_token=END,
        bos_token=None,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = read_template()
    return wrapped
