"""The plan document, `advisor.plan/1` (DESIGN section 3): what the decision writes and the executors read.

A plan may come from somebody else: everything an executor acts on (`kind`, `framework`, `settings`, paths) is typed,
bounded and checked here; `command` is for people and is never executed. Paths are relative to the run folder, without
`..`; the one exception is `ModelSource.path`, the user's own model file, which is only ever read.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from advisor.compression import Compression
from advisor.constraints import Constraints, FrameworkName
from advisor.mlx_recipe import MlxRecipe
from advisor.olive_workflow import Workflow
from advisor.onnx_recipe import OnnxRecipe
from advisor.plan_rows import Band, Number, Quality, Recommendation, Rejection, Text, TraceEntry
from knowledge.base import AdvisorError, read_json
from knowledge.matrix import Kind
from probes.profile import HardwareProfile

SCHEMA = "advisor.plan/1"

StepKind = Literal["acquire", "convert", "quantize", "calibrate", "compile", "validate", "benchmark", "package"]
Tier = Literal["integrity", "smoke", "reference", "distribution", "runtime", "tasks"]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
GgufType = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,15}$")]
NoOrGgufType = Annotated[str, Field(pattern=r"^$|^[A-Z][A-Z0-9_]{1,15}$")]


def inside(path: str) -> str:
    """`path` if it is relative and stays in the run folder; ValueError otherwise."""
    parts = PurePosixPath(path).parts
    if (
        not path
        or len(path) > 300
        or path.startswith(("/", "~"))
        or re.search(r"[\\:\x00-\x1f]", path)
        or ".." in parts
    ):
        raise ValueError(f"{path!r} leaves the run folder")
    return path


RunPath = Annotated[str, AfterValidator(inside)]
NoOrRunPath = Annotated[str, AfterValidator(lambda path: path and inside(path))]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class SourceFile(_Document):
    """A file of a hub repository; `sha256` is empty where the hub does not say it."""

    path: RunPath
    bytes: Annotated[int, Field(ge=0, le=2**50)]
    sha256: Annotated[str, Field(pattern=r"^$|^[0-9a-f]{64}$")] = ""


class ModelSource(_Document):
    """What a run starts from. `embedded`: the packaged SmolLM2; `file`: a local GGUF (absolute path, only read);
    `folder`: a local Hugging Face checkpoint; `hub`: a Hugging Face id, of which `revision` (a commit) and `files` say
    exactly what; without them the main branch is asked when the run begins."""

    kind: Literal["embedded", "file", "folder", "hub"]
    path: Text = ""
    hf_id: Annotated[str, Field(pattern=r"^$|^[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?$")] = ""
    sha256: Annotated[str, Field(pattern=r"^$|^[0-9a-f]{64}$")] = ""
    file_bytes: int = 0
    revision: Annotated[str, Field(pattern=r"^$|^[0-9a-f]{40}$")] = ""
    files: Annotated[list[SourceFile], Field(max_length=1200)] = []
    licence: Annotated[str, Field(max_length=200)] = ""


class TensorType(_Document):
    """Tensors whose role name contains `pattern` (e.g. `ffn_gate`) get `type` instead of the base type."""

    pattern: Annotated[str, Field(pattern=r"^[a-z0-9_.]{1,48}$")]
    type: GgufType


class AcquireSettings(_Document):
    kind: Literal["acquire"] = "acquire"
    source: ModelSource
    output: RunPath
    offline: bool = False  # nothing may be downloaded: what is not in the cache fails


class ConvertSettings(_Document):
    """Make the 16-bit reference: a GGUF of `type` from `input` (itself 16-bit: linked; quantized: dequantized), and of
    that, for `format` openvino, a model folder; for `format` onnx an ONNX model folder in 32 bits, for `format` mlx an
    MLX folder. Of an encoder all of them are in 32 bits. For `format` olive no reference: what Olive needs on another
    host for `workflow`."""

    kind: Literal["convert"] = "convert"
    input: RunPath
    output: RunPath
    type: GgufType = "F16"
    format: Literal["gguf", "openvino", "onnx", "mlx", "olive"] = "gguf"
    workflow: Workflow | None = None


class _Recipe(_Document):
    """How to quantize, in one way: by llama.cpp to `type`, `tensor_types` first; by NNCF's `compression`; or by Olive's
    passes over an ONNX model, `onnx`."""

    type: NoOrGgufType = ""
    tensor_types: list[TensorType] = []
    compression: Compression | None = None
    onnx: OnnxRecipe | None = None
    workflow: Workflow | None = None
    mlx: MlxRecipe | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(map(bool, (self.type, self.compression, self.onnx, self.mlx, self.workflow))) != 1:
            raise ValueError("it needs one of a GGUF type, a compression, an ONNX and an MLX recipe and a workflow")
        return self


class QuantizeSettings(_Recipe):
    """Quantization of `input`, with llama.cpp by the importance matrix `imatrix` if there is one. `expected_bytes`:
    predicted size of the file or folder."""

    kind: Literal["quantize"] = "quantize"
    input: RunPath
    output: RunPath
    precision: Annotated[str, Field(max_length=120)]
    imatrix: NoOrRunPath = ""
    expected_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0


class CalibrateSettings(_Document):
    """Collect the importance matrix of `input` over `tokens` tokens of the shipped calibration text."""

    kind: Literal["calibrate"] = "calibrate"
    input: RunPath
    output: RunPath
    tokens: Annotated[int, Field(ge=256, le=1_000_000)] = 4096


class SensitivitySettings(_Document):
    """Find a mix of `base` and `lower` that fits `memory_ratio` of 2 bytes per parameter, by measuring on `blocks`
    blocks what each group of tensors of `reference` loses. Made by the schedule for a rung, never planned."""

    kind: Literal["sensitivity"] = "sensitivity"
    reference: RunPath
    output: RunPath
    base: GgufType
    lower: GgufType
    memory_ratio: Annotated[float, Field(gt=0, le=1)]
    blocks: Annotated[int, Field(ge=4, le=10_000)] = 16


class ValidateSettings(_Document):
    """One tier of validation (DESIGN section 5). `reference` is the 16-bit model, `artifact` what was made; the runtime
    tier compares the artifact with itself."""

    kind: Literal["validate"] = "validate"
    tier: Tier
    artifact: RunPath = "artifact"
    reference: NoOrRunPath = ""
    context: Annotated[int, Field(ge=16, le=2**20)] = 512
    blocks: Annotated[int, Field(ge=2, le=10_000)] = 50
    block_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    memory_budget_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0
    expected_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0


class BenchmarkSettings(_Document):
    """Paired timing: reference, artifact, reference, artifact, ... each in its side's process, loaded anew."""

    kind: Literal["benchmark"] = "benchmark"
    artifact: RunPath = "artifact"
    reference: RunPath
    pairs: Annotated[int, Field(ge=1, le=100)] = 5
    prompt_tokens: Annotated[int, Field(ge=2, le=100_000)] = 128
    decode_tokens: Annotated[int, Field(ge=2, le=100_000)] = 32
    context: Annotated[int, Field(ge=16, le=2**20)] = 512


