"""One thing to be predicted, as numbers: which engine runs which weights through which software, on what prompt.

`case_of_row` makes a Case of a row of measurements (DESIGN section 4: strings, any of them empty or odd);
advisor.learned makes one of an option of the plan. Both go through the same sizes and rates, so that what was learned
of published rows serves plans. What is not known is None or imputed; `notes` say so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from advisor.case import (
    CACHED_BYTES,
    USUAL_BUILD,
    USUAL_CORES,
    USUAL_RATE,
    Case,
    GpuRates,
    cpu_rate,
    gpu_rate,
    in_fast_cores,
)
from knowledge.base import GIB, AdvisorError
from knowledge.chips import apple_generation, gpu_generation, npu_generation, usual_npu_tops
from knowledge.model_names import ModelFacts, model_facts, typical_facts
from knowledge.precision_names import BitsNamed, MixedBits, bits_named, mixed_bits, names_bits
from knowledge.precisions import resolve_precision
from knowledge.records import Chip
from knowledge.shapes import groups_of
from knowledge.systems_named import system_facts
from knowledge.weights import weights
from probes.from_chip import core_counts

# The family of software that a framework's name belongs to; the first that occurs in the name decides.
_RUNTIMES = (
    ("mlx", "mlx"), ("ollama", "ollama"), ("lmstudio", "lmstudio"), ("lm studio", "lmstudio"), ("llama", "llama.cpp"),
    ("kobold", "llama.cpp"), ("gguf", "llama.cpp"), ("t-mac", "llama.cpp"), ("openvino", "openvino"),
    ("optimum-intel", "openvino"), ("executorch", "executorch"), ("litert", "litert"), ("mediapipe", "litert"),
    ("tflite", "litert"), ("qnn", "qnn"), ("genie", "qnn"), ("onnx", "onnxruntime"), ("ort", "onnxruntime"),
    ("olive", "onnxruntime"), ("directml", "onnxruntime"), ("mlc", "mlc"), ("rkllm", "rkllm"), ("rknn", "rkllm"),
    ("tensorrt", "tensorrt"), ("trt", "tensorrt"), ("vllm", "vllm"), ("sglang", "vllm"), ("exl", "exllama"),
    ("transformers", "transformers"),
)  # fmt: skip
# What Ollama serves with MLX instead of llama.cpp's kernels: by its tag, and on Apple silicon by the format of the
# weights, which llama.cpp's kernels do not take from it (ollama.com/blog/mlx, /blog/mlx-performance).
_OLLAMA_ON_MLX, _MLX_FORMATS = re.compile(r"[:-]mlx\b"), re.compile(r"nvfp4|mxfp8|\bint[48]\b")
# qualcomm/ai-hub-models qai_hub_models/models/common.py: w4 quantizes weights only, w4a16 activations to integers, too.
_FLOAT_ACTIVATIONS = re.compile(r"w\d+")
_GGUF_RUNTIMES = ("llama.cpp", "ollama", "lmstudio")


def number(text: str | None) -> float | None:
    """A positive finite number, or None."""
    try:
        value = float((text or "").strip())
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


@lru_cache(maxsize=512)
def runtime_of(framework: str) -> str:
    name = framework.lower()
    return next((runtime for word, runtime in _RUNTIMES if word in name), "other" if name.strip() else "llama.cpp")


# ---- rows of measurements


def case_of_row(row: Mapping[str, str | None]) -> tuple[Case | None, list[str]]:
    """The case of a row, and what is wrong with or was assumed for it. None: neither parameters nor size is known."""
    notes: list[str] = []
    text = {key: (row.get(key) or "").strip() for key in _TEXT}
    numbers = {key: _checked(row.get(key), key, notes) for key in _RANGES}
    runtime = runtime_of(text["framework"])
    system = system_facts(text["device"], text["chip"], numbers["memory_gb"])
    if runtime == "ollama" and _on_mlx(text["model"].lower(), text["precision"].lower(), system.chip):
        runtime = "mlx"
    bits = bits_named(text["precision"], text["model"], runtime)
    size = numbers["file_size_gib"] * GIB if numbers["file_size_gib"] else None
    facts = model_facts(text["model"], numbers["params_b"], numbers["active_params_b"])
    if facts is None and size is not None:
        facts = typical_facts(size * 8 / bits.bits, "file")
    if facts is None:
        return None, [*notes, "neither the model's parameters nor its size is known"]
    if bits.assumed:
        notes.append(f"precision not recognized, {bits.name} assumed")
    elif text["precision"] and not names_bits(text["precision"], runtime):
        notes.append(f"precision not recognized, {bits.name} of the model's name taken")
    if facts.origin == "size":
        notes.append("model not recognized, usual shapes of its size assumed")
    kind = _kind(text["device_kind"].lower(), system.chip)
    backend = _backend(text["backend"].lower(), kind, runtime, system.chip)
    if system.chip and _is_card(system.chip) and "cpu" in f"{text['device_kind']} {text['backend']}".lower():
        notes.append(f"{system.chip.name} is a graphics card and no CPU, {backend} on it taken")
    if system.chip and system.chip.vendor != _VENDOR_OF.get(backend, system.chip.vendor):
        notes.append(f"{backend} does not run on {system.chip.name}: one of the two is wrong")
    given = numbers["bandwidth_gbs"]
    if system.chip is None:
        notes.append("device not recognized" + ("" if given else ", a bandwidth usual for its kind assumed"))
    elif backend == "cpu" and system.chip.usual_cores:
        notes.append(f"number of cores not known, the usual {system.chip.usual_cores} assumed")
    mixed = None
    if runtime == "openvino" and bits.name == "4bit" and "mixed" in text["precision"].lower():
        mixed = mixed_bits(text["model"])
    weight_bytes, active_bytes = _bytes(facts, bits, size, runtime, mixed)
    bits_per_weight = weight_bytes * 8 / facts.params
    if runtime == "ollama" and size is None:
        weight_bytes += _packed_besides(facts, bits_per_weight)
    bandwidth = (system.chip.bandwidth_gbs if system.chip else None) or given or _USUAL_BANDWIDTH.get(kind, 60.0)
    older = runtime == "openvino" and _older_release(text["framework_version"].lower())
    rate, low_bit = _rates(system.chip, kind, backend, bits.bits, older_release=older)
    memory = numbers["memory_gb"] or (max(system.chip.memory_gib) if system.chip and system.chip.memory_gib else None)
    case = Case(
        chip=system.chip.name if system.chip else "",
        vendor=system.chip.vendor if system.chip else "",
        engine_kind=kind,
        generation=_generation(system.chip, backend),
        runtime=runtime,
        software=text["framework"].lower(),
        backend=backend,
        bandwidth=bandwidth,
        rate=rate,
        low_bit_ratio=low_bit,
        count=system.count,
        memory_gib=memory,
        model=(facts.name or text["model"]).lower(),
        params=facts.params,
        active_params=facts.active_params,
        weight_bytes=weight_bytes,
        active_bytes=active_bytes,
        layers=facts.layers,
        hidden=facts.hidden,
        vocab=facts.vocab,
        cache_bytes=facts.kv_values * CACHED_BYTES,
        recurrent=facts.recurrent,
        queries=facts.queries,
        build=_build(text["framework_version"], runtime),
        window_bytes=facts.window_values * CACHED_BYTES,
        window=facts.window,
        window_queries=facts.window_queries,
        context=facts.spec.context if facts.spec else 0,
        precision=bits.name,
        bits=bits_per_weight,
        assumed_precision=bits.assumed,
        prompt=numbers["prompt_tokens"],
        answer=numbers["gen_tokens"],
        batch=numbers["batch"] or 1.0,
        float_activations=runtime == "qnn" and bool(_FLOAT_ACTIVATIONS.fullmatch(text["precision"].lower())),
        assumed_cores=backend == "cpu" and bool(system.chip and system.chip.usual_cores),
        notes=tuple(notes),
    )
    return case, notes


def _on_mlx(model: str, precision: str, chip: Chip | None) -> bool:
    """Whether Ollama hands the model to MLX."""
    formats = chip is not None and chip.vendor == "apple" and _MLX_FORMATS.search(f"{model} {precision}")
    return bool(_OLLAMA_ON_MLX.search(model) or formats)


_TEXT = ("device", "device_kind", "chip", "framework", "backend", "framework_version", "model", "precision", "metric")
# What a column can hold; outside it the cell is left out, and the note says so.
_RANGES = {
    "memory_gb": (0.01, 100_000.0), "bandwidth_gbs": (0.1, 50_000.0), "params_b": (0.001, 5_000.0),
    "active_params_b": (0.001, 5_000.0), "file_size_gib": (0.01, 4_000.0), "batch": (1.0, 4096.0),
    "prompt_tokens": (1.0, 10_000_000.0), "gen_tokens": (1.0, 1_000_000.0),
}  # fmt: skip
_BILLIONS = ("params_b", "active_params_b")
_SIZED = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?([bBmM])")  # 8B, 350M
_VENDOR_OF = {"cuda": "nvidia", "rocm": "amd", "metal": "apple", "sycl": "intel"}
_USUAL_BANDWIDTH = {"gpu": 450.0, "igpu": 90.0, "apple": 200.0, "cpu": 60.0, "sbc": 17.0, "mobile": 60.0, "npu": 70.0}


_BUILD = re.compile(r"\bb(\d{3,5})\b")
_BUILDS_OF_MONTHS = {"may 2024": 2900.0}  # where a source names the month alone


def _build(version: str, runtime: str) -> float:
    """llama.cpp's build of a version such as `b5863` or `May 2024`."""
    found = _BUILD.search(version) if runtime == "llama.cpp" else None
    return float(found[1]) if found else _BUILDS_OF_MONTHS.get(version.lower(), USUAL_BUILD)


