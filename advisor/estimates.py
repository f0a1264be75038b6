"""What a step is expected to take: seconds, peak memory and disk, by the model's sizes and what its recipe measured."""

from __future__ import annotations

from typing import Any

from advisor.judging import Judged
from advisor.limits import reference_bytes

SCORED_BLOCKS, BLOCK_TOKENS = 50, 64
CALIBRATION_TOKENS = 4096  # or as many as the shipped text has
TASK_TOKENS = 3000  # of the question set, each prompt once and each option
BENCH_PAIRS, BENCH_PROMPT, BENCH_DECODE = 5, 128, 32
_COPY_BYTES_PER_SECOND = 200e6
_QUANTIZE_BYTES_PER_SECOND = 60e6
_WORKER_BYTES = 120 * 2**20
_WORKER_START_SECONDS = 1.0


def estimate(recipe: dict[str, Any], best: Judged, *, from_folder: bool) -> dict[str, Any]:
    """`seconds` (None where the speed is unknown), `peak_ram_bytes` and `disk_bytes` of a recipe's step.

    `from_folder`: the model comes as a Hugging Face folder.
    """
    option = best.option
    sizes, need, spec = best.size.weights, best.size.need, option.spec
    reference = reference_bytes(spec, option.backend.framework)
    source = best.size.disk["download_bytes"] or best.size.disk["peak_bytes"] - sizes.file_bytes - reference
    kind, tier = recipe["kind"], recipe.get("tier")
    largest_row_block = 4 * spec.vocab * spec.hidden
    rate = recipe.get("bytes_per_second", _QUANTIZE_BYTES_PER_SECOND)
    start, how = 0.0, recipe
    if from_folder and "from_folder" in recipe:
        how = recipe["from_folder"]
        start, rate = how["seconds"], how["bytes_per_second"]
    measured = round(how.get("peak_bytes", 0) + how.get("peak_ratio", 0) * reference)
    making = max(_WORKER_BYTES + 2 * largest_row_block, measured)
    copy = _WORKER_START_SECONDS + max(source, 0) / _COPY_BYTES_PER_SECOND
    prefill, decode = best.prefill.mid, best.decode.mid
    own = recipe.get("settings", {})
    prompt, answer = own.get("prompt_tokens", BENCH_PROMPT), own.get("decode_tokens", BENCH_DECODE)
    if rate_here := recipe.get("operations_per_second"):  # of this step's own arithmetic, whatever users see elsewhere
        prefill = decode = rate_here / (2 * (spec.active_params or spec.params))
    scored = own.get("blocks", SCORED_BLOCKS) * own.get("block_tokens", BLOCK_TOKENS)
    unpacked = recipe.get("extra_bytes", 0)
    rows: dict[str, tuple[float | None, int, int]] = {
        "acquire": (copy, 50 * 2**20, max(source, 0)),
        "convert": (start + copy + reference / rate, making, round(recipe.get("disk_ratio", 1) * reference)),
        "quantize": (copy + 2 * reference / rate, making, sizes.file_bytes),
        "calibrate": (
            CALIBRATION_TOKENS / prefill if prefill else None,
            reference + need.kv_bytes + need.overhead_bytes,
            8 * spec.hidden * len(spec.tensors or range(8 * spec.layers)),
        ),
        "integrity": (copy, _WORKER_BYTES, 0),
        "smoke": (_WORKER_START_SECONDS + 96 / decode if decode else None, need.total_bytes, 0),
        "reference": (
            scored / prefill if prefill else None,
            reference + need.kv_bytes + need.overhead_bytes + unpacked,
            scored * spec.vocab * 2,
        ),
        "distribution": (scored / prefill if prefill else None, need.total_bytes + unpacked, 0),
        "runtime": (scored / prefill if prefill else None, need.total_bytes + unpacked, scored * spec.vocab * 2),
        "tasks": (
            2 * TASK_TOKENS / prefill if prefill else None,
            reference + need.kv_bytes + need.overhead_bytes + unpacked,
            0,
        ),
        "benchmark": (
            2 * BENCH_PAIRS * (_WORKER_START_SECONDS + 2 * prompt / prefill + answer / decode)
            if prefill and decode
            else None,
            need.total_bytes,
            0,
        ),
        "validate": (None, need.total_bytes, 0),
        "compile": (None, need.total_bytes, 0),
        "package": (copy, 50 * 2**20, sizes.file_bytes),
    }
    seconds, peak, disk = rows[tier or kind]
    return {
        "seconds": None if seconds is None else round(seconds, 1),
        "peak_ram_bytes": int(peak),
        "disk_bytes": int(disk),
    }