class PackageSettings(_Document):
    kind: Literal["package"] = "package"
    artifact: RunPath = "artifact"


class GuideSettings(_Document):
    """A step that only people do so far (a framework or host that has no executor here): shown, never run."""

    kind: Literal["guide"] = "guide"
    values: dict[str, str | int | float | bool | list[str]] = {}


Settings = Annotated[
    AcquireSettings
    | ConvertSettings
    | QuantizeSettings
    | CalibrateSettings
    | SensitivitySettings
    | ValidateSettings
    | BenchmarkSettings
    | PackageSettings
    | GuideSettings,
    Field(discriminator="kind"),
]


class Estimate(_Document):
    seconds: Number | None
    peak_ram_bytes: int | None
    disk_bytes: int | None


class Step(_Document):
    """`settings` of kind `guide` mark a step that `advisor run` does not execute. `command` is for people only."""

    id: Identifier
    kind: StepKind
    framework: FrameworkName
    title: Text = ""
    settings: Settings
    command: list[Text]
    inputs: list[RunPath]
    outputs: list[RunPath]
    estimate: Estimate
    host: Literal["this", "target", "any"] = "any"


class Gate(_Document):
    """`observed(metric) op value`, against the 16-bit reference unless `against` says otherwise."""

    id: Identifier
    metric: Literal[
        "integrity", "smoke", "quality_retention", "memory_ratio", "decode_ratio", "peak_rss_bytes", "kl_divergence",
        "same_top1", "cosine_similarity", "top_overlap", "runtime_kl_divergence", "task_retention", "decode_tps",
        "ttft_ms",
    ]  # fmt: skip
    op: Literal[">=", "<=", "=="]
    value: Number
    against: Text = "16-bit reference"
    level: Literal["required", "advisory"]
    text: Text = ""