# OpenVINO's release notes: "dynamic quantization and optimization in GEMM" on matrix engines.
_MULTIPLIES_IN_8_BITS_SINCE = (2025, 2)
_OPENVINO_RELEASE = re.compile(r"\b(20\d\d)\.(\d{1,2})\b")
# Where a source names the revision of its page: the first names its release, the second has the models and prompts of
# 2024.5's table.
_RELEASE_OF_REVISIONS = {"6d1de4a2": (2024, 4), "178f7fa6": (2024, 5)}


def _older_release(version: str) -> bool:
    """Whether that is a version of OpenVINO before _MULTIPLIES_IN_8_BITS_SINCE; not so where it is not known."""
    found = _OPENVINO_RELEASE.search(version)
    release = (int(found[1]), int(found[2])) if found else _RELEASE_OF_REVISIONS.get(version)
    return release is not None and release < _MULTIPLIES_IN_8_BITS_SINCE


def _checked(text: str | None, column: str, notes: list[str]) -> float | None:
    written = (text or "").strip()
    if not written or written.lower() in ("nan", "none", "null", "n/a", "-", "?"):
        return None
    value = number(written.replace(",", ".") if written.count(",") == 1 and "." not in written else written)
    if value is None and column in _BILLIONS and (sized := _SIZED.fullmatch(written)):
        value = float(sized[1]) * (1.0 if sized[2] in "bB" else 1e-3)
    low, high = _RANGES[column]
    if value is None or not low <= value <= high:
        notes.append(f"{column} is no possible value and was left out")
        return None
    return value


