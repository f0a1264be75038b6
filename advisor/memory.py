"""What a model needs of a memory pool, and how much of the pool it may use; both as sums of named parts.

    need = weights + key-value cache (or state) + activations + logits + the runtime's own footprint   <=   budget

One pair of functions for every caller. The cache is exact by attention kind for llama.cpp (src/llama-kv-cache*.cpp of
llama-cpp-python 0.3.36); for other runtimes it is an upper bound where noted. Pure: records in, records out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.origin import form_of
from knowledge.base import format_bytes
from knowledge.records import AttentionGroup, ModelSpec
from knowledge.runtimes import Graphics, Lend, Overhead, Reserve, overheads, reserves
from knowledge.weights import WeightSizes
from probes.profile import GPU, HardwareProfile, MemoryPool

Part = tuple[str, int, str]

_CELL_PADDING = 256  # llama.cpp rounds the cells of a cache up (src/llama-context.cpp)
# Bytes per cached value: blocks of 32 values in llama.cpp's types; scale and zero point per 32 in OpenVINO; scale and
# bias per 64 in MLX. OpenVINO's overhead is an assumption: its documentation gives no layout.
_CACHE_BYTES = {
    ("llama.cpp", "f16"): 2.0,
    ("llama.cpp", "q8_0"): 34 / 32,
    ("llama.cpp", "q4_0"): 18 / 32,
    ("openvino", "f16"): 2.0,
    ("openvino", "q8_0"): 1.125,
    ("openvino", "q4_0"): 0.625,
    ("mlx", "f16"): 2.0,
    ("mlx", "q8_0"): 1.0625,
    ("mlx", "q4_0"): 0.5625,
    ("olive", "f16"): 2.0,
    ("olive", "q8_0"): 1.0625,
    ("olive", "q4_0"): 0.5625,
}
_LAYER_SHARES = {"layers": 1.0, "half-layers": 0.5}  # of an encoder's layers, held a second time
_UNIFIED_BACKENDS = ("metal",)
_NPU_BACKENDS = ("openvino-npu", "qnn", "vitisai", "hexagon")
_VOCABULARY_BYTES = 204  # a token and its merge, in the loaded tokenizer (gguf-parser-go @8dc7a62)
_LOADER_BYTES = 9 * 1024**2  # model loader 5 MiB and scheduler 4 MiB (gguf-parser-go @8dc7a62)


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes needed in one pool. `parts` are (name, bytes, source), adding up to `total_bytes`.

    `evictable_bytes` are resident besides but not needed: pages of a mapped file whose weights were copied. The
    resident peak that a process shows is `peak_rss_bytes`.
    """

    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int
    parts: tuple[Part, ...]
    evictable_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes

    @property
    def peak_rss_bytes(self) -> int:
        return self.total_bytes + self.evictable_bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """How many bytes of `pool` an engine may use, and the sentences that say why.

    `pool_bytes` is what all engines of the pool may use together; `gpu_bytes` what a GPU without memory of its own may
    take of it, and `more` how a person lets it take more (empty: no way is known).
    """

    bytes: int
    pool: str
    reasons: tuple[str, ...]
    pool_bytes: int
    gpu_bytes: int | None = None
    more: str = ""


def kv_bytes(
    spec: ModelSpec,
    context: int,
    concurrency: int = 1,
    kv_type: str = "f16",
    framework: str = "llama.cpp",
    backend: str = "cpu",
) -> int:
    """Bytes of the cache for `concurrency` sequences of `context` tokens each.

    `kv_type` is f16, q8_0 or q4_0; other runtimes' 8- and 4-bit caches are named so too. State of recurrent layers is
    32-bit whatever the type. ONNX Runtime GenAI keeps 32-bit values on the CPU.
    """
    return sum(size for _, size, _ in cache_parts(spec, context, concurrency, kv_type, framework, backend))


def cache_parts(
    spec: ModelSpec,
    context: int,
    concurrency: int = 1,
    kv_type: str = "f16",
    framework: str = "llama.cpp",
    backend: str = "cpu",
) -> tuple[Part, ...]:
    """The cache by attention kind."""
    parts: list[Part] = []
    for group in spec.attention:
        if group.kind == "none":
            continue
        if group.kind == "recurrent":
            size = 4 * group.state_elements * group.layers * concurrency
            parts.append((f"state of {group.layers} recurrent layers", size, "32-bit, constant per sequence"))
            continue
        cells = _cells(group, context, concurrency, framework)
        size = group.layers * cells * _bytes_per_cell(group, kv_type, framework, backend)
        parts.append((f"{_WORDS[group.kind]} of {group.layers} layers, {kv_type}", size, f"{cells} cells"))
    return tuple(parts)


_WORDS = {"full": "key-value cache", "window": "sliding-window cache", "latent": "latent cache"}


def _cells(group: AttentionGroup, context: int, concurrency: int, framework: str) -> int:
    """Tokens that a layer keeps, over all sequences."""
    if framework != "llama.cpp":
        windowed = group.kind == "window" and framework in ("mlx", "olive")
        return (min(context, group.window) if windowed else context) * concurrency
    full = _pad(context)
    if group.kind != "window":
        return full * concurrency
    ubatch = min(overheads()[("llama.cpp", "cpu")].ubatch, full)
    return min(_pad(min(full, group.window + ubatch)), full) * concurrency


