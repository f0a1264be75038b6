"""A model that the memory of one GPU is too small for: over several cards, and what they cannot hold in main memory,
run by the CPU.

llama.cpp spreads whole layers with their cache over the cards (`--split-mode layer`), and `--n-gpu-layers` leaves
others to the CPU. Of a mixture of experts, `--n-cpu-moe` leaves only the experts of some layers in main memory: they
are large, and few of them are read per token. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """`gpu_layers` of a model's layers on GPUs (one more than it has: the head too), but for the experts of
    `cpu_expert_layers`. `rooms` are the bytes that each pool takes part with, `ram_share` is the share of a token's
    weights that is read from main memory, by `cpu`."""

    gpu_layers: int
    cpu_expert_layers: int
    ram_share: float
    cpu: Engine
    need: MemoryNeed
    budget: Budget
    rooms: dict[str, int]

    @property
    def cards(self) -> int:
        return len(self.rooms)

    def cards_of(self, engine: Engine) -> list[Engine]:
        """The cards of `engine` that take part."""
        return [card for card in engine.cards if card.pool in self.rooms]

    @property
    def settings(self) -> dict[str, int | str]:
        """llama.cpp's own names."""
        cards = {"split_mode": "layer"} if self.cards > 1 else {}
        experts = {"n_cpu_moe": self.cpu_expert_layers} if self.cpu_expert_layers else {}
        return {"n_gpu_layers": self.gpu_layers, **cards, **experts}


def split_model(
    spec: ModelSpec,
    sizes: WeightSizes,
    on_gpu: MemoryNeed,
    on_cpu: MemoryNeed,
    gpus: Sequence[Budget],
    ram: Budget | None,
    cpu: Engine,
) -> Split | None:
    """As much of the model on the GPUs as fits their budgets, with a margin; None where not one layer does, or where
    main memory cannot hold the rest or must not (`ram` None). `on_gpu` and `on_cpu` are what the whole model needs
    there; `gpus` share its layers."""
    each = round(BUFFER_MARGIN * on_gpu.overhead_bytes)
    used = [gpu for gpu in gpus if gpu.bytes > each]
    # a layer lies on one card: of each further one, the room of a layer is lost at most
    lost = (sizes.tensor_bytes + on_gpu.kv_bytes) // spec.layers * max(0, len(used) - 1)
    layers, left, there, share = _on_gpus(spec, sizes, on_gpu.kv_bytes, sum(g.bytes - each for g in used) - lost)
    here = sizes.tensor_bytes + on_gpu.kv_bytes - there
    if layers < 1 or (share and (ram is None or here + on_cpu.overhead_bytes > ram.bytes)):
        return None
    all_there = layers > spec.layers  # but for experts
    cached = on_gpu.kv_bytes if all_there else on_gpu.kv_bytes * layers // spec.layers
    on, many = ("on the GPU", "") if len(used) == 1 else ("on the GPUs", f"{len(used)} cards, ")
    margin = f"{many}{BUFFER_MARGIN:g} times the estimate: gguf-parser-go issues 42 and 45"
    which = f"all {spec.layers} layers" if all_there else f"{layers} of {spec.layers} layers"
    parts: tuple[Part, ...] = (
        (f"weights {on}", there - cached, which + (_BUT_EXPERTS if left else "")),
        (f"key-value cache {on}", cached, "of the layers that are there"),
        (f"compute buffers {on}", each * len(used), margin),
    )
    if share:
        parts += (
            ("weights in main memory", here - (on_gpu.kv_bytes - cached), "the rest of the weights"),
            ("key-value cache in main memory", on_gpu.kv_bytes - cached, "of the other layers"),
            ("the runtime in main memory", on_cpu.overhead_bytes, "as on the CPU alone"),
        )
    pools = [*used, ram] if share and ram else used
    usable = sum(pool.bytes for pool in pools)
    reason = " and ".join(f"{format_bytes(pool.bytes)} in {pool.pool}" for pool in pools)
    budget = Budget(usable, POOL if share else "+".join(pool.pool for pool in pools), (reason,), usable)
    overhead = each * len(used) + (on_cpu.overhead_bytes if share else 0)
    need = MemoryNeed(sizes.tensor_bytes, on_gpu.kv_bytes, overhead, parts)
    return Split(layers, left, share, cpu, need, budget, {gpu.pool: gpu.bytes for gpu in used})


def _on_gpus(spec: ModelSpec, sizes: WeightSizes, kv_bytes: int, room: int) -> tuple[int, int, int, float]:
    """Of a model in `room` bytes of graphics memory: layers there (the head counts), layers whose experts are not,
    bytes there, and the share of a token's weights that is read elsewhere."""
    whole = sum(sizes.by_role.get(role, 0) for role in _WHOLE)
    experts = sum(sizes.by_role.get(role, 0) for role in _EXPERTS)
    everything = sizes.tensor_bytes + kv_bytes
    if everything <= room:
        return spec.layers + 1, 0, everything, 0.0
    if experts and everything - experts <= room:
        left = math.ceil(spec.layers * (everything - room) / experts)
        active = experts * spec.active_experts / spec.experts
        share = active * left / spec.layers / (sizes.tensor_bytes - experts + active)
        return spec.layers + 1, left, everything - experts + experts * (spec.layers - left) // spec.layers, share
    body = everything - whole
    layers = min(spec.layers, math.floor(spec.layers * room / body))
    return layers, 0, body * layers // spec.layers, 1 - layers / spec.layers * (1 - whole / sizes.tensor_bytes)
