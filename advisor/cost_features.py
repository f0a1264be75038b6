"""What the learned correction sees of a Case: numbers in a fixed order, every one known or imputed.

What is particular to an engine is learned as its own effect (advisor.cost_model), which carries over to ones like it.
"""

from __future__ import annotations

import math

from advisor import physics
from advisor.case import Case
from knowledge.base import GIB

_BACKENDS = ("cuda", "metal", "rocm", "vulkan", "cpu", "openvino-gpu", "npu", "opencl")
_RUNTIMES = ("llama.cpp", "ollama", "mlx", "openvino", "qnn", "rkllm", "onnxruntime")
_VENDORS = ("nvidia", "amd", "intel", "apple")
_LEGACY = frozenset(("q4_0", "q4_1", "q5_0", "q5_1", "q8_0"))
_USUAL_SHARE = 0.4  # of the memory, where its size is not known

FEATURES = (
    "log_read_time", "log_active_bytes", "log_active_params", "log_weight_bytes", "bits", "active_share", "layers",
    "log_hidden", "log_vocab", "log_prompt", "prompt_known", "log_cache_share", "memory_share", "count", "recurrent",
    "first_token", "assumed_precision", "legacy_blocks", "importance_blocks", "log_batch", "serving",
    *(f"backend_{name}" for name in _BACKENDS), *(f"runtime_{name}" for name in _RUNTIMES), "log_rate", "log_bandwidth",
    *(f"vendor_{name}" for name in _VENDORS), "integrated", "build", "log_low_bit_ratio", "log_rate_of_all",
    "log_intensity",
)  # fmt: skip
MEMORY_FEATURES = ("log_cache", "log_logits", "log_embedding")  # after FEATURES
INCREASING = {  # what physics says of the logarithm of seconds or bytes, with everything else the same
    "decode": ("log_prompt", "log_intensity"),
    "prompt": ("log_prompt",),  # what an engine reaches may grow with the work: physics grows faster
    "first": ("log_prompt",),
    "memory": ("log_prompt", "log_intensity", "log_weight_bytes", "log_batch", "log_cache", "log_logits"),
}


def features(case: Case, metric: str) -> list[float]:
    """The numbers of FEATURES, for peak memory those of MEMORY_FEATURES too. `metric` as in METRICS."""
    prompt = case.prompt_tokens(metric) if metric in ("prefill_tps", "ttft_ms") else case.prompt or 30.0
    memory = case.memory_gib * case.count if case.memory_gib else 0.0
    share = min(2.0, case.weight_bytes / 2**30 / memory) if memory else _USUAL_SHARE
    active = case.active_bytes
    name = case.precision
    values = [
        math.log(active / case.bandwidth),
        math.log(active),
        math.log(case.active_params),
        math.log(case.weight_bytes),
        min(case.bits, 33.0),
        case.active_params / case.params,
        float(case.layers),
        math.log(case.hidden),
        math.log(case.vocab),
        math.log(max(1.0, prompt)),
        float(case.prompt is not None),
        math.log((case.cache_bytes + 1.0) / active),
        share,
        float(min(case.count, 4)),
        float(case.recurrent),
        float(metric == "ttft_ms"),
        float(case.assumed_precision),
        float(name in _LEGACY),
        float(name.startswith("iq")),
        math.log(case.batch),
        float("rapid" in case.software or "vllm" in case.software),
    ]
    values += [float(case.backend == backend) for backend in _BACKENDS]
    values += [float(case.runtime == runtime) for runtime in _RUNTIMES]
    values += [math.log(case.rate), math.log(case.bandwidth)]
    values += [float(case.vendor == vendor) for vendor in _VENDORS]
    multiply = 2 * case.active_params * max(1.0, prompt) / (case.rate * 1e12)
    values += [
        float(case.engine_kind == "igpu"),
        case.build,
        math.log(case.low_bit_ratio),
        math.log(case.rate * case.count),
        math.log(multiply / (case.weight_bytes / (case.bandwidth * 1e9))),
    ]
    if metric == "peak_mem_gb":
        _, cache, logits = physics.memory_terms(case)
        embedding = 2.0 * case.vocab * case.hidden / GIB
        values += [math.log(part + 0.001) for part in (cache, logits, embedding)]
    return values
