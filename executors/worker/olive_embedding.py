"""What a worker can do with an encoder in ONNX: make it with Olive's own passes, look, embed, compare, time.

A model folder holds model.onnx, tokenizer.json and what says how token vectors become one. What Olive reports proves
nothing: what it made is loaded and embeds a text before it counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime 1.32 itself asks the network unless it is told not to

import onnx
import onnxruntime
from tokenizers import Tokenizer

from . import encoding, olive_make, onnx_graph
from .protocol import Operation, Request, WorkerError, progress

MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
OUTPUT = "last_hidden_state"
OPSET = 18  # the one that torch's exporter writes without a conversion
_PACKED = "_quantized"  # what ONNX Runtime's quantizer adds to a weight's name
_LEAST_ELEMENTS = 16  # smaller constants are shapes, axes and epsilons


def build(request: Request) -> dict[str, Any]:
    """Write the Hugging Face folder `input` as the model folder `output` in 32 bits, with its `papers`.

    By torch.export: Olive's other exporter does not take what transformers 5 gives an encoder. Returns and raises as
    olive_make.build, and `unsupported-tokenizer`.
    """
    source = Path(request["input"])
    if not (source / TOKENIZER).is_file():
        raise WorkerError("unsupported-tokenizer", f"The model has no {TOKENIZER}, which ONNX folders are read with.")
    model = {"type": "HfModel", "model_path": str(source), "task": "feature-extraction"}
    passes = {"convert": {"type": "OnnxConversion", "use_dynamo_exporter": True, "target_opset": OPSET}}
    return olive_make.made(request, model, passes, finish=_finish(request, source, trim=True))


def quantize(request: Request) -> dict[str, Any]:
    """Write the 32-bit model folder `input` as the new folder `output` in 8 bits by ONNX Runtime's dynamic
    quantization: weights in uint8 with a scale per output channel (tables: one scale), activations as they come.

    Unsigned weights: signed ones overflow the 16-bit sums of CPUs without VNNI. Returns and raises as `build`.
    """
    source = Path(request["input"])
    model = {"type": "ONNXModel", "model_path": str(source / MODEL)}
    passes = {"quantize": {"type": "OnnxDynamicQuantization", "precision": "uint8", "per_channel": True}}
    return olive_make.made(request, model, passes, finish=_finish(request, source, trim=False))


def _finish(request: Request, source: Path, *, trim: bool) -> Callable[[Path, int], None]:
    def finish(output: Path, threads: int) -> None:
        if not (output / MODEL).is_file():
            raise WorkerError("nothing-made", f"Olive ended without an error and made no {MODEL}.")
        if trim:
            _trim(output / MODEL)
        encoding.copy_papers(source, output, request["papers"])
        try:
            session = Session({"model": str(output), "threads": threads, "max_tokens": request["max_tokens"]})
            encoding.vector(session, session.tokenize("One, two, three, four."), "mean")
        except WorkerError as error:
            message = f"Olive reports this model as made, and it does not run. {error.message}"
            raise WorkerError("does-not-load", message) from error

    return finish


def _trim(path: Path) -> None:
    """Take what the vectors do not need out of the graph at `path`: BERT's pooler, its weights with it."""
    model = onnx_graph.read_graph(path)
    outputs = [str(output.name) for output in model.graph.output]
    if OUTPUT not in outputs:
        raise WorkerError("renamed-output", f"The encoder's output is called {outputs[0]} and not {OUTPUT}.")
    if len(outputs) > 1:
        inputs = [str(one.name) for one in model.graph.input]
        onnx.save(onnx.utils.Extractor(model).extract_model(inputs, [OUTPUT]), str(path))


