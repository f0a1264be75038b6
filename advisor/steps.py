"""The first recommendation made executable: steps with typed settings, gates, the ladder, predictions, the checklist.

Commands come from data/recipes.toml (what a person types with the framework's own tools); settings are what executors
act on. A step without an executor here carries `guide` settings: it is shown, never run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from advisor.checklist import checklist
from advisor.constraints import Constraints
from advisor.embedding import kind_of, recipes
from advisor.estimates import (
    BENCH_DECODE,
    BENCH_PAIRS,
    BENCH_PROMPT,
    BLOCK_TOKENS,
    CALIBRATION_TOKENS,
    SCORED_BLOCKS,
    estimate,
)
from advisor.gates import gates_for, runtime_gate, tasks_gate
from advisor.judging import Judged, speeds
from advisor.ladder import ladder_for
from advisor.limits import reference_bytes
from advisor.memory import resident_peak_bytes
from advisor.origin import SOURCE_FOLDER, form_of, hub_flags, is_by_hand, places_of, source_of, source_path
from advisor.rank import band, quality_row
from advisor.recipe import nncf_script, recipe_of
from advisor.speed import CostModel, ttft_ms
from knowledge.matrix import Backend, Kind, framework_named
from knowledge.precisions import method_of, overrides_of, uses_imatrix
from knowledge.records import ModelSpec, Precision
from knowledge.serving import modalities

IMATRIX = "work/imatrix.gguf"
WINDOW = 512
SHORTEST_RUN = 16  # tokens of context that a run is validated with, however few were planned
NPU_RESPONSE_TOKENS = 128  # MIN_RESPONSE_LEN of OpenVINO GenAI: the prompt gets the rest of the context


def _recipes(best: Judged) -> list[dict[str, Any]]:
    return recipes(_kind(best))[best.option.backend.framework]


def _kind(best: Judged) -> Kind:
    row = best.option.backend
    return kind_of(best.option.spec, row.framework, row.backend)


def make_work(
    best: Judged, alternatives: Sequence[Judged], request: Constraints, threads: int | None, cost_model: CostModel
) -> dict[str, Any]:
    """The `plan` part of the document. `alternatives` are the judged options of the same model, for the ladder."""
    option = best.option
    spec, row, precision = option.spec, option.backend, option.precision
    framework = framework_named(row.framework)
    executable = framework.executor and form_of(spec) in framework.starts_from and not spec.source_framework
    executable = executable and _is_run(best, request)
    executable = executable and bool(recipe_of(best)) and option.facts["unconverted"] is None
    words = _words(best, request, threads)
    wanted = [recipe for recipe in _recipes(best) if _wanted(recipe, best, executable, request)]
    steps = [_step(recipe, best, words, executable, request, threads) for recipe in wanted]
    gates = gates_for(best, request) + ([tasks_gate()] if _asks(request, best, executable) else [])
    gates += [runtime_gate()] if any(step["settings"].get("tier") == "runtime" for step in steps) else []
    return {
        "model": spec.hf_id or spec.name,
        "framework": row.framework,
        "kind": _kind(best),
        "backend": row.backend,
        "precision": precision.name,
        "precision_class": precision.precision_class,
        "context": option.context,
        "licence": spec.licence,
        "base_model": spec.hf_id,
        "reference_note": _reference_note(spec, row.framework, _kind(best)),
        "predictions": {
            "artifact_bytes": _exact(
                best.size.weights.file_bytes, framework.size_tolerance, "sum over tensors, exact to the type"
            ),
            "peak_rss_bytes": _exact(_benchmarked_peak(best, request), 0.15, "sum of the memory parts"),
            **_timed(best, threads, cost_model),
            "quality_retention": quality_row(best.retention, spec)["retention"]
            | {"basis": f"{best.retention.basis}: {best.retention.source}"},
        },
        "threads": threads or best.option.engine.usual_threads,
        "steps": steps,
        "gates": gates,
        "ladder": ladder_for(best, alternatives) if executable else [],
        "checklist": checklist(best, request, executable),
    }


def _timed(best: Judged, threads: int | None, cost_model: CostModel) -> dict[str, Any]:
    """What the benchmark step will see: its own prompt and answer lengths, not the planned context."""
    if _kind(best) == "embedding":
        return {"sentences_per_second": band(best.prefill)}
    prompt, answer = _timing(best)
    decode, prefill = speeds(best.option, best.size, threads, prompt + answer // 2, cost_model)
    first = ttft_ms(prefill, decode, prompt)
    return {"decode_tps": band(decode), "prefill_tps": band(prefill), "ttft_ms": band(first)}


def _timing(best: Judged) -> tuple[int, int]:
    """How many tokens of prompt and answer the benchmark step takes."""
    row = best.option.backend
    steps = [r for r in _recipes(best) if r["kind"] == "benchmark"]
    here = (r.get("settings", {}) for r in steps if row.backend in r.get("backends", [row.backend]))
    own: dict[str, Any] = next(here, {})
    return own.get("prompt_tokens", BENCH_PROMPT), own.get("decode_tokens", BENCH_DECODE)


def _exact(value: int, tolerance: float, basis: str) -> dict[str, Any]:
    low, high = round(value * (1 - tolerance)), round(value * (1 + tolerance))
    return {"low": low, "mid": value, "high": high, "level": 0.9, "basis": basis}


_USED = ("validate", "benchmark")  # what is left to do with a model that is made already


def _is_run(best: Judged, request: Constraints) -> bool:
    """Whether advisor runs and validates it: what reads and writes text, and encoders."""
    text = best.option.spec.modality in ("text", "image-text") and request.use_case != "vision"
    return text or _kind(best) == "embedding"


def _asks(request: Constraints, best: Judged, executable: bool) -> bool:
    """Whether questions are put to it."""
    return request.tasks and executable and _kind(best) == "text"


def _wanted(recipe: dict[str, Any], best: Judged, executable: bool, request: Constraints) -> bool:
    """Whether a recipe's step is one of this plan's."""
    spec, kind = best.option.spec, recipe["kind"]
    used = kind in _USED and recipe.get("tier", "smoke") == "smoke"
    if spec.source_framework and not (used or is_by_hand(recipe, spec)):
        return False
    if recipe.get("tier") == "tasks" and not _asks(request, best, executable):
        return False
    if kind in ("validate", "benchmark") and not _is_run(best, request):
        return False  # they prompt for text
    if kind == "calibrate" and not uses_imatrix(best.option.precision):
        return False
    if recipe.get("only_executed") and not (executable or is_by_hand(recipe, spec)):
        return False
    if best.option.engine.os not in recipe.get("systems", [best.option.engine.os]):
        return False
    return best.option.backend.backend in recipe.get("backends", [best.option.backend.backend])


def _benchmarked_peak(best: Judged, request: Constraints) -> int:
    """The resident memory that the benchmark step will see."""
    option = best.option
    backend, kv_type = option.backend, request.kv_cache or "f16"
    return resident_peak_bytes(
        option.spec, best.size.weights, backend.framework, backend.backend, option.context, sum(_timing(best)), kv_type,
    )  # fmt: skip


def _reference_note(spec: ModelSpec, framework: str, kind: Kind) -> str:
    form = framework_named(framework).of(kind).reference
    if spec.embedded:
        packaged = f"{form} dequantized from the packaged {spec.source_precision} file"
        return f"{packaged}: a demonstration, not the original 16-bit release"
    if reference_bytes(spec, framework) != 2 * spec.params:
        return f"the published {spec.source_precision} weights as they are and the rest in 16 bits, as {form}"
    if spec.source_precision.upper() in ("F16", "BF16", "F32"):
        return f"the {spec.source_precision} weights themselves, as {form}"
    return f"{form} dequantized from {spec.source_precision}: the highest precision at hand"


def _words(best: Judged, request: Constraints, threads: int | None) -> dict[str, Any]:
    """The placeholders of the recipes; lists are spliced into the command."""
    option = best.option
    spec, row, precision = option.spec, option.backend, option.precision
    words: dict[str, Any] = {
        **places_of(spec),
        "source": source_path(spec),
        "hub_flags": hub_flags(spec),
        "task": modalities()[spec.modality].task,
        "precision": precision.name,
        "artifact": _MADE.get(row.framework, "work/model" if framework_named(row.framework).executor else "artifact"),
        "context": str(option.context),
        "thread_flags": ["-t", str(threads)] if threads else [],
        "engine": option.engine.kind,
    }
    settings = precision.settings
    if precision.scheme == "gguf":
        flags = [
            part for pattern, kind in overrides_of(precision) for part in ("--tensor-type", f"{pattern}={kind.lower()}")
        ]
        if uses_imatrix(precision):
            flags = ["--imatrix", IMATRIX, *flags]
        if best.size.split:
            words["split_flags"] = [
                part
                for name, count in best.size.split.settings.items()
                for part in (f"--{name.replace('_', '-')}", str(count))
            ]
        words |= {"base_type": str(settings["type"]), "tensor_flags": flags}
        if request.kv_cache not in (None, "f16"):  # a quantized V cache needs flash attention
            types = ["--cache-type-k", request.kv_cache, "--cache-type-v", request.kv_cache]
            words |= {"kv_flags": [*types, "--flash-attn", "on"], "kv_bench_flags": [*types, "--flash-attn", "1"]}
    else:
        words |= {
            f"{row.framework}_flags": _flags(precision, row),
            "olive_precision": str(settings.get("precision", "int4")),
        }
    if compression := recipe_of(best).get("compression"):
        words["compress_command"] = _compress_command(best, compression, words)
        words["prompt_tokens"] = str(max(option.context - NPU_RESPONSE_TOKENS, NPU_RESPONSE_TOKENS))
    if spec.source_framework:
        words["artifact"] = spec.path or SOURCE_FOLDER
    words |= _PROVIDERS.get(row.backend, {})
    return words | {"openvino_device": {"openvino-gpu": "GPU", "openvino-npu": "NPU"}.get(row.backend, "CPU")}


def _compress_command(best: Judged, compression: dict[str, Any], words: dict[str, Any]) -> list[str]:
    """NNCF itself for what is here or is a mix; else the exporter, which downloads and compresses in one go."""
    spec, precision = best.option.spec, best.option.precision
    if spec.path or overrides_of(precision):
        return ["python", "-c", nncf_script(compression)]
    export = ["optimum-cli", "export", "openvino", "--model", words["model"], "--task", words["task"]]
    return [*export, *words["openvino_flags"], words["artifact"]]


def _flags(precision: Precision, row: Backend) -> list[str]:
    """The settings of a precision as the flags of the framework's own command."""
    s = precision.settings
    if precision.framework == "mlx":
        if "q_bits" not in s:
            return ["--dtype", str(s["dtype"])]
        mode = [] if s["q_mode"] == "affine" else ["--q-mode", str(s["q_mode"])]
        mix = ["--quant-predicate", str(s["q_recipe"])] if "q_recipe" in s else []
        return ["-q", "--q-bits", str(s["q_bits"]), "--q-group-size", str(s["q_group_size"]), *mode, *mix]
    if precision.framework == "olive":
        block = ["--block_size", str(s["block_size"])] if "block_size" in s else []
        return [*block, "--act_precision", "uint16"] if row.backend == "qnn" else block
    if "mode" not in s:
        return ["--weight-format", str(s["weight_format"])]
    form, _, symmetry = str(s["mode"]).partition("_")
    flags = ["--weight-format", form, *(["--sym"] if symmetry == "sym" else [])]
    if "group_size" in s:
        flags += ["--group-size", str(s["group_size"]), "--ratio", str(s["ratio"])]
    better = _BETTER.get(method_of(precision) or row.method, [])
    return flags + better


