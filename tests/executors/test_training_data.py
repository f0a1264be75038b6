"""What is left out before training, because no engine can do it."""

from __future__ import annotations

import pytest

from executors.training.dataset import load_dataset
from knowledge.measurements import Measurement

ROW = {
    "device": "Apple M3 Max", "device_kind": "apple", "chip": "Apple M3 Max", "memory_gb": "64", "bandwidth_gbs": "",
    "framework": "ollama", "backend": "metal", "framework_version": "", "model": "Qwen3.6-27B", "params_b": "27",
    "active_params_b": "", "precision": "Q4_K_M", "file_size_gib": "", "batch": "1", "prompt_tokens": "800",
    "gen_tokens": "128", "metric": "ttft_ms",
}  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "value", "kept"),
    [
        ({}, 4000.0, True),  # 10.8 of 14.2 TFLOPS
        ({}, 1600.0, False),  # 27: twice what the chip has, so the prompt was not read anew
        ({"device": "RTX 4090", "device_kind": "gpu", "chip": "RTX 4090", "backend": "cuda"}, 90.0, True),
        ({"device": "RTX 4090", "device_kind": "gpu", "chip": "RTX 4090", "backend": "cuda"}, 30.0, False),
        ({"metric": "decode_tps"}, 24.0, True),
        ({"metric": "decode_tps"}, 60.0, False),  # 990 of 410 GB/s
    ],
)
def test_rows_above_what_the_engine_can_do_are_left_out(cells: dict[str, str], value: float, kept: bool) -> None:
    found = load_dataset([Measurement(2, "somebody", ROW | cells, value, 1)])
    assert bool(found.samples) == kept
    assert bool(found.left_out) != kept
