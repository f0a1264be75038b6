"""Make a model folder of ONNX Runtime GenAI with Olive's own passes, and prove that it was made.

Olive ends without an error where a pass failed, and reports models as made that ONNX Runtime refuses: so what it made
is looked at, loaded and run before it counts. Olive asks the network and writes below the home directory unless it is
told otherwise: its home, caches and temporary files lie in the folder `scratch` of the request.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import onnx_graph
from .older import prefer_older
from .protocol import Request, WorkerError, progress

MODEL, DATA = "model.onnx", "model.onnx.data"
OWN_PAPERS = {"footprint.json", "output_footprint.json", "model_config.json", "run_history.txt", "olive_config.json"}
# Where a pass's weights go: one file beside the graph, since a graph itself holds at most 2 GB.
EXTERNAL = {"save_as_external_data": True, "all_tensors_to_one_file": True, "external_data_name": DATA}
ACCURACY_LEVEL = 4  # of MatMulNBits: activations in 8 bits, as the CPU kernels are made for
EMBEDDING = "/model/embed_tokens/Gather"  # the builder's names
HEAD = "/lm_head/MatMul"
ALGORITHMS = {"rtn": "OnnxBlockWiseRtnQuantization", "k_quant": "OnnxKQuantQuantization"}


def build(request: Request) -> dict[str, Any]:
    """Write the Hugging Face folder `input` as the model folder `output` with weights in 32 bits.

    `scratch` is a folder of this worker's own, `versions` {package: version} what the recipe was made for, `record`
    where Olive's configuration is kept; `older`: by the older transformers. Returns `bytes`, `seconds`. Raises as
    `made`.
    """
    prefer_older(request)
    model = {"type": "HfModel", "model_path": str(request["input"]), "task": "text-generation"}
    return made(request, model, {"build": {"type": "ModelBuilder", "precision": "fp32"}})


def quantize(request: Request) -> dict[str, Any]:
    """Write the 32-bit model folder `input` as the new folder `output`, its weights quantized by `passes`, in order.

    A pass is `{"algorithm": rtn|k_quant, "bits", "block_size", "parts"}`: those weights that have one of `parts` in
    their name, or all that are left. `embedding`: `int8-shared` (one 8-bit table for embedding and head, which a pass
    has quantized), `int8` or `float32` (shared as it is where both are the same). Returns and raises as `build`.
    """
    source = Path(request["input"])
    names = onnx_graph.matrices(source)
    passes: dict[str, Any] = {}
    head_output = ""
    for step in request["passes"]:
        chosen = [name for name in names if not step["parts"] or any(part in name for part in step["parts"])]
        names = [name for name in names if name not in chosen]
        if HEAD in chosen and step["algorithm"] == "rtn":
            head_output = f"logits_Q{step['bits']}"  # Olive's RTN pass renames what its nodes put out
        passes[f"quantize{len(passes)}"] = {
            "type": ALGORITHMS[step["algorithm"]],
            "bits": step["bits"],
            "block_size": step["block_size"],
            "accuracy_level": ACCURACY_LEVEL,
            "nodes_to_exclude": [EMBEDDING, *names],
            **({"is_symmetric": True} if step["algorithm"] == "rtn" else {}),
            **EXTERNAL,
        }
    passes["surgery"] = {
        "type": "GraphSurgeries",
        "surgeries": _surgeries(request["embedding"], head_output),
        **EXTERNAL,
    }
    papers = [path for path in source.iterdir() if path.name not in (MODEL, DATA)]
    return made(request, {"type": "ONNXModel", "model_path": str(source / MODEL)}, passes, papers)


def _surgeries(embedding: str, head_output: str) -> list[dict[str, Any]]:
    steps = {
        "int8-shared": ["QuantizeEmbeddingInt8", "ShareEmbeddingLmHead"],
        "int8": ["QuantizeEmbeddingInt8"],
        "float32": ["TieWordEmbeddings"],
    }[embedding]
    surgeries: list[dict[str, Any]] = [{"surgeon": name} for name in steps]
    if head_output:
        surgeries.append({"surgeon": "RenameOutputs", "old_names": [head_output], "new_names": ["logits"]})
    return surgeries


def made(
    request: Request,
    model: Mapping[str, Any],
    passes: Mapping[str, Any],
    papers: Sequence[Path] = (),
    finish: Callable[[Path, int], None] | None = None,
) -> dict[str, Any]:
    """Run Olive's `passes` on `model` on the CPU; `papers` go beside what they make. `finish` proves the folder with so
    many threads, `prove` unless it is given.

    Raises WorkerError `wrong-version`, `nothing-made`, `renamed-output`, `does-not-load`, `non-finite-logits`.
    """
    config = {
        "input_model": dict(model),
        "systems": {
            "here": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "passes": dict(passes),
        "host": "here",
        "target": "here",
        "log_severity_level": 1,
    }
    return _workflow(request, config, papers=papers, finish=finish)


def optimize(request: Request) -> dict[str, Any]:
    """Run Olive's `config` and write what it made as the model folder `output`.

    `offline`: whether all data is there. Returns and raises as `build`.
    """
    return _workflow(request, request["config"], offline=bool(request["offline"]))


def _workflow(
    request: Request,
    config: Mapping[str, Any],
    *,
    offline: bool = True,
    papers: Sequence[Path] = (),
    finish: Callable[[Path, int], None] | None = None,
) -> dict[str, Any]:
    started = time.perf_counter()
    scratch, output = Path(request["scratch"]), Path(request["output"])
    work = scratch / "work"
    placed = {**config, "cache_dir": str(work / "cache"), "output_dir": str(work / "made")}
    _require(request["versions"])
    confine(scratch, offline=offline)
    _run(placed, str(request["record"]), len(config["passes"]))
    output.mkdir()
    for path in papers:
        shutil.copyfile(path, output / path.name)
    _take(work / "made", output)
    shutil.rmtree(work)
    (finish or prove)(output, max(1, int(request.get("threads", 1))))
    return {"bytes": _size(output), "seconds": time.perf_counter() - started}


def import_made(request: Request) -> dict[str, Any]:
    """Copy the model folder `input`, which Olive made elsewhere, to `output`, and prove it. Returns as `build`."""
    started = time.perf_counter()
    output = Path(request["output"])
    shutil.copytree(request["input"], output, ignore=shutil.ignore_patterns(*OWN_PAPERS))
    prove(output, max(1, int(request.get("threads", 1))))
    return {"bytes": _size(output), "seconds": time.perf_counter() - started, "imported": True}


def host(_request: Request) -> dict[str, Any]:
    """`providers` that ONNX Runtime offers in this environment."""
    import onnxruntime

    return {"providers": [str(name) for name in onnxruntime.get_available_providers()]}


def _take(made: Path, output: Path) -> None:
    for path in made.iterdir():
        if path.name not in OWN_PAPERS:
            path.replace(output / path.name)
    gc.collect()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _require(versions: Mapping[str, str]) -> None:
    """Olive's passes and the builder change between versions: only what the recipes were made for is driven."""
    for package, wanted in versions.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            raise WorkerError(
                "wrong-version", f"The recipes here are for {package} {wanted}, and {found} is installed."
            )


