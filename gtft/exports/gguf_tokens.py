"""A tokenizer as GGUF holds it: byte-level BPE, and which of llama.cpp's ways to split text is its own."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gtft.errors import EvidenceError
from gtft.exports.gguf_names import read_json, refuse

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA = f"{_CONTRACTIONS}|{_WORD}|\\p{{N}}{{1,3}}|{_REST}"
_QWEN = f"{_CONTRACTIONS}|{_WORD}|\\p{{N}}|{_REST}"
# (split that tokenizer.json spells out, whether whole words skip the merges) -> llama.cpp's name of both. Without
# llama.cpp only these can be written.
SPLITS: Mapping[tuple[str, bool], str] = {
    (_LLAMA, True): "llama-bpe",
    (_LLAMA, False): "smaug-bpe",
    (_QWEN, False): "qwen2",
    ("digits+gpt2", False): "smollm",
    ("gpt2", False): "gpt-2",
}
# What is tried, finest first, where llama.cpp can say whether it splits the same: one of each behaviour.
CANDIDATES = (
    "qwen2",
    "smollm",
    "llama-bpe",
    "gpt-2",
    "smaug-bpe",
    "qwen35",
    "gpt-4o",
    "tekken",
    "deepseek-v3",
    "deepseek-llm",
    "deepseek-coder",
    "seed-coder",
    "falcon",
)
# Settings of a BPE that llama.cpp does not have.
_ODD = ("byte_fallback", "dropout", "continuing_subword_prefix", "end_of_word_suffix")
# Pieces of the vocabulary that are probed too.
_PIECES = 2000


@dataclass(frozen=True)
class Tokens:
    """What GGUF says about a tokenizer. ``pre``: llama.cpp's name of how text is split, "" when not known yet.

    ``ends``: every id that ends an answer. ``composed``: the tokenizer composes characters (NFC) first, which
    llama.cpp does not.
    """

    texts: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    bos: int | None
    eos: int
    eot: int | None
    pad: int | None
    add_bos: bool
    ends: tuple[int, ...]
    template: str
    composed: bool
    pre: str

    def split_as(self, pre: str) -> Tokens:
        """The same tokenizer with this way to split."""
        return replace(self, pre=pre)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder, without remote code."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def read_tokens(folder: Path, tokenizer: Any, vocab: int) -> Tokens:
    """The tokenizer in ``folder`` (``tokenizer``: the same, loaded) for a model of ``vocab`` rows.

    Raises UsageError for one that is no byte-level BPE with a chat template.
    """
    document = read_json(folder / "tokenizer.json")
    model = document.get("model") or {}
    normaliser = (document.get("normalizer") or {}).get("type")
    odd = next((k for k in _ODD if model.get(k)), "")
    if odd:
        raise refuse("this tokenizer", f"its BPE has {odd}")
    if model.get("type") != "BPE":
        raise refuse("this tokenizer", f"it is {model.get('type')}, not byte-level BPE")
    if normaliser not in (None, "NFC"):
        raise refuse(f"the normaliser {normaliser}", "llama.cpp takes the text as it is")
    if not tokenizer.chat_template:
        raise refuse("a tokenizer without a chat template", "the file would not say how to chat")
    if tokenizer.eos_token_id is None:
        raise refuse("a tokenizer without an end token", "no answer would ever end")
    texts, types = _list_tokens(document, vocab)
    turn_end = _find_turn_end(tokenizer)
    split = _describe_split(document.get("pre_tokenizer") or {})
    return Tokens(
        texts=texts,
        types=types,
        merges=_list_merges(model.get("merges") or []),
        bos=tokenizer.bos_token_id,
        eos=int(tokenizer.eos_token_id),
        eot=turn_end if turn_end != tokenizer.eos_token_id else None,
        pad=tokenizer.pad_token_id,
        add_bos=_chats_start_with(tokenizer, tokenizer.bos_token_id),
        ends=_list_ends(folder, tokenizer, turn_end, vocab),
        template=str(tokenizer.chat_template),
        composed=normaliser == "NFC",
        pre=SPLITS.get((split, bool(model.get("ignore_merges"))), ""),
    )


def list_probes(tokens: Tokens, tokenizer: Any) -> Iterator[str]:
    """Texts on which llama.cpp must give the same ids: words, ids, digits, scripts, white space, code, special
    tokens in text, and pieces of the vocabulary itself."""
    special = [t for t, kind in zip(tokens.texts, tokens.types, strict=True) if kind == 3]
    step = max(1, len(tokens.texts) // _PIECES)
    pieces = (tokenizer.decode([i]) for i in range(0, len(tokens.texts), step))
    probes = [
        *_PROBES,
        *(f"{t}user\nhello {t}\n{t}" for t in special[:24]),
        *(p for p in pieces if p.strip() and "\ufffd" not in p and p not in special),
    ]
    for probe in probes:
        yield unicodedata.normalize("NFC", probe) if tokens.composed else probe


def _list_tokens(
    document: Mapping[str, Any], vocab: int
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    import gguf

    added = document.get("added_tokens") or []
    last = max([*document["model"]["vocab"].values(), *(t["id"] for t in added)], default=-1)
    if last >= vocab:
        raise EvidenceError(
            f"the tokenizer has a token {last}, the model only {vocab} rows",
            why="they do not belong together",
            fix="gtft doctor",
        )
    texts = [f"[PAD{i}]" for i in range(vocab)]
    types = [int(gguf.TokenType.UNUSED)] * vocab
    for text, i in document["model"]["vocab"].items():
        texts[i], types[i] = text, int(gguf.TokenType.NORMAL)
    for token in added:
        kind = gguf.TokenType.CONTROL if token.get("special") else gguf.TokenType.USER_DEFINED
        texts[token["id"]], types[token["id"]] = token["content"], int(kind)
    if len(set(texts)) != len(texts):
        raise refuse("this tokenizer", "two of its tokens are spelled the same")
    return tuple(texts), tuple(types)


def _list_merges(merges: list[Any]) -> tuple[str, ...]:
    pairs = [m.split(" ") if isinstance(m, str) else m for m in merges]
    if any(len(p) != 2 or " " in p[0] or " " in p[1] for p in pairs):
        raise refuse("this tokenizer", "a merge of its BPE holds a space")
    return tuple(f"{a} {b}" for a, b in pairs)


def _describe_split(pre_tokenizer: Mapping[str, Any]) -> str:
    """The split as `SPLITS` spells it; what it is else, ""."""
    steps = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    shown = []
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}:
                shown.append(str(regex))
            case {"type": "Digits", "individual_digits": True}:
                shown.append("digits")
            case {"type": "ByteLevel", "add_prefix_space": False}:
                if step.get("use_regex", True):
                    shown.append("gpt2")
            case _:
                return ""
    return "+".join(shown)


def _chats_start_with(tokenizer: Any, bos: int | None) -> bool:
    ids = _write_chat(tokenizer, "gtftsaid")
    return bos is not None and ids[:1] == [bos]


def _find_turn_end(tokenizer: Any) -> int:
    """The first special token after what the assistant said; the end token when there is none."""
    after = _write_chat(tokenizer, "gtftsaid", after="gtftsaid")
    special = set(tokenizer.all_special_ids) | {
        i for i, t in tokenizer.added_tokens_decoder.items() if t.special
    }
    return next((i for i in after if i in special), int(tokenizer.eos_token_id))


def _write_chat(tokenizer: Any, said: str, after: str = "") -> list[int]:
    from gtft.dialect import learn_dialect, write_chat

    shape = learn_dialect(tokenizer)
    talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": said}]
    text = write_chat(tokenizer, shape.template, [shape.shape(m) for m in talk])
    if after:
        text = text.rpartition(after)[2]
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _list_ends(folder: Path, tokenizer: Any, turn_end: int, vocab: int) -> tuple[int, ...]:
    ends = {int(tokenizer.eos_token_id), turn_end}
    if (folder / "generation_config.json").is_file():
        told = read_json(folder / "generation_config.json").get("eos_token_id")
        listed = told if isinstance(told, list) else [told]
        ends |= {i for i in listed if isinstance(i, int) and 0 <= i < vocab}
    return tuple(sorted(ends))


_PROBES = (
    "Hello, world! It's 12 o'clock, they'RE late; we've 1234567 things to do.",
    "bd update bd-9f1f.2 --status=in_progress && gt nudge gastown/polecats/nux 'wake up'",
    "  leading, trailing  \n\n\n\ttabs\t\tand   many    spaces     \n  \r\n\r\nnext ",
    "def main(argv: list[str]) -> int:\n    return {'a': [1, 2.50, 0x1F], \"b\": None}[argv[0]]  # ok!?\n",
    "naïve café Ünïcödé ÀÉÎ ß ſ İ ŉ ǆ — “quotes” … ‰ € £ ¥ ½ ² ³ ① Ⅷ ٣٤٥ १२३",
    "中文分词 日本語テスト 한국어 시험 русский текст العربية עברית ไทย हिन्दी ελληνικά",
    "🚀 ✅ 👩‍👩‍👧‍👦 🇩🇪 ✌🏽 e\u0301 a\u030a n\u0303 \u200b\u200d\ufeff \u00a0\u2003\u3000end",
    "CamelCaseAndSNAKE_CASE_and-kebab 'quoted'S x'll X'LL don't DON'T can''t",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org ~/.config/x.toml C:\\temp\\y",
    '{"action": "nudge", "target": "gastown/witness", "n": [1, 22, 333, 4444]}',
    '<tool_call>{"name": "Bash"}</tool_call> <|not_special|> </s> [INST] <think>\n\n</think>',
    "a\nb\n\nc\n\n\nd\r\ne\rf\n \n  \n\u2028\u0085x",
    "!!! ??? ... --- === ___ ### $$$ %%% ^^^ &&& *** ((())) ,,,;;;:::",
    "v1.2.3-rc4+build.5 0.1 .5 5. 1,000,000 3.14e-10 2026-11-23T00:45:00Z",
)
