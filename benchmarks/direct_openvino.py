"""The OpenVINO calls of a run as a plain script makes them: no worker, no folder, no hashes. Used by overhead.py.

Run by the Python of the OpenVINO toolchain. Reads one JSON object on standard input (paths and sizes, see overhead.py),
prints the seconds of each part as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["NNCF_CI"] = "1"  # no telemetry

import nncf
import numpy as np
import openvino as ov
import openvino_genai as genai

BATCH = 128
WARM_UP = 8  # tokens
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
MODEL = "openvino_model.xml"


def main() -> None:
    job = json.load(sys.stdin)
    text = Path(job["text"]).read_text(encoding="utf-8")
    seconds = {}
    for part, work in PARTS.items():
        start = time.perf_counter()
        work(job, text)
        seconds[part] = round(time.perf_counter() - start, 3)
    print(json.dumps(seconds))


def convert(job: dict[str, Any], text: str) -> None:
    folder = Path(job["reference"])
    folder.mkdir()
    os.link(job["plain"], folder / "source.gguf")
    genai.LLMPipeline(str(folder / "source.gguf"), "CPU", enable_save_ov_model=True)
    (folder / "source.gguf").unlink()


def compress(job: dict[str, Any], text: str) -> None:
    model = ov.Core().read_model(f"{job['reference']}/{MODEL}")
    for step in job["passes"]:
        parts = step["parts"]
        options = {"mode": nncf.CompressWeightsMode(step["mode"])}
        if parts:
            large = (op for op in model.get_ordered_ops() if op.get_type_name() == "Constant" and op.data.size > 2**14)
            others = [
                op.get_friendly_name() for op in large if not any(part in op.get_friendly_name() for part in parts)
            ]
            options["ignored_scope"] = nncf.IgnoredScope(names=others, validate=False)
        if not step["mode"].startswith("int8"):
            options |= {"group_size": step["group_size"], "ratio": step["ratio"]}
        model = nncf.compress_weights(model, **options)
    shutil.copytree(job["reference"], job["artifact"], ignore=lambda *_: [MODEL, "openvino_model.bin"])
    ov.save_model(model, f"{job['artifact']}/{MODEL}", compress_to_fp16=False)


def smoke(job: dict[str, Any], text: str) -> None:
    model = Model(job["artifact"], job["threads"], {})
    for prompt in job["prompts"]:
        model.generate(model.tokens(prompt), job["answer_tokens"])


def distribution(job: dict[str, Any], text: str) -> None:
    """Perplexity of both and the mean KL divergence, over the same tokens in the same windows."""
    rows = job["blocks"] * job["block_tokens"]
    window = (job["context"] - 1) // job["block_tokens"] * job["block_tokens"]
    reference = Model(job["reference"], job["threads"], EXACT)
    tokens = reference.tokens(text)[: rows + 1]
    rows, done, kept = len(tokens) - 1, 0, None
    for logits, _ in reference.windows(tokens, window):
        if kept is None:
            kept = np.memmap(job["scores"], np.float16, "w+", shape=(rows, logits.shape[1]))
        kept[done : done + len(logits)] = _log_softmax(logits)
        done += len(logits)
    assert kept is not None
    artifact = Model(job["artifact"], job["threads"], EXACT)
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
    """A warming pair and then the timed ones, reference and artifact in turn, each loaded anew and warmed up."""
    settings = genai.GenerationConfig()
    settings.do_sample, settings.ignore_eos = False, True
    for _ in range(job["pairs"] + 1):
        for path in (job["reference"], job["artifact"]):
            pipeline = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=job["threads"])
            prompt = pipeline.get_tokenizer().encode(text).input_ids.data[:, : job["prompt_tokens"]]
            for tokens, count in ((prompt[:, :WARM_UP], 2), (prompt, job["decode_tokens"] + 1)):
                settings.max_new_tokens = count
                pipeline.generate(ov.Tensor(tokens.copy()), settings)


PARTS = {
    "convert": convert,
    "compress": compress,
    "smoke": smoke,
    "distribution": distribution,
    "benchmark": benchmark,
}


class Model:
    """A compiled model folder with its infer request."""

    def __init__(self, path: str, threads: int, options: dict[str, str]) -> None:
        self.tokenizer = genai.Tokenizer(path)
        compiled = ov.Core().compile_model(f"{path}/{MODEL}", "CPU", {"INFERENCE_NUM_THREADS": threads, **options})
        self.request = compiled.create_infer_request()

    def tokens(self, text: str) -> np.ndarray:
        found: np.ndarray = self.tokenizer.encode(text, add_special_tokens=False).input_ids.data.reshape(-1)
        return found

    def feed(self, tokens: np.ndarray, position: int) -> np.ndarray:
        size = len(tokens)
        inputs = {
            "input_ids": tokens.astype(np.int64)[None],
            "attention_mask": np.ones((1, position + size), np.int64),
            "position_ids": np.arange(position, position + size, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self.request.infer(inputs, share_inputs=True)
        logits: np.ndarray = self.request.get_tensor("logits").data[0]
        return logits

    def generate(self, prompt: np.ndarray, count: int) -> None:
        self.request.reset_state()
        logits = self.feed(prompt, 0)
        for made in range(count):
            logits = self.feed(np.array([logits[-1].argmax()]), len(prompt) + made)

    def windows(self, tokens: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(1, len(tokens), window):
            self.request.reset_state()
            targets = tokens[start : start + window]
            for at in range(0, len(targets), BATCH):
                here = targets[at : at + BATCH]
                yield self.feed(tokens[start - 1 + at : start - 1 + at + len(here)], at), here


if __name__ == "__main__":
    main()
