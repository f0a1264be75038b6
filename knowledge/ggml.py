"""ggml's tensor types and the mixture of types that llama.cpp's quantizer chooses, both read from data files.

`tensor_types` repeats the quantizer's decision for every tensor, so that the size of a quantized GGUF is known without
making it. Sources: `data/ggml_types.csv` and `data/gguf_mixtures.toml` (llama-cpp-python 0.3.36, src/llama-quant.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from knowledge.base import AdvisorError
from knowledge.records import ModelSpec, Tensor
from knowledge.tables import read_document, read_rows

_CATEGORIES = (  # parts of a tensor's name, in the quantizer's own order
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"),
    ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)
_COUNTED = ("attn_v", "ffn_down", "ffn_gate", "ffn_up")
Override = tuple[str, str]


@dataclass(frozen=True, slots=True)
class GgmlType:
    """A storage type: `block` elements take `bytes` bytes. `fallback` replaces it where a row is no whole number of
    blocks (empty: none is defined)."""

    name: str
    id: int
    block: int
    bytes: int
    fallback: str
    source: str

    @property
    def bits(self) -> float:
        """Bits per weight, scales included."""
        return 8 * self.bytes / self.block

    def row_bytes(self, row_length: int) -> int:
        return -(-row_length // self.block) * self.bytes


@dataclass(frozen=True, slots=True)
class Rule:
    conditions: tuple[str, ...]
    type: str


@dataclass(frozen=True, slots=True)
class Mixture:
    """A llama_ftype: its number in the file's metadata, the base type, and the rules by category that apply to it."""

    name: str
    id: int
    base: str
    by_layer_always: bool
    rules: dict[str, tuple[Rule, ...]]


@lru_cache(maxsize=1)
def ggml_types() -> dict[str, GgmlType]:
    """Every ggml type by name."""
    return {
        row["name"]: GgmlType(
            row["name"], int(row["id"]), int(row["block"]), int(row["bytes"]), row["fallback"], row["source"]
        )
        for row in read_rows("ggml_types.csv")
    }


@lru_cache(maxsize=1)
def type_names() -> dict[int, str]:
    """Names of the ggml types by their number in a file."""
    return {kind.id: name for name, kind in ggml_types().items()}


@lru_cache(maxsize=1)
def _document() -> dict[str, dict[str, object]]:
    return read_document("gguf_mixtures.toml")


@lru_cache(maxsize=1)
def mixtures() -> dict[str, Mixture]:
    """Every file type that llama.cpp names, by its name."""
    document = _document()
    sets = {name: str(members).split() for name, members in document["sets"].items()}
    tables: dict[str, dict[str, list[Rule]]] = {}
    for category, rows in document["rules"].items():
        for names, conditions, kind in rows:  # type: ignore[attr-defined]
            rule = Rule(tuple(conditions.split()), kind)
            members = [member for name in names.split() for member in sets.get(name, [name])]
            for member in list(document["ids"]) if members == ["*"] else members:
                tables.setdefault(member, {}).setdefault(category, []).append(rule)
    return {
        name: Mixture(
            name,
            int(str(number)),
            str(document["base"].get(name, name)),
            name not in sets["LOW"],
            {category: tuple(rules) for category, rules in tables.get(name, {}).items()},
        )
        for name, number in document["ids"].items()
    }


def file_type_name(number: int) -> str:
    """The llama_ftype with this number, or an empty string."""
    return next((mixture.name for mixture in mixtures().values() if mixture.id == number), "")


def category_of(name: str) -> str:
    """The quantizer's category of a tensor, by its GGUF name."""
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "token_embd"
    return next((category for part, category in _CATEGORIES if part in name), "other")


