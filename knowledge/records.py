"""The records of the knowledge base: slotted frozen dataclasses, units in the field names.

Pydantic is kept for the boundaries (constraints, profile, plan, report): a few hundred rows of it would cost more than
the whole start-up budget.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Confidence = Literal["high", "medium", "low"]
PrecisionClass = Literal["ultra-low", "low", "medium", "16-bit", "32-bit"]

# Roles of weight tensors, the vocabulary that precision rules are written in. `*_exps` hold all experts of a layer.
TENSOR_ROLES = (
    "token_embd", "output", "norm", "bias", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output",
    "ffn_gate", "ffn_up", "ffn_gate_up", "ffn_down", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_router",
    "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "ssm", "conv", "other",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """Where facts come from. `id` is what rows cite."""

    id: str
    title: str
    where: str
    version: str
    licence: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight tensor: `row_length` is the contiguous dimension (ggml's ne[0]), `rows` the product of the others.

    `name` follows the GGUF naming (blk.3.attn_q.weight). `layer` is None outside the blocks. `dtype` is the stored
    type where the tensor was read from a file (a ggml type name or a safetensors dtype), else None.
    """

    name: str
    role: str
    row_length: int
    rows: int
    layer: int | None = None
    dtype: str | None = None
    stored_bytes: int | None = None
    dimensions: int = 2

    @property
    def elements(self) -> int:
        return self.row_length * self.rows


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Layers that keep the same kind of state between tokens.

    kind `full` and `window` keep `kv_heads * (key_length + value_length)` values per token (at most about `window`
    tokens for `window`); `latent` (MLA) keeps `key_length + value_length` values per token; `recurrent` keeps
    `state_elements` 32-bit values per sequence, whatever the context; `none` keeps nothing, but with `kv_heads` uses
    what earlier layers keep.
    """

    kind: Literal["full", "window", "latent", "recurrent", "none"]
    layers: int
    kv_heads: int = 0
    key_length: int = 0
    value_length: int = 0
    window: int = 0
    state_elements: int = 0


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a hub repository: its path there, its size in bytes, its SHA-256 (empty where the hub does not say)."""

    path: str
    bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A published result of a model. `metric` is a name of data/metrics.csv."""

    metric: str
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The architecture of a language model, enough to count its tensors and its cache.

    `params` and `active_params` are counts (not billions). `context` is the smaller of what the config and the card say
    (`context_config`, `context_card`). Zero or empty means unknown. `modality` is a row of data/modalities.csv;
    `tower_params` are the encoder of images, which `params` leave out. `source_precision` is what the weights were
    published or found in: `bf16`, `f16`, or a quantized type for a local file. `source_framework` and `source_bits` are
    set where a framework's own tools have made the file: it runs there, as it is. `file_bytes` is the size of the GGUF
    that was read, `tokenizer_bytes` that of a local encoder's tokenizer.json. `tensors` is filled when the model was
    read from a file, else shapes follow from the fields. `dimensions` names further lengths that the shapes of an
    architecture need (data/architectures.toml). A model read from the hub has the commit that was read (`revision`)
    and the `files` that a run needs of it.
    """

    name: str
    architecture: str
    params: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied_embeddings: bool
    context: int
    attention: tuple[AttentionGroup, ...]
    licence: str
    commercial_use: Literal["yes", "no", "conditions", "unknown"]
    source: str
    hf_id: str = ""
    family: str = ""
    active_params: int = 0
    experts: int = 0
    active_experts: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    qkv_bias: bool = False
    modality: str = "text"
    use_cases: tuple[str, ...] = ("chat",)
    scores: tuple[Score, ...] = ()
    source_precision: str = "bf16"
    source_framework: str = ""
    source_bits: int = 0
    header_bytes: int = 0
    file_bytes: int = 0
    tokenizer_bytes: int = 0
    tensors: tuple[Tensor, ...] = ()
    path: str = ""
    notes: str = ""
    aliases: tuple[str, ...] = ()
    dimensions: tuple[tuple[str, int], ...] = ()
    embedded: bool = False
    revision: str = ""
    files: tuple[HubFile, ...] = ()
    context_config: int = 0
    context_card: int = 0
    tower_params: int = 0

    def __hash__(self) -> int:  # of a few fields: sizes are cached by model, and a file has hundreds of tensors
        return hash((self.name, self.path, self.params, self.header_bytes, len(self.tensors)))

    @property
    def params_b(self) -> float:
        return self.params / 1e9

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    @property
    def is_encoder(self) -> bool:
        """Whether it makes vectors in one pass over a text, with nothing kept from token to token."""
        return self.modality == "embedding" and all(group.kind == "none" for group in self.attention)


