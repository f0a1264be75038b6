"""HardwareProfile: what a machine is, with where each value came from and how sure it is.

The same type describes the probed machine, a declared one (`--ram`, `--chip`, `--device`) and one loaded from a file,
so that the decision never knows which it got. Values are plain; `provenance` maps the dotted path of every value that
is not empty (`cpu.model`, `memory.0.total_bytes`, `npus.0`; a parent's entry covers its children) to its source and
confidence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from knowledge.base import AdvisorError, read_json

SCHEMA: Final = "advisor.hardware/1"

Vendor = Literal[
    "intel", "amd", "nvidia", "apple", "qualcomm", "arm", "rockchip", "broadcom", "mediatek", "other", "unknown"
]
Confidence = Literal["high", "medium", "low"]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Text = Annotated[str, Field(max_length=400)]
Rate = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Provenance(_Record):
    source: Text
    confidence: Confidence


class OperatingSystem(_Record):
    """`family` None: not declared. `container` and `wsl` are about the place the probe ran in."""

    family: Literal["linux", "windows", "macos", "android", "ios"] | None = None
    name: Text = ""
    version: Text = ""
    kernel: Text = ""
    wsl: bool = False
    container: bool = False
    rosetta: bool = False
    power: Literal["mains", "battery"] | None = None


class CPU(_Record):
    """`instruction_sets` uses the words avx, avx2, f16c, fma, avx512, avx512_vnni, avx_vnni, amx, sse4_1, sse4_2,
    neon, dotprod, i8mm, sve, sve2, bf16, sme. `performance_cores` is None where the chip is not hybrid or that is
    unknown. `usual_cores` is what its family usually has, where the number of its own is not known.
    """

    vendor: Vendor = "unknown"
    arch: Literal["x86_64", "arm64", "armv7", "riscv64", "other", "unknown"] = "unknown"
    model: Text = ""
    physical_cores: Annotated[int, Field(ge=1, le=4096)] | None = None
    performance_cores: Annotated[int, Field(ge=1, le=4096)] | None = None
    logical_cores: Annotated[int, Field(ge=1, le=8192)] | None = None
    usable_cores: Annotated[float, Field(gt=0, le=8192)] | None = None
    usual_cores: Annotated[int, Field(ge=1, le=4096)] | None = None
    instruction_sets: tuple[Text, ...] = ()
    fp16_tflops: Rate | None = None


class MemoryPool(_Record):
    """One pool of memory. `unified` is shared by CPU and GPU (Apple, Jetson, integrated graphics).

    `available_bytes` is what is free now (None when declared); `limit_bytes` a container's limit; `gpu_limit_bytes`
    what a GPU without memory of its own may take, where the system says so; `bandwidth_gbs` the data sheet's, between
    `bandwidth_range_gbs` where it is assumed; `measured_bandwidth_gbs` this machine's own read bandwidth. 10^9 B/s.
    """

    id: Text
    kind: Literal["ram", "vram", "unified"]
    total_bytes: Bytes
    available_bytes: Bytes | None = None
    limit_bytes: Bytes | None = None
    gpu_limit_bytes: Bytes | None = None
    bandwidth_gbs: Rate | None = None
    bandwidth_range_gbs: tuple[Rate, Rate] | None = None
    measured_bandwidth_gbs: Rate | None = None


class GPU(_Record):
    """`pool` names the MemoryPool that it computes from. `generation` is `cc 8.9`, `gfx1100`, `Xe2`, `Adreno 750`..."""

    vendor: Vendor = "unknown"
    name: Text = ""
    kind: Literal["discrete", "integrated"] = "discrete"
    pool: Text
    generation: Text = ""
    driver: Text = ""
    bandwidth_gbs: Rate | None = None
    fp16_tflops: Rate | None = None
    fp16_acc16_tflops: Rate | None = None
    int8_tops: Rate | None = None


class NPU(_Record):
    """`generation` is `NPU 3720`, `NPU 4000`, `XDNA1`, `XDNA2`, `Hexagon v73`, `ANE`, ... or empty when unknown."""

    vendor: Vendor = "unknown"
    name: Text = ""
    generation: Text = ""
    state: Literal["ready", "driver-missing", "unknown"] = "unknown"
    driver: Text = ""
    tops: Rate | None = None


class Disk(_Record):
    path: Text = ""
    total_bytes: Bytes | None = None
    free_bytes: Bytes | None = None
    filesystem: Text = ""


class Toolchain(_Record):
    """An environment that can run a framework: `isolated` (under ADVISOR_HOME) or the `current` interpreter."""

    framework: Text
    version: Text = ""
    kind: Literal["isolated", "current"]
    python: Text = ""


class HardwareProfile(_Record):
    schema_: Literal["advisor.hardware/1"] = Field(default=SCHEMA, alias="schema")
    origin: Literal["probed", "declared", "loaded"]
    device: Text = ""
    chip: Text = ""
    fingerprint: Text = ""
    os: OperatingSystem = OperatingSystem()
    cpu: CPU = CPU()
    memory: tuple[MemoryPool, ...] = ()
    gpus: tuple[GPU, ...] = ()
    npus: tuple[NPU, ...] = ()
    disk: Disk = Disk()
    toolchains: tuple[Toolchain, ...] = ()
    notes: tuple[Text, ...] = ()
    provenance: dict[Text, Provenance] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, populate_by_name=True)

    def pool(self, pool_id: str) -> MemoryPool | None:
        return next((pool for pool in self.memory if pool.id == pool_id), None)

    @property
    def main_memory(self) -> MemoryPool | None:
        """The pool that the CPU computes from: `ram` or `unified`."""
        return next((pool for pool in self.memory if pool.kind != "vram"), None)

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


def load_profile(path: Path) -> HardwareProfile:
    """A profile saved by `advisor probe --save`; AdvisorError `bad-profile` names the first field that is wrong."""
    document = read_json(path, "hardware profile", limit_bytes=2**20)
    hint = "make one with: advisor probe --save profile.json"
    if not isinstance(document, dict):
        raise AdvisorError("bad-profile", f"{path} is not a hardware profile: it holds no object.", hint)
    try:
        return HardwareProfile.model_validate({**document, "origin": "loaded"})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        message = f"{path} is not a hardware profile: {field}: {first['msg']}."
        raise AdvisorError("bad-profile", message, hint) from error
