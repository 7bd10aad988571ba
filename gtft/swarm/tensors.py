"""The hash of an adapter's numbers: the same for a file and for what is in memory."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from gtft.artifact import canonical_json
from gtft.errors import EvidenceError, translate_os_error

_LONGEST_HEADER = 64 * 1024 * 1024


def hash_tensors(named: Iterable[tuple[str, str, Sequence[int], bytes | memoryview]]) -> str:
    """``sha256:…`` over (name, dtype, shape, bytes), by name. Names as PEFT saves them, dtypes as
    safetensors writes them ("F32"), bytes row by row, little-endian."""
    digest = hashlib.sha256()
    for name, dtype, shape, data in sorted(named, key=lambda t: t[0]):
        head = canonical_json([name, dtype, list(shape), memoryview(data).nbytes])
        digest.update(head.encode() + b"\n")
        digest.update(data)
    return "sha256:" + digest.hexdigest()


def hash_adapter(path: Path) -> str:
    """`hash_tensors` of a safetensors file. Raises EvidenceError when it is not one."""
    try:
        with path.open("rb") as f:
            size = struct.unpack("<Q", f.read(8))[0]
            if size > _LONGEST_HEADER:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(f.read(size))
            header.pop("__metadata__", None)

            def read(start: int, end: int) -> bytes:
                f.seek(8 + size + start)
                return f.read(end - start)

            return hash_tensors(
                (name, e["dtype"], e["shape"], read(*e["data_offsets"]))
                for name, e in sorted(header.items())
            )
    except OSError as e:
        raise translate_os_error(e, "hashing an adapter") from e
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as e:
        raise EvidenceError(f"{path} is not a safetensors file", why=str(e)) from e
