"""Hugging Face's config.json and tensor names in this project's terms: architecture, attention, roles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from knowledge.base import AdvisorError, printable
from knowledge.encoders import ENCODERS, encoder_tensors
from knowledge.gguf_model import MAX_CONTEXT, MAX_EXPERTS, MAX_HEADS, MAX_LAYERS, MAX_WIDTH
from knowledge.licences import commercial_use
from knowledge.records import AttentionGroup, ModelSpec, Tensor
from knowledge.serving import modalities
from knowledge.shapes import window_period

# model_type -> the architecture's name in GGUF (llama-cpp-python 0.3.36: vendor/llama.cpp conversion/)
_ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe", "qwen3_5": "qwen35", "qwen3_5_text": "qwen35", "qwen3_5_moe": "qwen35moe", "phi": "phi2",
    "phi3": "phi3", "gemma2": "gemma2", "gemma3": "gemma3", "gemma3_text": "gemma3", "gemma4": "gemma4",
    "gemma4_text": "gemma4",
    "olmo": "olmo", "olmo2": "olmo2", "olmo3": "olmo2", "granite": "granite", "granitemoehybrid": "granitehybrid",
    "smollm3": "smollm3", "deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2", "gpt_oss": "gpt-oss", "lfm2": "lfm2",
    "bitnet": "bitnet", "ministral3": "mistral3", "mistral3": "mistral3", "qwen2_moe": "qwen2moe",
    "qwen2_vl": "qwen2vl", "qwen2_vl_text": "qwen2vl", "qwen2_5_vl": "qwen2vl", "qwen2_5_vl_text": "qwen2vl",
    "qwen3_vl": "qwen3vl", "qwen3_vl_text": "qwen3vl", "qwen3_5_moe_text": "qwen35moe", "qwen3_next": "qwen3next",
    "gemma3n": "gemma3n", "gemma3n_text": "gemma3n", "lfm2_moe": "lfm2moe", "granitemoe": "granitemoe",
}  # fmt: skip
_NAMES = (  # Hugging Face's part of a name, GGUF's suffix, role
    ("self_attn.qkv_proj.weight", "attn_qkv.weight", "attn_qkv"),
    ("self_attn.q_proj.weight", "attn_q.weight", "attn_q"),
    ("self_attn.k_proj.weight", "attn_k.weight", "attn_k"),
    ("self_attn.v_proj.weight", "attn_v.weight", "attn_v"),
    ("self_attn.o_proj.weight", "attn_output.weight", "attn_output"),
    ("self_attn.q_proj.bias", "attn_q.bias", "bias"),
    ("self_attn.k_proj.bias", "attn_k.bias", "bias"),
    ("self_attn.v_proj.bias", "attn_v.bias", "bias"),
    ("self_attn.o_proj.bias", "attn_output.bias", "bias"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight", "norm"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight", "norm"),
    ("mlp.gate_up_proj.weight", "ffn_up.weight", "ffn_gate_up"),
    ("mlp.gate_proj.weight", "ffn_gate.weight", "ffn_gate"),
    ("mlp.up_proj.weight", "ffn_up.weight", "ffn_up"),
    ("mlp.down_proj.weight", "ffn_down.weight", "ffn_down"),
    ("mlp.gate.weight", "ffn_gate_inp.weight", "ffn_router"),
    ("block_sparse_moe.gate.weight", "ffn_gate_inp.weight", "ffn_router"),
    ("mlp.router.weight", "ffn_gate_inp.weight", "ffn_router"),
    ("mlp.router.bias", "ffn_gate_inp.bias", "bias"),
    ("self_attn.sinks", "attn_sinks.weight", "other"),
    ("input_layernorm.weight", "attn_norm.weight", "norm"),
    ("post_attention_layernorm.weight", "ffn_norm.weight", "norm"),
    ("pre_feedforward_layernorm.weight", "pre_ffw_norm.weight", "norm"),
    ("post_feedforward_layernorm.weight", "post_ffw_norm.weight", "norm"),
)
_EXPERT_PARTS = {
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down",
}  # fmt: skip
_TOP = {
    "embed_tokens": ("token_embd.weight", "token_embd"),
    "lm_head": ("output.weight", "output"),
    "norm": ("output_norm.weight", "norm"),
}
# Encoders of images and sound beside the language model, which GGUF keeps in a file of their own.
_TOWER = re.compile(
    r"(?:model\.)?(?:visual|vision_tower|vision_model|audio_tower|multi_modal_projector|embed_vision|embed_audio|connector)\."
)
_PREFIXES = r"(?:model\.|language_model\.|text_model\.)*"  # of the text part, where there are others
_OUTSIDE = re.compile(_PREFIXES + rf"({'|'.join(_TOP)})\.weight")
_LAYER = re.compile(_PREFIXES + r"layers\.(\d{1,4})\.(.+)")
_EXPERT = re.compile(r"(?:mlp|block_sparse_moe)\.experts\.(\d{1,5})\.(\w+)\.weight")


def gguf_name(name: str) -> tuple[str, str, int | None]:
    """The GGUF name, role and layer of a Hugging Face tensor; a name that is not known keeps itself, role `other`."""
    if top := _OUTSIDE.fullmatch(name):
        return (*_TOP[top[1]], None)
    match = _LAYER.fullmatch(name)
    if not match:
        return name, _loose_role(name), None
    layer, rest = int(match[1]), match[2]
    for part, suffix, role in _NAMES:
        if rest == part:
            return f"blk.{layer}.{suffix}", role, layer
    expert = _EXPERT.fullmatch(rest)
    if expert and expert[2] in _EXPERT_PARTS:
        role = f"ffn_{_EXPERT_PARTS[expert[2]]}_exps"
        return f"blk.{layer}.{role}.{expert[1]}.weight", role, layer
    return f"blk.{layer}.{rest}", _loose_role(rest), layer


def hf_parts(role: str) -> tuple[str, ...]:
    """What the weights of `role` are called in Hugging Face's names: `ffn_gate` is `mlp.gate_proj`.

    A role is a whole GGUF suffix, or else the beginning of several (`attn`). Empty where none is known.
    """
    named = [(part, suffix) for part, suffix, kind in _NAMES if kind not in ("norm", "bias")]
    named += [(part, suffix) for part, (suffix, kind) in _TOP.items() if kind != "norm"]
    exact = [part for part, suffix in named if suffix == f"{role}.weight"]
    parts = exact or [part for part, suffix in named if suffix.startswith(f"{role}_")]
    return tuple(part.removesuffix(".weight") for part in parts)


def _loose_role(name: str) -> str:
    if name.endswith("norm.weight"):
        return "norm"
    return "bias" if name.endswith(".bias") else "other"


def config_of(document: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a config.json: itself, or `text_config` with what it leaves out."""
    text = document.get("text_config")
    if document.get("model_type") == "whisper":
        return {**_of_whisper(document), **document}
    return {**document, **text} if isinstance(text, dict) else document


