"""Olive workflows for execution providers that need another host: generated, checked against Olive's own schema.

Olive's dry run accepts options that its passes do not have and models that do not exist. So every workflow, ours or a
plan's from elsewhere, is checked here: known passes in an order in which each takes what the one before gives, known
options with legal values, providers and engines that each pass serves, data from the workflow's own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from knowledge.tables import read_document

CALIBRATION = "calibration"  # the data configuration that passes may name
CALIBRATION_FILE, MODEL, OUTPUT, CACHE = "calibration.jsonl", "checkpoint", "model", "cache"  # in the workflow's folder
Word = str | int | float | bool


class WorkflowPass(BaseModel):
    """One pass: its `type` and options by Olive's names."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    type: Annotated[str, Field(max_length=60)]
    options: Annotated[dict[str, Word | list[str] | list[dict[str, str]] | dict[str, Word]], Field(max_length=40)] = {}


class Workflow(BaseModel):
    """What Olive shall do on a host with `backend` (a table of olive_workflows.toml)."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    backend: Annotated[str, Field(max_length=40)]
    passes: Annotated[list[WorkflowPass], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _legal(self) -> Workflow:
        problems = problems_of(self.backend, [(step.type, step.options) for step in self.passes])
        if problems:
            raise ValueError(problems[0])
        return self


@cache
def _schema() -> dict[str, dict[str, Any]]:
    return read_document("olive_passes.toml")


@cache
def hosts() -> dict[str, dict[str, Any]]:
    """The tables of olive_workflows.toml by backend."""
    return read_document("olive_workflows.toml")


def workflow_for(backend: str, precision: str) -> dict[str, Any] | None:
    """The workflow that makes `precision` for `backend`; None where there is no recipe."""
    host = hosts().get(backend, {})
    recipe = next((recipe for recipe in host.get("recipe", []) if precision in recipe["precisions"]), None)
    if recipe is None:
        return None
    engine = backend.removeprefix("openvino-") if backend.startswith("openvino-") else host["engine"]
    passes = [_filled(step, engine) for step in recipe["passes"]]
    return {
        "backend": backend,
        "passes": [
            {"type": step["type"], "options": {k: v for k, v in step.items() if k != "type"}} for step in passes
        ],
    }


def _filled(value: Any, engine: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, engine) for key, part in value.items()}
    return engine if value == "{engine}" else value


def config_of(workflow: Workflow) -> dict[str, Any]:
    """The file for `olive run --config`, all paths relative to the folder that it lies in."""
    host = hosts()[workflow.backend]
    provider = host.get("made_by", host["provider"])
    config: dict[str, Any] = {
        "input_model": {"type": "HfModel", "model_path": MODEL, "task": "text-generation"},
        "systems": {
            "host": {
                "type": "LocalSystem",
                "accelerators": [{"device": host["engine"], "execution_providers": [provider]}],
            }
        },
        "passes": {
            f"{number:02d}_{step.type.lower()}": {"type": step.type, **step.options}
            for number, step in enumerate(workflow.passes, start=1)
        },
        "host": "host",
        "target": "host",
        "cache_dir": CACHE,
        "output_dir": OUTPUT,
        "log_severity_level": 1,
    }
    if any(step.options.get("data_config") == CALIBRATION for step in workflow.passes):
        config["data_configs"] = [_calibration()]
    return config


def _calibration() -> dict[str, Any]:
    """Text out of the workflow's own folder: nothing is fetched."""
    return {
        "name": CALIBRATION,
        "type": "HuggingfaceContainer",
        "load_dataset_config": {"data_name": "json", "data_files": CALIBRATION_FILE, "split": "train"},
        "pre_process_data_config": {
            "text_cols": ["text"],
            "strategy": "line-by-line",
            "max_seq_len": 512,
            "max_samples": 64,
            "add_special_tokens": False,
        },
        "dataloader_config": {"batch_size": 1},
    }


def problems_of(backend: str, passes: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What is wrong with the passes (type, options) for `backend`, a sentence each; empty where nothing is."""
    host = hosts().get(backend)
    if host is None:
        return [f"Olive has no recipes here for {backend}"]
    provider, engine = host.get("made_by", host["provider"]), host["engine"]
    found: list[str] = []
    form = "hf"
    for name, options in passes:
        schema = _schema().get(name)
        if schema is None:
            found.append(f"Olive 0.13.0 has no pass {name} that is known here")
            continue
        if schema["takes"] != form:
            found.append(f"{name} takes a model in the form {schema['takes']}, and gets one in the form {form}")
        form = schema["gives"]
        if provider not in schema.get("providers", [provider]):
            found.append(f"{name} does not serve {provider}")
        if engine not in schema.get("engines", [engine]):
            found.append(f"{name} does not serve the {engine}")
        found += [f"{name} needs the option {option}" for option in schema.get("required", []) if option not in options]
        found += _option_problems(name, schema["options"], options, provider)
    if form != "onnx":
        found.append("the last pass leaves no ONNX model")
    return found


def _option_problems(name: str, known: Mapping[str, Any], options: Mapping[str, Any], provider: str) -> list[str]:
    found = []
    for option, value in options.items():
        if option not in known:
            found.append(f"{name} has no option {option}")
        elif not _is_legal(value, known[option]):
            found.append(f"{name} does not take {value!r} as {option}")
        elif (name, option) == ("ModelBuilder", "precision") and not _builds(value, provider):
            found.append(f"ModelBuilder does not make {value} for {provider}")
    return found


def _builds(precision: str, provider: str) -> bool:
    """ModelBuilder's own check (olive-ai 0.13.0 passes/onnx/model_builder.py): no fp16 for the CPU, bf16 for CUDA."""
    if precision == "fp16":
        return provider != "CPUExecutionProvider"
    return precision != "bf16" or provider == "CUDAExecutionProvider"


def _is_legal(value: Any, kind: str | Sequence[Word]) -> bool:
    if not isinstance(kind, str):
        return (isinstance(value, str | int) and not isinstance(value, bool) and value in kind) or (
            isinstance(value, list) and bool(value) and all(part in kind for part in value)
        )
    return _KINDS[kind](value)


def _words(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(part, str | int | float) for key, part in value.items()
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000,
    "float": lambda value: isinstance(value, float) and 0 <= value <= 1,
    "text": lambda value: isinstance(value, str) and len(value) <= 200,
    "names": lambda value: isinstance(value, list) and all(isinstance(part, str) for part in value),
    "words": _words,
    "data": lambda value: value == CALIBRATION,
    "surgeries": lambda value: (
        isinstance(value, list)
        and bool(value)
        and all(_words(step) and str(step.get("surgeon", "")).isidentifier() for step in value)
    ),
}
