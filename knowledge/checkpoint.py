"""A local model in a folder: a Hugging Face checkpoint read from config.json and bounded safetensors headers.

Nothing is loaded and no code of the folder runs: pickles, `auto_map` (remote code), links that leave the folder and
`..` in an index are refused. What other frameworks' tools have made is read by their own modules.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from knowledge.base import MIB, AdvisorError, printable
from knowledge.gguf import model_from_gguf
from knowledge.header_reader import foreign_format
from knowledge.hf_config import config_of, gguf_name, model_of_config
from knowledge.ir import GRAPH
from knowledge.native_checkpoint import METHODS, native_tensors
from knowledge.records import ModelSpec, Tensor

MAX_CONFIG_BYTES = 4 * MIB
MAX_INDEX_BYTES = 64 * MIB
MAX_HEADER_BYTES = 64 * MIB
MAX_SHARDS = 1000
MAX_TENSORS = 200_000

_ACCEPTED = (
    "name a .gguf or .onnx file, a folder of Hugging Face, MLX, OpenVINO or ONNX Runtime GenAI, "
    "or a model of the catalogue"
)
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "U64": 64, "I32": 32, "U32": 32, "I16": 16, "U16": 16,
    "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "C64": 64,
}  # fmt: skip
_SOURCE_OF = {"BF16": "bf16", "F16": "f16", "F32": "f32", "F64": "f32"}


def read_model_path(path: Path) -> ModelSpec:
    """The model at `path`: a .gguf or .onnx file, a Hugging Face folder, or a folder that a framework's tools made.

    Raises AdvisorError `not-found`, `bad-gguf`, `bad-onnx`, `bad-ir`, `bad-checkpoint`, `remote-code` or
    `unsupported-model`, in one sentence that says what the path holds and what is accepted.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise AdvisorError("not-found", f"There is nothing at {path}.", _ACCEPTED) from error
    except (OSError, ValueError) as error:
        raise AdvisorError("unreadable", f"Cannot read {path}.", "check the path and its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        return read_folder(path)
    if not stat.S_ISREG(status.st_mode):
        raise AdvisorError("unsupported-model", f"{path} is not a regular file.", _ACCEPTED)
    head = _head(path)
    if path.suffix.lower() == ".gguf" or head[:4] == b"GGUF":
        return model_from_gguf(path)
    if path.suffix.lower() == ".onnx":
        from knowledge.onnx_model import model_from_onnx  # late, as the other formats: each is one of many

        return model_from_onnx(path)
    if path.name == GRAPH:
        return read_folder(path.parent)
    raise AdvisorError(
        "unsupported-model", f"{path.name} is no model that can be planned: {_kind(path, head)}.", _ACCEPTED
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise AdvisorError("unreadable", f"Cannot read {path}: {error.strerror}.", "check its permissions") from error


def _kind(path: Path, head: bytes) -> str:
    named = {
        ".xml": f"it is not called {GRAPH}, as the graph of an OpenVINO model is",
        ".safetensors": "it is one safetensors file; name the folder that it lies in",
        ".pt": "it is a PyTorch checkpoint, a pickle that is never loaded",
        ".pth": "it is a PyTorch checkpoint, a pickle that is never loaded",
    }
    if path.suffix.lower() in named:
        return named[path.suffix.lower()]
    if not head:
        return "it is empty"
    return "it " + foreign_format(head)[0].replace("does not begin with GGUF", "is of no known format")


# ---- folders


def read_folder(folder: Path, sizes: Mapping[str, int] | None = None) -> ModelSpec:
    """The model of a folder, whatever made it. `sizes`: the weight files are only headers here, of so many bytes.

    Raises the AdvisorErrors of `read_model_path`.
    """
    if made := _made_by_tools(folder):
        return made
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise AdvisorError("unsupported-model", f"{folder} holds no config.json: {_folder_kind(folder)}.", _ACCEPTED)
    config = config_of(_json(folder, config_path, MAX_CONFIG_BYTES))
    if "auto_map" in config or "trust_remote_code" in config:
        raise AdvisorError(
            "remote-code",
            f"{folder.name} needs code of its own to be loaded (auto_map), which is never run.",
            "use a conversion of it (GGUF), or a version that the frameworks support by themselves",
        )
    if isinstance(config.get("quantization"), dict):
        from knowledge.mlx_model import model_from_mlx

        return model_from_mlx(folder, config, tuple(_tensors(folder, sizes or {}, own_names=True)), _licence(folder))
    tensors = tuple(_tensors(folder, sizes or {}))
    method = printable(str(_get(config, "quantization_config", "quant_method") or "quantized"), 30)
    native = METHODS.get(method, "")
    if native:
        try:
            tensors = native_tensors(native, tensors, config)
        except ValueError as error:
            raise _bad(folder, str(error)) from error
    elif "quantization_config" in config:
        raise AdvisorError(
            "unsupported-model",
            f"{folder.name} is already quantized ({method}).",
            "name the 16-bit checkpoint it came from",
        )
    from knowledge.pooling import is_sentence_model, read_pooling

    stored = native or _stored_precision(tensors)
    model = model_of_config(config, folder, tensors, _licence(folder), stored, is_sentence=is_sentence_model(folder))
    if not model.is_encoder or sizes:
        return model
    tokenizer = folder / "tokenizer.json"
    return replace(
        model,
        context=min(model.context, read_pooling(folder).max_tokens),
        tokenizer_bytes=tokenizer.stat().st_size if tokenizer.is_file() else 0,
    )


def _made_by_tools(folder: Path) -> ModelSpec | None:
    """The model of an OpenVINO or ONNX folder; None where there are weights to convert."""
    if any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return None
    if (folder / GRAPH).is_file():
        from knowledge.ir_model import model_from_ir

        return model_from_ir(folder)
    if (folder / "genai_config.json").is_file():
        from knowledge.onnx_model import model_from_genai

        return model_from_genai(folder)
    graphs = [folder / name for name in ("model.onnx", "decoder_model_merged.onnx") if (folder / name).is_file()]
    return read_model_path(graphs[0]) if graphs else None


def _folder_kind(folder: Path) -> str:
    try:
        names = {entry.name.lower() for _, entry in zip(range(10_000), folder.iterdir(), strict=False)}
    except OSError:
        return "it cannot be read"
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    if graphs:
        return f"it holds {len(graphs)} ONNX graphs; name one of them"
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if ggufs:
        return f"it holds {len(ggufs)} GGUF files; name one of them"
    if not names:
        return "it is empty"
    if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        return "it holds PyTorch pickles, which are never loaded"
    return "it is not a Hugging Face checkpoint"


def _bad(folder: Path, what: str, hint: str = "get the checkpoint again from where it was published") -> AdvisorError:
    return AdvisorError("bad-checkpoint", f"{folder.name}: {what}.", hint)


def is_plain(name: str) -> bool:
    """Whether a file of a checkpoint may be called `name`."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}", name) is not None and ".." not in name


def plain_file(folder: Path, name: str) -> Path:
    """A file of the folder itself: no separators, no `..`, no link that leaves it."""
    if not is_plain(name):
        raise _bad(folder, f"its index names the file {printable(name, 80)!r}, which is not a plain file of the folder")
    return _own_file(folder, name)


def module_file(folder: Path, module: str, name: str) -> Path:
    """A file of the folder's own folder `module`, under the same conditions. `module` and `name` are plain."""
    if (folder / module).is_symlink():
        raise _bad(folder, f"{module} is a link", "copy the folder itself")
    return _own_file(folder, f"{module}/{name}")


def _own_file(folder: Path, name: str) -> Path:
    path = folder / name
    if path.is_symlink() and not _is_hub_cache_link(folder, path):
        raise _bad(folder, f"{name} is a link that leaves the folder", "copy the file itself into the folder")
    if not path.is_file():
        raise _bad(folder, f"{name} is missing", "finish the download")
    return path


def _is_hub_cache_link(folder: Path, path: Path) -> bool:
    """Whether a link stays in the folder, or in the blobs next to a Hugging Face cache's snapshot."""
    target = path.resolve()
    real = folder.resolve()
    cache = real.parent.parent / "blobs" if real.parent.name == "snapshots" else None
    return target.parent == real or (cache is not None and target.parent == cache)


def _json(folder: Path, path: Path, limit: int) -> dict[str, Any]:
    path = plain_file(folder, path.name)
    try:
        if path.stat().st_size > limit:
            raise _bad(folder, f"{path.name} is too large")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdvisorError("unreadable", f"Cannot read {path}: {error.strerror}.", "check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise _bad(folder, f"{path.name} is not valid JSON") from error
    if not isinstance(document, dict):
        raise _bad(folder, f"{path.name} holds no JSON object")
    return document


def _get(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _licence(folder: Path) -> str:
    """The `license:` line of the model card's front matter, else `unknown`: never guessed."""
    card = folder / "README.md"
    if not card.is_file() or card.is_symlink():
        return "unknown"
    with card.open("rb") as file:
        text = file.read(64 * 1024).decode("utf-8", "replace")
    match = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    line = re.search(r"^license:\s*[\"']?([\w.+ -]{1,60})", match[1] if match else "", re.MULTILINE)
    return line[1].strip().lower() if line else "unknown"


def _stored_precision(tensors: tuple[Tensor, ...]) -> str:
    shares: dict[str, int] = {}
    for tensor in tensors:
        shares[tensor.dtype or ""] = shares.get(tensor.dtype or "", 0) + tensor.elements
    dtype = max(shares, key=lambda name: shares[name])
    return _SOURCE_OF.get(dtype, dtype.lower())


# ---- safetensors


def _tensors(folder: Path, sizes: Mapping[str, int], *, own_names: bool = False) -> Iterator[Tensor]:
    """Every tensor of a checkpoint, under its GGUF name, or under its own."""
    seen: set[str] = set()
    total = 0
    for file in weight_files(folder):
        for tensor in _header(folder, file, sizes.get(file.name), own_names):
            if tensor.name in seen:
                raise _bad(folder, f"two of its files hold the tensor {printable(tensor.name, 80)!r}")
            seen.add(tensor.name)
            total += 1
            if total > MAX_TENSORS:
                raise _bad(folder, f"it holds more than {MAX_TENSORS} tensors")
            yield tensor
    if not total:
        raise _bad(folder, "it holds no weights")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those of its index, else model.safetensors."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        mapping = _get(_json(folder, index, MAX_INDEX_BYTES), "weight_map")
        if not isinstance(mapping, dict) or not mapping or not all(isinstance(name, str) for name in mapping.values()):
            raise _bad(folder, "its index lists no weights")
        names = sorted(set(mapping.values()))
        if len(names) > MAX_SHARDS:
            raise _bad(folder, f"its index names {len(names)} files")
        return [plain_file(folder, name) for name in names]
    if (folder / "model.safetensors").exists():
        return [plain_file(folder, "model.safetensors")]
    pickles = [name for name in ("pytorch_model.bin", "pytorch_model.bin.index.json") if (folder / name).exists()]
    if pickles:
        raise _bad(folder, "its weights are PyTorch pickles, which are never loaded", "get the safetensors version")
    raise _bad(folder, "it holds no model.safetensors", _ACCEPTED)


def _header(folder: Path, path: Path, true_size: int | None, own_names: bool) -> Iterator[Tensor]:
    size = path.stat().st_size if true_size is None else true_size
    name = path.name
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or not 2 <= length <= MAX_HEADER_BYTES or 8 + length > size:
            raise _bad(folder, f"{name} has no valid safetensors header")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(folder, f"{name} has no valid safetensors header") from error
    if not isinstance(header, dict):
        raise _bad(folder, f"{name} has no valid safetensors header")
    spans = []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        tensor, begin, end = _entry(folder, name, key, entry, size - 8 - length)
        if own_names:
            tensor = replace(tensor, name=key)
        spans.append((begin, end))
        yield tensor
    spans.sort()
    if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
        raise _bad(folder, f"{name} has tensors that overlap")


def _entry(folder: Path, file: str, key: str, entry: Any, data_bytes: int) -> tuple[Tensor, int, int]:
    shown = printable(key, 80)
    dtype, shape, offsets = (_get(entry, "dtype"), _get(entry, "shape"), _get(entry, "data_offsets"))
    valid = (
        dtype in _BITS
        and isinstance(shape, list)
        and len(shape) <= 8
        and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n < 2**40 for n in shape)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in offsets)
    )
    if not valid or len(key) > 500:
        raise _bad(folder, f"{file} describes the tensor {shown!r} impossibly")
    begin, end = offsets
    elements = math.prod(shape)
    if elements >= 2**48 or end - begin != elements * _BITS[dtype] // 8:
        raise _bad(folder, f"{file} gives the tensor {shown!r} another size than its shape")
    if end > data_bytes:
        raise _bad(folder, f"{file} is truncated: the tensor {shown!r} is not all there", "finish the download")
    name, role, layer = gguf_name(key)
    row = shape[-1] if shape else 1
    return Tensor(name, role, row, elements // row, layer, dtype, end - begin, max(1, len(shape))), begin, end
