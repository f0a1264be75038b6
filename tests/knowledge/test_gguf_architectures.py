"""The quantizer's choice of types on architectures that the catalogue has no model of: fused and latent attention,
experts, recurrent layers, biases. The bytes were made by llama.cpp itself from files of these shapes."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest

from knowledge.gguf_model import role_of
from knowledge.precisions import resolve_precision
from knowledge.records import ModelSpec, Precision, Tensor
from knowledge.weights import weights

H, F, V, LAYERS, HEADS, X = 256, 512, 256, 9, 4, 256
K = 64
Shapes = dict[str, tuple[int, ...]]
NORM: Shapes = {"attn_norm": (H,)}
ATTENTION = NORM | {"attn_q": (H, H), "attn_k": (H, K), "attn_v": (H, K), "attn_output": (H, H)}
FUSED = NORM | {
    "attn_norm.bias": (H,),
    "attn_qkv": (H, H + 2 * K),
    "attn_qkv.bias": (H + 2 * K,),
    "attn_output": (H, H),
}
UP: Shapes = {"ffn_up": (H, F), "ffn_down": (F, H)}
GATED = {"ffn_norm": (H,), "ffn_gate": (H, F)} | UP
PLAIN = {"ffn_norm": (H,), "ffn_up.bias": (F,), "ffn_down.bias": (H,)} | UP
EMBEDDING: Shapes = {"token_embd": (H, V), "output_norm": (H,)}
OWN_HEAD = EMBEDDING | {"output": (H, V)}


def experts(count: int) -> Shapes:
    shapes: Shapes = {"ffn_norm": (H,), "ffn_gate_inp": (H, count), "ffn_down_exps": (X, H, count)}
    return shapes | {"ffn_gate_exps": (H, X, count), "ffn_up_exps": (H, X, count)}


SHARED: Shapes = {
    "ffn_gate_inp_shexp": (H,), "ffn_gate_shexp": (H, F), "ffn_up_shexp": (H, F), "ffn_down_shexp": (F, H),
}  # fmt: skip
LATENT: Shapes = {
    "attn_norm": (H,), "attn_q_a": (H, 256), "attn_q_a_norm": (256,), "attn_q_b": (256, HEADS * 96),
    "attn_kv_a_mqa": (H, 288), "attn_kv_a_norm": (256,), "attn_kv_b": (256, HEADS * 128),
    "attn_output": (HEADS * 64, H),
}  # fmt: skip
MAMBA: Shapes = {
    "attn_norm": (H,), "ssm_in": (H, 2048), "ssm_conv1d": (4, 1024), "ssm_conv1d.bias": (1024,), "ssm_x": (1024, 64),
    "ssm_dt": (32, 1024), "ssm_dt.bias": (1024,), "ssm_a": (16, 1024), "ssm_d": (1024,), "ssm_out": (1024, H),
}  # fmt: skip
GLM = {"post_attention_norm": (H,), "ffn_norm": (H,), "ffn_up": (H, 2 * F), "ffn_down": (F, H), "post_ffw_norm": (H,)}
ARCHITECTURES: dict[str, tuple[Shapes, Shapes, int]] = {  # outside the layers, in each layer, experts
    "falcon": (OWN_HEAD, FUSED | PLAIN, 0),
    "gpt2": (OWN_HEAD | {"position_embd": (H, 2048)}, FUSED | PLAIN, 0),
    "gptneox": (OWN_HEAD, FUSED | PLAIN, 0),
    "starcoder2": (EMBEDDING, ATTENTION | PLAIN, 0),
    "nemotron": (OWN_HEAD, ATTENTION | PLAIN, 0),
    "command-r": (EMBEDDING, ATTENTION | {k: v for k, v in GATED.items() if k != "ffn_norm"}, 0),
    "stablelm": (OWN_HEAD, ATTENTION | GATED, 0),
    "exaone": (OWN_HEAD, ATTENTION | GATED, 0),
    "internlm2": (OWN_HEAD, ATTENTION | GATED, 0),
    "glm4": (OWN_HEAD, ATTENTION | GLM, 0),
    "minicpm3": (EMBEDDING, LATENT | GATED, 0),
    "qwen2moe": (OWN_HEAD, ATTENTION | experts(4) | SHARED, 4),
    "phimoe": (OWN_HEAD, ATTENTION | experts(4), 4),
    "olmoe": (OWN_HEAD, ATTENTION | {"attn_q_norm": (H,), "attn_k_norm": (K,)} | experts(4), 4),
    "mixtral-like": (OWN_HEAD, ATTENTION | experts(8), 8),
    "mamba": (OWN_HEAD, MAMBA, 0),
}


def tensor(name: str, shape: tuple[int, ...], layer: int | None) -> Tensor:
    bare = name in ("ssm_a", "ssm_d") or name.endswith(".bias")
    suffix = name if bare else f"{name}.weight"
    full = suffix if layer is None else f"blk.{layer}.{suffix}"
    dtype = "F32" if len(shape) == 1 else "F16"
    return Tensor(full, role_of(full), shape[0], math.prod(shape[1:]), layer, dtype, None, len(shape))


def spec_of(name: str) -> ModelSpec:
    outside, inside, count = ARCHITECTURES[name]
    tensors = [tensor(part, shape, None) for part, shape in outside.items()]
    tensors += [tensor(part, shape, layer) for layer in range(LAYERS) for part, shape in inside.items()]
    return ModelSpec(
        name=name, architecture="llama" if name == "mixtral-like" else name, params=sum(t.elements for t in tensors),
        layers=LAYERS, hidden=H, intermediate=F, heads=HEADS, kv_heads=1, head_dim=64, vocab=V,
        tied_embeddings="output" not in outside, context=2048, attention=(), licence="", commercial_use="unknown",
        source="shapes for tests", experts=count, active_experts=count and 2, header_bytes=1, tensors=tuple(tensors),
    )  # fmt: skip


def plain(name: str) -> Precision:
    precision = resolve_precision(name, "llama.cpp")[0]
    return replace(precision, name=f"{name} without", settings={"type": precision.settings["type"]})


def rows() -> list[dict[str, str]]:
    with (Path(__file__).parent / "data" / "made_gguf_bytes.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["architecture"])
def test_types_are_chosen_as_the_quantizer_chooses_them(row: dict[str, str]) -> None:
    spec = spec_of(row["architecture"])
    made = {name: int(size) for name, size in row.items() if name not in ("architecture", "source")}
    assert {name: weights(spec, plain(name)).tensor_bytes for name in made} == made


def test_sizes_are_proven_on_pairs_of_many_architectures() -> None:
    assert {row["architecture"] for row in rows()} == set(ARCHITECTURES)