def confine(scratch: Path, *, offline: bool) -> None:
    """No telemetry, nothing written outside `scratch` and, `offline`, no network. Before Olive is imported."""
    places = {"HOME": "home", "USERPROFILE": "home", "HF_HOME": "hub", "XDG_CACHE_HOME": "xdg", "TMPDIR": "tmp"}
    for name, folder in places.items():
        (scratch / folder).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(scratch / folder)
    os.environ.update(
        CI="true",  # its telemetry honours this one
        OLIVE_DISABLE_TELEMETRY="1",
        ORT_DISABLE_TELEMETRY="1",
        **({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"} if offline else {}),
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        TQDM_DISABLE="1",
        TORCHINDUCTOR_CACHE_DIR=str(scratch / "tmp"),
    )
    os.environ.pop("XDG_CONFIG_HOME", None)


class _Listener(logging.Handler):
    """Tells how far Olive is, and keeps the last thing that it complained about."""

    def __init__(self, total: int) -> None:
        super().__init__(logging.INFO)
        self.total, self.begun, self.complaint = total, 0, ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Running pass"):
            progress(self.begun, self.total, re.sub(r"\s*\{.*", "", text))
            self.begun += 1
        elif record.levelno >= logging.WARNING:
            error = record.exc_info[1] if record.exc_info else None
            self.complaint = f"{type(error).__name__}: {error}" if error else self.complaint or text


def _run(config: Mapping[str, Any], record: str, total: int) -> None:
    """Run Olive, its configuration kept as the file `record`; WorkerError `nothing-made` unless it says that it made a
    model and the files are there."""
    Path(record).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    from olive.workflows import run

    listener = _Listener(total)
    logger = logging.getLogger("olive")
    logger.addHandler(listener)
    try:
        result = run(dict(config), tempdir=os.environ["TMPDIR"])
    except Exception as error:
        raise WorkerError("nothing-made", f"Olive failed: {_words(error)}.") from error
    finally:
        logger.removeHandler(listener)
    made = list(Path(config["output_dir"]).rglob("*.onnx"))
    if result is None or not result.has_output_model() or not made:
        why = f": {listener.complaint.rstrip('.')}" if listener.complaint else ""
        raise WorkerError("nothing-made", f"Olive ended without an error and made no model{why}.")


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(".:")


def prove(folder: Path, threads: int) -> None:
    """That the model folder `folder` is one: its graph has the output that its configuration names, it loads, and it
    answers a few tokens with numbers. Raises as `made`."""
    from .evaluation import Tokens
    from .olive_session import Session, read_config

    try:
        about = read_config(folder)
    except WorkerError as error:
        raise WorkerError("nothing-made", f"Olive made a folder that is no model: {error.message}") from error
    wanted, outputs = about.logits, onnx_graph.outputs(about.file)
    if wanted and wanted not in outputs:
        other = next((name for name in outputs if not name.startswith("present")), "nothing")
        raise WorkerError(
            "renamed-output", f"The model's logits are called {other} and genai_config.json calls them {wanted}."
        )
    try:
        session = Session({"model": str(folder), "n_ctx": 32, "threads": threads}, batch_tokens=8)
        probe: Tokens = session.tokenize("One, two, three, four.", special=False)[:8]
        logits = session.feed(probe, 0, every=True)
    except WorkerError as error:
        raise WorkerError(
            "does-not-load", f"Olive reports this model as made, and it does not run. {error.message}"
        ) from error
    from . import scoring

    scoring.check_finite(logits)
