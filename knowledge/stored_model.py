"""What a framework's own tools have stored, as a ModelSpec: matrices with their packing, and what a config.json says.

The bytes are those that are stored; the precision is the one that they are stored in (`source_framework`,
`source_precision`, `source_bits`): such a model is a candidate as it is, and nothing else. Headers are read, weights
never.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knowledge.base import MIB, AdvisorError, file_error, printable
from knowledge.gguf_model import MAX_CONTEXT, MAX_HEADS, MAX_LAYERS, MAX_WIDTH
from knowledge.hf_config import model_of_config
from knowledge.licences import commercial_use
from knowledge.records import AttentionGroup, ModelSpec, Tensor

MAX_JSON_BYTES = 4 * MIB
FLOAT_BITS = {"f64": 64, "f32": 32, "bf16": 16, "f16": 16}
_ROLES = (  # part of a name, role; the first that is found
    ("qkv_proj", "attn_qkv"), ("query_key_value", "attn_qkv"), ("q_proj", "attn_q"), ("k_proj", "attn_k"),
    ("v_proj", "attn_v"), ("o_proj", "attn_output"), ("self_attn.dense", "attn_output"),
    ("gate_up_proj", "ffn_gate_up"), ("experts", "ffn_up_exps"), ("gate_proj", "ffn_gate"), ("up_proj", "ffn_up"),
    ("down_proj", "ffn_down"), ("fc1", "ffn_up"), ("fc2", "ffn_down"), ("lm_head", "output"),
    ("embed_tokens", "token_embd"), ("wte", "token_embd"), ("layernorm", "norm"), ("norm", "norm"), ("bias", "bias"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that is stored. `dtype` is f64, f32, f16, bf16 or the bits of an integer."""

    name: str
    dims: tuple[int, ...]
    dtype: str
    bits: int
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.dims)


@dataclass(frozen=True, slots=True)
class Packed:
    """A matrix as it is stored: `bits` per value (32 and 16 are floating point), `group_size` values that share a scale
    (-1: the row, 0: none), `bytes` with scales and zero points."""

    name: str
    rows: int
    row_length: int
    bits: int
    bytes: int
    group_size: int = 0
    symmetric: bool = True
    kind: str = ""

    @property
    def elements(self) -> int:
        return self.rows * self.row_length


def main_of(path: Path, packed: Iterable[Packed]) -> Packed:
    """A matrix stored as most weights of the layers are (embedding and head apart where there are others).

    AdvisorError `bad-checkpoint` where there is none.
    """
    shares: dict[tuple[int, int, bool, str], list[Packed]] = {}
    every = list(packed)
    for one in [p for p in every if role_of(p.name) not in ("token_embd", "output")] or every:
        shares.setdefault((one.bits, one.group_size, one.symmetric, one.kind), []).append(one)
    if not shares:
        raise damaged(path, "it stores no matrices: it is no language model")
    return max(shares.values(), key=lambda some: sum(p.elements for p in some))[0]


def role_of(name: str) -> str:
    lower = name.lower()
    return next((role for part, role in _ROLES if part in lower), "other")


def layer_of(name: str) -> int | None:
    match = re.search(r"(?:layers|blocks|h|blk)\.(\d{1,4})\.", name)
    return int(match[1]) if match and int(match[1]) < MAX_LAYERS else None


def _tensor(one: Packed) -> Tensor:
    layer = layer_of(one.name)
    short = re.sub(r".*?(?:layers|blocks|h|blk)\.\d{1,4}\.", "", one.name) if layer is not None else one.name
    name = short if layer is None else f"blk.{layer}.{short}"
    return Tensor(name, role_of(one.name), one.row_length, one.rows, layer, f"{one.bits}", one.bytes)


def _small(one: Stored) -> Tensor:
    role = "norm" if "norm" in one.name.lower() else "other"
    return Tensor(one.name, role, 1, max(1, one.elements), layer_of(one.name), one.dtype, one.bytes, 1)


def spec_of(
    path: Path,
    framework: str,
    packed: list[Packed],
    rest: Iterable[Stored],
    config: dict[str, Any],
    graph_bytes: int,
    stored: tuple[str, int],
    notes: str,
    licence: str = "unknown",
) -> ModelSpec:
    small = [_small(t) for t in rest]
    tensors = (*(_tensor(p) for p in packed), *small)
    name, bits = stored
    base = replace(
        _architecture(path, config, packed),
        params=sum(p.elements for p in packed),
        licence=licence,
        commercial_use=commercial_use(licence),
        source="read from the file" if path.is_file() else "read from the folder",
        source_precision=name,
        source_framework=framework,
        source_bits=min(bits, 16),
        header_bytes=graph_bytes,
        tensors=tensors,
        path=str(path),
    )
    return replace(base, notes="; ".join(part for part in (base.notes, notes) if part))


def _architecture(path: Path, config: dict[str, Any], packed: list[Packed]) -> ModelSpec:
    """The architecture that `config` describes; where it describes none, `unknown` with what can still be counted."""
    described = {key: value for key, value in config.items() if value is not None}
    needed = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
    if all(key in described for key in needed):
        return model_of_config(described, path, (), "unknown", "")
    layers = _count(path, described, "num_hidden_layers", MAX_LAYERS)
    kv_heads = _count(path, described, "num_key_value_heads", MAX_HEADS)
    head_dim = _count(path, described, "head_dim", MAX_WIDTH)
    embedding = max((p for p in packed if role_of(p.name) == "token_embd"), key=lambda p: p.elements, default=None)
    cache = AttentionGroup("full", layers, kv_heads, head_dim, head_dim)
    known = bool(layers and kv_heads and head_dim)
    return ModelSpec(
        name=printable(path.stem if path.is_file() else path.resolve().name, 120),
        architecture="unknown",
        params=0,
        layers=layers,
        hidden=_count(path, described, "hidden_size", MAX_WIDTH) or (embedding.row_length if embedding else 0),
        intermediate=_count(path, described, "intermediate_size", MAX_WIDTH),
        heads=_count(path, described, "num_attention_heads", MAX_HEADS),
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=_count(path, described, "vocab_size", 2**26) or (embedding.rows if embedding else 0),
        tied_embeddings=False,
        context=_count(path, described, "max_position_embeddings", MAX_CONTEXT),
        attention=(cache,) if known else (),
        licence="unknown",
        commercial_use="unknown",
        source="",
        notes="" if known else "its cache is not known: the memory of the context is not counted",
    )


def _count(path: Path, config: Mapping[str, Any], key: str, most: int) -> int:
    value = config.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise damaged(path, f"it gives the {key} {printable(str(value), 30)}, not between 0 and {most}")
    return value


def read_json(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or path.stat().st_size > MAX_JSON_BYTES:
            raise damaged(path.parent, f"{path.name} is a link or too large")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise file_error(error, path) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path.parent, f"{path.name} is not valid JSON") from error
    if not isinstance(document, dict):
        raise damaged(path.parent, f"{path.name} holds no JSON object")
    return document


def value_at(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def damaged(path: Path, what: str) -> AdvisorError:
    return AdvisorError("bad-checkpoint", f"{path.name}: {what}.", "export or download it again")
