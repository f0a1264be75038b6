"""The Olive and ONNX Runtime GenAI calls of a run as a plain script makes them: no worker, no folder, no hashes; used
by overhead.py.

Run by the Python of the Olive toolchain. Reads one JSON object on standard input (paths and sizes, see overhead.py),
prints the seconds of each part as JSON. `plain` is the Hugging Face folder that it starts from.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(CI="1", OLIVE_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1", ORT_DISABLE_TELEMETRY="1")

import numpy as np
import onnx
import onnxruntime_genai as genai

BATCH = 128
HEAD, EMBEDDING = "/lm_head/MatMul", "/model/embed_tokens/Gather"
PASSES = {"rtn": "OnnxBlockWiseRtnQuantization", "k_quant": "OnnxKQuantQuantization"}
SYSTEM = {
    "type": "LocalSystem",
    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
}


def main() -> None:
    job = json.load(sys.stdin)
    text = Path(job["text"]).read_text(encoding="utf-8")
    seconds = {}
    for part, work in PARTS.items():
        start = time.perf_counter()
        work(job, text)
        seconds[part] = round(time.perf_counter() - start, 3)
    print(json.dumps(seconds))


def olive(model: dict[str, Any], passes: dict[str, Any], output: str) -> None:
    from olive.workflows import run

    cache = f"{output}-cache"
    config = {
        "input_model": model, "systems": {"here": SYSTEM}, "host": "here", "target": "here", "passes": passes,
        "cache_dir": cache, "output_dir": output, "log_severity_level": 3,
    }  # fmt: skip
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null):  # the builder prints
        run(config)
    shutil.rmtree(cache)


def convert(job: dict[str, Any], text: str) -> None:
    model = {"type": "HfModel", "model_path": job["plain"], "task": "text-generation"}
    olive(model, {"build": {"type": "ModelBuilder", "precision": "fp32"}}, job["reference"])


def quantize(job: dict[str, Any], text: str) -> None:
    graph = onnx.load(f"{job['reference']}/model.onnx", load_external_data=False).graph
    left = [node.name for node in graph.node if node.op_type == "MatMul"]
    outside = {"save_as_external_data": True, "external_data_name": "model.onnx.data"}
    passes: dict[str, Any] = {}
    for step in job["onnx"]["passes"]:
        left = [name for name in left if step["parts"] and not any(part in name for part in step["parts"])]
        kind = {"is_symmetric": True} if step["algorithm"] == "rtn" else {}
        passes[f"q{len(passes)}"] = {
            "type": PASSES[step["algorithm"]], "bits": step["bits"], "block_size": step["block_size"],
            "accuracy_level": 4, "nodes_to_exclude": [EMBEDDING, *left], **kind, **outside,
        }  # fmt: skip
    surgeries: list[dict[str, Any]] = [{"surgeon": "QuantizeEmbeddingInt8"}, {"surgeon": "ShareEmbeddingLmHead"}]
    surgeries.append({"surgeon": "RenameOutputs", "old_names": ["logits_Q8"], "new_names": ["logits"]})
    passes["surgery"] = {"type": "GraphSurgeries", "surgeries": surgeries, **outside}
    model = {"type": "ONNXModel", "model_path": f"{job['reference']}/model.onnx"}
    olive(model, passes, job["artifact"])
    for path in Path(job["reference"]).iterdir():
        if not path.name.startswith("model.") and not (Path(job["artifact"]) / path.name).exists():
            shutil.copyfile(path, Path(job["artifact"]) / path.name)


def smoke(job: dict[str, Any], text: str) -> None:
    model = Model(job["artifact"], job["threads"], job["smoke_context"])
    for prompt in job["prompts"]:
        model.generate(model.tokenizer.encode(prompt), job["answer_tokens"])


def distribution(job: dict[str, Any], text: str) -> None:
    """Perplexity of both and the mean KL divergence, over the same tokens in the same windows."""
    rows = job["blocks"] * job["block_tokens"]
    window = (job["context"] - 1) // job["block_tokens"] * job["block_tokens"]
    reference = Model(job["reference"], job["threads"], job["context"])
    tokens = np.asarray(reference.tokenizer.encode(text))[: rows + 1]
    rows, done, kept = len(tokens) - 1, 0, None
    for logits, _ in reference.windows(tokens, window):
        if kept is None:
            kept = np.memmap(job["scores"], np.float16, "w+", shape=(rows, logits.shape[1]))
        kept[done : done + len(logits)] = _log_softmax(logits)
        done += len(logits)
    assert kept is not None
    artifact = Model(job["artifact"], job["threads"], job["context"])
    nll, kl, done = 0.0, 0.0, 0
    for logits, targets in artifact.windows(tokens, window):
        q, p = _log_softmax(logits), kept[done : done + len(logits)].astype(np.float32)
        nll -= float(q[np.arange(len(targets)), targets].sum())
        kl += float((np.exp(p) * (p - q)).sum())
        done += len(logits)
    print(f"perplexity {np.exp(nll / rows):.3f}, KL divergence {kl / rows:.4f}", file=sys.stderr)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def benchmark(job: dict[str, Any], text: str) -> None:
    """A warming pair and then the timed ones, reference and artifact in turn, each loaded anew."""
    for _ in range(job["pairs"] + 1):
        for path in (job["reference"], job["artifact"]):
            model = Model(path, job["threads"], job["bench_context"])
            prompt = np.asarray(model.tokenizer.encode(text))[: job["prompt_tokens"]]
            model.generate(prompt[:8], 1)
            model.generate(prompt, job["decode_tokens"])


PARTS = {
    "convert": convert,
    "quantize": quantize,
    "smoke": smoke,
    "distribution": distribution,
    "benchmark": benchmark,
}


class Model:
    """A model folder with its generator, for `context` tokens."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        config = genai.Config(path)
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.model = genai.Model(config)
        self.tokenizer = genai.Tokenizer(self.model)
        params = genai.GeneratorParams(self.model)
        params.set_search_options(max_length=context, min_length=context, do_sample=False)
        self.generator = genai.Generator(self.model, params)

    def generate(self, prompt: np.ndarray, count: int) -> None:
        self.generator.rewind_to(0)
        self.generator.append_tokens(np.asarray(prompt, np.int32))
        for _ in range(count + 1):
            self.generator.generate_next_token()

    def windows(self, tokens: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(1, len(tokens), window):
            self.generator.rewind_to(0)
            targets = tokens[start : start + window]
            for at in range(0, len(targets), BATCH):
                here = targets[at : at + BATCH]
                self.generator.append_tokens(tokens[start - 1 + at : start - 1 + at + len(here)].astype(np.int32))
                yield np.asarray(self.generator.get_output("logits"))[0], here


if __name__ == "__main__":
    main()
