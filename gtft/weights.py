"""Model folders of strangers, looked at before anything loads them: headers only, with the standard library.

What loads them afterwards (transformers, PEFT, llama.cpp) trusts much of what a folder says: a pickle is a program, a link
or an index can name any file of the machine, a header can ask for all of its memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from gtft.errors import EvidenceError, InputError, translate_os_error
from gtft.footprint import read_shape

# Bytes. An 8B model's safetensors header has 0.1 MB; a GGUF's holds the vocabulary, 5-10 MB.
MOST_HEADER = 32 << 20
MOST_GGUF_HEADER = 128 << 20
MOST_JSON = 16 << 20
MOST_FILES = 10_000
MOST_DEPTH = 6

# A tokenizer's, and the chat template's.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
CONFIG_FILES = ("config.json", "generation_config.json")
# Formats that can hold a program; by name, for nothing that gtft loads ends so.
_PROGRAMS = frozenset(
    [
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".pkl",
        ".pickle",
        ".joblib",
        ".dill",
        ".npy",
        ".npz",
        ".h5",
        ".hdf5",
        ".keras",
        ".pb",
        ".so",
        ".dll",
        ".dylib",
        ".mar",
    ]
)
# By what stands at the beginning, whatever the name.
_PICKLE = re.compile(rb"\x80[\x01-\x08]")
# A pickle of protocol 0 that names a function at once: (i module \n name \n, or c module \n name \n.
_OLD_PICKLE = re.compile(rb"\(?[ci][A-Za-z_][\w.]*\n[A-Za-z_]\w*\n|\([ld]p\d")
_PACKED = {
    b"PK\x03\x04": "a zip archive, as torch writes pickles",
    b"\x1f\x8b": "a compressed file",
    b"BZh": "a compressed file",
    b"\xfd7zXZ": "a compressed file",
    b"\x28\xb5\x2f\xfd": "a compressed file",
    b"\x93NUMPY": "a NumPy array, which can hold a pickle",
    b"\x89HDF": "an HDF5 file, which can hold a program",
    b"\x7fELF": "a program",
}
_TEXT = frozenset(
    [
        ".md",
        ".txt",
        ".json",
        ".jsonl",
        ".jinja",
        ".yaml",
        ".yml",
        ".toml",
        ".csv",
        ".lock",
        ".metadata",
        ".gitattributes",
    ]
)
# The weights a second time, as hubs have them beside the safetensors; loaders that are told to never open them.
_COPIES = re.compile(
    r"pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json|consolidated[\w.-]*\.pth|tf_model\.h5|rust_model\.ot|training_args\.bin"
    r"|openvino_model\.bin|weight\.bin"
)
# One file of several: the beginning and the end that all have, how many there are.
_SHARD = re.compile(r"(.+-)\d+(-of-(\d+)\.safetensors)")
# Bits of a number, by safetensors' names.
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
# ggml's types: number -> (numbers in a block, bytes of a block).
_GGML = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8),
    29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
# GGUF's plain value types -> bytes; 8 is a string, 9 an array.
_PLAIN = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# Keys that make a loader import or run what the folder brings, or names.
_FOREIGN = ("auto_map", "custom_pipelines", "auto_mapping", "megatron_config", "layer_replication")
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "vocab_size",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
)
_MOST_SIZE = 100_000_000
# Tensors whose first size is a rank; an embedding's ends so.
_RANKED = re.compile(r"\.lora_A\.|\.lora_embedding_A$")


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


def inspect_weights(folder: Path, *, strict: bool = False) -> None:
    """Refuse a model folder that could do more than hold a model: pickles under any name, links, paths out of it,
    headers that are damaged or too large, code to be run, sizes that do not add up.

    A base as people publish it may hold its weights a second time, as a pickle that nothing here loads
    (``pytorch_model.bin``), and name code that nothing here runs (``auto_map``): passed over, where safetensors hold
    the model. Not in artifacts and adapters, and not where ``strict``. Raises EvidenceError naming the file, and
    InputError when the folder cannot be read.
    """
    try:
        base = not strict and _is_base(folder)
        headers: dict[Path, list[Tensor]] = {}
        for path in _walk(folder):
            if base and _COPIES.fullmatch(path.name):
                continue
            if path.suffix == ".safetensors":
                headers[path] = read_safetensors(path)
            elif path.suffix == ".gguf":
                headers[path] = read_gguf(path)
            else:
                _refuse_program(path)
        for path in _walk(folder):
            if base and _COPIES.fullmatch(path.name):
                continue
            if path.name.endswith("index.json"):
                _check_index(path, headers)
            elif path.name.endswith("config.json"):
                _check_config(path, headers, base)
    except OSError as e:
        raise translate_os_error(e, f"inspecting {folder.name}") from e


def _is_base(folder: Path) -> bool:
    """Whether it is a published model whose weights are in safetensors, where all loaders look first.

    Not an artifact, which we made; nor an adapter, whose loader takes a pickle too.
    """
    if any((folder / n).exists() for n in ("artifact.json", "adapter_config.json")):
        return False
    whole = ("model.safetensors", "model.safetensors.index.json")
    return (folder / "config.json").is_file() and any((folder / n).is_file() for n in whole)


def list_loaded(folder: Path) -> list[str]:
    """Names of the files that a model's answers follow from: config, tokenizer and weights. README, licences and other
    formats do not count, nor does an index, which `inspect_weights` holds against the weights."""
    wanted = (*CONFIG_FILES, *TOKENIZER_FILES, *(p.name for p in folder.glob("*.safetensors")))
    return sorted(n for n in wanted if (folder / n).is_file())


def count_parameters(folder: Path) -> int:
    """Numbers in a model's safetensors files; those of its index where it has one. Raises EvidenceError."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index)["weight_map"].values()))
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        names = sorted(p.name for p in folder.glob("*.safetensors"))
    return sum(t.numbers for name in names for t in read_safetensors(folder / name))


