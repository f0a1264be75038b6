"""A Case: one thing to be predicted, as numbers, and the rates at which engines multiply.

advisor.workload makes cases of rows of measurements, advisor.learned of options of a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from knowledge.model_names import EXPERTS_USE

METRICS = ("decode_tps", "prefill_tps", "ttft_ms", "peak_mem_gb")
CACHED_BYTES = 2.0  # per value: a 16-bit cache, every runtime's default

USUAL_RATE = {"gpu": 40.0, "igpu": 10.0, "apple": 8.0, "cpu": 0.4, "sbc": 0.06, "mobile": 2.0, "npu": 10.0}
# 10^9 multiply-adds and additions a second and core, by the best instruction set; only ratios matter, they are scaled
# in training.
_CORE_RATES = (
    ("amx_int8", 400.0), ("avx512_vnni", 110.0), ("avx512", 90.0), ("avx_vnni", 70.0), ("avx2", 50.0), ("sve2", 40.0),
    ("i8mm", 40.0), ("dotprod", 20.0), ("neon", 8.0), ("avx", 20.0), ("sse4_1", 4.0),
)  # fmt: skip
_APPLE_CORE, _PLAIN_CORE = 80.0, 0.5
# Prompts of sources that do not state them: what their documentation or the rows themselves imply.
_USUAL_PROMPT = (("rapid", 1060.0), ("vllm", 64.0), ("ollama", 32.0), ("qnn", 128.0), ("genie", 128.0))
USUAL_PROMPT = 512.0
_CACHED_PROMPT = 2.0  # what is left of a prompt that was asked before: Ollama's MLX engine kept it
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

    def cached_bytes(self, tokens: float) -> float:
        """The cache of one sequence after `tokens`: layers with a window keep no more than that."""
        kept = min(tokens, self.window) if self.window_bytes else 0.0
        return (self.cache_bytes - self.window_bytes) * tokens + self.window_bytes * kept

    def attended(self, tokens: float) -> float:
        """Query values times the tokens that they are compared with, over a prompt of `tokens`."""
        near = min(tokens, self.window) if self.window else tokens
        return self.queries * tokens * tokens / 2 + self.window_queries * near * (tokens - near / 2)

    def prompt_tokens(self, metric: str) -> float:
        """The prompt's tokens; where the row does not say, what the software's benchmarks usually give."""
        if self.prompt is not None:
            return max(1.0, self.prompt)
        if metric == "ttft_ms":
            if self.runtime == "mlx" and "ollama" in self.software:
                return _CACHED_PROMPT
            return next((tokens for word, tokens in _USUAL_PROMPT if word in self.software), USUAL_PROMPT)
        return USUAL_PROMPT


def gpu_rate(
    vendor: str, backend: str, bits: float, fp16: float | None, acc16: float | None, int8: float | None
) -> tuple[float, float]:
    """As `_rates`. Quantized weights are multiplied in 8 bits by llama.cpp's CUDA kernels, F16 ones accumulated in 16
    bits; the other backends follow the 16-bit rate."""
    half = fp16 or acc16 or (int8 or 0.0) / 2 or 1.0
    if vendor != "nvidia" or backend not in ("cuda", "vulkan"):
        return half, (int8 or half) / half
    wide = acc16 or half
    return (int8 or 2 * wide) / 2 if bits < 12 else wide, (int8 or 2 * wide) / (2 * half)


def cpu_rate(vendor: str, instruction_sets: frozenset[str], cores: float) -> float:
    """10^12 operations a second of `cores` cores at the rate of their instruction set (_CORE_RATES)."""
    if vendor == "apple":
        return _APPLE_CORE * cores / 1e3
    if "amx" in instruction_sets and vendor == "intel":
        return 400.0 * cores / 1e3
    return next((rate for name, rate in _CORE_RATES if name in instruction_sets), _PLAIN_CORE) * cores / 1e3
