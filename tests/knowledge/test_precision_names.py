"""Precisions under their canonical names, other spellings, families, ratios and mixes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.base import AdvisorError
from knowledge.ggml import ggml_types, mixtures
from knowledge.models import find_model
from knowledge.precisions import (
    default_precision,
    load_precisions,
    method_of,
    overrides_of,
    plain_name,
    ratio_of,
    resolve_precision,
)
from knowledge.records import Precision, precision_class
from knowledge.weights import weights

FRAMEWORKS = ("llama.cpp", "openvino", "olive", "mlx")


@pytest.mark.parametrize("precision", load_precisions(), ids=lambda p: f"{p.framework}:{p.name}")
def test_row_is_complete_and_found_by_its_own_name(precision: Precision) -> None:
    assert precision.source
    assert precision.settings
    assert precision.precision_class == precision_class(precision.nominal_bits)
    assert precision.bits >= precision.nominal_bits - 0.5 or precision.name in ("TQ1_0",)
    assert resolve_precision(precision.name, precision.framework) == [precision]


def test_names_are_unique_and_each_framework_has_one_default() -> None:
    rows = [(p.framework, p.name) for p in load_precisions()]
    assert len(set(rows)) == len(rows)
    assert [default_precision(f).framework for f in FRAMEWORKS] == list(FRAMEWORKS)
    assert sum(p.default for p in load_precisions()) == len(FRAMEWORKS)


def test_every_quantizable_file_type_of_llama_cpp_is_there() -> None:
    known = {p.name for p in load_precisions() if p.framework == "llama.cpp"}
    assert known == set(mixtures()) - {"NVFP4"}


def test_gguf_bits_are_those_of_the_base_type() -> None:
    for precision in load_precisions():
        if precision.scheme == "gguf":
            assert precision.bits == ggml_types()[mixtures()[precision.name].base].bits


@pytest.mark.parametrize(
    ("text", "framework", "name"),
    [
        ("q4_k_m", "llama.cpp", "Q4_K_M"),
        ("Q4_K", "llama.cpp", "Q4_K_M"),
        ("iq4-xs", "llama.cpp", "IQ4_XS"),
        ("fp16", "llama.cpp", "F16"),
        ("INT4_SYM g128", "openvino", "int4-sym-g128"),
        ("int4_asym_g64", "openvino", "int4-asym-g64"),
        ("int4-asym-g64-r0.8", "openvino", "int4-asym-g64-r0.8"),
        ("int4-asym-g64-r1.0", "openvino", "int4-asym-g64"),
        ("INT8", "openvino", "int8"),
        ("NF4", "openvino", "nf4-cw"),
        ("nf4_g64", "openvino", "nf4-g64"),
        ("int4_sym_g128-backup-none", "openvino", "int4-sym-g128-bnone"),
        ("int4-sym-g128-bint8_sym", "openvino", "int4-sym-g128-bint8-sym"),
        ("int4-sym-g128-r0.8-bint8-sym", "openvino", "int4-sym-g128-r0.8-bint8-sym"),
        ("mixed_3_6", "mlx", "mixed-3-6"),
        ("int4-rtn-b128", "olive", "int4-rtn-b128"),
        ("int4_rtn_b32", "olive", "int4-rtn-b32"),
        ("awq", "olive", "int4-awq-g128"),
        ("w4a16", "olive", "w4a16-cw"),
        ("4bit", "mlx", "4bit-g64"),
        ("4bit_g32", "mlx", "4bit-g32"),
        ("MXFP4", "mlx", "mxfp4"),
        ("bfloat16", "mlx", "bf16"),
        ("Q8_0+FFN_GATE=q5_0".replace("FFN_GATE", "ffn_gate"), "llama.cpp", "Q8_0+ffn_gate=Q5_0"),
        ("int8+ffn_gate=int4_asym_g32", "openvino", "int8+ffn_gate=int4-asym-g32"),
        ("int4_asym_g64+AWQ", "openvino", "int4-asym-g64+awq"),
        ("int4-asym-g64-r0.8+scale_estimation", "openvino", "int4-asym-g64-r0.8+scale-estimation"),
    ],
)
def test_usual_spellings_resolve(text: str, framework: str, name: str) -> None:
    assert [p.name for p in resolve_precision(text, framework)] == [name]


@pytest.mark.parametrize("family", ["int4", "4bit", "int8", "8bit", "f16"])
def test_a_family_resolves_to_one_full_recipe_per_framework(family: str) -> None:
    found = resolve_precision(family)
    assert [p.framework for p in found] == list(FRAMEWORKS)
    assert all(p.settings for p in found)
    bits = {"int4": 4, "4bit": 4, "int8": 8, "8bit": 8, "f16": 16}[family]
    assert {p.nominal_bits for p in found} == {bits}


def test_four_bit_of_openvino_resolves_to_what_every_device_takes() -> None:
    assert resolve_precision("int4", "openvino")[0].symmetric


def test_a_mix_keeps_its_parts_in_order() -> None:
    (mix,) = resolve_precision("Q8_0+ffn_gate=Q5_1+ffn_up=Q5_0", "llama.cpp")
    assert overrides_of(mix) == (("ffn_gate", "Q5_1"), ("ffn_up", "Q5_0"))
    assert mix.settings["type"] == "Q8_0"
    assert not mix.default


def test_nominal_bits_of_a_mix_are_those_of_most_weights() -> None:
    spec = find_model("SmolLM2-135M-Instruct")
    few = resolve_precision("Q8_0+ffn_gate=Q5_0", "llama.cpp")[0]
    most = resolve_precision("Q8_0+ffn=Q5_0+attn=Q5_0", "llama.cpp")[0]
    assert weights(spec, few).nominal_bits == 8
    assert weights(spec, most).nominal_bits == 5


def test_ratio_lowers_the_bits_and_is_kept_in_the_settings() -> None:
    base, mixed = (resolve_precision(n, "openvino")[0] for n in ("int4-sym-g128", "int4-sym-g128-r0.6"))
    assert ratio_of(base) == 1.0
    assert ratio_of(mixed) == 0.6
    assert base.bits < mixed.bits < 8
    assert mixed.nominal_bits == 4


def test_a_method_in_the_name_is_kept_apart_from_the_precision() -> None:
    plain, better = (resolve_precision(n, "openvino")[0] for n in ("int4-asym-g64", "int4-asym-g64+awq"))
    assert (method_of(plain), method_of(better)) == ("", "awq")
    assert plain_name(better) == plain.name == plain_name(plain)
    spec = find_model("SmolLM2-135M-Instruct")
    assert weights(spec, plain).file_bytes == weights(spec, better).file_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Q4_K_X",
        "int5",
        "Q8_0+",
        "Q8_0+ffn_gate",
        "Q8_0+ffn_gate=Q99",
        "Q8_0+(a|b)*=Q5_0",
        "x" * 10_000,
        "é",
        "int8+awq",
        "Q4_K_M+awq",
        "int4-asym-g64+imatrix",
    ],
)
def test_unknown_precision_is_answered_with_the_nearest_names(text: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        resolve_precision(text, "openvino" if text == "int5" else None)
    assert caught.value.code == "unknown-precision"
    assert "did you mean" in caught.value.hint


def test_precision_of_another_framework_is_said_to_be_one() -> None:
    with pytest.raises(AdvisorError, match=r"mlx has no precision 'Q4_K_S': it is one of llama\.cpp"):
        resolve_precision("Q4_K_S", "mlx")


@given(st.text(max_size=150), st.sampled_from([None, *FRAMEWORKS]))
def test_any_text_is_a_precision_or_an_error_of_our_own(text: str, framework: str | None) -> None:
    with contextlib.suppress(AdvisorError):
        assert resolve_precision(text, framework)
