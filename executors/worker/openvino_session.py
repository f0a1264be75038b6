"""One OpenVINO model folder loaded for evaluation: its tokenizer, its logits piece by piece, what really runs it.

Raises WorkerError `cannot-load`. The model is stateful: the key-value cache lies in the infer request and grows.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from .evaluation import Logits, Tokens
from .protocol import Request, WorkerError

MODEL_FILE = "openvino_model.xml"
INPUTS = {"input_ids", "attention_mask", "beam_idx"}  # and, but for some with a state, position_ids
# For judging weights: no rounding of the runtime's own. By default activations are quantized in groups of 32.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}


def first_sentence(error: Exception) -> str:
    """What a native exception says, without the places in the source that threw it."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return (telling[-1] if telling else type(error).__name__).rstrip(".")[:300]


def read_model(path: str) -> ov.Model:
    """The model of the folder `path`, its weights mapped into memory."""
    file = Path(path) / MODEL_FILE
    if not file.is_file():
        raise WorkerError("cannot-load", f"There is no {MODEL_FILE} in {path}.")
    try:
        return ov.Core().read_model(str(file))
    except (RuntimeError, ValueError) as error:
        raise WorkerError("cannot-load", f"OpenVINO cannot read the model: {first_sentence(error)}.") from error


def load_tokenizer(path: str) -> genai.Tokenizer:
    """Tokenizer and detokenizer of the folder `path`."""
    try:
        return genai.Tokenizer(path)
    except (RuntimeError, ValueError) as error:
        raise WorkerError("cannot-load", f"OpenVINO cannot load the tokenizer: {first_sentence(error)}.") from error


def tokenize(tokenizer: genai.Tokenizer, text: str, *, start: bool = False) -> Tokens:
    """Token ids of `text`; with `start`, what the model expects in front of every text comes first."""
    try:
        ids = tokenizer.encode(text, add_special_tokens=start).input_ids.data
    except RuntimeError as error:
        raise WorkerError("tokenizer-mismatch", f"The tokenizer fails: {first_sentence(error)}.") from error
    tokens: Tokens = ids.reshape(-1).astype(np.int32)
    return tokens


def runtime_options(request: Request) -> dict[str, Any]:
    """The plugin's options: `threads` of the request (1), and EXACT where it asks for `exact` logits."""
    options: dict[str, Any] = {"INFERENCE_NUM_THREADS": max(1, int(request.get("threads", 1)))}
    return {**options, **EXACT} if request.get("exact") else options


def input_names(model: ov.Model) -> set[str]:
    return {name for port in model.inputs for name in port.get_names()}


def model_inputs(tokens: Tokens, position: int, names: Collection[str]) -> dict[str, Any]:
    """Those inputs that a model with the inputs `names` takes, for one sequence whose `position` tokens it has read."""
    end = position + len(tokens)
    inputs = {
        "input_ids": tokens.astype(np.int64)[None],
        "attention_mask": np.ones((1, end), np.int64),
        "position_ids": np.arange(position, end, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    return {name: value for name, value in inputs.items() if name in names}


class Session:
    """`request["model"]`, compiled for the CPU with `n_ctx` tokens at most; see evaluation.Model."""

    def __init__(self, request: Request, *, batch_tokens: int) -> None:
        started = time.perf_counter()
        path = str(request["model"])
        self.tokenizer = load_tokenizer(path)
        model = read_model(path)
        names = input_names(model)
        if INPUTS - names or "logits" not in model.outputs[0].get_names():
            raise WorkerError("cannot-load", "This is not a stateful OpenVINO language model with logits.")
        try:
            compiled = ov.Core().compile_model(model, "CPU", runtime_options(request))
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise WorkerError("cannot-load", f"OpenVINO cannot compile the model: {first_sentence(error)}.") from error
        self._inputs = names
        self.vocabulary = int(model.outputs[0].partial_shape[2].get_length())
        self.devices = [str(device) for device in compiled.get_property("EXECUTION_DEVICES")]
        self.kv_cache = str(compiled.get_property("KV_CACHE_PRECISION").to_string())
        self.n_ctx = max(16, int(request["n_ctx"]))
        self.batch_tokens = min(batch_tokens, self.n_ctx)
        start, bare = (tokenize(self.tokenizer, "a", start=start) for start in (True, False))
        self.first_token = int(start[0]) if len(start) > len(bare) else None
        self.load_seconds = time.perf_counter() - started

    def tokenize(self, text: str, *, special: bool) -> Tokens:
        """See evaluation.Model. OpenVINO's tokenizers always take written-out special tokens as such."""
        return tokenize(self.tokenizer, text)

    def detokenize(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(np.array([tokens], np.int64))[0]) if tokens else ""

    def ends(self, token: int) -> bool:
        return token == int(self.tokenizer.get_eos_token_id())

    def clear(self) -> None:
        self._request.reset_state()

    def feed(self, tokens: Tokens, position: int, *, every: bool) -> Logits:
        inputs = model_inputs(tokens, position, self._inputs)
        try:
            self._request.infer(inputs, share_inputs=True)
        except RuntimeError as error:
            raise WorkerError(
                "worker-error", f"OpenVINO cannot evaluate the model: {first_sentence(error)}."
            ) from error
        logits: Logits = self._request.get_tensor("logits").data[0]
        return logits if every else logits[-1:]
