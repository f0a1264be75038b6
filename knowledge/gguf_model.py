"""From a GGUF header to the model in it: what its metadata must satisfy, and the ModelSpec that follows.

Refused here is what llama.cpp accepts and then dies of, hangs on or answers nonsense with (63 files tried, lab notes
2026-11): absurd layer counts, epsilons that are no positive number, training contexts of 2^31, tokens outside the
vocabulary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from knowledge.base import AdvisorError, printable
from knowledge.ggml import file_type_name
from knowledge.licences import commercial_use
from knowledge.records import AttentionGroup, ModelSpec
from knowledge.serving import modalities
from knowledge.shapes import window_period

if TYPE_CHECKING:
    from knowledge.gguf import GgufFile

_RANK_POOLING = 4  # LLAMA_POOLING_TYPE_RANK
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_CONTEXT = 2**24
MAX_WIDTH = 2**20
MAX_HEADS = 4096
MAX_EXPERTS = 4096

_ROLES = (
    ("token_embd.weight", "token_embd"),
    ("output.weight", "output"),
    ("attn_qkv.weight", "attn_qkv"),
    ("attn_q.weight", "attn_q"),
    ("attn_k.weight", "attn_k"),
    ("attn_v.weight", "attn_v"),
    ("attn_output.weight", "attn_output"),
    ("ffn_gate_inp", "ffn_router"),
    ("ffn_gate_exps.weight", "ffn_gate_exps"),
    ("ffn_up_exps.weight", "ffn_up_exps"),
    ("ffn_down_exps.weight", "ffn_down_exps"),
    ("ffn_gate_shexp.weight", "ffn_gate_shexp"),
    ("ffn_up_shexp.weight", "ffn_up_shexp"),
    ("ffn_down_shexp.weight", "ffn_down_shexp"),
    ("ffn_gate.weight", "ffn_gate"),
    ("ffn_up.weight", "ffn_up"),
    ("ffn_down.weight", "ffn_down"),
    ("conv", "conv"),
    ("ssm_", "ssm"),
)
_TYPES_OF_FILES = {"adapter": "a LoRA adapter", "imatrix": "an importance matrix", "mmproj": "a multimodal projector"}
_SPECIAL_TOKENS = ("bos", "eos", "eot", "eom", "unknown", "padding", "separator", "mask")


def role_of(name: str) -> str:
    """The role of a tensor by its GGUF name."""
    if name.endswith("norm.weight"):
        return "norm"
    if name.endswith(".bias"):
        return "bias"
    return next((role for part, role in _ROLES if name == part or f".{part}" in f".{name}"), "other")


def check_model(file: GgufFile) -> None:
    """Raise AdvisorError `bad-gguf` where the metadata describes no model that can be run safely."""
    kind = file.metadata.get("general.type", "model")
    architecture = file.metadata.get("general.architecture")
    if kind in _TYPES_OF_FILES or architecture == "clip":
        what = _TYPES_OF_FILES.get(str(kind), "a multimodal projector")
        raise _bad(file, f"is {what}, not a language model", "name the model's own .gguf file")
    if not isinstance(architecture, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", architecture):
        raise _bad(file, "does not name its architecture")
    if not file.tensors:
        raise _bad(file, "holds no weights", "name a .gguf file with a whole model")
    read = _Fields(file, architecture)
    layers = read.count("block_count", 1, MAX_LAYERS)
    read.count("embedding_length", 1, MAX_WIDTH)
    read.count("context_length", 1, MAX_CONTEXT)
    read.counts("feed_forward_length", 0, MAX_WIDTH, layers, required=False)
    heads = read.counts("attention.head_count", 0, MAX_HEADS, layers, required=False)
    kv_heads = read.counts("attention.head_count_kv", 0, MAX_HEADS, layers, required=False)
    recurrent = any(f"{architecture}.{key}" in file.metadata for key in ("ssm.inner_size", "wkv.head_size"))
    if not recurrent and ((heads and not max(heads)) or (kv_heads and not max(kv_heads))):
        raise _bad(file, "has no attention heads in any layer")
    read.count("attention.key_length", 1, MAX_WIDTH, required=False)
    read.count("attention.value_length", 1, MAX_WIDTH, required=False)
    experts = read.count("expert_count", 0, MAX_EXPERTS, required=False)
    used = max(read.counts("expert_used_count", 0, MAX_EXPERTS, layers, required=False), default=0)
    if used > experts:
        raise _bad(file, f"uses {used} experts of {experts}")
    for name in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base"):
        read.positive(name)
    _check_layers(file, layers, read.count("nextn_predict_layers", 0, MAX_LAYERS, required=False))
    _check_tokens(file)


def _check_layers(file: GgufFile, layers: int, speculative: int) -> None:
    """Every layer has tensors; only the last ones, for speculation, may have been left out."""
    found = {tensor.layer for tensor in file.tensors if tensor.layer is not None}
    if found and max(found) >= layers:
        raise _bad(file, f"says that it has {layers} layers and holds tensors of layer {max(found)}")
    if len(found) < layers - speculative:
        raise _bad(file, f"says that it has {layers} layers and holds tensors of {len(found)}")


def _check_tokens(file: GgufFile) -> None:
    """Special tokens lie in the vocabulary; the embedding has a row for each token."""
    tokens = file.arrays.get("tokenizer.ggml.tokens")
    embedding = next((t for t in file.tensors if t.name == "token_embd.weight"), None)
    size = tokens.count if tokens else embedding.rows if embedding else 0
    if tokens and embedding and tokens.count != embedding.rows:
        raise _bad(file, f"has {tokens.count} tokens and an embedding of {embedding.rows} rows")
    for name in _SPECIAL_TOKENS:
        token = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if token is not None and size and (not isinstance(token, int) or not 0 <= token < size):
            raise _bad(file, f"has the {name} token {token} outside its vocabulary of {size}")


class _Fields:
    """Typed, bounded access to the keys of the file's architecture."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self._file, self._architecture = file, architecture

    def count(self, name: str, least: int, most: int, *, required: bool = True) -> int:
        """A number, or the largest of a list; 0 where it is absent."""
        return max(self.counts(name, least, most, 0, required=required), default=0)

    def counts(self, name: str, least: int, most: int, layers: int, *, required: bool) -> list[int]:
        value = self._file.metadata.get(f"{self._architecture}.{name}")
        if value is None:
            if required:
                raise _bad(self._file, f"does not say its {name}")
            return []
        values: Sequence[object] = value if isinstance(value, tuple) else (value,)
        if not values or (isinstance(value, tuple) and layers and len(value) < layers):
            raise _bad(self._file, f"has {name} for {len(values)} of {layers} layers")
        for number in values:
            if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
                raise _bad(self._file, f"has the {name} {printable(str(number), 30)}, not between {least} and {most}")
        return [number for number in values if isinstance(number, int)]

    def positive(self, name: str) -> None:
        value = self._file.metadata.get(f"{self._architecture}.{name}")
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise _bad(self._file, f"has the {name} {printable(str(value), 30)}, which is no positive number")

    def text(self, name: str) -> str:
        value = self._file.metadata.get(name)
        return printable(value, 120).strip() if isinstance(value, str) else ""


