"""How MLX and ONNX Runtime pack weights: against what their own quantizers made of the shapes of real models."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from knowledge.models import find_model, load_models
from knowledge.packing import more_bits, row_step
from knowledge.precisions import load_precisions, resolve_precision
from knowledge.records import ModelSpec
from knowledge.shapes import groups_of
from knowledge.weights import undividable_row, weights

DATA = Path(__file__).parent / "data"


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


MADE = table("mlx_tensor_bytes.csv")
SHAPES = {  # architecture, hidden, feed-forward, head length, key-value heads, tied
    "llama-tied": ("llama", 256, 704, 64, 2, True),
    "llama-untied": ("llama", 256, 704, 64, 2, False),
    "qwen3-untied": ("qwen3", 256, 704, 64, 2, False),
    "phi3": ("phi3", 256, 704, 64, 4, False),
    "odd": ("llama", 240, 600, 60, 2, True),
}


def shape(name: str) -> ModelSpec:
    architecture, hidden, intermediate, head_dim, kv_heads, tied = SHAPES[name]
    return ModelSpec(
        name=name, architecture=architecture, params=1000, layers=4, hidden=hidden, intermediate=intermediate, heads=4,
        kv_heads=kv_heads, head_dim=head_dim, vocab=1024, tied_embeddings=tied, context=512, attention=(),
        licence="", commercial_use="unknown", source="a shape for tests",
    )  # fmt: skip


@pytest.mark.parametrize("row", MADE, ids=lambda row: row["model"])
def test_mlx_bytes_are_those_that_mlx_lm_makes(row: dict[str, str]) -> None:
    spec = replace(find_model(row["model"]), source_precision="bf16")  # as they were made, from 16 bits
    for name, made in row.items():
        if name not in ("model", "source") and made:
            found = weights(spec, resolve_precision(name, "mlx")[0])
            assert found.tensor_bytes == pytest.approx(int(made), rel=0.0035), name


def test_mlx_bytes_were_made_for_every_kind_of_architecture() -> None:
    made = {find_model(row["model"]).architecture for row in MADE}
    assert len(MADE) >= 25
    assert made >= {"llama", "qwen3moe", "deepseek2", "gpt-oss", "gemma3", "lfm2", "granitehybrid", "qwen35", "phi3"}


@pytest.mark.parametrize("row", table("onnx_tensor_bytes.csv"), ids=lambda r: f"{r['shape']} {r['precision']}")
def test_onnx_bytes_are_those_that_the_builder_makes(row: dict[str, str]) -> None:
    found = weights(shape(row["shape"]), resolve_precision(row["precision"], "olive")[0], backend=row["provider"])
    assert found.tensor_bytes == int(row["tensor_bytes"])


def test_published_mlx_file_of_qwen3_0_6b() -> None:
    """319.9 MiB at 4.50 bits per weight: mlx-community Qwen3-0.6B-4bit, tensors."""
    found = weights(find_model("Qwen3-0.6B"), resolve_precision("4bit-g64", "mlx")[0])
    assert found.tensor_bytes / 2**20 == pytest.approx(319.9, rel=0.002)
    assert found.bits_per_weight == pytest.approx(4.50, abs=0.01)


def test_sensitive_layers_are_the_first_the_last_and_every_third() -> None:
    assert [i for i in range(16) if more_bits(i, 16)] == [0, 1, 4, 7, 10, 13, 14, 15]


def test_a_tied_embedding_is_kept_once_by_the_algorithms_that_share_it() -> None:
    tied = find_model("Llama-3.2-1B-Instruct")
    rtn, gptq = (resolve_precision(name, "olive")[0] for name in ("int4-rtn-b32", "int4-gptq-g32"))
    assert "token_embd" not in weights(tied, rtn, backend="cuda").by_role
    assert weights(tied, gptq).by_role["token_embd"] == 4 * tied.vocab * tied.hidden


def test_k_quant_of_onnx_runtime_needs_pairs_of_blocks() -> None:
    """896 columns are 7 blocks of 128: the builder cannot pack their zero points two to a byte."""
    spec = find_model("Qwen2.5-0.5B-Instruct")
    found = undividable_row(spec, resolve_precision("int4-kquant-b128", "olive")[0])
    assert found == ("blk.0.attn_q.weight", 896)
    assert undividable_row(spec, resolve_precision("int4-kquant-b32", "olive")[0]) is None
    assert undividable_row(spec, resolve_precision("int4-rtn-b128", "olive")[0]) is None


def test_rows_of_any_length_are_taken_where_blocks_are_padded() -> None:
    precision = resolve_precision("int4-rtn-b32", "olive")[0]
    assert all(row_step(group, precision) == 0 for group in groups_of(find_model("SmolLM2-135M-Instruct")))


def test_fused_tensors_get_what_their_parts_would() -> None:
    """Phi keeps queries, keys and values in one tensor, gate and up in another: the same bytes as apart."""
    fused = find_model("Phi-3.5-mini-instruct")
    roles = {group.role for group in groups_of(fused)}
    assert {"attn_qkv", "ffn_gate_up"} <= roles
    for precision in load_precisions():
        if precision.framework == "openvino" and precision.nominal_bits < 16:
            body = 3 * fused.hidden * fused.hidden * fused.layers
            found = weights(fused, precision).by_role["attn_qkv"]
            assert body * precision.nominal_bits / 8 < found < body * (precision.bits + 0.1) / 8


def test_every_model_of_the_catalogue_has_a_size_in_every_mlx_precision() -> None:
    for spec in load_models():
        sizes = [weights(spec, p).tensor_bytes for p in load_precisions() if p.framework == "mlx"]
        assert min(sizes) > 0.2 * spec.params