_BETTER = {"awq": ["--awq"], "scale-estimation": ["--scale-estimation", "--dataset", "wikitext2"]}
_PROVIDERS: dict[str, dict[str, str]] = {
    "cpu": {"olive_provider": "CPUExecutionProvider", "olive_ep": "cpu"},
    "cuda": {"olive_provider": "CUDAExecutionProvider", "olive_ep": "cuda"},
    "tensorrt-rtx": {"olive_provider": "NvTensorRTRTXExecutionProvider", "olive_ep": "NvTensorRtRtx"},
    "webgpu": {"olive_provider": "WebGpuExecutionProvider", "olive_ep": "webgpu"},
    "directml": {"olive_provider": "DmlExecutionProvider", "olive_ep": "dml"},
    "qnn": {"olive_provider": "QNNExecutionProvider", "olive_ep": "qnn"},
    "vitisai": {"olive_provider": "VitisAIExecutionProvider", "olive_ep": "vitisai"},
    "openvino-gpu": {"olive_provider": "OpenVINOExecutionProvider", "olive_ep": "openvino"},
    "openvino-npu": {"olive_provider": "OpenVINOExecutionProvider", "olive_ep": "openvino"},
}


def _command(template: Sequence[str], words: dict[str, Any]) -> list[str]:
    out: list[str] = []
    for part in template:
        name = part[1:-1] if part.startswith("{") and part.endswith("}") else None
        value = words.get(name) if name else None
        if isinstance(value, list):
            out += value
        elif name and value is None:
            continue
        else:
            out.append(re.sub(r"\{(\w+)\}", lambda m: str(words.get(m[1], "")), part))
    return out


