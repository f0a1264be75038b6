"""The OpenVINO calls of a run as a plain script makes them: no worker, no folder, no hashes. Used by overhead.py; see
direct_parts for what it reads and prints. Run by the Python of the OpenVINO toolchain.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

os.environ["NNCF_CI"] = "1"  # no telemetry

import direct_parts
import nncf
import numpy as np
import openvino as ov
import openvino_genai as genai
from direct_parts import Job

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
MODEL = "openvino_model.xml"


def convert(job: Job, text: str) -> None:
    folder = Path(job["reference"])
    folder.mkdir()
    os.link(job["plain"], folder / "source.gguf")
    genai.LLMPipeline(str(folder / "source.gguf"), "CPU", enable_save_ov_model=True)
    (folder / "source.gguf").unlink()


def compress(job: Job, text: str) -> None:
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


def smoke(job: Job, text: str) -> None:
    direct_parts.smoke(Model(job["threads"], {}, job["artifact"]), job)


def distribution(job: Job, text: str) -> None:
    direct_parts.distribution(partial(Model, job["threads"], EXACT), job, text)


def benchmark(job: Job, text: str) -> None:
    """As direct_parts.benchmark, by GenAI's own pipeline."""
    settings = genai.GenerationConfig()
    settings.do_sample, settings.ignore_eos = False, True
    for _ in range(job["pairs"] + 1):
        for path in (job["reference"], job["artifact"]):
            pipeline = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=job["threads"])
            prompt = pipeline.get_tokenizer().encode(text).input_ids.data[:, : job["prompt_tokens"]]
            for tokens, count in ((prompt[:, : direct_parts.WARM_UP], 2), (prompt, job["decode_tokens"] + 1)):
                settings.max_new_tokens = count
                pipeline.generate(ov.Tensor(tokens.copy()), settings)


class Model:
    """A compiled model folder with its infer request."""

    batch = 128

    def __init__(self, threads: int, options: dict[str, str], path: str) -> None:
        self.tokenizer = genai.Tokenizer(path)
        compiled = ov.Core().compile_model(f"{path}/{MODEL}", "CPU", {"INFERENCE_NUM_THREADS": threads, **options})
        self.request = compiled.create_infer_request()

    def clear(self) -> None:
        self.request.reset_state()

    def tokens(self, text: str) -> np.ndarray:
        found: np.ndarray = self.tokenizer.encode(text, add_special_tokens=False).input_ids.data.reshape(-1)
        return found

    def feed(self, tokens: np.ndarray, position: int, every: bool) -> np.ndarray:
        size = len(tokens)
        inputs = {
            "input_ids": tokens.astype(np.int64)[None],
            "attention_mask": np.ones((1, position + size), np.int64),
            "position_ids": np.arange(position, position + size, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self.request.infer(inputs, share_inputs=True)
        logits: np.ndarray = self.request.get_tensor("logits").data[0]
        return logits if every else logits[-1:]


if __name__ == "__main__":
    parts = {"convert": convert, "compress": compress, "smoke": smoke, "distribution": distribution}
    direct_parts.run_parts({**parts, "benchmark": benchmark})
