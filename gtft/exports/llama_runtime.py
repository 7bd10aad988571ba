"""llama.cpp as a library (llama-cpp-python): the real runtime of a GGUF file, silent, on the CPU."""

from __future__ import annotations

import ctypes
import importlib.util
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gtft.dialect import Dialect, TemplateRefuses, pin_date
from gtft.errors import EvidenceError, MissingExtra
from gtft.exports.gguf_tokens import Tokens, list_probes
from gtft.exports.prompts import Question

# Tokens that are shown of a text that is read differently.
_SHOWN = 8
# ggml's level of an error; its last ones.
_LOG_ERROR = 4
_SAID: deque[str] = deque(maxlen=4)


@dataclass(frozen=True)
class IdDifference:
    """A text that two tokenizers read differently, from the first token that differs."""

    text: str
    expected: tuple[int, ...]
    got: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.text!r}: the tokenizer gives {list(self.expected)}, llama.cpp {list(self.got)}"
        )


def has_llama() -> bool:
    """Whether llama-cpp-python is installed. It is not loaded."""
    return importlib.util.find_spec("llama_cpp") is not None


def require_llama(why: str) -> Any:
    """The llama_cpp module. Raises MissingExtra with the command that installs it."""
    if not has_llama():
        raise MissingExtra(
            "llama-cpp-python is not installed",
            why=f"{why}; it is built from source, about 8 minutes of CPU",
            fix="pip install 'gtft[llama]' -c constraints.txt",
        )
    import llama_cpp

    _listen(llama_cpp)
    return llama_cpp


@cache
def _listen(llama_cpp: Any) -> Any:
    """llama.cpp's log kept here instead of on stderr. Returns what must live as long as it may write."""

    def keep(level: int, text: bytes, _: Any) -> None:
        if level == _LOG_ERROR:
            _SAID.append(text.decode("utf-8", "replace").strip())

    kept = llama_cpp.llama_log_callback(keep)
    llama_cpp.llama_log_set(kept, ctypes.c_void_p(0))
    return kept


def tell_error() -> str:
    """What llama.cpp last said was wrong, "" when it said nothing."""
    said = "; ".join(_SAID)
    _SAID.clear()
    return said


def find_difference(path: Path, tokens: Tokens, tokenizer: Any) -> IdDifference | None:
    """The first probe that llama.cpp, with the vocabulary in ``path``, reads differently from ``tokenizer``.

    Ends of answers are compared too: an id that ends one for transformers and not for llama.cpp is a difference.
    """
    with closing(open_vocabulary(path)) as llama:
        for text in list_probes(tokens, tokenizer):
            expected = tokenizer(text, add_special_tokens=False)["input_ids"]
            got = llama.tokenize(text.encode(), add_bos=False, special=True)
            if expected != got:
                pairs = zip(expected, got, strict=False)
                least = min(len(expected), len(got))
                at = next((i for i, (a, b) in enumerate(pairs) if a != b), least)
                one, other = expected[at : at + _SHOWN], got[at : at + _SHOWN]
                near = tokenizer.decode(one, skip_special_tokens=False)
                return IdDifference(near, tuple(one), tuple(other))
        for end in tokens.ends:
            if not is_end(llama, end):
                return IdDifference(f"end of an answer {tokens.texts[end]}", (end,), ())
    return None


def open_vocabulary(path: Path) -> Any:
    """A GGUF file without its weights. Close it. Raises EvidenceError, MissingExtra."""
    return _open(path, vocab_only=True, n_ctx=8, n_threads=1)


def is_end(llama: Any, token: int) -> bool:
    """Whether this token ends an answer for llama.cpp."""
    llama_cpp = require_llama("it says what ends an answer")
    vocabulary = llama_cpp.llama_model_get_vocab(llama._model.model)
    return bool(llama_cpp.llama_vocab_is_eog(vocabulary, token))


