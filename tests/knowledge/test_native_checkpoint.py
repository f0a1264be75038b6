"""Checkpoints that are published quantized: read as the matrices they stand for, and sized as what was made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from house_checkpoint import safetensors

from knowledge.base import AdvisorError
from knowledge.checkpoint import read_model_path
from knowledge.models import find_model
from knowledge.precisions import resolve_precision
from knowledge.weights import weights

WIDTH, EXPERTS, VOCABULARY = 256, 8, 49152
GPT_OSS: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": WIDTH, "intermediate_size": WIDTH,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
    "vocab_size": VOCABULARY, "num_local_experts": EXPERTS, "num_experts_per_tok": 2, "max_position_embeddings": 4096,
    "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 128, "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "mxfp4"},
}  # fmt: skip
BITNET: dict[str, Any] = {
    "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_size": WIDTH, "intermediate_size": 512,
    "num_hidden_layers": 1, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
    "vocab_size": VOCABULARY, "max_position_embeddings": 4096, "tie_word_embeddings": True,
    "quantization_config": {"quant_method": "bitnet"},
}  # fmt: skip


def gpt_oss(tmp_path: Path, **changes: list[int]) -> Path:
    """The folder of a gpt-oss of two layers, as transformers writes it: headers, and weights that are zero."""
    tensors: dict[str, list[int]] = {
        "model.embed_tokens.weight": [VOCABULARY, WIDTH], "lm_head.weight": [VOCABULARY, WIDTH],
        "model.norm.weight": [WIDTH],
    }  # fmt: skip
    parts: dict[str, list[int]] = {
        "input_layernorm.weight": [WIDTH], "post_attention_layernorm.weight": [WIDTH], "self_attn.sinks": [8],
        "self_attn.q_proj.weight": [512, WIDTH], "self_attn.q_proj.bias": [512],
        "self_attn.k_proj.weight": [128, WIDTH], "self_attn.k_proj.bias": [128],
        "self_attn.v_proj.weight": [128, WIDTH], "self_attn.v_proj.bias": [128],
        "self_attn.o_proj.weight": [WIDTH, 512], "self_attn.o_proj.bias": [WIDTH],
        "mlp.router.weight": [EXPERTS, WIDTH], "mlp.router.bias": [EXPERTS],
        "mlp.experts.gate_up_proj_bias": [EXPERTS, 2 * WIDTH], "mlp.experts.down_proj_bias": [EXPERTS, WIDTH],
        "mlp.experts.gate_up_proj_blocks": [EXPERTS, 2 * WIDTH, WIDTH // 32, 16],
        "mlp.experts.gate_up_proj_scales": [EXPERTS, 2 * WIDTH, WIDTH // 32],
        "mlp.experts.down_proj_blocks": [EXPERTS, WIDTH, WIDTH // 32, 16],
        "mlp.experts.down_proj_scales": [EXPERTS, WIDTH, WIDTH // 32],
    } | {f"mlp.experts.{name}": shape for name, shape in changes.items()}  # fmt: skip
    for layer in range(2):
        tensors |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    bytes_of = {name: {"dtype": "U8"} for name in tensors if name.endswith(("_blocks", "_scales"))}
    return _folder(tmp_path, GPT_OSS, tensors, bytes_of)


def bitnet(tmp_path: Path) -> Path:
    tensors: dict[str, list[int]] = {
        "model.embed_tokens.weight": [VOCABULARY, WIDTH],
        "model.norm.weight": [WIDTH],
        "model.layers.0.input_layernorm.weight": [WIDTH],
        "model.layers.0.mlp.down_proj.weight": [WIDTH // 4, 512],
        "model.layers.0.mlp.down_proj.weight_scale": [1],
    }
    return _folder(tmp_path, BITNET, tensors, {"model.layers.0.mlp.down_proj.weight": {"dtype": "U8"}})


def _folder(tmp_path: Path, config: dict[str, Any], tensors: dict[str, list[int]], changes: dict[str, Any]) -> Path:
    path = tmp_path / "published"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    safetensors(path / "model.safetensors", tensors, **changes)
    return path


def test_packed_experts_are_the_matrices_that_they_stand_for(tmp_path: Path) -> None:
    spec = read_model_path(gpt_oss(tmp_path))
    assert (spec.architecture, spec.source_precision, spec.experts, spec.active_experts) == ("gpt-oss", "MXFP4", 8, 2)
    experts = {t.name: (t.row_length, t.rows, t.stored_bytes) for t in spec.tensors if t.role.endswith("_exps")}
    one = (WIDTH, EXPERTS * WIDTH, EXPERTS * WIDTH * WIDTH * 17 // 32)
    parts = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    assert experts == {f"blk.{layer}.{part}.weight": one for layer in range(2) for part in parts}
    assert spec.params == 28_986_656  # as transformers counts it
    assert not [t.name for t in spec.tensors if "mlp" in t.name or "self_attn" in t.name]


@pytest.mark.parametrize(
    ("precision", "framework", "tensor_bytes"),  # measured: such a model through advisor's own runs, 2026-11-30
    [("MXFP4_MOE", "llama.cpp", 29_185_152), ("mxfp4-q8", "mlx", 29_141_824)],
)
def test_the_bytes_are_those_of_what_the_tools_made(
    tmp_path: Path, precision: str, framework: str, tensor_bytes: int
) -> None:
    chosen = resolve_precision(precision, framework)[0]
    assert weights(read_model_path(gpt_oss(tmp_path)), chosen).tensor_bytes == tensor_bytes


@pytest.mark.parametrize(
    "changes",
    [{"down_proj_scales": [EXPERTS, WIDTH, 4]}, {"gate_up_proj_blocks": [EXPERTS, 2 * WIDTH + 1, WIDTH // 32, 16]}],
)
def test_blocks_that_do_not_fit_their_scales_are_refused(tmp_path: Path, changes: dict[str, list[int]]) -> None:
    with pytest.raises(AdvisorError) as caught:
        read_model_path(gpt_oss(tmp_path, **changes))
    assert caught.value.code == "bad-checkpoint"
    assert "do not fit together" in caught.value.message


@pytest.mark.parametrize("width", [0, -256, "256", None, 257])
def test_widths_that_do_not_fit_the_blocks_are_refused(tmp_path: Path, width: Any) -> None:
    path = gpt_oss(tmp_path)
    (path / "config.json").write_text(json.dumps(GPT_OSS | {"intermediate_size": width}))
    with pytest.raises(AdvisorError) as caught:
        read_model_path(path)
    assert caught.value.code == "bad-checkpoint"


def test_four_ternary_weights_lie_in_a_byte(tmp_path: Path) -> None:
    spec = read_model_path(bitnet(tmp_path))
    assert spec.source_precision == "ternary"
    packed = next(t for t in spec.tensors if t.role == "ffn_down")
    assert (packed.row_length, packed.rows, packed.stored_bytes) == (512, WIDTH, WIDTH * 512 // 4)
    assert not [t.name for t in spec.tensors if t.name.endswith("scale")]


def test_mlx_gives_the_rest_of_gpt_oss_eight_bits() -> None:
    """mlx-community/gpt-oss-20b-MXFP4-Q8 has 12,025,908,224 bytes (its card, in the catalogue's source)."""
    sizes = weights(find_model("gpt-oss-20b"), resolve_precision("mxfp4-q8", "mlx")[0])
    assert sizes.tensor_bytes == pytest.approx(12_025_908_224, rel=0.005)
