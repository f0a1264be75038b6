"""The rows of the plan document that say what was recommended, rejected and why; see advisor.plan."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from advisor.constraints import FrameworkName

Text = Annotated[str, Field(max_length=4000)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Band(_Document):
    """An interval `low <= mid <= high` at `level`; all None when unknown. `basis` says how it was made."""

    low: Number | None
    mid: Number | None
    high: Number | None
    level: Number = 0.9
    basis: Text = ""


class MemoryNeed(_Document):
    weights_bytes: int
    kv_bytes: int
    overhead_bytes: int
    total_bytes: int
    budget_bytes: int
    pool: str
    parts: list[dict[str, Any]] = []


class DiskNeed(_Document):
    download_bytes: int
    peak_bytes: int
    artifact_bytes: int


class Quality(_Document):
    retention: Band
    metric: Text
    basis: Literal["measured", "published", "assumed"]
    source: Text


class Reason(_Document):
    rule: str
    text: Text
    source: str = ""


class Rejection(_Document):
    """A candidate that lost to a hard rule. `change` says what would have to change, where that is known."""

    framework: str | None = None
    backend: str | None = None
    precision: str | None = None
    model: str | None = None
    rule: str
    text: Text
    source: str = ""
    change: Text = ""


class Score(_Document):
    total: Number
    speed: Number
    quality: Number
    memory: Number
    effort: Number
    preference: Number = 0.0


class Recommendation(_Document):
    rank: int
    pareto: bool
    model: str
    params_b: Number
    framework: FrameworkName
    backend: str
    device: str = ""
    precision: str
    nominal_bits: int
    precision_class: str
    settings: dict[str, Any] = {}
    context: int
    memory: MemoryNeed
    disk: DiskNeed
    decode_tps: Band
    prefill_tps: Band
    ttft_ms: Band
    quality: Quality
    reasons: list[Reason]
    warnings: list[Text]
    score: Score


class TraceEntry(_Document):
    node: str
    condition: Text
    value: Text
    branch: Text
