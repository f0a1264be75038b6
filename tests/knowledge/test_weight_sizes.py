"""Sizes in OpenVINO, MLX and Olive against what was measured on SmolLM2-135M and published elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.base import GIB
from knowledge.models import find_model, load_models
from knowledge.precisions import load_precisions, resolve_precision
from knowledge.records import ModelSpec, Precision
from knowledge.weights import WeightSizes, gguf_header_bytes, tokenizer_bytes, undividable_row, weights

SMALL = "SmolLM2-135M-Instruct"


def sizes(model: str, framework: str, precision: str, backend: str = "cpu") -> WeightSizes:
    return weights(find_model(model), resolve_precision(precision, framework)[0], backend=backend)


@pytest.mark.parametrize(
    ("precision", "share"),
    [
        ("int8", 0.502), ("int8-sym", 0.502), ("int8+ffn_gate=int4-asym-g32", 0.460), ("int4-asym-g64", 0.319),
        ("int8+ffn_gate=int4-asym-g64", 0.456), ("int4-sym-g64", 0.316), ("int4-sym-cw", 0.305),
        ("int4-asym-g64-r0.2", 0.466), ("int4-asym-g64-r0.8", 0.357),
        ("int8+ffn_gate=int4-asym-g64+ffn_up=int4-asym-g64", 0.410),
    ],
)  # fmt: skip
def test_openvino_takes_the_measured_share_of_16_bit(precision: str, share: float) -> None:
    assert sizes(SMALL, "openvino", precision).ratio == pytest.approx(share, abs=0.002)


@pytest.mark.parametrize(
    ("precision", "made"),  # nncf 3.4.0: compress_weights, the weight file less 390 bytes of other constants
    [("nf4-g64", 84_931_590), ("int4-sym-g64-bint8-sym", 84_882_438), ("int4-sym-g64-bnone", 113_095_686),
     ("int4-asym-g32", 89_908_230)],
)  # fmt: skip
def test_openvino_weights_are_those_that_nncf_makes(precision: str, made: int) -> None:
    assert sizes(SMALL, "openvino", precision).tensor_bytes == made - 390


@pytest.mark.parametrize(
    ("precision", "megabytes"),  # model.onnx.data, olive-ai 0.13.0
    [
        ("f32", 540.157), ("int8", 154.412), ("int4-rtn-b32", 101.328), ("int4-kquant-b32", 102.987),
        ("int8-b64+ffn_gate=int4-kquant-b32", 136.579),
    ],
)  # fmt: skip
def test_olive_models_on_the_cpu_have_the_measured_size(precision: str, megabytes: float) -> None:
    assert sizes(SMALL, "olive", precision).tensor_bytes / 1e6 == pytest.approx(megabytes, rel=0.001)


def test_olive_scales_are_half_as_wide_off_the_cpu() -> None:
    assert (
        sizes(SMALL, "olive", "int4-rtn-b32", "cuda").tensor_bytes < sizes(SMALL, "olive", "int4-rtn-b32").tensor_bytes
    )


@pytest.mark.parametrize(
    ("framework", "precision", "tensor"),
    [
        ("openvino", "int4-sym-g128", "blk.0.attn_q.weight"),
        ("mlx", "4bit-g128", "token_embd.weight"),
        ("olive", "int4-awq-g128", "blk.0.attn_q.weight"),
    ],
)
def test_group_size_must_divide_channel_width(framework: str, precision: str, tensor: str) -> None:
    found = undividable_row(find_model(SMALL), resolve_precision(precision, framework)[0])
    assert found == (tensor, 576)


@pytest.mark.parametrize(
    ("framework", "precision"), [("openvino", "int4-sym-g64"), ("openvino", "int4-sym-cw"), ("llama.cpp", "Q4_K_M")]
)
def test_smaller_groups_channels_and_fallbacks_divide_every_row(framework: str, precision: str) -> None:
    assert undividable_row(find_model(SMALL), resolve_precision(precision, framework)[0]) is None


def test_rows_that_mlx_leaves_alone_stay_16_bit() -> None:
    plain, skipped = sizes(SMALL, "mlx", "4bit-g64"), sizes(SMALL, "mlx", "4bit-g128")
    assert skipped.fallback_share > 0.5
    assert skipped.tensor_bytes > plain.tensor_bytes


def test_a_tied_embedding_is_counted_once_and_an_untied_twice() -> None:
    tied, untied = find_model("Qwen2.5-3B-Instruct"), find_model("Qwen2.5-7B-Instruct")
    f16 = resolve_precision("f16", "openvino")[0]
    assert "output" not in weights(tied, f16).by_role
    assert weights(untied, f16).by_role["output"] == weights(untied, f16).by_role["token_embd"]


@pytest.mark.parametrize(
    ("name", "framework", "precision", "published"),
    [
        # file sizes as llama-bench tells them (measurements.csv: kyuz0_strix_halo, lhl_strix_halo), GiB
        ("gemma-4-26B-A4B-it", "llama.cpp", "BF16", 47.02 * GIB),
        ("gemma-4-31B-it", "llama.cpp", "BF16", 57.18 * GIB),
        # exo's model cards @b5375f8, bytes; less the tower, which stays in 16 bits
        ("gemma-4-31B-it", "mlx", "4bit-g64", 18_411_755_224 - 2 * 570_969_392),
        ("gemma-4-E2B-it", "mlx", "4bit-g64", 3_580_765_126 - 2 * 478_000_000),
        ("gemma-4-E4B-it", "mlx", "4bit-g64", 5_216_992_212 - 2 * 477_000_000),
    ],
)
def test_published_files_have_the_size_that_the_shapes_give(
    name: str, framework: str, precision: str, published: float
) -> None:
    found = weights(find_model(name), resolve_precision(precision, framework)[0]).tensor_bytes
    assert found == pytest.approx(published, rel=0.01)


def test_rows_of_experts_that_no_block_divides_take_a_larger_type() -> None:
    """Gemma 4's experts are 704 wide, no multiple of 256: what is called 4 bits takes 5.3."""
    sizes = weights(find_model("gemma-4-26B-A4B-it"), resolve_precision("Q4_K_M", "llama.cpp")[0])
    assert sizes.fallback_share > 0.3
    assert sizes.bits_per_weight == pytest.approx(5.3, abs=0.05)