def model_of_file(file: GgufFile) -> ModelSpec:
    """The model in a checked header."""
    architecture = str(file.metadata["general.architecture"])
    read = _Fields(file, architecture)
    layers = read.count("block_count", 1, MAX_LAYERS)
    hidden = read.count("embedding_length", 1, MAX_WIDTH)
    heads = read.count("attention.head_count", 0, MAX_HEADS, required=False)
    kv_heads = read.count("attention.head_count_kv", 0, MAX_HEADS, required=False) or heads
    head_dim = read.count("attention.key_length", 0, MAX_WIDTH, required=False) or (hidden // heads if heads else 0)
    experts = read.count("expert_count", 0, MAX_EXPERTS, required=False)
    used = read.count("expert_used_count", 0, MAX_EXPERTS, required=False)
    params = sum(tensor.elements for tensor in file.tensors)
    expert_params = sum(tensor.elements for tensor in file.tensors if tensor.role.endswith("_exps"))
    embedding = next((t for t in file.tensors if t.name == "token_embd.weight"), None)
    licence = read.text("general.license").lower() or "unknown"
    expert_width = next((t.row_length for t in file.tensors if t.role == "ffn_down_exps"), 0)
    modality = _modality(file, architecture)
    shared_width = next((t.row_length for t in file.tensors if t.role == "ffn_down_shexp"), 0)
    return ModelSpec(
        name=read.text("general.name") or printable(file.path.stem, 120),
        architecture=architecture,
        params=params,
        layers=layers,
        hidden=hidden,
        intermediate=read.count("feed_forward_length", 0, MAX_WIDTH, required=False),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=embedding.rows if embedding else 0,
        tied_embeddings=all(tensor.name != "output.weight" for tensor in file.tensors),
        context=read.count("context_length", 1, MAX_CONTEXT),
        attention=_attention(file, read, architecture, layers, heads, kv_heads, head_dim, hidden),
        licence=licence,
        commercial_use=commercial_use(licence),
        source="read from the file",
        hf_id=_hub_id(read.text("general.repo_url")),
        active_params=params - expert_params * (experts - used) // experts if experts and used else 0,
        experts=experts,
        active_experts=used,
        expert_intermediate=expert_width,
        shared_intermediate=shared_width,
        qkv_bias=any(tensor.name.endswith("attn_q.bias") for tensor in file.tensors),
        source_precision=_source_precision(file),
        modality=modality,
        use_cases=(modalities()[modality].use_case or modality,),
        header_bytes=file.data_offset,
        file_bytes=file.file_bytes,
        tensors=file.tensors,
        path=str(file.path),
        notes="; ".join(file.notes),
    )


def _modality(file: GgufFile, architecture: str) -> str:
    """By how the file says that its vectors are pooled, and whether a token sees those after it."""
    pooling = file.metadata.get(f"{architecture}.pooling_type", 0)
    if pooling == _RANK_POOLING:
        return "reranking"
    return "embedding" if pooling or file.metadata.get(f"{architecture}.attention.causal") is False else "text"


def _attention(
    file: GgufFile, read: _Fields, architecture: str, layers: int, heads: int, kv_heads: int, head_dim: int, hidden: int
) -> tuple[AttentionGroup, ...]:
    """What each layer keeps between tokens, grouped."""
    per_layer = read.counts("attention.head_count_kv", 0, MAX_HEADS, 0, required=False) or [kv_heads]
    kv_by_layer = per_layer if len(per_layer) >= layers else [per_layer[0]] * layers
    value_length = read.count("attention.value_length", 0, MAX_WIDTH, required=False) or head_dim
    latent = read.count("attention.kv_lora_rank", 0, MAX_WIDTH, required=False)
    window = read.count("attention.sliding_window", 0, MAX_CONTEXT, required=False)
    windowed = _windowed_layers(file, architecture, layers) if window else [False] * layers
    state = _state_elements(read, hidden)
    interval = read.count("full_attention_interval", 0, MAX_LAYERS, required=False)
    shared = read.count("attention.shared_kv_layers", 0, MAX_LAYERS, required=False)
    window_key = read.count("attention.key_length_swa", 0, MAX_WIDTH, required=False) or head_dim
    window_value = read.count("attention.value_length_swa", 0, MAX_WIDTH, required=False) or window_key
    if file.metadata.get(f"{architecture}.attention.causal") is False:
        return (AttentionGroup("none", layers),)
    kinds: dict[AttentionGroup, int] = {}
    for layer in range(layers):
        length = window_key if windowed[layer] else head_dim
        if layer >= layers - shared:
            kind = AttentionGroup("none", 0, kv_by_layer[layer], length, length)
        elif state and (not kv_by_layer[layer] or not heads or (interval and (layer + 1) % interval)):
            kind = AttentionGroup("recurrent", 0, state_elements=state)
        elif not kv_by_layer[layer]:
            kind = AttentionGroup("none", 0)
        elif latent:
            rope = read.count("rope.dimension_count", 0, MAX_WIDTH, required=False)
            kind = AttentionGroup("latent", 0, 1, latent + rope)
        elif windowed[layer]:
            kind = AttentionGroup("window", 0, kv_by_layer[layer], window_key, window_value, window=window)
        else:
            kind = AttentionGroup("full", 0, kv_by_layer[layer], head_dim, value_length)
        kinds[kind] = kinds.get(kind, 0) + 1
    return tuple(
        AttentionGroup(k.kind, count, k.kv_heads, k.key_length, k.value_length, k.window, k.state_elements)
        for k, count in kinds.items()
    )


def _windowed_layers(file: GgufFile, architecture: str, layers: int) -> list[bool]:
    pattern = file.metadata.get(f"{architecture}.attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) >= layers:
        return [bool(value) for value in pattern[:layers]]
    period = pattern if isinstance(pattern, int) and pattern > 0 else window_period(architecture)
    return [bool(period) and layer % period < period - 1 for layer in range(layers)]


def _state_elements(read: _Fields, hidden: int) -> int:
    """32-bit values that a recurrent layer keeps per sequence (llama.cpp src/llama-hparams.cpp: n_embd_r, n_embd_s)."""
    cache = read.count("shortconv.l_cache", 0, MAX_WIDTH, required=False)
    if cache:
        return hidden * (cache - 1)
    conv = read.count("ssm.conv_kernel", 0, MAX_WIDTH, required=False)
    inner = read.count("ssm.inner_size", 0, MAX_WIDTH, required=False)
    state = read.count("ssm.state_size", 0, MAX_WIDTH, required=False)
    groups = read.count("ssm.group_count", 0, MAX_WIDTH, required=False)
    return max(0, conv - 1) * (inner + 2 * groups * state) + state * inner


def _source_precision(file: GgufFile) -> str:
    """The file type's name; where the file does not say it, the type of most weights."""
    name = file_type_name(file.file_type) if file.file_type is not None else ""
    if name:
        return name
    shares: dict[str, int] = {}
    for tensor in file.tensors:
        shares[tensor.dtype or ""] = shares.get(tensor.dtype or "", 0) + tensor.elements
    kind = max(shares, key=lambda dtype: shares[dtype])
    return {"Q2_K": "Q2_K", "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}.get(kind, kind)


def _hub_id(url: str) -> str:
    match = re.fullmatch(r"https://huggingface\.co/([\w.-]{1,96}/[\w.-]{1,96})/?", url)
    return match[1] if match else ""


def _bad(file: GgufFile, what: str, hint: str = "get another copy or conversion of the model") -> AdvisorError:
    return AdvisorError("bad-gguf", f"{file.path.name}: {what}.", hint)