def _kind(kind: str, chip: Chip | None) -> str:
    """The engine's kind: the row's, made exact by the chip's (`gpu` may be a discrete or an integrated one)."""
    if kind == "npu":
        return "mobile" if chip and chip.kind == "mobile" else "npu"
    if kind == "cpu" and _is_card(chip):
        return "gpu"  # a card called a CPU: mislabelled at the source
    if kind in ("cpu", "sbc", "mobile", "apple"):
        return kind
    if chip is not None:
        return "gpu" if chip.kind == "sbc" and chip.vendor == "nvidia" else chip.kind
    return kind if kind in USUAL_RATE else "gpu" if kind else "cpu"


def _is_card(chip: Chip | None) -> bool:
    return chip is not None and chip.kind == "gpu"


def _backend(backend: str, kind: str, runtime: str, chip: Chip | None) -> str:
    """One of the backends that are told apart: cuda, rocm, vulkan, metal, sycl, opencl, openvino-gpu, npu, cpu."""
    vendor = chip.vendor if chip else ""
    if kind == "npu" or any(word in backend for word in ("npu", "qnn", "hexagon", "vitis", "ane")):
        return "npu"
    if backend and "cpu" not in backend:
        known = ("cuda", "rocm", "vulkan", "metal", "sycl", "opencl", "openvino-gpu", "directml", "webgpu", "tensorrt")
        found = next((name for name in known if name in backend), "")
        if found:
            return {"directml": "vulkan", "webgpu": "vulkan", "tensorrt": "cuda"}.get(found, found)
        if "hip" in backend:
            return "rocm"
        if "gpu" in backend:
            return "openvino-gpu" if runtime == "openvino" else "metal" if vendor == "apple" else "opencl"
    if not _is_card(chip) and ("cpu" in backend or kind == "cpu" or (kind == "sbc" and vendor != "nvidia")):
        return "cpu"
    if runtime == "openvino":
        return "openvino-gpu" if kind in ("gpu", "igpu") else "cpu"
    if kind == "apple" or vendor == "apple":
        return "metal"
    if vendor == "nvidia":
        return "cuda"
    if vendor == "amd":
        return "vulkan" if kind == "igpu" else "rocm"
    if vendor == "intel":
        return "cpu" if runtime == "ollama" else "vulkan"  # Ollama computes on the CPU where the GPU is Intel's
    return "cpu" if kind != "gpu" else "cuda"


def _generation(chip: Chip | None, backend: str) -> str:
    if chip is None or backend == "cpu":
        return ""
    if backend == "npu":
        return npu_generation(chip)
    if chip.vendor == "apple":
        return apple_generation(chip.name)
    return gpu_generation(chip)


