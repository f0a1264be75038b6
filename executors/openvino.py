"""OpenVINO: plan steps as worker requests (executors/worker/openvino.py), answers as tiers of the report.

The 16-bit reference is the model folder (IR) that OpenVINO GenAI makes of a 16-bit GGUF: exact, and without torch. A
quantized GGUF is dequantized by llama.cpp first, since OpenVINO's own reader would round it. A Hugging Face folder is
exported by optimum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor.plan import ConvertSettings, QuantizeSettings, ValidateSettings
from executors import tiers
from executors.conversion import converted
from executors.executor import Task
from executors.folder import discard, staging
from executors.interpreters import interpreter_for
from executors.ir_integrity import integrity
from executors.llamacpp import LlamaCpp
from executors.process import Watch, WorkerResult, run_worker
from executors.tokens import compared, model_ids
from executors.toolchain import installed_version
from knowledge.base import EXIT_STEP_FAILED, AdvisorError
from knowledge.gguf import GgufFile, read_gguf
from knowledge.hf_config import hf_parts

FRAMEWORK = "openvino"
CALIBRATION_TEXT = Path(__file__).parent / "data" / "calibration_text.txt"
SAMPLES, SAMPLE_TOKENS = 16, 256  # of the calibration text: 3 minutes for 135 million parameters


class OpenVino:
    """The executor of OpenVINO (see executors.executor.Executor)."""

    @property
    def version(self) -> str:
        interpreter_for(FRAMEWORK)
        return f"{FRAMEWORK} {installed_version(FRAMEWORK)}".strip()

    def run(self, task: Task) -> dict[str, Any]:
        settings = task.settings
        if isinstance(settings, ConvertSettings) and settings.format == FRAMEWORK:
            return _convert(task)
        if isinstance(settings, QuantizeSettings) and settings.compression is not None:
            return compress(task, settings)
        if isinstance(settings, ValidateSettings):
            return tiers.validate(task, settings, FRAMEWORK, _integrity)
        if settings.kind == "benchmark":
            return tiers.benchmark(task, settings, FRAMEWORK)
        raise AdvisorError("bad-plan", f"OpenVINO cannot do this {settings.kind} step.", "make it anew: advisor plan")


def _convert(task: Task) -> dict[str, Any]:
    """The 16-bit model folder of a GGUF, by way of a 16-bit GGUF: the source itself, or what llama.cpp makes of it."""
    source, output = task.paths["input"], task.paths["output"]
    if source.is_dir():
        return converted(task, "to_ir", FRAMEWORK)
    configuration = _configuration(read_gguf(source))
    plain = staging(output.with_name("f16.gguf"))
    settings = ConvertSettings(input="work/source.gguf", output="work/f16.gguf")
    try:
        made = LlamaCpp().run(replace(task, settings=settings, paths={"input": source, "output": plain}))
        request = {
            "op": "to_ir",
            "input": str(plain),
            "output": str(output),
            "files": {name: json.dumps(content, indent=2) + "\n" for name, content in configuration.items()},
            "threads": task.threads,
        }
        done = _make(request, task.watch)
    finally:
        discard(plain)
    same = compared(
        model_ids(source, "llama.cpp", task.watch), model_ids(output, FRAMEWORK, task.watch), "The OpenVINO model"
    )
    peak = max(done.peak_rss_bytes, made.get("peak_rss_bytes", 0))
    return {**done.result, **same, "dequantized": not made["linked"], "peak_rss_bytes": peak}


def compress(task: Task, settings: QuantizeSettings, papers: Sequence[str] = ()) -> dict[str, Any]:
    """Let NNCF write `output` from `input`; `papers` of the folder are copied with what every folder has."""
    assert settings.compression is not None
    passes = [
        {**step.model_dump(exclude={"roles"}), "parts": parts_of(step.roles)} for step in settings.compression.passes
    ]
    estimates = any(step.scale_estimation for step in settings.compression.passes)
    request = {
        "op": "compress",
        "input": str(task.paths["input"]),
        "output": str(task.paths["output"]),
        "passes": passes,
        "text": str(CALIBRATION_TEXT) if estimates else "",
        "samples": SAMPLES,
        "sample_tokens": SAMPLE_TOKENS,
        "papers": list(papers),
    }
    done = _make(request, task.watch)
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}


def parts_of(roles: list[str]) -> list[str]:
    """What the weights of `roles` (GGUF's names) have in their names in a graph; AdvisorError `bad-plan` for others."""
    parts = [part for role in roles for part in hf_parts(role)]
    if roles and not parts:
        raise AdvisorError(
            "bad-plan", f"No weights are called {', '.join(roles)}.", "name roles such as ffn_gate or attn_v"
        )
    return parts


def _integrity(task: Task, settings: ValidateSettings) -> dict[str, Any]:
    made = task.made.compression if task.made else None
    planned = [(step, parts_of(step.roles)) for step in made.passes] if made else None
    return integrity(
        task.paths["artifact"],
        reference=task.paths.get("reference"),
        planned=planned,
        expected_bytes=settings.expected_bytes,
        watch=task.watch,
    )


def _make(request: dict[str, Any], watch: Watch) -> WorkerResult:
    patient = watch.patient  # neither GenAI nor NNCF tells how far it is
    return run_worker(interpreter_for(FRAMEWORK), FRAMEWORK, request, patient)


# What GenAI's users find in config.json, by the GGUF's architecture: the class and the model_type of Hugging Face.
_CLASSES = {  # the architectures of openvino_genai's GGUF reader, 2026.4.1
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
}


def _configuration(header: GgufFile) -> dict[str, dict[str, Any]]:
    """config.json and generation_config.json in Hugging Face's terms, from what the GGUF's header says."""
    said = header.metadata
    architecture = str(said["general.architecture"])
    if architecture not in _CLASSES:
        known = ", ".join(sorted(_CLASSES))
        raise AdvisorError(
            "unserved-architecture",
            f"OpenVINO GenAI's GGUF reader does not know {architecture} models (it knows {known}).",
            "plan for llama.cpp, or export the original checkpoint with optimum-cli",
            EXIT_STEP_FAILED,
        )
    name, model_type = _CLASSES[architecture]
    tokens = {
        f"{kind}_token_id": said[f"tokenizer.ggml.{key}_token_id"]
        for kind, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
        if f"tokenizer.ggml.{key}_token_id" in said
    }

    def number(key: str) -> Any:
        return said.get(f"{architecture}.{key}")

    config = {
        "architectures": [name],
        "model_type": model_type,
        "num_hidden_layers": number("block_count"),
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base"),
        "max_position_embeddings": number("context_length"),
        "vocab_size": next((t.rows for t in header.tensors if t.role == "token_embd"), None),
        "tie_word_embeddings": all(tensor.role != "output" for tensor in header.tensors),
        **tokens,
    }
    return {
        "config.json": {key: value for key, value in config.items() if value is not None},
        "generation_config.json": tokens,
    }
