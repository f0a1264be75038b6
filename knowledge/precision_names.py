"""Bits per weight of a precision by whatever name a measurement gives it: `GGUF UD-Q4_K_XL`, `MLX 4bit`, `w4a16`.

`knowledge.precisions` resolves what our frameworks can make; published rows hold more (EXL2, NVFP4, ternary, AWQ). The
figures are those of whole files of 3 to 30 billion parameters, embedding and scales included, and serve where no exact
size is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from knowledge.tables import read_rows

_GGML = re.compile(
    r"(i?q\d_(?:k_xl|k_[mslp]\b|k_s|k|nl|xxs|xs|[ms]\b|[01])|tq\d_0|mxfp4_moe|mxfp[48]|nvfp4|bf16|f(?:loat|p)?16|"
    r"f(?:loat|p)?32|fp8|f8)"
)
_BITS = re.compile(r"u?int(\d+)|(\d+)[- ]?bits?|\bw(\d+)(?:a\d+)?\b|\b[qi](\d+)\b|awq|gptq|spinquant|qat|ternary|half")
_BPW = re.compile(r"exl\d[-_ ]*(\d\.\d+)|(\d\.\d+) ?bpw")
_GROUP = re.compile(r"\((\d{2,3})\)|\bg(?:s|roup[-_ ]?size)?[-_ ]?(\d{2,3})\b|\bb(\d{2,3})\b")
_SYNONYMS = {"float16": "f16", "fp16": "f16", "float32": "f32", "fp32": "f32", "f8": "fp8"}
_UNASKED = {"group_size": "128", "four_bit_share": "1", "zero_points": "yes", "output_too": "no"}
_WORDS = {"awq": 4, "gptq": 4, "spinquant": 4, "qat": 4, "ternary": 2, "half": 16}


@dataclass(frozen=True, slots=True)
class BitsNamed:
    """`name` is a precision's plain name (`q4_k_m`, `4bit`, `f16`); `assumed`: nothing was said, the runtime's default
    is taken."""

    name: str
    bits: float
    assumed: bool = False


@lru_cache(maxsize=2048)
def bits_named(precision: str, model: str, framework: str) -> BitsNamed:
    """What `precision` says, else what the model's name says, else what `framework` (advisor.workload) defaults to."""
    for text in (precision, model):
        if found := _parse(text[:160].lower(), framework):
            return found
    default = "4bit" if framework == "mlx" or "mlx" in model.lower() else "q4_k_m"
    return BitsNamed(default, _table()[default], assumed=True)


@dataclass(frozen=True, slots=True)
class MixedBits:
    """Bits per weight of OpenVINO's INT4-MIXED, scales included: of the layers, and of the output if it has weights of
    its own. The embedding has 8."""

    layers: float
    output: float


@lru_cache(maxsize=512)
def mixed_bits(model: str) -> MixedBits:
    """What OpenVINO's benchmarks make of the model (data/openvino_mixed.csv); of others what NNCF does by itself."""
    name = model.lower().removesuffix("-hf")
    row = _mixes().get(name, _UNASKED)
    share = float(row["four_bit_share"])
    four = 4 + (20 if row["zero_points"] == "yes" else 16) / int(row["group_size"])
    layers = share * four + (1 - share) * 8.0
    return MixedBits(layers, output=layers if row["output_too"] == "yes" else 8.0)


def names_bits(precision: str, framework: str) -> bool:
    """Whether `precision` itself says how many bits."""
    return _parse(precision[:160].lower(), framework) is not None


def _parse(text: str, framework: str) -> BitsNamed | None:
    ggml = _GGML.search(text)
    if ggml:
        name = _SYNONYMS.get(ggml[1], ggml[1])
        if name in _table():
            return BitsNamed(name, _table()[name])
    exact = _BPW.search(text)
    if exact:
        return BitsNamed("exl", min(16.0, float(exact[1] or exact[2]) + 0.1))
    bits = _BITS.search(text)
    if not bits:
        return None
    count = next((int(group) for group in bits.groups() if group), None) or _WORDS.get(bits[0], 4)
    if count in (16, 32):
        return BitsNamed(f"f{count}", float(count))
    if not 1 <= count <= 8:
        return None
    group = _GROUP.search(text)
    size = next((int(g) for g in group.groups() if g), 64) if group else 64
    scales = {4: 0.6, 8: 0.05}.get(count, 0.1) if framework == "openvino" else 32 / max(16, size)
    return BitsNamed(f"{count}bit", count + scales)


@lru_cache(maxsize=1)
def _mixes() -> dict[str, dict[str, str]]:
    return {row["model"]: row for row in read_rows("openvino_mixed.csv")}


@lru_cache(maxsize=1)
def _table() -> dict[str, float]:
    return {row["name"]: float(row["bits"]) for row in read_rows("file_bits.csv")}