def architecture_of(config: dict[str, Any]) -> str:
    """What GGUF calls the architecture of a language model's config.json; of others its own name."""
    model_type = printable(str(config.get("model_type", "")), 60)
    return _ARCHITECTURES.get(model_type, model_type or "unknown")


def _of_whisper(config: dict[str, Any]) -> dict[str, Any]:
    """Whisper's names in the usual ones: the layers of both halves, the text and the audio positions of a window."""
    usual = {
        "hidden_size": config.get("d_model"),
        "num_attention_heads": config.get("decoder_attention_heads"),
        "intermediate_size": config.get("decoder_ffn_dim"),
    }
    for name, parts in (
        ("num_hidden_layers", ("encoder_layers", "decoder_layers")),
        ("max_position_embeddings", ("max_target_positions", "max_source_positions")),
    ):
        numbers = [config.get(part) for part in parts]
        usual[name] = (
            sum(n for n in numbers if isinstance(n, int)) if all(isinstance(n, int) for n in numbers) else None
        )
    return usual


def _modality(config: dict[str, Any], tower_params: int) -> str:
    """What the model reads and makes, by its class and type."""
    classes = config.get("architectures")
    name = str(classes[0]) if isinstance(classes, list) and classes else ""
    if config.get("model_type") == "whisper":
        return "speech"
    if name.endswith("ForSequenceClassification"):
        return "reranking"
    if str(config.get("model_type")) in ENCODERS:
        return "embedding"
    return "image-text" if tower_params and "vision_config" in config else "text"


