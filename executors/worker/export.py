"""A Hugging Face folder as the 16-bit model of a framework: a GGUF by llama.cpp's own converter, an OpenVINO model
folder by optimum. Runs in the `export` environment, which has torch and transformers.

Nothing is looked up on a network, and no code that came with the model is run.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import encoding
from .older import prefer_older
from .protocol import Operation, Request, WorkerError, progress

CONVERTER = Path(sys.prefix) / "share" / "llama.cpp"  # where the toolchain keeps it (executors/toolchains)
IR_FILES = tuple(f"openvino_{part}.{end}" for part in ("model", "tokenizer", "detokenizer") for end in ("xml", "bin"))
_UNKNOWN = re.compile(
    r"not supported|unsupported|not recognized|does not recognize|custom or unsupported", re.IGNORECASE
)


@contextmanager
def _alone() -> Iterator[None]:
    """Offline, with a cache folder of its own: what a tokenizer's configuration names elsewhere is not found."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ.update(
            HF_HUB_OFFLINE="1", HF_HOME=cache, HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false",
            NNCF_CI="1",
        )  # fmt: skip
        yield


def to_gguf(request: Request) -> dict[str, Any]:
    """Write the checkpoint `input` as the GGUF `output` of `type` (F16). Returns `bytes`, `seconds`.

    Raises `toolchain-missing` (no converter in this environment), `unserved-architecture`, `convert-failed`.
    """
    if not (CONVERTER / "convert_hf_to_gguf.py").is_file():
        raise WorkerError("toolchain-missing", "The export environment lacks llama.cpp's converter.")
    output = Path(request["output"])
    started = time.perf_counter()
    progress(0, 2, "loading torch")
    with _alone():
        sys.path.insert(0, str(CONVERTER))
        sys.argv = [
            "convert_hf_to_gguf.py", str(request["input"]), "--outtype", str(request["type"]).lower(),
            "--outfile", str(output),
        ]  # fmt: skip
        try:
            import convert_hf_to_gguf  # type: ignore[import-not-found]

            progress(1, 2, "converting to GGUF")
            convert_hf_to_gguf.main()
        except SystemExit as error:
            if error.code:
                raise _unserved("llama.cpp's converter", request) from error
        except (NotImplementedError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise _refusal("llama.cpp's converter", error, request) from error
    if not output.is_file():
        raise WorkerError("convert-failed", "llama.cpp's converter ended well and wrote nothing.")
    with output.open("rb+") as file:
        os.fsync(file.fileno())
    return {"bytes": output.stat().st_size, "seconds": time.perf_counter() - started}


def to_ir(request: Request) -> dict[str, Any]:
    """Write the checkpoint `input` as the 16-bit OpenVINO model folder `output`, an encoder (`encoder` true) in 32 bits
    and with its `papers`, files of the checkpoint; `older`: by the older transformers. Returns `bytes`, `seconds`.

    Raises `unserved-architecture`, `unsupported-tokenizer`, `convert-failed`.
    """
    output, encoder = Path(request["output"]), bool(request.get("encoder"))
    started = time.perf_counter()
    progress(0, 2, "loading torch")
    prefer_older(request)
    with _alone():
        from optimum.exporters.openvino import main_export  # type: ignore[import-not-found]
        from optimum.intel.openvino.configuration import OVConfig  # type: ignore[import-not-found]

        progress(1, 2, "exporting to OpenVINO")
        try:
            main_export(
                str(request["input"]),
                output,
                task="feature-extraction" if encoder else "text-generation-with-past",
                library_name="transformers" if encoder else None,
                ov_config=OVConfig(dtype="fp32" if encoder else "fp16"),
                convert_tokenizer=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (NotImplementedError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise _refusal("optimum", error, request) from error
    missing = [name for name in IR_FILES if not (output / name).is_file()]
    if missing:
        code = "convert-failed" if "model" in missing[0] else "unsupported-tokenizer"
        raise WorkerError(code, f"optimum wrote no {missing[0]} for this model.")
    if encoder:
        for path in output.iterdir():
            if path.name not in (*IR_FILES, "config.json"):
                path.unlink()  # a second tokenizer, of transformers
        encoding.copy_papers(Path(request["input"]), output, request["papers"])
    return {
        "bytes": sum(f.stat().st_size for f in output.rglob("*") if f.is_file()),
        "seconds": time.perf_counter() - started,
    }


def _refusal(who: str, error: Exception, request: Request) -> WorkerError:
    words = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
    if "pre-tokenizer was not recognized" in words:
        return WorkerError("unsupported-tokenizer", f"{who} does not know this model's tokenizer.")
    if _UNKNOWN.search(words):
        return _unserved(who, request)
    return WorkerError("convert-failed", f"{who} cannot convert this model: {words}.")


def _unserved(who: str, request: Request) -> WorkerError:
    return WorkerError("unserved-architecture", f"{who} does not know {request['architecture']} models.")


OPERATIONS: dict[str, Operation] = {"to_gguf": to_gguf, "to_ir": to_ir}