class ChecklistItem(_Document):
    """`check` names the automatic check (executors.check) that proves the item; None for manual items."""

    id: Identifier
    phase: Literal["pre-deployment", "deployment", "post-deployment"]
    text: Text
    why: Text = ""
    how: Text = ""
    kind: Literal["automatic", "manual"]
    check: Identifier | None = None
    command: Text = ""


class Rung(_Recipe):
    """The next thing to try when a required gate fails: the same steps with another precision.

    With `lower`, what that is will be measured when the rung is reached: `type`, with the groups of tensors that mind
    it least in the type `lower`, so many that `memory_ratio` is kept.
    """

    precision: Annotated[str, Field(max_length=120)]
    imatrix: bool = False
    lower: NoOrGgufType = ""
    memory_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    expected_bytes: int = 0
    quality: Quality
    why: Text


class Work(_Document):
    """The first recommendation, made executable. `kind` is what the artifact is of."""

    model: str
    framework: FrameworkName
    kind: Kind = "text"
    backend: str
    precision: str
    precision_class: str = ""
    context: int
    licence: str = ""
    base_model: str = ""
    reference_note: str = ""
    predictions: dict[str, Band] = {}
    threads: int = 1
    steps: list[Step]
    gates: list[Gate]
    ladder: list[Rung] = []
    checklist: list[ChecklistItem]


class Plan(_Document):
    schema_: Literal["advisor.plan/1"] = Field("advisor.plan/1", alias="schema")
    status: Literal["ok", "needs_input", "infeasible"]
    question: dict[str, Any] | None = None
    hardware: HardwareProfile
    constraints: Constraints
    assumptions: list[Text] = []
    warnings: list[Text] = []
    recommendations: list[Recommendation]
    rejected: list[Rejection]
    nearest: dict[str, Any] | None = None
    trace: list[TraceEntry]
    plan: Work | None = None
    outranked: list[dict[str, Any]] = []
    instead: list[dict[str, Any]] = []
    course: dict[str, Any] | None = None

    model_config = ConfigDict(extra="forbid", defer_build=True, populate_by_name=True)

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


def load_plan(path: Path) -> Plan:
    """A plan written by `advisor plan --out`, every field checked; AdvisorError `bad-plan` names the first bad one."""
    document = read_json(path, "plan")
    hint = "make one with: advisor plan MODEL --out plan.json"
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise AdvisorError("bad-plan", f"{path} is not a plan: its schema is not {SCHEMA}.", hint)
    try:
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
        return Plan.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        raise AdvisorError("bad-plan", f"{path} is not a usable plan: {field}: {first['msg']}.", hint) from error
    except (ValueError, RecursionError) as error:
        message = f"{path} is not a usable plan: it holds a number or a character that no file can hold."
        raise AdvisorError("bad-plan", message, hint) from error