@dataclass(frozen=True, slots=True)
class Precision:
    """A way to store weights, by its canonical name (DESIGN section 2).

    `bits` is the exact bits per weight of the base type (scales included); `nominal_bits` the number people say.
    `scheme` tells the sizing rule (`gguf`, `openvino`, `olive`, `mlx`); `settings` is what the executor needs to make
    it. `group_size` 0 means none, -1 channel-wise.
    """

    framework: str
    name: str
    nominal_bits: int
    bits: float
    precision_class: PrecisionClass
    scheme: str
    group_size: int = 0
    symmetric: bool = True
    method: str = ""
    needs_imatrix: bool = False
    native_only: bool = False
    default: bool = False
    aliases: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    note: str = ""
    source: str = ""

    def __hash__(self) -> int:  # its settings are a dictionary
        return hash((self.framework, self.name))


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip, or a board's chip, as in data/chips.csv. Bandwidth in 10^9 B/s, throughput dense, empty is None.

    The throughput columns describe the engine of `kind`: for `igpu`, `apple` and `mobile` the GPU of the SoC, whose
    CPU `cores` and `isa` describe. `bandwidth_min_gbs` and `bandwidth_max_gbs` are set where the board decides,
    `usual_cores` where only the family is known.
    """

    name: str
    vendor: str
    kind: Literal["gpu", "igpu", "apple", "cpu", "sbc", "mobile", "npu"]
    bandwidth_gbs: float | None
    fp16_tflops: float | None
    int8_tops: float | None
    npu_tops: float | None
    memory_gib: tuple[float, ...]
    cores: str
    isa: tuple[str, ...]
    generation: str
    unified_memory: bool
    tdp_w: float | None
    confidence: Confidence
    source: str
    year: int | None = None
    aliases: tuple[str, ...] = ()
    note: str = ""
    fp16_acc16_tflops: float | None = None
    fp32_tflops: float | None = None
    bandwidth_min_gbs: float | None = None
    bandwidth_max_gbs: float | None = None
    memory_type: str = ""
    usual_cores: int | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """A board, laptop, phone or server by its product name. `chips` are names of chips.csv, the base part first."""

    name: str
    aliases: tuple[str, ...]
    chips: tuple[str, ...]
    memory_gib: tuple[float, ...]
    os: Literal["linux", "windows", "macos", "android", "ios"] | None
    confidence: Confidence
    source: str


@dataclass(frozen=True, slots=True)
class VendorLine:
    """What a vendor's machines are like when nothing but the vendor is known. An empty name: it makes none."""

    vendor: str
    label: str
    arch: str
    unified_memory: bool
    gpu: str
    npu: str
    npu_generation: str
    source: str


@dataclass(frozen=True, slots=True)
class PciDevice:
    """A GPU or NPU (`engine`) by its PCI id; `kind` is discrete or integrated."""

    id: str
    engine: str
    name: str
    kind: str
    generation: str
    source: str


@dataclass(frozen=True, slots=True)
class SystemsOfChip:
    """The operating systems that a vendor's chips of a kind run; `assumed_ram_gib` is the smallest common fit."""

    vendor: str
    kind: str
    systems: tuple[str, ...]
    default_os: str | None
    assumed_ram_gib: float | None
    source: str


@dataclass(frozen=True, slots=True)
class Unserved:
    """A row of unserved.csv: what a name means that nothing can be planned for; `ask` where naming it better helps."""

    pattern: re.Pattern[str]
    ask: bool
    text: str
    hint: str
    source: str


@dataclass(frozen=True, slots=True)
class NpuKit:
    """A row of npu_kits.csv: what serves an NPU whose `generation` starts so, where none of the frameworks does.

    `language_models` says whether that kit runs them.
    """

    generation: str
    vendor: str
    kit: str
    language_models: bool
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class ChipFamily:
    """What is known of a chip that has no row, by its name: the vendor, the NPU and GPU generations, the CPU's words.

    `pattern` is a regular expression over the normalized name (knowledge.match.normalize). `bandwidth_gbs` is the
    lowest common fit of the family, the throughput that of its smallest usual GPU, `usual_cores` the count in the
    middle of it (a hybrid's fast ones); None of a card.
    """

    pattern: str
    family: str
    vendor: str
    kind: Literal["gpu", "igpu", "apple", "cpu", "sbc", "mobile"]
    generation: str
    isa: tuple[str, ...]
    bandwidth_gbs: float | None
    fp16_tflops: float | None
    int8_tops: float | None
    usual_cores: int | None
    confidence: Confidence
    source: str


def precision_class(nominal_bits: int) -> PrecisionClass:
    """1-2 bits ultra-low, 3-4 low, 5-8 medium, then 16 and 32 (facts of the course, part 1)."""
    if nominal_bits <= 2:
        return "ultra-low"
    if nominal_bits <= 4:
        return "low"
    if nominal_bits <= 8:
        return "medium"
    return "16-bit" if nominal_bits <= 16 else "32-bit"