def _bytes_per_cell(group: AttentionGroup, kv_type: str, framework: str, backend: str) -> int:
    values = group.key_length + group.value_length
    if group.kind != "latent":
        values *= group.kv_heads
    if framework == "olive" and backend == "cpu" and kv_type == "f16":
        return 4 * values
    return round(values * (_CACHE_BYTES.get((framework, kv_type)) or _CACHE_BYTES[("llama.cpp", kv_type)]))


def _pad(tokens: int) -> int:
    return -(-tokens // _CELL_PADDING) * _CELL_PADDING


def overhead_parts(
    spec: ModelSpec, framework: str, backend: str, context: int, concurrency: int = 1
) -> tuple[Part, ...]:
    """What the runtime needs besides weights and cache: activations, logits, tokenizer, itself.

    On a CPU only memory that is written to counts, and the logits of one token suffice; on a device the buffers count
    as they are allocated, with the logits of a whole batch of tokens.
    """
    row = _overhead(framework, backend, spec)
    batch = min(row.ubatch, max(1, context))
    widest = max(
        spec.intermediate, spec.active_experts * spec.expert_intermediate, spec.shared_intermediate, spec.hidden
    )
    activations = row.activation_bytes * batch * 2 * (spec.hidden + widest)
    outputs = batch if row.allocated or row.prompt_logits else 1
    logits = 4 * spec.vocab * outputs * (1 if row.allocated else concurrency)
    scores = 2 * batch * _pad(context)
    parts: list[Part] = [
        (f"activations of {batch} tokens", activations, "4 bytes * tokens * 2 * (hidden + feed-forward)"),
    ]
    if spec.is_encoder:
        parts.append(("attention", 4 * spec.heads * batch * batch, "4 bytes * heads * tokens * tokens"))
        return (*parts, (f"{framework} itself", row.footprint_bytes, row.source))
    parts += [
        ("attention mask", scores, "2 bytes * tokens * context, with flash attention"),
        ("logits", logits, "4 bytes * vocabulary * output tokens"),
    ]
    if framework == "llama.cpp" and not row.allocated:
        parts.append(
            ("tokenizer and loader", _LOADER_BYTES + spec.vocab * _VOCABULARY_BYTES, "gguf-parser-go @8dc7a62")
        )
    parts.append((f"{framework} itself", row.footprint_bytes, row.source))
    return tuple(parts)


def memory_need(
    spec: ModelSpec,
    sizes: WeightSizes,
    framework: str,
    backend: str,
    context: int,
    concurrency: int = 1,
    kv_type: str = "f16",
) -> MemoryNeed:
    """Everything that lies in the engine's pool while the model runs. All experts count: all are resident."""
    cache = cache_parts(spec, context, concurrency, kv_type, framework, backend)
    overhead = overhead_parts(spec, framework, backend, context, concurrency)
    row = _overhead(framework, backend, spec)
    held: tuple[Part, ...] = (("weights", sizes.tensor_bytes, "tensor shapes and the precision's rules"),)
    evictable = sum(sizes.matrix_bytes.get(name, 0) for name in row.repack_types)
    if row.widens and sizes.nominal_bits == 16:
        wide = 2 * sizes.tensor_bytes
        held = (("weights, widened to 32 bits", wide, row.source),)
        if form_of(spec) == "folder":  # its export keeps the file mapped; a graph read from a GGUF is widened at once
            evictable = sizes.tensor_bytes
        else:
            held = (*held, ("their rearranged copy", wide, row.source))
    elif "*" in row.repack_types:
        evictable = sizes.tensor_bytes
    for share in (_LAYER_SHARES[kind] for kind in row.repack_types if kind in _LAYER_SHARES):
        layers = sum(size for role, size in sizes.by_role.items() if role.startswith(("attn_", "ffn_")))
        held = (*held, ("the layers' matrices, packed", round(share * layers), row.source))
    return MemoryNeed(
        weights_bytes=sum(size for _, size, _ in held),
        kv_bytes=sum(size for _, size, _ in cache),
        overhead_bytes=sum(size for _, size, _ in overhead),
        parts=(*held, *cache, *overhead),
        evictable_bytes=evictable,
    )


def with_tower(need: MemoryNeed, spec: ModelSpec) -> MemoryNeed:
    """`need` with the encoder of images besides it, which the tools leave in 16 bits."""
    size = 2 * spec.tower_params
    part = ("encoder of images, 16-bit", size, "2 bytes per parameter of the tower")
    return replace(need, overhead_bytes=need.overhead_bytes + size, parts=(*need.parts, part)) if size else need


def resident_peak_bytes(
    spec: ModelSpec, sizes: WeightSizes, framework: str, backend: str, context: int, tokens: int, kv_type: str = "f16"
) -> int:
    """What a process planned for `context` shows after `tokens` tokens: a cache that grows has only those in it, and a
    runtime that computes a prompt at once has buffers for no more."""
    row, reached = _overhead(framework, backend, spec), min(tokens, context)
    need = memory_need(spec, sizes, framework, backend, reached if row.cache_grows else context, 1, kv_type)
    if not row.prompt_logits or row.cache_grows:
        return need.peak_rss_bytes
    overhead = sum(size for _, size, _ in overhead_parts(spec, framework, backend, reached))
    return need.peak_rss_bytes - need.overhead_bytes + overhead


def place_of(backend: str) -> str:
    """Where a backend's buffers lie: cpu, gpu (memory of its own), unified or npu."""
    if backend == "cpu":
        return "cpu"
    if backend in _NPU_BACKENDS:
        return "npu"
    return "unified" if backend in _UNIFIED_BACKENDS else "gpu"


def _overhead(framework: str, backend: str, spec: ModelSpec) -> Overhead:
    rows = overheads()
    own = rows.get((framework, f"{place_of(backend)}-encoder")) if spec.is_encoder else None
    return own or rows.get((framework, place_of(backend))) or rows[(framework, "cpu")]


# ---- how much may be used


def budget(profile: HardwareProfile, pool_id: str, backend: str, engine_kind: str = "cpu") -> Budget:
    """The usable bytes of a pool for an engine (`cpu`, `gpu`, `npu`), with the reasons.

    Probed memory: what is available now, within a container's limit. Declared memory: the total less a reserve for the
    system, an assumption that is said. Never more than the pool's total. 0 where the pool is not known.
    """
    pool = profile.pool(pool_id)
    if pool is None:
        return Budget(0, pool_id, (f"the memory of {pool_id} is not known",), 0)
    systems, graphics, lends = reserves()
    if pool.kind == "vram":
        return _device_budget(pool, profile, graphics)
    whole, reasons = _system_budget(pool, profile, systems)
    gpu = _gpu_of(pool, profile)
    lend = _lend_of(pool, gpu, profile.os.family, lends) if gpu else None
    lent, why = _lent(pool, lend)
    if gpu is None or lent >= whole:
        return Budget(whole, pool.id, tuple(reasons), whole)
    more = lend.more.format(mib=whole // 1024**2, gib=whole // 1024**3) if lend else ""
    if engine_kind == "gpu":
        reasons = [f"{format_bytes(lent)} of {format_bytes(pool.total_bytes)}: {why}"]
    return Budget(lent if engine_kind == "gpu" else whole, pool.id, tuple(reasons), whole, lent, more)


def _system_budget(pool: MemoryPool, profile: HardwareProfile, systems: dict[str, Reserve]) -> tuple[int, list[str]]:
    if pool.available_bytes is not None:
        usable = min(pool.available_bytes, pool.total_bytes)
        reasons = [f"{format_bytes(usable)} available of {format_bytes(pool.total_bytes)}"]
        if pool.limit_bytes is not None and pool.limit_bytes < usable:
            usable = pool.limit_bytes
            reasons.append(f"limited to {format_bytes(usable)} by the container")
        return usable, reasons
    total = min(pool.total_bytes, pool.limit_bytes or pool.total_bytes)
    reserve = systems[_system_of(profile)]
    kept = min(max(reserve.floor_bytes, round(reserve.share * total)), total // 2)
    return total - kept, [f"{format_bytes(total)} less {format_bytes(kept)} for the system ({reserve.source})"]


def _system_of(profile: HardwareProfile) -> str:
    names = f"{profile.device} {profile.chip} {profile.cpu.model}".lower()
    if "raspberry" in names or "bcm27" in names:
        return "raspberry-pi"
    return profile.os.family or "unknown"


def _lend_of(pool: MemoryPool, gpu: GPU, system: str | None, lends: tuple[Lend, ...]) -> Lend | None:
    alike = (one for one in lends if one.vendor in ("", gpu.vendor) and one.os in ("", system))
    return next((one for one in alike if pool.total_bytes > one.above_bytes), None)


def _lent(pool: MemoryPool, usual: Lend | None) -> tuple[int, str]:
    """The bytes that a GPU without memory of its own may take, and why."""
    if pool.gpu_limit_bytes is not None:
        return min(pool.gpu_limit_bytes, pool.total_bytes), "what this system lends the GPU"
    if usual is None:
        return pool.total_bytes, ""
    return round(usual.share * pool.total_bytes), f"{usual.share:.0%}, {usual.source}"


def _device_budget(pool: MemoryPool, profile: HardwareProfile, graphics: Graphics) -> Budget:
    margin = min(graphics.nvidia_margin_bytes, round(graphics.small_margin_share * pool.total_bytes))
    free = pool.total_bytes if pool.available_bytes is None else min(pool.available_bytes, pool.total_bytes)
    reason = f"{format_bytes(free)} less a margin of {format_bytes(margin)} ({graphics.nvidia_margin_source})"
    usable = max(0, free - margin)
    return Budget(usable, pool.id, (reason,), usable)


def _gpu_of(pool: MemoryPool, profile: HardwareProfile) -> GPU | None:
    return next((gpu for gpu in profile.gpus if gpu.pool == pool.id), None)