def read_safetensors(path: Path) -> list[Tensor]:
    """The tensors of a file, from its header. Raises EvidenceError when they do not fill it exactly."""
    size = path.stat().st_size
    with path.open("rb") as f:
        start = f.read(8)
        if len(start) < 8:
            raise _refuse(path, "it is too short to be safetensors")
        (length,) = struct.unpack("<Q", start)
        if length > MOST_HEADER or length > size - 8:
            pointer = start == b"version "
            raise _refuse(
                path,
                "it is a pointer of git-lfs, not the weights (git lfs pull)"
                if pointer
                else f"its header claims {length} bytes; the file has {size}, a header at most {MOST_HEADER}",
            )
        raw = f.read(length)
    doc = _parse(raw, path)
    doc.pop("__metadata__", None)
    tensors, spans = [], []
    for name, entry in doc.items():
        tensor, span = _read_entry(path, name, entry)
        tensors.append(tensor)
        spans.append(span)
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise _refuse(path, f"its tensors overlap or leave a hole at byte {min(begin, end)}")
        end = stop
    if end != size - 8 - length:
        raise _refuse(
            path, f"its tensors take {end} bytes, the file has {size - 8 - length} for them"
        )
    return tensors


def read_gguf(path: Path) -> list[Tensor]:
    """The tensors of a GGUF file, from its header. Raises EvidenceError when header and file do not agree."""
    size = path.stat().st_size
    with path.open("rb") as f:
        reader = _Reader(path, f, min(size, MOST_GGUF_HEADER))
        if reader.take(4) != b"GGUF":
            raise _refuse(path, "it does not begin as GGUF does")
        version, count, values = reader.number("<I"), reader.number("<Q"), reader.number("<Q")
        # Each needs at least 24 or 13 bytes: more cannot be there.
        if version not in (2, 3) or count * 24 > size or values * 13 > size:
            raise _refuse(
                path, f"version {version}, {count} tensors and {values} values in {size} bytes"
            )
        alignment = 32
        for _ in range(values):
            key = reader.string(65_535)
            kind = reader.number("<I")
            if key == b"general.alignment" and kind == 4:
                alignment = reader.number("<I")
            else:
                reader.skip(kind)
        if alignment < 8 or alignment & (alignment - 1) or alignment > 1 << 16:
            raise _refuse(path, f"its alignment is {alignment}")
        found = [_read_gguf_tensor(path, reader, alignment) for _ in range(count)]
    begin = -(-reader.at // alignment) * alignment
    end = 0
    for tensor, offset in sorted(found, key=lambda t: t[1]):
        if offset < end:
            raise _refuse(path, f"the tensor {tensor.name!r} overlaps another")
        end = offset + tensor.bytes
    if begin + end > max(size, begin):
        raise _refuse(path, f"its tensors end at byte {begin + end}, the file at {size}")
    return [t for t, _ in found]


class _Reader:
    """Reads a header, and no more than ``most`` bytes of it."""

    def __init__(self, path: Path, file: BinaryIO, most: int) -> None:
        self._path, self._file, self._most = path, file, most
        self.at = 0

    def take(self, count: int) -> bytes:
        if count > self._most - self.at:
            raise _refuse(self._path, f"its header goes on after byte {self._most}")
        data = self._file.read(count)
        if len(data) < count:
            raise _refuse(self._path, "it ends within its header")
        self.at += count
        return data

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def string(self, most: int) -> bytes:
        length = self.number("<Q")
        if length > most:
            raise _refuse(self._path, f"a name in its header has {length} bytes")
        return self.take(length)

    def skip(self, kind: int, depth: int = 0) -> None:
        """Past one value."""
        if kind in _PLAIN:
            self.take(_PLAIN[kind])
        elif kind == 8:
            self.string(self._most)
        elif kind == 9 and depth < 2:
            inner, count = self.number("<I"), self.number("<Q")
            if inner in _PLAIN:
                self.take(_PLAIN[inner] * count)
                return
            if count * 8 > self._most:
                raise _refuse(self._path, f"a list in its header has {count} entries")
            for _ in range(count):
                self.skip(inner, depth + 1)
        else:
            raise _refuse(self._path, f"its header holds a value of type {kind}")


def _walk(folder: Path) -> Iterator[Path]:
    """Every file; links and devices are refused, but for the links with which the hub's cache is made."""
    found = 0
    waiting = [(folder, 0)]
    while waiting:
        here, depth = waiting.pop()
        for entry in sorted(os.scandir(here), key=lambda e: e.name):
            path = Path(entry.path)
            found += 1
            if found > MOST_FILES or depth > MOST_DEPTH:
                raise _refuse(
                    folder, f"it holds more than {MOST_FILES} files or {MOST_DEPTH} levels"
                )
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                if not _is_cached(folder, path):
                    raise _refuse(path, "it is a link; what it points to can be any file")
                yield path
            elif stat.S_ISDIR(mode):
                # What git keeps is loaded by nothing.
                if entry.name != ".git":
                    waiting.append((path, depth + 1))
            elif stat.S_ISREG(mode):
                yield path
            else:
                raise _refuse(path, "it is neither a file nor a folder")


def _is_cached(folder: Path, link: Path) -> bool:
    """Whether a link is one of the hub's cache: models--x/snapshots/REVISION/… to models--x/blobs/HASH."""
    if folder.parent.name != "snapshots":
        return False
    blobs = folder.parent.parent.resolve() / "blobs"
    target = link.resolve()
    return target.parent == blobs and target.is_file() and not target.is_symlink()


def _refuse_program(path: Path) -> None:
    if path.suffix.lower() in _PROGRAMS:
        raise _refuse(path, "files of this kind can run code when they are loaded")
    with path.open("rb") as f:
        start = f.read(512)
    for magic, told in _PACKED.items():
        if start.startswith(magic):
            raise _refuse(path, f"it is {told}")
    text = path.suffix.lower() in _TEXT or path.suffix == ""
    if _PICKLE.match(start) or (not text and _OLD_PICKLE.match(start)):
        raise _refuse(path, "it is a pickle, which runs code when it is loaded")
    if start[257:262] == b"ustar":
        raise _refuse(path, "it is an archive, as old versions of torch wrote pickles")


def _read_entry(path: Path, name: str, entry: Any) -> tuple[Tensor, tuple[int, int]]:
    try:
        bits = _BITS[entry["dtype"]]
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as e:
        raise _refuse(path, f"the entry of {name[:80]!r} is none of a tensor: {e!r}"[:200]) from e
    numbers = (*shape, begin, end)
    if len(shape) > 8 or any(type(n) is not int or not 0 <= n < 1 << 60 for n in numbers):
        raise _refuse(path, f"the sizes of {name[:80]!r} are no sizes")
    total = math.prod(shape) * bits
    if total % 8 or end - begin != total // 8:
        raise _refuse(
            path, f"{name[:80]!r} has {end - begin} bytes; its shape needs {total / 8:.0f}"
        )
    return Tensor(name, shape, end - begin), (begin, end)


def _read_gguf_tensor(path: Path, reader: _Reader, alignment: int) -> tuple[Tensor, int]:
    name = reader.string(256).decode("utf-8", "replace")
    dimensions = reader.number("<I")
    if not 0 <= dimensions <= 4:
        raise _refuse(path, f"the tensor {name!r} has {dimensions} dimensions")
    shape = tuple(reader.number("<Q") for _ in range(dimensions))
    kind, offset = reader.number("<I"), reader.number("<Q")
    block, width = _GGML.get(kind, (0, 0))
    row = shape[0] if shape else 1
    if not block or row % block or any(n > 1 << 40 for n in shape) or offset % alignment:
        raise _refuse(path, f"the tensor {name!r} has type {kind}, shape {shape}, offset {offset}")
    return Tensor(name, shape, math.prod(shape) // block * width), offset


def _check_index(path: Path, headers: Mapping[Path, Sequence[Tensor]]) -> None:
    doc = _read_json(path)
    weights = doc.get("weight_map")
    if not isinstance(weights, dict):
        raise _refuse(path, "it has no weight_map")
    held = {
        p.name: {t.name for t in found} for p, found in headers.items() if p.parent == path.parent
    }
    for tensor, name in weights.items():
        if not isinstance(name, str) or not _is_plain(name):
            raise _refuse(path, f"it names a file outside its folder: {name!r}"[:200])
        if name not in held:
            raise _refuse(path, f"it names {name!r}, which is no safetensors file beside it")
        if tensor not in held[name]:
            raise _refuse(path, f"{name} does not hold {tensor[:80]!r}, as it says")
    named = set(weights.values())
    for found in filter(None, map(_SHARD.fullmatch, named)):
        series = {n for n in named if n.startswith(found[1]) and n.endswith(found[2])}
        if len(series) != int(found[3]):
            raise _refuse(
                path, f"it names {len(series)} files of the {int(found[3])} of {found[0]}"
            )


def _check_config(path: Path, headers: Mapping[Path, Sequence[Tensor]], base: bool) -> None:
    doc = _read_json(path)
    for key in _FOREIGN:
        # Everything is loaded with trust_remote_code=False: transformers' own class, or an error.
        passed = base and key == "auto_map" and path.name == "config.json"
        if doc.get(key) and not passed:
            raise _refuse(
                path,
                f"it sets {key}, by which loading would run or multiply what the folder names",
                fix=f"take {key} out where transformers knows the family, or use another model",
            )
    named = doc.get("transformers_weights")
    if named is not None and not (isinstance(named, str) and _is_plain(named)):
        raise _refuse(path, f"it names weights outside its folder: {named!r}"[:200])
    beside = {p.name: found for p, found in headers.items() if p.parent == path.parent}
    if path.name == "adapter_config.json":
        if (path.parent / "config.json").is_file():
            raise _refuse(
                path,
                "beside config.json loaders lay the adapter on the model, or load the base it names",
            )
        if doc.get("peft_type") != "LORA":
            raise _refuse(
                path, f"it is of the kind {doc.get('peft_type')!r}; gtft loads LORA"[:200]
            )
        _check_ranks(path, doc, beside.get("adapter_model.safetensors", ()))
    elif path.name == "config.json":
        _check_shape(path, doc, [t for found in beside.values() for t in found])


def _check_ranks(path: Path, doc: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """A rank is allocated before any tensor is read."""
    pattern = doc.get("rank_pattern") or {}
    ranks = [doc.get("r", 0), *(pattern.values() if isinstance(pattern, dict) else [None])]
    held = max((t.shape[0] for t in tensors if _RANKED.search(t.name) and t.shape), default=0)
    if any(type(r) is not int or r < 0 for r in ranks) or max(ranks) > held:
        raise _refuse(path, f"it claims ranks {ranks[:8]}; its tensors have at most {held}"[:200])


def _check_shape(path: Path, doc: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """A model is allocated as the config says before its tensors are read."""
    text = doc.get("text_config")
    for source in (doc, text if isinstance(text, dict) else {}):
        for key in _SIZES:
            value = source.get(key, 1)
            if type(value) is int and not 0 < value <= _MOST_SIZE:
                raise _refuse(path, f"its {key} is {value}")
    try:
        parameters = read_shape(doc).parameters
    except InputError:
        # Not a plain decoder: its sizes were bounded above.
        return
    size = sum(t.bytes for t in tensors)
    # No storage has less than a bit of each.
    if tensors and parameters > size * 8:
        raise _refuse(
            path, f"it describes {parameters} parameters; the weights beside it have {size} bytes"
        )


def _is_plain(name: str) -> bool:
    return name == PurePosixPath(name).name and name not in ("", ".", "..") and "\\" not in name


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MOST_JSON:
        raise _refuse(path, f"it is larger than {MOST_JSON} bytes")
    return _parse(path.read_bytes(), path)


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    """A JSON object in which no key stands twice: two readers may take different ones."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        doc = json.loads(raw.decode("utf-8"), object_pairs_hook=build)
    except (ValueError, RecursionError) as e:
        raise _refuse(path, f"it is not the JSON that it should hold: {e}"[:200]) from e
    if not isinstance(doc, dict):
        raise _refuse(path, "it holds no JSON object")
    return doc


def _refuse(path: Path, why: str, fix: str = "") -> EvidenceError:
    return EvidenceError(
        f"the model folder is refused because of {path.name}",
        why=why,
        fix=fix
        or f"take {path.name} out of the folder if the model does not need it, or use another model",
    )
