"""Smaller weights, by llama.cpp's own quantiser."""

from __future__ import annotations

import ctypes
from pathlib import Path

from gtft.errors import EvidenceError
from gtft.exports.llama_runtime import require_llama, tell_error


def quantise(whole: Path, out: Path, kind: str) -> None:
    """Write ``whole`` (a GGUF file in f32 or f16) to ``out`` as ``kind`` (q4_k_m).

    One thread, no importance matrix: the same bytes every time. Raises MissingExtra without llama-cpp-python,
    EvidenceError when llama.cpp refuses.
    """
    llama_cpp = require_llama(f"{kind} is made by llama.cpp")
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = 1
    params.ftype = {"q4_k_m": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}[kind]
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(out).encode(), ctypes.byref(params)):
        raise EvidenceError(
            f"llama.cpp could not make {kind} of this model",
            why=tell_error() or "the rows of a weight may be too short for it",
            fix="gtft model export MODEL --format gguf --quant q8_0",
        )
