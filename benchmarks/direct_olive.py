"""The Olive and ONNX Runtime GenAI calls of a run as a plain script makes them: no worker, no folder, no hashes; used
by overhead.py. See direct_parts for what it reads and prints; `plain` is the Hugging Face folder that it starts from.
Run by the Python of the Olive toolchain.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(CI="1", OLIVE_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1", ORT_DISABLE_TELEMETRY="1")

import direct_parts
import numpy as np
import onnx
import onnxruntime_genai as genai
from direct_parts import Job

EMBEDDING = "/model/embed_tokens/Gather"
PASSES = {"rtn": "OnnxBlockWiseRtnQuantization", "k_quant": "OnnxKQuantQuantization"}
SYSTEM = {
    "type": "LocalSystem",
    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
}


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


def convert(job: Job, text: str) -> None:
    model = {"type": "HfModel", "model_path": job["plain"], "task": "text-generation"}
    olive(model, {"build": {"type": "ModelBuilder", "precision": "fp32"}}, job["reference"])


def quantize(job: Job, text: str) -> None:
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


def smoke(job: Job, text: str) -> None:
    direct_parts.smoke(Model(job["threads"], job["smoke_context"], job["artifact"]), job)


def distribution(job: Job, text: str) -> None:
    direct_parts.distribution(partial(Model, job["threads"], job["context"]), job, text)


def benchmark(job: Job, text: str) -> None:
    """As direct_parts.benchmark, by GenAI's own loop."""
    for _ in range(job["pairs"] + 1):
        for path in (job["reference"], job["artifact"]):
            model = Model(job["threads"], job["bench_context"], path, min_length=job["bench_context"])
            prompt = model.tokens(text)[: job["prompt_tokens"]]
            for tokens, count in ((prompt[: direct_parts.WARM_UP], 1), (prompt, job["decode_tokens"])):
                model.clear()
                model.generator.append_tokens(tokens)
                for _ in range(count + 1):
                    model.generator.generate_next_token()


class Model:
    """A model folder with its generator, for `context` tokens."""

    batch = 128

    def __init__(self, threads: int, context: int, path: str, **search: int) -> None:
        config = genai.Config(path)
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.model = genai.Model(config)
        self.tokenizer = genai.Tokenizer(self.model)
        params = genai.GeneratorParams(self.model)
        params.set_search_options(max_length=context, do_sample=False, **search)
        self.generator = genai.Generator(self.model, params)

    def clear(self) -> None:
        self.generator.rewind_to(0)

    def tokens(self, text: str) -> np.ndarray:
        return np.asarray(self.tokenizer.encode(text), np.int32)

    def feed(self, tokens: np.ndarray, position: int, every: bool) -> np.ndarray:
        self.generator.append_tokens(np.asarray(tokens, np.int32))
        logits = np.asarray(self.generator.get_output("logits"))[0]
        return logits if every else logits[-1:]


if __name__ == "__main__":
    parts = {"convert": convert, "quantize": quantize, "smoke": smoke, "distribution": distribution}
    direct_parts.run_parts({**parts, "benchmark": benchmark})
