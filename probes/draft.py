"""A hardware profile being put together: parts, notes, and where each value came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from probes.profile import CPU, GPU, NPU, Confidence, MemoryPool, Provenance

_MAX_TEXT = 400


def cut(text: str) -> str:
    """`text` in the length that a profile's texts may have."""
    return text[:_MAX_TEXT]


@dataclass
class Draft:
    """Mutable counterpart of HardwareProfile for its builders; `provenance` is filled as the parts are added."""

    cpu: CPU = field(default_factory=CPU)
    memory: list[MemoryPool] = field(default_factory=list)
    gpus: list[GPU] = field(default_factory=list)
    npus: list[NPU] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Provenance] = field(default_factory=dict)

    def say(self, path: str, source: str, confidence: Confidence) -> None:
        """Record where the value at the dotted `path`, and everything below it, came from."""
        self.provenance[path] = Provenance(source=cut(source), confidence=confidence)

    def note(self, *notes: str) -> None:
        """Add the notes that are not empty and not there yet."""
        self.notes.extend(cut(note) for note in notes if note and cut(note) not in self.notes)

    def set_cpu(self, cpu: CPU, source: str, confidence: Confidence) -> None:
        self.cpu = cpu
        self.say("cpu", source, confidence)

    def add_pool(self, pool: MemoryPool, source: str, confidence: Confidence) -> str:
        """Add a pool; returns its dotted path."""
        path = f"memory.{len(self.memory)}"
        self.memory.append(pool)
        self.say(path, source, confidence)
        return path

    def lend_gpu(self, size_bytes: int, source: str) -> None:
        """What a GPU without memory of its own may take of main memory, as the machine or its user says."""
        self.memory[0] = self.memory[0].model_copy(update={"gpu_limit_bytes": size_bytes})
        self.say("memory.0.gpu_limit_bytes", source, "high")

    def add_gpu(self, gpu: GPU, source: str, confidence: Confidence) -> str:
        """Add a GPU; returns its dotted path."""
        path = f"gpus.{len(self.gpus)}"
        self.gpus.append(gpu)
        self.say(path, source, confidence)
        return path

    def add_npu(self, npu: NPU, source: str, confidence: Confidence) -> str:
        """Add an NPU; returns its dotted path."""
        path = f"npus.{len(self.npus)}"
        self.npus.append(npu)
        self.say(path, source, confidence)
        return path


def weakest(confidences: Iterable[Confidence]) -> Confidence:
    """The lowest of several confidences; `high` of none."""
    order: tuple[Confidence, ...] = ("low", "medium", "high")
    return min(confidences, key=order.index, default="high")