def model_of_config(
    config: dict[str, Any],
    folder: Path,
    tensors: tuple[Tensor, ...],
    licence: str,
    source_precision: str,
    *,
    is_sentence: bool = False,
) -> ModelSpec:
    """The model of a checkpoint, an embedding model where it `is_sentence` whatever its class.

    AdvisorError `bad-checkpoint` where a number is missing or absurd.
    """
    read = _Config(config, folder.name)
    architecture = architecture_of(config)
    layers = read.count("num_hidden_layers", 1, MAX_LAYERS)
    hidden = read.count("hidden_size", 1, MAX_WIDTH)
    heads = read.count("num_attention_heads", 1, MAX_HEADS)
    kv_heads = read.count("num_key_value_heads", 1, MAX_HEADS, heads)
    head_dim = read.count("head_dim", 1, MAX_WIDTH, max(1, hidden // heads))
    vocab = read.count("vocab_size", 1, 2**26)
    experts = read.count("num_experts", 0, MAX_EXPERTS, 0) or read.count("num_local_experts", 0, MAX_EXPERTS, 0)
    experts = experts or read.count("n_routed_experts", 0, MAX_EXPERTS, 0)
    used = read.count("num_experts_per_tok", 0, MAX_EXPERTS, 0)
    tower_params = sum(t.elements for t in tensors if _TOWER.match(t.name))
    tensors = _stack_experts(tuple(t for t in tensors if not _TOWER.match(t.name)))
    modality = "embedding" if is_sentence and _modality(config, 0) == "text" else _modality(config, tower_params)
    if str(config.get("model_type")) in ENCODERS:
        tensors = tuple(encoder_tensors(tensors))
    found = {t.layer for t in tensors if t.layer is not None}
    if found and (max(found) >= layers + 4 or len(found) < layers):
        raise read.bad(f"says that it has {layers} layers and holds tensors of {len(found)}")
    embedding = next((t for t in tensors if t.role == "token_embd"), None)
    if embedding and embedding.rows < vocab:
        raise read.bad(f"has {vocab} tokens and an embedding of {embedding.rows} rows")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        for token in read.tokens(name):
            if token >= (embedding.rows if embedding else vocab):
                raise read.bad(f"has the {name} {token} outside its vocabulary of {vocab}")
    read.positive("rms_norm_eps")
    tied = bool(config.get("tie_word_embeddings", False)) or all(t.role != "output" for t in tensors)
    if tied:
        tensors = tuple(t for t in tensors if t.role != "output")
    params = sum(t.elements for t in tensors)
    expert_params = sum(t.elements for t in tensors if t.role.endswith("_exps"))
    return ModelSpec(
        name=printable(folder.resolve().name, 120),
        architecture=architecture,
        params=params,
        layers=layers,
        hidden=hidden,
        intermediate=read.count("intermediate_size", 0, MAX_WIDTH, 0),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        tied_embeddings=tied,
        context=read.count("max_position_embeddings", 1, MAX_CONTEXT, 2048),
        attention=_attention(read, config, architecture, layers, kv_heads, head_dim),
        licence=licence,
        commercial_use=commercial_use(licence),
        source="read from the folder",
        active_params=params - expert_params * (experts - used) // experts if experts and used else 0,
        experts=experts,
        active_experts=used,
        expert_intermediate=read.count("moe_intermediate_size", 0, MAX_WIDTH, 0),
        qkv_bias=any(t.name.endswith("attn_q.bias") for t in tensors),
        source_precision=source_precision,
        modality=modality,
        use_cases=(modalities()[modality].use_case or modality,),
        tower_params=tower_params,
        tensors=tensors,
        path=str(folder),
    )


def _stack_experts(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The experts of a layer as one three-dimensional tensor each, as GGUF stores them."""
    stacked: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        key = re.sub(r"(_exps)\.\d+\.weight$", r"\1.weight", tensor.name)
        stacked.setdefault(key, []).append(tensor)
    return tuple(
        parts[0]
        if len(parts) == 1 and parts[0].name == key
        else Tensor(
            key,
            parts[0].role,
            parts[0].row_length,
            sum(part.rows for part in parts),
            parts[0].layer,
            parts[0].dtype,
            sum(part.stored_bytes or 0 for part in parts),
            3,
        )
        for key, parts in stacked.items()
    )


def _attention(
    read: _Config, config: dict[str, Any], architecture: str, layers: int, kv_heads: int, head_dim: int
) -> tuple[AttentionGroup, ...]:
    if str(config.get("model_type")) in ENCODERS:
        return (AttentionGroup("none", layers),)
    if config.get("model_type") == "whisper":  # the decoder caches its own keys and those of the audio
        decoder = read.count("decoder_layers", 1, MAX_LAYERS)
        encoder = AttentionGroup("none", layers - decoder)
        return (AttentionGroup("full", decoder, kv_heads, head_dim, head_dim), *([encoder] if encoder.layers else []))
    latent = read.count("kv_lora_rank", 0, MAX_WIDTH, 0)
    if latent:
        return (AttentionGroup("latent", layers, 1, latent + read.count("qk_rope_head_dim", 0, MAX_WIDTH, 0)),)
    window = read.count("sliding_window", 0, MAX_CONTEXT, 0)
    kinds = config.get("layer_types")
    own = layers - read.count("num_kv_shared_layers", 0, layers - 1, 0)  # the others use the cache of these
    global_heads = read.count("num_global_key_value_heads", 0, MAX_HEADS, 0) or kv_heads
    global_length = read.count("global_head_dim", 0, MAX_WIDTH, 0) or head_dim
    sharing_full = layers - own
    if isinstance(kinds, list) and len(kinds) == layers:
        sharing_full, kinds = kinds[own:].count("full_attention"), kinds[:own]
        windowed = kinds.count("sliding_attention") if window else 0
        full = kinds.count("full_attention") + (0 if window else kinds.count("sliding_attention"))
    else:
        period = window_period(architecture) if window else 0
        full = sum(1 for layer in range(own) if not period or layer % period == period - 1)
        windowed = own - full
    groups = [
        AttentionGroup("window", windowed, kv_heads, head_dim, head_dim, window=window),
        AttentionGroup("full", full, global_heads, global_length, global_length),
        AttentionGroup("recurrent", own - full - windowed, state_elements=_state(read)),
        AttentionGroup("none", layers - own - sharing_full, kv_heads, head_dim, head_dim),
        AttentionGroup("none", sharing_full, global_heads, global_length, global_length),
    ]
    return tuple(group for group in groups if group.layers)


def _state(read: _Config) -> int:
    """32-bit values of a linear-attention or short-convolution layer, as llama.cpp keeps them."""
    conv = read.count("conv_L_cache", 0, MAX_WIDTH, 0)
    if conv:
        return read.count("hidden_size", 1, MAX_WIDTH) * (conv - 1)
    keys = read.count("linear_num_key_heads", 0, MAX_HEADS, 0) * read.count("linear_key_head_dim", 0, MAX_WIDTH, 0)
    length = read.count("linear_value_head_dim", 0, MAX_WIDTH, 0)
    values = read.count("linear_num_value_heads", 0, MAX_HEADS, 0) * length
    kernel = read.count("linear_conv_kernel_dim", 0, 64, 0)
    return max(0, kernel - 1) * (values + 2 * keys) + length * values


class _Config:
    """Bounded access to the numbers of a config.json."""

    def __init__(self, config: dict[str, Any], name: str) -> None:
        self._config, self._name = config, name

    def bad(self, what: str) -> AdvisorError:
        hint = "get the checkpoint again from where it was published"
        return AdvisorError("bad-checkpoint", f"{self._name}: its config.json {what}.", hint)

    def count(self, key: str, least: int, most: int, default: int | None = None) -> int:
        value = self._config.get(key)
        if value is None:
            if default is None:
                raise self.bad(f"does not say {key}")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.bad(f"has the {key} {printable(str(value), 30)}, not between {least} and {most}")
        return value

    def tokens(self, key: str) -> list[int]:
        value = self._config.get(key)
        values = value if isinstance(value, list) else [value]
        if not all(v is None or (isinstance(v, int) and not isinstance(v, bool) and v >= -1) for v in values[:1000]):
            raise self.bad(f"has the {key} {printable(str(value), 30)}")
        return [v for v in values if v is not None]

    def positive(self, key: str) -> None:
        value = self._config.get(key)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise self.bad(f"has the {key} {printable(str(value), 30)}, which is no small positive number")
