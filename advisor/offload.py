"""A model that the memory of a GPU is too small for: some layers there, the rest in main memory, run by the CPU.

llama.cpp's `--n-gpu-layers` puts whole layers with their cache on the GPU. Of a mixture of experts, `--n-cpu-moe`
leaves only the experts of some layers in main memory: they are large, and few of them are read per token. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from advisor.engines import Engine
from advisor.memory import Budget, MemoryNeed, Part
from knowledge.base import format_bytes
from knowledge.records import ModelSpec
from knowledge.weights import WeightSizes

BUFFER_MARGIN = (
    1.5  # compute buffers of split models are under-estimated 1.2 to 2.7 times (gguf-parser-go issues 42, 45)
)
POOL = "vram+ram"
_EXPERTS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
_BUT_EXPERTS = ", but for the experts of some"
_WHOLE = ("token_embd", "output")  # belong to no layer


@dataclass(frozen=True, slots=True)
class Split:
    """`gpu_layers` of a model's layers on the GPU (one more than it has: the head too), but for the experts of
    `cpu_expert_layers`. `ram_share` is the share of a token's weights that is read from main memory, by `cpu`."""

    gpu_layers: int
    cpu_expert_layers: int
    ram_share: float
    cpu: Engine
    need: MemoryNeed
    budget: Budget

    @property
    def settings(self) -> dict[str, int]:
        """llama.cpp's own names."""
        experts = {"n_cpu_moe": self.cpu_expert_layers} if self.cpu_expert_layers else {}
        return {"n_gpu_layers": self.gpu_layers, **experts}


def split_model(
    spec: ModelSpec, sizes: WeightSizes, on_gpu: MemoryNeed, on_cpu: MemoryNeed, gpu: Budget, ram: Budget, cpu: Engine
) -> Split | None:
    """As much of the model on the GPU as fits its budget, with a margin; None where not one layer does, or where main
    memory cannot hold the rest. `on_gpu` and `on_cpu` are what the whole model needs there."""
    buffers = round(BUFFER_MARGIN * on_gpu.overhead_bytes)
    room = gpu.bytes - buffers
    whole = sum(sizes.by_role.get(role, 0) for role in _WHOLE)
    experts = sum(sizes.by_role.get(role, 0) for role in _EXPERTS)
    body = sizes.tensor_bytes - whole + on_gpu.kv_bytes
    all_but_experts = sizes.tensor_bytes + on_gpu.kv_bytes - experts
    if experts and all_but_experts <= room:
        layers = spec.layers + 1
        left = math.ceil(spec.layers * (experts - (room - all_but_experts)) / experts)
        there = all_but_experts + experts * (spec.layers - left) // spec.layers
        active = experts * spec.active_experts / spec.experts
        share = active * left / spec.layers / (sizes.tensor_bytes - experts + active)
    else:
        layers, left = min(spec.layers, math.floor(spec.layers * room / body)), 0
        there = body * layers // spec.layers
        share = 1 - layers / spec.layers * (1 - whole / sizes.tensor_bytes)
    here = sizes.tensor_bytes + on_gpu.kv_bytes - there + on_cpu.overhead_bytes
    if layers < 1 or here > ram.bytes:
        return None
    cached = on_gpu.kv_bytes if left else on_gpu.kv_bytes * layers // spec.layers
    parts: tuple[Part, ...] = (
        ("weights on the GPU", there - cached, f"{layers} of {spec.layers} layers" + (_BUT_EXPERTS if left else "")),
        ("key-value cache on the GPU", cached, "of the layers that are there"),
        (
            "compute buffers on the GPU",
            buffers,
            f"{BUFFER_MARGIN:g} times the estimate: gguf-parser-go issues 42 and 45",
        ),
        ("weights in main memory", sizes.tensor_bytes + cached - there, "the rest of the weights"),
        ("key-value cache in main memory", on_gpu.kv_bytes - cached, "of the other layers"),
        ("the runtime in main memory", on_cpu.overhead_bytes, "as on the CPU alone"),
    )
    need = MemoryNeed(sizes.tensor_bytes, on_gpu.kv_bytes, buffers + on_cpu.overhead_bytes, parts)
    both = gpu.bytes + ram.bytes
    reasons = (f"{format_bytes(gpu.bytes)} in {gpu.pool} and {format_bytes(ram.bytes)} in {ram.pool}",)
    return Split(layers, left, share, cpu, need, Budget(both, POOL, reasons, both))