@lru_cache(maxsize=4096)
def quantizable_name(name: str) -> bool:
    """Whether a tensor of this name is quantized at all (it must have two dimensions besides)."""
    document = _document()
    return (
        name.endswith("weight")
        and name not in document["keep_exact"]
        and not any(part in name for part in document["keep_parts"])
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """The facts about a model and a call that the rules ask for."""

    facts: frozenset[str]
    layers: int
    attention_layers: int
    experts: bool


def setting_of(spec: ModelSpec, attention_layers: int, imatrix: bool) -> Setting:
    facts = set()
    grouped = spec.heads // spec.kv_heads if spec.kv_heads else 0
    if grouped >= 4 and spec.architecture not in _document()["no_gqa"]:
        facts.add("gqa>=4")
    if spec.experts >= 4:
        facts.add("experts>=4")
    if spec.experts == 8:
        facts.add("experts==8")
    if imatrix:
        facts.add("imatrix")
    if spec.architecture == "falcon":
        facts.add("falcon")
    if spec.layers == 80 and spec.heads != spec.kv_heads and spec.architecture in ("llama", "qwen2", "deci", "olmo"):
        facts.add("70B")
    return Setting(frozenset(facts), spec.layers, attention_layers, spec.experts > 1)


def chosen_types(
    mixture: Mixture, category: str, setting: Setting, row_length: int, stacked: bool, indices: Sequence[int]
) -> dict[str, int]:
    """How many of the tensors of a category, by their running numbers, the rules want in which type (before
    `fit_type`)."""
    count = setting.attention_layers if category == "attn_v" else setting.layers
    rules = mixture.rules.get(category, ())
    if category != "output":
        rules = (*mixture.rules.get("any", ()), *rules)
    chosen: dict[str, int] = {}
    left = indices
    for rule in rules:
        if not left:
            return chosen
        if not all(
            _fact_holds(c, mixture, setting, row_length, stacked) for c in rule.conditions if not _positional(c)
        ):
            continue
        places = [c for c in rule.conditions if _positional(c)]
        taken = [i for i in left if all(_position_holds(c, i, count) for c in places)] if places else left
        if taken:
            chosen[rule.type] = chosen.get(rule.type, 0) + len(taken)
            left = [i for i in left if i not in set(taken)] if places else ()
    if left:
        chosen[mixture.base] = chosen.get(mixture.base, 0) + len(left)
    return chosen


def kept_type(name: str, dtype: str | None, spec: ModelSpec) -> str:
    """The type of a tensor that is not quantized: as in the GGUF; conversion from elsewhere writes F32, or F16."""
    if dtype is not None and spec.header_bytes:
        return dtype
    return "F16" if any(part in name for part in _document()["keep_half"]) else "F32"


def fit_type(name: str, row_length: int) -> str:
    """`name`, or what the quantizer takes instead where rows of `row_length` are no whole number of its blocks."""
    types = ggml_types()
    kind = types[name]
    if row_length % kind.block == 0:
        return name
    if not kind.fallback and kind.block > 32:
        raise AdvisorError(
            "cannot-quantize",
            f"llama.cpp has no fallback for {name} where a row of {row_length} is no multiple of {kind.block}.",
            "choose another precision",
        )
    fallback = kind.fallback or name
    return fallback if row_length % types[fallback].block == 0 else "F16"


@lru_cache(maxsize=64)
def _positional(condition: str) -> bool:
    return condition in ("more_bits", "middle") or condition.startswith("first")


def _fact_holds(condition: str, mixture: Mixture, setting: Setting, row_length: int, stacked: bool) -> bool:
    name = condition.removeprefix("!")
    if name == "misfit":
        value = row_length % ggml_types()[mixture.base].block != 0
    elif name == "base=Q8_0":
        value = mixture.base == "Q8_0"
    elif name == "stacked":
        value = stacked
    else:
        value = name in setting.facts
    return value != condition.startswith("!")


def _position_holds(condition: str, index: int, count: int) -> bool:
    if condition == "more_bits":
        return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2
    if condition == "middle":
        return count // 8 <= index < 7 * count // 8
    if condition.startswith("first:"):
        return index < int(condition[6:])
    return index < count // int(condition[6:])


def processing_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors in the order of the quantizer's loop: outside the layers first, then by layer, by name within."""
    return sorted(tensors, key=lambda t: (-1 if t.layer is None else t.layer, t.name))


def tensor_types(
    tensors: Sequence[Tensor],
    spec: ModelSpec,
    ftype: str,
    overrides: Sequence[Override] = (),
    imatrix: bool = False,
) -> list[tuple[Tensor, str]]:
    """The ggml type that quantizing to `ftype` gives each tensor, in the order of the output file.

    `overrides` are (pattern, type): the first whose regular expression is found in the tensor's name wins (only where
    `ftype` is quantized). AdvisorError `cannot-quantize` where llama.cpp itself refuses; KeyError for an unknown type
    name.
    """
    mixture = mixtures()[ftype]
    quantized = mixture.base not in ("F32", "F16", "BF16")
    patterns = [(re.compile(pattern), kind) for pattern, kind in overrides] if quantized else []
    ordered = processing_order(tensors)
    categories = [category_of(tensor.name) for tensor in ordered]
    tied = "output" not in categories
    setting = setting_of(spec, categories.count("attn_v"), imatrix)
    seen = dict.fromkeys(_COUNTED, 0)
    result = []
    for tensor, category in zip(ordered, categories, strict=True):
        if tensor.dimensions < 2 or not quantizable_name(tensor.name):
            result.append((tensor, kept_type(tensor.name, tensor.dtype, spec)))
            continue
        if not quantized:
            result.append((tensor, mixture.base))
            continue
        manual = next((kind for pattern, kind in patterns if pattern.search(tensor.name)), None)
        if manual is not None:
            result.append((tensor, fit_type(manual, tensor.row_length)))
            continue
        role = "output" if tied and category == "token_embd" else category
        by_layer = setting.experts and mixture.by_layer_always and category != "attn_v" and tensor.layer is not None
        index = tensor.layer if by_layer and tensor.layer is not None else seen.get(category, 0)
        (wanted,) = chosen_types(mixture, role, setting, tensor.row_length, tensor.dimensions > 2, (index,))
        result.append((tensor, fit_type(wanted, tensor.row_length)))
        if category in seen:
            seen[category] += 1
    return result