def _step(
    recipe: dict[str, Any],
    best: Judged,
    words: dict[str, Any],
    executable: bool,
    request: Constraints,
    threads: int | None,
) -> dict[str, Any]:
    spec = best.option.spec
    here = bool(spec.path) or (form_of(spec) == "file" and recipe["kind"] != "acquire")
    template = recipe.get(_COMMANDS[form_of(spec)] if here else "", recipe["command"])
    outputs = [_path(o, words) for o in recipe.get("outputs", [])]
    settings = _settings(recipe, best, request, words) if executable else _guide(recipe, best, words)
    return {
        "id": recipe["id"],
        "kind": recipe["kind"],
        "framework": best.option.backend.framework,
        "title": _path(recipe["title"], words),
        "settings": settings,
        "command": _command(template, words),
        "inputs": [] if spec.source_framework else [_path(i, words) for i in recipe.get("inputs", [])],
        "outputs": [] if spec.source_framework else outputs,
        "estimate": estimate(recipe, best, from_folder=source_path(best.option.spec) == SOURCE_FOLDER),
        "host": "this" if recipe["host"] == "any" and best.option.engine.os in _PHONES else recipe["host"],
    }


_PHONES = ("android", "ios")  # a phone only runs what this computer makes
_COMMANDS = {"embedded": "local_command", "file": "local_command", "folder": "folder_command"}


