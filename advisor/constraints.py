"""What the user asked for: the options of `advisor plan` (DESIGN section 2), typed and bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from knowledge.matrix import load_frameworks

Target = Literal["auto", "cpu", "gpu", "npu"]
VendorName = Literal["intel", "amd", "nvidia", "apple", "qualcomm", "arm", "rockchip", "other"]
OsName = Literal["linux", "windows", "macos", "android", "ios"]
UseCase = Literal["chat", "code", "rag", "reasoning", "agent", "embedding", "vision", "speech"]
Priority = Literal["balanced", "speed", "quality", "memory", "effort", "energy"]
KvType = Literal["f16", "q8_0", "q4_0"]
PositiveBytes = Annotated[int, Field(ge=1, le=2**60)]
if TYPE_CHECKING:
    FrameworkName = str
else:  # those of frameworks.toml, the user's own among them
    FrameworkName = Literal[tuple(row.name for row in load_frameworks())]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=300)]
PathText = Annotated[str, Field(max_length=4096)]


class Weights(BaseModel):
    """What counts how much, in any unit: shares of the score instead of those of a priority."""

    speed: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    quality: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    memory: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    effort: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    def shares(self) -> dict[str, float]:
        """The weights as shares that sum to 1; equal ones where nothing was given any weight."""
        weights = self.model_dump()
        total = sum(weights.values())
        return {name: weight / total if total else 1 / len(weights) for name, weight in weights.items()}


class Constraints(BaseModel):
    """None means not given. Sizes in bytes, context in tokens, losses in per cent of the 16-bit reference."""

    model: PathText | None = None
    ram_bytes: PositiveBytes | None = None
    vram_bytes: PositiveBytes | None = None
    target: Target = "auto"
    vendor: VendorName | None = None
    chip: Text | None = None
    device: Text | None = None
    profile: PathText | None = None
    os: OsName | None = None
    context: Annotated[int, Field(ge=1, le=2**24)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 1
    use_case: UseCase = "chat"
    priority: Priority = "balanced"
    weights: Weights | None = None
    power: Literal["mains", "battery"] | None = None
    min_decode_tps: Rate | None = None
    max_ttft_ms: Rate | None = None
    max_quality_loss_pct: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    max_disk_bytes: PositiveBytes | None = None
    framework: FrameworkName | None = None
    precision: Text | None = None
    kv_cache: KvType | None = None
    enterprise: bool = False
    cross_platform: bool = False
    commercial: bool = False
    offline: bool = False
    tasks: bool = False
    top: Annotated[int, Field(ge=1, le=100)] = 5

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
