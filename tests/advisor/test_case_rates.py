"""What engines multiply and read with, where rows name the software and not how it computes."""

from __future__ import annotations

import pytest

from advisor import physics
from advisor.case import Case, in_fast_cores
from advisor.workload import case_of_row
from knowledge.chips import load_chips, npu_generation, usual_npu_tops
from knowledge.precision_names import mixed_bits
from knowledge.tables import read_rows


def case(chip: str, **cells: str) -> Case:
    row = {"device": chip, "device_kind": "gpu", "chip": chip, "framework": "llama.cpp", "precision": "Q4_K_M",
           "model": "Llama-3.1-8B-Instruct", "metric": "prefill_tps", "prompt_tokens": "8192"} | cells  # fmt: skip
    found, _ = case_of_row(row)
    assert found is not None
    return found


NPU = {"device_kind": "mobile", "framework": "qnn-genie", "backend": "qnn", "precision": "w4a16"}


def test_an_npu_whose_maker_publishes_no_rate_has_that_of_its_generation() -> None:
    assert case("Snapdragon 8 Elite", **NPU).rate == usual_npu_tops("Hexagon v79")
    assert case("Snapdragon X Elite", **NPU | {"device_kind": "npu"}).rate == 45.0
    assert usual_npu_tops("Hexagon v1") is None


def test_usual_rates_of_npus_agree_with_the_chips_that_they_are_taken_from() -> None:
    chips = {chip.name: chip for chip in load_chips()}
    rows = read_rows("npu_rates.csv")
    known = {row["generation"]: float(row["tops"]) for row in rows}
    assert list(known.values()) == sorted(known.values())
    for row in rows:
        if row["source"].startswith("chips.csv: "):
            chip = chips[row["source"].removeprefix("chips.csv: ").partition(" (")[0]]
            assert (chip.npu_tops, npu_generation(chip)) == (float(row["tops"]), row["generation"])
    lacking = {npu_generation(c) for c in chips.values() if c.vendor == "qualcomm" and not c.npu_tops}
    assert {one for one in lacking if " v" in one} <= known.keys()


def test_weights_alone_in_integers_take_an_npu_twice_as_long() -> None:
    integers, floats = case("Snapdragon 8 Elite", **NPU), case("Snapdragon 8 Elite", **NPU | {"precision": "w4"})
    assert (integers.float_activations, floats.float_activations) == (False, True)
    assert physics.decode_terms(floats)[0] == 2 * physics.decode_terms(integers)[0]
    assert physics.prompt_terms(floats, "ttft_ms")[0] == 2 * physics.prompt_terms(integers, "ttft_ms")[0]
    assert not case("Rockchip RK3588", **NPU | {"framework": "rkllm", "precision": "w4"}).float_activations


@pytest.mark.parametrize(
    ("chip", "version", "precision", "times"),
    [
        ("Core Ultra 7 258V", "2024.5", "INT4", 1), ("Core Ultra 7 258V", "057031f1 (OV 2024.5 era)", "INT4", 1),
        ("Core Ultra 7 258V", "6d1de4a2", "INT4", 1), ("Core Ultra 7 258V", "2025.2.0", "INT4", 2),
        ("Core Ultra 7 258V", "2026.1", "INT8", 2), ("Core Ultra 7 258V", "", "INT4", 2),
        ("Core Ultra 7 258V", "2026.1", "FP16", 1), ("Core Ultra 7 155H", "2026.1", "INT4", 1),
    ],
)  # fmt: skip
def test_openvino_multiplies_in_8_bits_on_matrix_engines_since_2025_2(
    chip: str, version: str, precision: str, times: int
) -> None:
    cells = {"framework": "openvino", "backend": "openvino-gpu", "precision": precision}
    asked = case(chip, framework_version=version, **cells)
    sheet = next(one for one in load_chips() if one.name == chip)
    assert asked.rate == pytest.approx(times * (sheet.fp16_tflops or 0), rel=0.01)


def test_quantized_weights_do_not_reach_what_hopper_has_new() -> None:
    hopper, ada = case("H100 PCIe"), case("RTX 4090")
    sheets = {chip.name: chip.int8_tops or 0 for chip in load_chips() if chip.name in ("H100 PCIe", "RTX 4090")}
    assert hopper.rate < 0.7 * sheets["H100 PCIe"] / 2
    assert ada.rate == sheets["RTX 4090"] / 2
    assert case("H100 PCIe", precision="F16").rate == 756


def test_attention_takes_cuda_longer_before_flash_attention() -> None:
    def attention(chip: str, version: str) -> float:
        return physics.prompt_terms(case(chip, framework_version=version), "prefill_tps")[1]

    assert attention("RTX 4090", "b5000") == 2 * attention("RTX 4090", "b7000") == 2 * attention("RTX 4090", "")
    assert attention("Apple M2 Ultra", "b5000") == attention("Apple M2 Ultra", "b7000")


def test_queries_that_share_a_head_read_the_cache_again() -> None:
    shared, own = case("RTX 4090"), case("RTX 4090", model="Llama-2-7B")
    assert physics.decode_terms(own)[1] == 0
    again, cached = physics.decode_terms(shared)[1] * shared.bandwidth * 1e9, shared.cached_bytes(8192 + 64)
    assert again == pytest.approx(3 * cached)  # 32 heads, 8 of them with a cache


def test_efficient_cores_count_less_on_intels_hybrids() -> None:
    assert in_fast_cores("intel", 16, 6) == 10
    assert in_fast_cores("amd", 12, 4) == in_fast_cores("intel", 12, None) == 12
    hybrid = case("Core Ultra 7 155H", device_kind="cpu", backend="cpu")
    assert hybrid.rate == pytest.approx((6 + 0.4 * 10) * 70 / 1e3)


def test_openvinos_benchmarks_keep_some_layers_in_8_bits() -> None:
    kept, all_in_4 = mixed_bits("zephyr-7b-beta"), mixed_bits("vicuna-7b-v1.5")
    assert kept.layers == pytest.approx(0.8 * 4.125 + 0.2 * 8)
    assert all_in_4.layers == 4 + 20 / 128 == mixed_bits("a model that nobody lists").layers
    assert mixed_bits("Llama-2-7b-chat-hf") == mixed_bits("llama-2-7b-chat")
    assert mixed_bits("falcon-7b-instruct").output < 5 < kept.output
    cells = {"framework": "openvino", "backend": "openvino-gpu", "precision": "INT4-MIXED", "params_b": "7.24"}
    sizes = [case("Core Ultra 7 258V", model=name, **cells) for name in ("zephyr-7b-beta", "zephyr-7b-gamma")]
    assert sizes[0].weight_bytes > 1.1 * sizes[1].weight_bytes
    named = case("Core Ultra 7 258V", model="zephyr-7b-beta", **cells | {"file_size_gib": "4.0"})
    assert named.weight_bytes == 4.0 * 2**30


def test_what_is_left_of_a_cached_prompt_goes_through_like_answers() -> None:
    cells = {"framework": "ollama", "model": "qwen3.5:9b-mlx", "device_kind": "apple", "prompt_tokens": ""}
    kept = case("Apple M5 Max", **cells)
    assert kept.is_cached
    token = physics.decode_seconds(kept, physics.DECODE_START["metal"])
    assert physics.prompt_seconds(kept, "ttft_ms", physics.PROMPT_START["metal"]) == 2 * token
    assert not case("Apple M5 Max", **cells | {"prompt_tokens": "500"}).is_cached
    assert not case("Apple M5 Max", **cells | {"framework": "mlx"}).is_cached
