"""What a worker can do with an encoder as an OpenVINO model folder: look, embed, compare, time; see OPERATIONS.

The folder is what OpenVINO GenAI's TextEmbeddingPipeline opens; how token vectors become one comes with the request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import openvino as ov
import openvino_genai as genai

from . import encoding, ir
from .openvino_session import first_sentence, load_tokenizer, read_model, runtime_options, tokenize
from .protocol import Operation, Request, WorkerError

OUTPUT = "last_hidden_state"


class Session:
    """`request["model"]` compiled for the CPU; see encoding.Encoder. Arithmetic in 32 bits where `exact`."""

    def __init__(self, request: Request) -> None:
        started = time.perf_counter()
        path = str(request["model"])
        self._tokenizer = load_tokenizer(path)
        model = read_model(path)
        self._inputs = {name for port in model.inputs for name in port.get_names()} & encoding.INPUTS
        if len(model.inputs) != len(self._inputs) or OUTPUT not in model.outputs[0].get_names():
            raise WorkerError("cannot-load", f"This is not an OpenVINO encoder with {OUTPUT}.")
        options = {name: value for name, value in runtime_options(request).items() if name != "KV_CACHE_PRECISION"}
        try:
            compiled = ov.Core().compile_model(model, "CPU", options)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise WorkerError("cannot-load", f"OpenVINO cannot compile the model: {first_sentence(error)}.") from error
        self.dimension = int(model.outputs[0].partial_shape[2].get_length())
        self.devices = [str(device) for device in compiled.get_property("EXECUTION_DEVICES")]
        self._limit = int(request["max_tokens"])
        self.load_seconds = time.perf_counter() - started

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = tokenize(self._tokenizer, text, start=True).tolist()
        return encoding.cut(ids, self._limit)

    def hidden(self, tokens: Sequence[int]) -> encoding.Vectors:
        try:
            self._request.infer(encoding.inputs(tokens, self._inputs), share_inputs=True)
        except RuntimeError as error:
            message = f"OpenVINO cannot evaluate the model: {first_sentence(error)}."
            raise WorkerError("worker-error", message) from error
        states: encoding.Vectors = self._request.get_tensor(OUTPUT).data[0]
        return states


def scan(request: Request) -> dict[str, Any]:
    """Look into the weights of the folder `model`; see ir.look."""
    return {"weights": ir.look(read_model(str(request["model"])))}


def token_ids(request: Request) -> dict[str, Any]:
    """`ids`: the tokens of each of `texts`, special tokens around them, at most `max_tokens`."""
    tokenizer, limit = load_tokenizer(str(request["model"])), int(request["max_tokens"])
    made = [tokenize(tokenizer, str(text), start=True).tolist() for text in request["texts"]]
    return {"ids": [encoding.cut(ids, limit) for ids in made]}


def bench(request: Request) -> dict[str, Any]:
    """One timing, loaded anew, as users run it: GenAI's pipeline with its own defaults; see encoding.timed."""
    settings = genai.TextEmbeddingPipeline.Config()
    kinds = genai.TextEmbeddingPipeline.PoolingType
    settings.pooling_type = kinds.CLS if request["pooling"] == "cls" else kinds.MEAN
    settings.normalize, settings.max_length = True, int(request["max_tokens"])
    started = time.perf_counter()
    try:
        pipeline = genai.TextEmbeddingPipeline(str(request["model"]), "CPU", settings, **runtime_options(request))
    except (RuntimeError, ValueError) as error:
        raise WorkerError("cannot-load", f"OpenVINO GenAI cannot load the model: {first_sentence(error)}.") from error
    loaded = time.perf_counter() - started
    return encoding.timed(request, lambda text: pipeline.embed_documents([text]), loaded)


OPERATIONS: dict[str, Operation] = {
    "scan": scan,
    "smoke": lambda request: encoding.smoke(Session(request), request),
    "embed": lambda request: encoding.embed(Session(request), request),
    "token_ids": token_ids,
    "bench": bench,
}