class Session:
    """`request["model"]` on the CPU; see encoding.Encoder."""

    def __init__(self, request: Request) -> None:
        started = time.perf_counter()
        folder = Path(request["model"])
        self._tokenizer = load_tokenizer(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, int(request.get("threads", 1)))
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / MODEL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own classes have no common base
            message = f"ONNX Runtime cannot load the model: {_words(error)}."
            raise WorkerError("cannot-load", message) from error
        self._inputs = {str(one.name) for one in self._session.get_inputs()}
        outputs = {str(one.name): one.shape for one in self._session.get_outputs()}
        if self._inputs - encoding.INPUTS or OUTPUT not in outputs:
            raise WorkerError("cannot-load", f"This is not an ONNX encoder with {OUTPUT}.")
        width = outputs[OUTPUT][-1]
        if not isinstance(width, int):
            raise WorkerError("cannot-load", f"The graph does not say how wide {OUTPUT} is.")
        self.dimension = width
        self.devices = ["CPU"]
        self._limit = int(request["max_tokens"])
        self.load_seconds = time.perf_counter() - started

    def tokenize(self, text: str) -> list[int]:
        return encoding.cut(self._tokenizer.encode(text).ids, self._limit)

    def hidden(self, tokens: Sequence[int]) -> encoding.Vectors:
        try:
            states: encoding.Vectors = self._session.run([OUTPUT], encoding.inputs(tokens, self._inputs))[0][0]
        except Exception as error:  # as above
            raise WorkerError("worker-error", f"ONNX Runtime cannot evaluate the model: {_words(error)}.") from error
        return states


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer.json, without the padding and cutting that it may ask for: both are the caller's."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # the library raises Exception itself
        raise WorkerError("cannot-load", f"The tokenizer cannot be read: {_words(error)}.") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _words(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__


def scan(request: Request) -> dict[str, Any]:
    """What the graph of the folder `model` stores, in the words of ir.look; a weight is named as in the 32-bit model.

    A matrix has its scales, and its zero points, counted with it; integers that are no weights are left out.
    """
    path = Path(request["model"]) / MODEL
    graph = onnx_graph.read_graph(path).graph
    with onnx_graph.well_formed(path):
        return {"weights": _look({str(tensor.name): tensor for tensor in graph.initializer}, path)}


def _look(stored: Mapping[str, onnx.TensorProto], path: Path) -> list[dict[str, Any]]:
    rows, seen = [], 0
    for name, tensor in stored.items():
        seen += 1
        progress(seen, len(stored), "looking at weights")
        base = name.removesuffix(_PACKED)
        if _part_of(name, stored) or onnx_graph.count(tensor) < _LEAST_ELEMENTS:
            continue
        floats = tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        if floats or name != base:
            rows.append(_row(base, tensor, stored, path, packed=name != base))
    return rows


def _part_of(name: str, stored: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether a constant is the scales or zero points of a packed one."""
    base = next((name.removesuffix(end) for end in ("_scale", "_zero_point") if name.endswith(end)), None)
    return base is not None and f"{base}{_PACKED}" in stored


def _row(
    name: str, tensor: onnx.TensorProto, stored: Mapping[str, onnx.TensorProto], path: Path, *, packed: bool
) -> dict[str, Any]:
    around = [stored[f"{name}{end}"] for end in ("_scale", "_zero_point") if f"{name}{end}" in stored] if packed else []
    if packed and not around:
        raise WorkerError("damaged-file", f"{name} has no scales.")
    not_finite, zeros = onnx_graph.values_of(around[0] if packed else tensor, path)
    kinds = {onnx.TensorProto.UINT8: "u8", onnx.TensorProto.INT8: "i8", onnx.TensorProto.FLOAT16: "f16"}
    return {
        "name": name.removesuffix("_Transposed"),
        "weight": len(tensor.dims) > 1,
        "type": kinds.get(tensor.data_type, "f32"),
        "shape": [int(size) for size in tensor.dims],
        "elements": onnx_graph.count(tensor),
        "bytes": sum(map(onnx_graph.stored_bytes, (tensor, *around))),
        "not_finite": not_finite,
        "zero_share": zeros,
    }


def token_ids(request: Request) -> dict[str, Any]:
    """`ids`: the tokens of each of `texts`, special tokens around them, at most `max_tokens`."""
    tokenizer, limit = load_tokenizer(Path(request["model"])), int(request["max_tokens"])
    return {"ids": [encoding.cut(tokenizer.encode(str(text)).ids, limit) for text in request["texts"]]}


def bench(request: Request) -> dict[str, Any]:
    """One timing, loaded anew: tokens, graph and pooling of one text after the other; see encoding.timed."""
    session = Session(request)
    pooling = str(request["pooling"])
    embed = lambda text: encoding.vector(session, session.tokenize(text), pooling)  # noqa: E731
    return encoding.timed(request, embed, session.load_seconds)


OPERATIONS: dict[str, Operation] = {
    "build": build,
    "quantize": quantize,
    "scan": scan,
    "smoke": lambda request: encoding.smoke(Session(request), request),
    "embed": lambda request: encoding.embed(Session(request), request),
    "token_ids": token_ids,
    "bench": bench,
}
