"""Hard limits of a place for a request and a model, as facts for the rules: versions, caches, allocations, file sizes.

Pure: what the machine's profile and the tables say, compared; the rules decide what follows.
"""

from __future__ import annotations

import re
from functools import cache

from advisor.constraints import Constraints
from advisor.embedding import recipes
from advisor.engines import Engine
from advisor.memory import MemoryNeed
from advisor.walk import Facts
from knowledge.matrix import Backend
from knowledge.native import published_bytes
from knowledge.records import ModelSpec
from knowledge.requirements import Requirement, is_older, requirements_for
from knowledge.weights import WeightSizes
from probes.profile import HardwareProfile

_LLAMA_CACHE_BLOCK, _MLX_CACHE_GROUP = 32, 64
_SHARD_BYTES = 5 << 30  # mlx-lm writes shards of at most 5 GB (mlx_lm/utils.py, MAX_FILE_SIZE_GB)
_FAT = re.compile(r"v?fat(?:12|16|32)?|msdos", re.IGNORECASE)


def place_facts(engine: Engine, row: Backend, profile: HardwareProfile) -> Facts:
    """What the machine around a backend lacks (`unmet`) and what it must have (`needs`); None where nothing is known.

    `compute_capability` is that of an NVIDIA GPU.
    """
    needed = requirements_for(row.framework, row.backend, engine.generation, profile.os.family)
    unmet = (words for one in needed if (words := _lacking(one, engine, profile)))
    capability = re.match(r"cc (\d+\.\d+)", engine.generation)
    return {
        "unmet": next(unmet, None),
        "needs": ", ".join(one.text for one in needed) or None,
        "compute_capability": float(capability[1]) if capability else None,
        "rosetta": profile.os.rosetta,
    }


def _lacking(needed: Requirement, engine: Engine, profile: HardwareProfile) -> str | None:
    found = {
        "npu-driver": next((npu.driver for npu in profile.npus if npu.vendor == engine.vendor), ""),
        "gpu-driver": next((gpu.driver for gpu in profile.gpus if gpu.vendor == engine.vendor), ""),
        "os": profile.os.version,
        "kernel": profile.os.kernel,
    }.get(needed.component, "")
    return f"{needed.text} (found: {found[:60]})" if is_older(found, needed.minimum) else None


def cache_facts(spec: ModelSpec, framework: str, request: Constraints) -> Facts:
    """Whether a quantized key-value cache can hold this model's heads."""
    quantized = request.kv_cache not in (None, "f16")
    block = {"llama.cpp": _LLAMA_CACHE_BLOCK, "mlx": _MLX_CACHE_GROUP}.get(framework)
    wide = {width for g in spec.attention if g.kv_heads for width in (g.key_length, g.value_length) if width}
    undivided = min((width for width in wide if block and width % block), default=None)
    return {
        "kv_undivided": undivided if quantized else None,
        "kv_block": block,
        "kv_windowed": any(g.kind == "window" for g in spec.attention) if quantized else None,
    }


def size_facts(
    spec: ModelSpec,
    framework: str,
    sizes: WeightSizes,
    largest_bytes: int,
    disk: dict[str, int],
    profile: HardwareProfile,
) -> Facts:
    """What a size means for allocations, of which `largest_bytes` is the largest, for files, and for who makes it."""
    main = profile.main_memory
    reference = reference_bytes(spec, framework)
    shard = _SHARD_BYTES if framework == "mlx" else sizes.file_bytes
    return {
        "largest_tensor_bytes": largest_bytes,
        "artifact_bytes": disk["artifact_bytes"],
        "largest_file_bytes": min(sizes.file_bytes, shard),
        "fat_disk": bool(_FAT.fullmatch(profile.disk.filesystem)) if profile.disk.filesystem else None,
        "disk_free_bytes": profile.disk.free_bytes,
        "making_bytes": round(_making_ratio(framework) * reference) or None,
        "host_memory_bytes": (main.limit_bytes or main.total_bytes) if main else None,
        "fallback_share": sizes.fallback_share,
    }


def largest_tensor_bytes(spec: ModelSpec, sizes: WeightSizes, need: MemoryNeed) -> int:
    """The largest single buffer that cannot be split: a tensor of the weights, or one layer's keys."""
    layers = max(1, spec.layers)
    whole = ("token_embd", "output", "other")
    weights = max((size if role in whole else -(-size // layers) for role, size in sizes.by_role.items()), default=0)
    cached = sum(group.layers for group in spec.attention if group.kind in ("full", "latent")) or layers
    return max(weights, need.kv_bytes // (2 * cached))


def reference_bytes(spec: ModelSpec, framework: str) -> int:
    """The size of the reference that `framework` makes: 16 bits, but for weights that its converter keeps."""
    return published_bytes(spec) if spec.source_precision.upper() in _kept(framework) else 2 * spec.params


@cache
def _kept(framework: str) -> frozenset[str]:
    made = recipes("text").get(framework, [])
    return frozenset(kind for one in made if one["kind"] == "convert" for kind in one.get("keeps", ()))


@cache
def _making_ratio(framework: str) -> float:
    """Peak memory of quantizing over the 16-bit bytes; 0 where tensors are streamed one by one."""
    made = recipes("text").get(framework, [])
    return max((float(recipe.get("peak_ratio", 0)) for recipe in made if recipe["kind"] == "quantize"), default=0.0)
