"""A Case: one thing to be predicted, as numbers, and the rates at which engines multiply.

advisor.workload makes cases of rows of measurements, advisor.learned of options of a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from knowledge.model_names import EXPERTS_USE

METRICS = ("decode_tps", "prefill_tps", "ttft_ms", "peak_mem_gb")
CACHED_BYTES = 2.0  # per value: a 16-bit cache, every runtime's default

USUAL_RATE = {"gpu": 40.0, "igpu": 10.0, "apple": 8.0, "cpu": 0.4, "sbc": 0.06, "mobile": 4.0, "npu": 10.0}
# 10^9 multiply-adds and additions a second and core, by the best instruction set; only ratios matter, they are scaled
# in training. Arm's: an 8-bit multiplication of vectors without dot products gives 8 products a cycle and is followed
# by additions; with them 32 (two units of 16), with i8mm twice as many, at higher clocks.
_CORE_RATES = (
    ("amx_int8", 400.0), ("avx512_vnni", 110.0), ("avx512", 90.0), ("avx_vnni", 70.0), ("avx2", 50.0), ("sve2", 90.0),
    ("i8mm", 90.0), ("dotprod", 45.0), ("neon", 8.0), ("avx", 20.0), ("sse4_1", 4.0),
)  # fmt: skip
_EFFICIENT_CORE = 0.4  # of a fast one, of Intel's hybrids: half as wide, at lower clocks
_APPLE_CORE, _PLAIN_CORE = 80.0, 0.5
# Of the rate of data-centre cards from Hopper on, what instructions of the generations before reach (arXiv 2501.12084),
# which llama.cpp's kernels for quantized weights use (ggml-cuda/mma.cuh).
_HOPPER_ON, _OLDER_INSTRUCTIONS = ("cc 9", "cc 10"), 0.63
_XMX = frozenset(("Xe-HPG", "Xe-HPC", "Xe-LPG+", "Xe2", "Xe3"))  # generations of Intel's GPUs with matrix engines
# Prompts of sources that do not state them: what their documentation or the rows themselves imply.
_USUAL_PROMPT = (("rapid", 1060.0), ("vllm", 64.0), ("ollama", 32.0), ("qnn", 128.0), ("genie", 128.0))
USUAL_PROMPT = 512.0
_CACHED_PROMPT = 2.0  # what is left of a prompt that was asked before
USUAL_ANSWER = 128.0
USUAL_CORES = 4  # of a CPU, where not even its family is known
USUAL_BUILD = 7000.0  # of llama.cpp, where none is named: late 2025, as most of what does not say


@dataclass(frozen=True, slots=True)
class Case:
    """Sizes in bytes, rates in 10^9 B/s and 10^12 operations a second; `count` engines share the layers.

    `active_bytes` are read for each token; `rate` is what the engine's kind multiplies with at this precision.
    `queries` and `window_queries` as in knowledge.model_names.
    `engine_kind`: gpu, igpu, apple, cpu, sbc, mobile or npu. `runtime` is a family of software, `software` the name as
    it was written, `build` the number of llama.cpp's build, which tells how far its kernels had come.
    """

    chip: str
    vendor: str
    engine_kind: str
    generation: str
    runtime: str
    software: str
    backend: str
    bandwidth: float
    rate: float
    low_bit_ratio: float
    count: int
    memory_gib: float | None
    model: str
    params: float
    active_params: float
    weight_bytes: float
    active_bytes: float
    layers: int
    hidden: int
    vocab: int
    cache_bytes: float
    recurrent: bool
    queries: float
    precision: str
    bits: float
    assumed_precision: bool
    prompt: float | None
    answer: float | None
    batch: float
    build: float = USUAL_BUILD
    window_bytes: float = 0.0  # of `cache_bytes`, what layers cache that look back no further than `window` tokens
    window: int = 0
    window_queries: float = 0.0
    context: int = 0  # tokens that the model was trained for; 0: not known
    float_activations: bool = False  # on an NPU that is made for integers
    assumed_cores: bool = False  # `rate` is that of the cores that are usual
    bandwidth_range: tuple[float, ...] = ()  # least and most, where `bandwidth` is assumed
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_moe(self) -> bool:
        return self.active_params < EXPERTS_USE * self.params

    @property
    def is_scattered(self) -> bool:
        """Whether a token reads part of the weights: of experts, or rows of an embedding for each layer."""
        return self.active_params < 0.8 * self.params

    @property
    def is_cached(self) -> bool:
        """Whether the prompt was asked before and kept: Ollama's MLX engine does, where a row tells no prompt."""
        return self.prompt is None and self.runtime == "mlx" and "ollama" in self.software

    def cached_bytes(self, tokens: float) -> float:
        """The cache of one sequence after `tokens`: layers with a window keep no more than that."""
        kept = min(tokens, self.window) if self.window_bytes else 0.0
        return (self.cache_bytes - self.window_bytes) * tokens + self.window_bytes * kept

    def looked_at(self, tokens: float) -> float:
        """Query values times the tokens that they are compared with, for one token after `tokens`."""
        return self.queries * tokens + self.window_queries * (min(tokens, self.window) if self.window else tokens)

    def attended(self, tokens: float) -> float:
        """Query values times the tokens that they are compared with, over a prompt of `tokens`."""
        near = min(tokens, self.window) if self.window else tokens
        return self.queries * tokens * tokens / 2 + self.window_queries * near * (tokens - near / 2)

    def prompt_tokens(self, metric: str) -> float:
        """The prompt's tokens; where the row does not say, what the software's benchmarks usually give."""
        if self.prompt is not None:
            return max(1.0, self.prompt)
        if metric == "ttft_ms":
            if self.is_cached:
                return _CACHED_PROMPT
            return next((tokens for word, tokens in _USUAL_PROMPT if word in self.software), USUAL_PROMPT)
        return USUAL_PROMPT