def test_roles_add_up_to_the_whole() -> None:
    for precision in load_precisions():
        found = weights(find_model("Llama-3.2-1B-Instruct"), precision)
        assert sum(found.by_role.values()) == found.tensor_bytes
        assert found.file_bytes > found.tensor_bytes


def test_header_estimate_is_near_the_embedded_files() -> None:
    assert gguf_header_bytes(find_model(SMALL)) == pytest.approx(1_785_664, rel=0.03)
    assert tokenizer_bytes(128_256) == 7_800_000
    assert tokenizer_bytes(64_000) > tokenizer_bytes(32_000)


@given(model=st.sampled_from(load_models()), precision=st.sampled_from([p for p in load_precisions() if p.bits >= 2]))
def test_sizes_stay_within_physical_bounds(model: ModelSpec, precision: Precision) -> None:
    if precision.native_only:
        return
    found = weights(replace(model, source_precision="bf16"), precision)
    rope = 4 * model.head_dim * model.context
    assert model.params * precision.nominal_bits / 8 * 0.7 < found.tensor_bytes < model.params * 5.3 + rope
    assert found.nominal_bits == precision.nominal_bits
    assert 0 <= found.fallback_share <= 1


def test_five_hundred_candidates_are_sized_in_a_blink() -> None:
    import time

    pairs = [(model, precision) for model in load_models()[:20] for precision in load_precisions()[:25]]
    started = time.process_time()
    for model, precision in pairs:
        if not precision.native_only:
            weights(model, precision)
    first = time.process_time() - started
    for model, precision in pairs:
        if not precision.native_only:
            weights(model, precision)
    assert first < 0.5
    assert time.process_time() - started - first < 0.05