def _path(text: str, words: dict[str, Any]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: str(words.get(m[1], "")), text)


def _guide(recipe: dict[str, Any], best: Judged, words: dict[str, Any]) -> dict[str, Any]:
    values = {k: v for k, v in best.option.precision.settings.items() if isinstance(v, str | int | float | bool)}
    said = {"precision": best.option.precision.name, "backend": best.option.backend.backend}
    own = {name: int(words[value[1:-1]]) if str(value).startswith("{") else value
           for name, value in recipe.get("values", {}).items()}  # fmt: skip
    return {"kind": "guide", "values": values | said | own}


_MADE = {"llama.cpp": "work/model.gguf", "openvino": "work/model"}


def _settings(recipe: dict[str, Any], best: Judged, request: Constraints, words: dict[str, Any]) -> dict[str, Any]:
    """What the executor of the framework acts on; a guide for what can only be done on a device that is not here."""
    option = best.option
    kind, artifact = recipe["kind"], _MADE.get(option.backend.framework, "work/model")
    if recipe.get("values"):
        return _guide(recipe, best, words)
    if recipe.get("on_device") and option.backend.backend != "cpu" and not _is_here(recipe, best):
        why = f"not run on the {option.engine.kind.upper()}: do it on the target"
        return {"kind": "guide", "values": {"backend": option.backend.backend, "why": why}}
    if kind == "acquire":
        about = {"source": source_of(option.spec), "output": source_path(option.spec)}
        return {"kind": "acquire", **about, "offline": request.offline}
    if kind == "convert":
        return {
            "kind": "convert",
            "input": source_path(option.spec),
            "output": recipe["outputs"][0],
            "type": "BF16" if "BF16" in recipe.get("types", ()) and _is_bf16(option.spec) else "F16",
            **recipe.get("settings", {}),
            **({"workflow": recipe_of(best)["workflow"]} if recipe.get("prepares") else {}),
        }
    reference = next(r["outputs"][0] for r in _recipes(best) if r["kind"] == "convert")
    if kind == "calibrate":
        return {"kind": "calibrate", "input": reference, "output": IMATRIX, "tokens": CALIBRATION_TOKENS}
    if kind == "quantize":
        return {
            "kind": "quantize",
            "input": recipe.get("from", reference),
            "output": artifact,
            "precision": option.precision.name,
            **recipe_of(best),
            "imatrix": IMATRIX if uses_imatrix(option.precision) else "",
            "expected_bytes": best.size.weights.file_bytes,
        }
    if kind == "validate":
        tier = recipe["tier"]
        return {
            "kind": "validate",
            "tier": tier,
            "reference": "" if tier == "smoke" else reference,
            "context": max(SHORTEST_RUN, option.context if tier == "smoke" else min(WINDOW, option.context)),
            "blocks": SCORED_BLOCKS,
            "block_tokens": BLOCK_TOKENS,
            "memory_budget_bytes": best.size.budget.bytes if tier == "smoke" else 0,
            "expected_bytes": best.size.weights.file_bytes if tier == "integrity" else 0,
            **recipe.get("settings", {}),
        }
    if kind == "benchmark":
        return {
            "kind": "benchmark",
            "reference": reference,
            "pairs": BENCH_PAIRS,
            "prompt_tokens": BENCH_PROMPT,
            "decode_tokens": BENCH_DECODE,
            "context": max(SHORTEST_RUN, option.context),
            **recipe.get("settings", {}),
        }
    return {"kind": "package"}


def _is_here(recipe: dict[str, Any], best: Judged) -> bool:
    """Whether the step runs on the very device that the plan is for: a framework takes its machine's own by itself."""
    return bool(recipe.get("own_device")) and best.option.facts["origin"] == "probed"


def _is_bf16(spec: ModelSpec) -> bool:
    return spec.source_precision.upper() in ("BF16", "BFLOAT16")