class GpuRates(NamedTuple):
    """What a GPU multiplies with by its data sheet, in 10^12 operations a second: in 16 bits, the same added up in 16
    bits, and in 8 bits."""

    vendor: str
    generation: str
    fp16: float | None
    acc16: float | None
    int8: float | None


def gpu_rate(
    sheet: GpuRates, backend: str, bits: float, usual: float, *, older_release: bool = False
) -> tuple[float, float]:
    """10^12 operations a second at these bits, and how many times faster 8 bits are than 16; `usual` ones in 16 bits
    where nothing is known.

    Quantized weights are multiplied in 8 bits by llama.cpp's CUDA kernels, F16 ones accumulated in 16 bits, and by
    OpenVINO on matrix engines but in its `older_release`s; the other backends follow the 16-bit rate.
    """
    vendor, generation, fp16, acc16, int8 = sheet
    half = fp16 or acc16 or (int8 or 0.0) / 2 or usual
    if vendor == "nvidia" and backend in ("cuda", "vulkan"):
        wide = acc16 or half
        in_8_bits = (int8 or 2 * wide) / 2
        if bits < 12 and generation.startswith(_HOPPER_ON):
            in_8_bits *= _OLDER_INSTRUCTIONS
        return in_8_bits if bits < 12 else wide, in_8_bits / half
    if backend == "openvino-gpu" and generation in _XMX and bits < 12 and not older_release:
        return int8 or 2 * half, (int8 or 2 * half) / half
    return half, (int8 or half) / half


def in_fast_cores(vendor: str, every: int, fast: int | None) -> float:
    """How many fast cores the `every` cores of a CPU are worth, `fast` of which are (None: all are alike)."""
    return fast + _EFFICIENT_CORE * (every - fast) if fast and vendor == "intel" else every


def cpu_rate(vendor: str, instruction_sets: frozenset[str], cores: float) -> float:
    """10^12 operations a second of `cores` cores at the rate of their instruction set (_CORE_RATES)."""
    if vendor == "apple":
        return _APPLE_CORE * cores / 1e3
    if "amx" in instruction_sets and vendor == "intel":
        return 400.0 * cores / 1e3
    return next((rate for name, rate in _CORE_RATES if name in instruction_sets), _PLAIN_CORE) * cores / 1e3
