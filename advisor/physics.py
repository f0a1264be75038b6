"""The physics of running a language model, as times and sizes that scale with what is known of engine and weights.

Decode reads every active weight and the cache once per token; a prompt is multiplied through the weights; both pay a
fixed cost per layer. The shares of the engine's rates that software reaches are parameters, one set per backend,
fitted to measurements (executors.training) with these defaults as prior. Pure functions of a Case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from advisor.case import CACHED_BYTES, USUAL_ANSWER, Case
from knowledge.base import GIB

Parameters = Sequence[float]

BACKENDS = ("cuda", "metal", "rocm", "vulkan", "cpu", "openvino-gpu", "npu", "opencl", "sycl")
# log-odds of the bandwidth share, log ms per layer, log factor on the arithmetic (CPUs) or on reading the cache again
# for queries that share its heads (the others), log factor on a mixture's bytes
DECODE_START: dict[str, tuple[float, float, float, float]] = {
    backend: (math.log(share / (1 - share)), math.log(layer_ms), math.log(besides), 0.2)
    for backend, share, layer_ms, besides in (
        ("cuda", 0.7, 0.03, 0.1), ("metal", 0.7, 0.05, 0.3), ("rocm", 0.65, 0.07, 0.1), ("vulkan", 0.65, 0.08, 0.1),
        ("cpu", 0.6, 0.05, 2.0), ("x86 cpu", 0.7, 0.05, 2.0), ("openvino-gpu", 0.7, 0.3, 0.1), ("npu", 0.65, 0.1, 0.1),
        ("opencl", 0.45, 0.3, 0.1), ("sycl", 0.55, 0.2, 0.1),
    )
}  # fmt: skip
# log share of the arithmetic rate, log ms per layer, log factor on attention, log share that a mixture of experts keeps
PROMPT_START: dict[str, tuple[float, float, float, float]] = {
    backend: (math.log(share), math.log(0.1), math.log(2.0), math.log(0.45))
    for backend, share in (
        ("cuda", 0.4), ("metal", 0.6), ("rocm", 0.25), ("vulkan", 0.2), ("cpu", 0.4), ("openvino-gpu", 0.3),
        ("npu", 0.15), ("opencl", 0.1), ("sycl", 0.2),
    )
}  # fmt: skip
# log share added to the weights, log GiB of the runtime itself, log factor on the cache, log factor on the logits; by
# runtime and backend where its way of loading is known (RKLLM converts ahead of time and maps the result) or its unit:
# what runs on Metal is reported in 10^9 bytes (mlx-lm 0.32.2 generate.py: get_peak_memory() / 1e9), with logits in 16
# bits. OpenVINO's rows of 32 and of 1024 tokens differ by the cache in 16 bits and logits in 32.
MEMORY_START: dict[str, tuple[float, float, float, float]] = {
    "any": (-3.0, -0.7, 0.0, -0.7),
    **dict.fromkeys(("llama.cpp metal", "mlx metal", "ollama metal"), (-2.6, -1.0, 0.07, -0.69)),
    "openvino openvino-gpu": (-3.0, 0.0, 0.0, 0.0),
    "rkllm npu": (-5.0, -2.0, 0.0, -4.0),
}

_FLOATS_ON_NPU = 2.0  # times as long: Hexagon's w4 against its w4a16, 1.8 to 2.4 of three pairs, prompts and answers
_READS_AT_MOST = 1.25  # of the data-sheet bandwidth: clocks above reference, rounded figures
_CACHED = 5e8  # bytes: weights that a cache can hold read faster than memory
_HYBRID_LAYERS = 0.8  # a recurrent layer launches about that many more kernels than an attention layer
_STREAM_SHARE = 0.6  # of the bandwidth, when a prompt's batch reads the weights once
_BATCH = 512.0  # tokens that go through the layers at once: engines that share them work on different batches
_OVERLAP = 0.75  # exponent: what of a pipeline's ideal speed-up arrives
# llama.cpp's build that uses flash attention unasked (pull request 15434); before, attention takes about twice as long
# with CUDA (pull request 5021: a prompt of 7,840 tokens as a whole 1.6 times). Metal's rows do not show it.
_FLASH_SINCE, _WITHOUT_FLASH = 6325.0, 2.0
_MORE_SEQUENCES = 0.8  # exponent: what of a larger batch arrives as tokens per second
_UNSTATED_CONTEXT = 1024.0  # tokens in the cache, where a row of peak memory does not say
_UNSTATED_PROMPT = 32.0  # tokens whose logits are kept, there: such rows tell what loading took
_BATCHES = {"llama.cpp": 512.0, "ollama": 512.0, "lmstudio": 512.0}  # tokens whose logits are kept at once, always
_LARGEST_BATCH = 2048.0  # for the others, which keep the prompt's up to that
# Tokens that Ollama reserves by the GPU's memory in GiB, of which Metal lends three quarters (ollama/ollama
# docs/context-length.mdx @948f6933: 4k below 24 GiB, 32k below 48, 256k from there).
_OLLAMA_CONTEXT = ((47.0, 262144.0), (23.0, 32768.0), (0.0, 4096.0))
_METAL_SHARE = 0.75


def decode_terms(case: Case) -> tuple[float, float, float]:
    """Seconds a token at the data-sheet rates: reading; a CPU's arithmetic, of other engines the cache read again for
    queries that share its heads; 1 ms per layer."""
    context = (case.prompt or 0.0) + (case.answer or USUAL_ANSWER) / 2
    cached = case.cached_bytes(context)
    slower = _FLOATS_ON_NPU if case.float_activations else 1.0
    bandwidth = case.bandwidth * 1e9
    read = slower * (case.active_bytes + min(cached, 4 * case.active_bytes)) / bandwidth
    if case.backend == "cpu":
        besides = 2 * case.active_params / (case.rate * 1e12)
    else:
        besides = max(0.0, min(2 * CACHED_BYTES * case.looked_at(context) - cached, 16 * case.active_bytes)) / bandwidth
    return read, besides, case.layers * (1 + _HYBRID_LAYERS * case.recurrent) * 1e-3


def decode_seconds(case: Case, parameters: Parameters) -> float:
    """Seconds a token of one sequence."""
    read, besides, layers = decode_terms(case)
    share, layer, factor, mixture = parameters
    read *= math.exp(mixture) if case.is_scattered else 1.0
    seconds = read * (1 + math.exp(-share)) + math.exp(factor) * besides + math.exp(layer) * layers
    return seconds / math.pow(case.batch, _MORE_SEQUENCES)


def most_decode_tps(case: Case) -> float:
    """What no decode of one sequence exceeds, whatever was learned or published: the active weights are read for each
    token, those of several cards in turn."""
    if case.active_bytes <= _CACHED or case.batch != 1:
        return math.inf
    return _READS_AT_MOST * max((case.bandwidth, *case.bandwidth_range)) * 1e9 / case.active_bytes


def prompt_terms(case: Case, metric: str) -> tuple[float, float, float, float]:
    """Seconds of a prompt at the data-sheet rates: multiplying weights, attention, reading weights; ms per layer."""
    tokens = case.prompt_tokens(metric)
    batches = math.ceil(tokens / _BATCH)
    pipeline = batches * case.count / (batches + case.count - 1)
    rate = case.rate * 1e12 * math.pow(pipeline, _OVERLAP) / (_FLOATS_ON_NPU if case.float_activations else 1.0)
    touched = min(1.0, 0.03 * tokens) if case.is_moe else 1.0
    slower = _WITHOUT_FLASH if case.backend == "cuda" and case.build < _FLASH_SINCE else 1.0
    return (
        2 * case.active_params * tokens / rate,
        slower * 4.0 * case.attended(tokens) / rate,
        case.weight_bytes * touched / (case.bandwidth * 1e9),
        case.layers * (1 + 0.5 * case.recurrent) * 1e-3,
    )


def prompt_seconds(case: Case, metric: str, parameters: Parameters) -> float:
    """Seconds until a prompt is read, as `metric` (prefill_tps or ttft_ms) measures it. What is left of a cached one
    goes through like answers."""
    if metric == "ttft_ms" and case.is_cached:
        return case.prompt_tokens(metric) * decode_seconds(case, DECODE_START[case.backend])
    multiply, attend, read, layers = prompt_terms(case, metric)
    share, layer, attention, mixture = parameters
    work = (multiply / (math.exp(mixture) if case.is_moe else 1.0) + math.exp(attention) * attend) / math.exp(share)
    seconds = work + read / _STREAM_SHARE + math.exp(layer) * layers
    return seconds * case.batch if metric == "ttft_ms" else seconds


def memory_terms(case: Case) -> tuple[float, float, float]:
    """GiB of the weights, of the cache and of a batch's logits in 32 bits."""
    context = _UNSTATED_CONTEXT if case.prompt is None else case.prompt + (case.answer or USUAL_ANSWER)
    if case.runtime == "ollama":
        context = max(context, _reserved(case))
    batch = _BATCHES.get(case.runtime) or min(case.prompt or _UNSTATED_PROMPT, _LARGEST_BATCH)
    return case.weight_bytes / GIB, case.cached_bytes(context) * case.batch / GIB, 4.0 * batch * case.vocab / GIB


def _reserved(case: Case) -> float:
    memory = (case.memory_gib or 0.0) * case.count * (_METAL_SHARE if case.backend == "metal" else 1.0)
    tokens = next(tokens for least, tokens in _OLLAMA_CONTEXT if memory >= least)
    return min(tokens, case.context or tokens)


def memory_gib(case: Case, parameters: Parameters) -> float:
    """GiB at the peak."""
    weights, cache, logits = memory_terms(case)
    added, itself, factor, kept = parameters
    return weights * (1 + math.exp(added)) + cache * math.exp(factor) + logits * math.exp(kept) + math.exp(itself)