def _open(path: Path, **settings: Any) -> Any:
    llama_cpp = require_llama("a GGUF file runs on it")
    try:
        return llama_cpp.Llama(str(path), verbose=False, **settings)
    except (ValueError, RuntimeError) as e:
        adapter = settings.get("lora_path")
        beside = f" with {Path(adapter).name}" if adapter else ""
        raise EvidenceError(
            f"llama.cpp does not load {path.name}{beside}",
            why=tell_error() or str(e),
            fix="gtft model export MODEL --format merged",
        ) from e


class LlamaAnswerer:
    """A GGUF file on llama.cpp, and an adapter file on it when one is given. Close it to free the memory."""

    def __init__(
        self, model: Path, *, adapter: Path | None = None, context: int = 2048, threads: int = 1
    ) -> None:
        """Raises EvidenceError when llama.cpp does not load the files, MissingExtra without it."""
        self.llama = _open(
            model,
            lora_path=None if adapter is None else str(adapter),
            n_ctx=context,
            n_batch=min(context, 512),
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            # The cache in float32: what is compared are the weights, not llama.cpp's default cache.
            type_k=0,
            type_v=0,
        )

    def close(self) -> None:
        self.llama.close()

    def is_end(self, token: int) -> bool:
        """Whether this token ends an answer for llama.cpp."""
        return is_end(self.llama, token)

    def answer(self, prompt: Sequence[int], most: int) -> list[int]:
        """The greedy continuation: at least one and at most ``most`` ids, the token that ends the turn included."""
        self.llama.reset()
        self.llama.eval(list(prompt))
        said: list[int] = []
        while len(said) < most:
            said.append(int(self.llama.scores[self.llama.n_tokens - 1].argmax()))
            if self.is_end(said[-1]):
                break
            if len(said) < most:
                self.llama.eval(said[-1:])
        return said

    def score(self, prompt: Sequence[int], answer: Sequence[int]) -> Any:
        """Natural log probabilities, numpy ``(len(answer), vocabulary)``: row i is of the token at i, after the prompt
        and ``answer[:i]``."""
        import numpy

        self.llama.reset()
        self.llama.eval([*prompt, *answer])
        first = len(prompt) - 1
        logits = self.llama.scores[first : first + len(answer)].astype(numpy.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))


class LlamaWriter:
    """Chats as llama.cpp writes them: with the chat template in the file, by its own tokenizer."""

    def __init__(self, model: Path, shape: Dialect) -> None:
        """``shape``: how the template wants its messages, as it was learned from the model's tokenizer.

        Raises EvidenceError for a file without a chat template.
        """
        self._llama = open_vocabulary(model)
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self._shape = shape
        self.template = template = self._llama.metadata.get("tokenizer.chat_template", "")
        if not template:
            raise EvidenceError(
                "the GGUF file has no chat template", why="it cannot be chatted with"
            )
        inside = self._llama._model
        self._bos = inside.token_get_text(inside.token_bos()) if inside.token_bos() >= 0 else ""
        self._adds_bos = bool(inside.add_bos_token())
        eos = inside.token_get_text(inside.token_eos()) if inside.token_eos() >= 0 else ""
        self._formatter = Jinja2ChatFormatter(
            pin_date(template), eos_token=eos, bos_token=self._bos
        )

    def render(self, question: Question) -> str:
        """The text of a prompt. Raises TemplateRefuses."""
        from jinja2.exceptions import TemplateError

        shape = self._shape
        try:
            done = self._formatter(
                messages=[shape.shape(shape.escape(m)) for m in question.messages],
                tools=[shape.escape(t) for t in question.tools] or None,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as e:
            raise TemplateRefuses(" ".join(str(e).split())[:200] or type(e).__name__) from e
        return str(done.prompt)

    def write(self, question: Question) -> tuple[int, ...]:
        """As llama.cpp's server does it: the file says whether the start token is added, and it is there once."""
        text = self.render(question)
        if self._adds_bos:
            text = text.removeprefix(self._bos)
        return tuple(self._llama.tokenize(text.encode(), add_bos=True, special=True))

    def tell(self, ids: Sequence[int]) -> str:
        return bytes(self._llama.detokenize(list(ids), special=True)).decode("utf-8", "replace")
