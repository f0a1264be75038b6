"""One ONNX Runtime GenAI folder loaded for evaluation: its tokenizer, its logits piece by piece.

Raises WorkerError `cannot-load`. The generator keeps the tokens that it has seen and can go back to any of them.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai

from .evaluation import Logits, Tokens
from .protocol import Request, WorkerError

CONFIG_FILE = "genai_config.json"
LEAST_CONTEXT = 16
MAX_CONFIG_BYTES = 1024**2


def first_sentence(error: Exception) -> str:
    """What a native exception says, on one line."""
    return " ".join(str(error).split()).rstrip(".")[:300] or type(error).__name__


@dataclass(frozen=True, slots=True)
class About:
    """What genai_config.json says: the graph's file in the folder, its output with logits, and how many tokens there
    are. `logits` is empty where the decoder is a pipeline of several graphs, of which `file` is the first."""

    file: Path
    logits: str
    vocabulary: int


def read_config(folder: Path) -> About:
    """The folder's genai_config.json. Raises `cannot-load`."""
    try:
        with (folder / CONFIG_FILE).open("rb") as file:
            model = json.loads(file.read(MAX_CONFIG_BYTES))["model"]
        decoder = model["decoder"]
        if "filename" in decoder:
            path, logits = folder / Path(str(decoder["filename"])).name, str(decoder["outputs"]["logits"])
        else:
            path, logits = min(folder.glob("*.onnx")), ""
        return About(path, logits, int(model["vocab_size"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise WorkerError("cannot-load", f"There is no usable {CONFIG_FILE} in {folder}.") from error


def load(request: Request, **search: Any) -> tuple[genai.Model, genai.GeneratorParams]:
    """`request["model"]` with `threads` (1), and parameters for generators with the options `search`."""
    threads = max(1, int(request.get("threads", 1)))
    options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
    try:
        config = genai.Config(str(request["model"]))
        config.overlay(json.dumps(options))
        model = genai.Model(config)
        params = genai.GeneratorParams(model)
        params.set_search_options(**search)
    except (RuntimeError, ValueError, TypeError) as error:
        message = f"ONNX Runtime GenAI cannot load the model: {first_sentence(error)}."
        raise WorkerError("cannot-load", message) from error
    return model, params


class Session:
    """`request["model"]` with a context of at most `n_ctx` tokens; see evaluation.Model."""

    def __init__(self, request: Request, *, batch_tokens: int) -> None:
        started = time.perf_counter()
        about = read_config(Path(request["model"]))
        self.n_ctx = max(LEAST_CONTEXT, int(request["n_ctx"]))
        self.batch_tokens = min(batch_tokens, self.n_ctx)
        self.vocabulary = about.vocabulary
        self._model, self._params = load(request, max_length=self.n_ctx)
        try:
            self.tokenizer = genai.Tokenizer(self._model)
            self._generator = genai.Generator(self._model, self._params)
            self._logits = about.logits or "logits"
            start = [int(token) for token in self.tokenizer.encode("")]
        except (RuntimeError, ValueError) as error:
            message = f"ONNX Runtime GenAI cannot open the model: {first_sentence(error)}."
            raise WorkerError("cannot-load", message) from error
        self.first_token = start[0] if start else None
        self.device = str(self._model.device_type)
        self.load_seconds = time.perf_counter() - started

    def tokenize(self, text: str, *, special: bool) -> Tokens:
        """See evaluation.Model. GenAI's tokenizers always take written-out special tokens as such."""
        try:
            tokens = np.asarray(self.tokenizer.encode(text), np.int32)
        except RuntimeError as error:
            raise WorkerError("tokenizer-mismatch", f"The tokenizer fails: {first_sentence(error)}.") from error
        return tokens[1:] if self.first_token is not None else tokens

    def detokenize(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(np.array(tokens, np.int32))) if tokens else ""

    def ends(self, token: int) -> bool:
        return token in set(self.tokenizer.eos_token_ids)

    def clear(self) -> None:
        if not self._generator.token_count():
            return
        try:
            self._generator.rewind_to(0)
        except RuntimeError:  # models with a state besides the cache cannot go back
            self._generator = genai.Generator(self._model, self._params)

    def feed(self, tokens: Tokens, position: int, *, every: bool) -> Logits:
        try:
            if position != self._generator.token_count():
                self._generator.rewind_to(position)
            self._generator.append_tokens(tokens.astype(np.int32))
            logits: Logits = np.asarray(self._generator.get_output(self._logits), np.float32)[0]
        except RuntimeError as error:
            message = f"ONNX Runtime GenAI cannot evaluate the model: {first_sentence(error)}."
            raise WorkerError("worker-error", message) from error
        if logits.shape[-1] != self.vocabulary:
            raise WorkerError(
                "cannot-load", f"The model gives {logits.shape[-1]} logits and names {self.vocabulary} tokens."
            )
        return logits if every else logits[-1:]