def _rates(chip: Chip | None, kind: str, backend: str, bits: float, *, older_release: bool) -> tuple[float, float]:
    """10^12 operations a second at these bits, and how many times faster 8 bits are than 16."""
    if chip is None:
        return USUAL_RATE["npu" if backend == "npu" else "cpu" if kind == "mobile" and backend == "cpu" else kind], 2.0
    if backend == "cpu":
        every, fast = core_counts(chip.cores)
        cores = in_fast_cores(chip.vendor, every or chip.usual_cores or USUAL_CORES, fast)
        return cpu_rate(chip.vendor, frozenset(chip.isa), cores), 1.0
    if backend == "npu":
        published = chip.npu_tops or chip.int8_tops
        return published or usual_npu_tops(npu_generation(chip)) or USUAL_RATE["npu"], 2.0
    accumulate16 = chip.fp16_acc16_tflops or chip.fp16_tflops
    sheet = GpuRates(chip.vendor, gpu_generation(chip), chip.fp16_tflops, accumulate16, chip.int8_tops)
    return gpu_rate(sheet, backend, bits, USUAL_RATE[kind], older_release=older_release)


def _bytes(
    facts: ModelFacts, bits: BitsNamed, size: float | None, runtime: str, mixed: MixedBits | None
) -> tuple[float, float]:
    """The bytes of all weights, and of those read for one token."""
    exact = _exact_bytes(facts, bits.name, runtime) if facts.spec is not None else None
    if size is not None and 0.5 < size * 8 / facts.params < 40:
        total = size
        unread = 0.0 if facts.tied else facts.vocab * facts.hidden * total / facts.params
    elif mixed is not None:
        total, unread = _mixed_bytes(facts, mixed)
    elif exact is not None:
        total, unread = exact
    else:
        total = _estimated_bytes(facts, bits.bits, runtime)
        unread = 0.0 if facts.tied else facts.vocab * facts.hidden * total / facts.params
    if facts.active_params < 0.95 * facts.params:
        return total, total * facts.active_params / facts.params
    return total, max(0.5 * total, total - unread)


_EMBEDDING_BITS = 6.5625  # Q6_K's: what llama.cpp's mixtures take at least for an embedding that is the output, too


def _packed_besides(facts: ModelFacts, bits: float) -> float:
    """Bytes that Ollama's packages hold besides: encoders, and per-layer embeddings, in 16 bits.

    Source: ollama.com/library/gemma4 (e2b 7.2 GB, e4b 9.6 GB, 26b-a4b-it-q8_0 28 GB), which this gives.
    """
    if facts.spec is None:
        return 0.0
    of_layers = sum(group.elements for group in groups_of(facts.spec) if group.suffix == "per_layer_token_embd.weight")
    return 2.0 * facts.spec.tower_params + of_layers * max(0.0, 16 - max(bits, _EMBEDDING_BITS)) / 8


def _estimated_bytes(facts: ModelFacts, bits: float, runtime: str) -> float:
    """By parameters; the embedding of a small model, which most software keeps at more bits, apart."""
    if bits >= 8 or facts.params > 3e9:
        return facts.params * bits / 8
    embedding = min(0.6 * facts.params, facts.vocab * facts.hidden * (1 if facts.tied else 2))
    wide = _EMBEDDING_BITS if runtime in _GGUF_RUNTIMES else 8.0 if runtime == "openvino" else bits
    return ((facts.params - embedding) * bits + embedding * max(bits, wide)) / 8


def _mixed_bytes(facts: ModelFacts, mixed: MixedBits) -> tuple[float, float]:
    embedding = min(0.3 * facts.params, facts.vocab * facts.hidden)  # one byte each
    own_output = 0.0 if facts.tied else embedding
    layers = facts.params - embedding - own_output
    total = layers * mixed.layers / 8 + embedding + own_output * mixed.output / 8
    return total, 0.0 if facts.tied else embedding


_EXACT = {"mlx": "mlx", "openvino": "openvino", "onnxruntime": "olive"}
_NO_RULES = ("qnn", "rkllm", "executorch", "litert", "mlc", "exllama", "vllm", "tensorrt", "transformers", "other")


def _exact_bytes(facts: ModelFacts, precision: str, runtime: str) -> tuple[float, float] | None:
    return _tensor_bytes(facts.name, precision, "" if runtime in _NO_RULES else _EXACT.get(runtime, "llama.cpp"))


@lru_cache(maxsize=8192)
def _tensor_bytes(name: str, precision: str, framework: str) -> tuple[float, float] | None:
    facts = model_facts(name)
    if not framework or facts is None or facts.spec is None:
        return None
    try:
        sizes = weights(facts.spec, resolve_precision(precision, framework)[0], backend="gpu")
    except AdvisorError:  # a precision that we cannot make, but others can
        return None
    unread = 0 if facts.spec.tied_embeddings else sizes.by_role.get("token_embd", 0)
    return float(sizes.tensor_bytes), float(unread)
