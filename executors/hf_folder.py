"""A GGUF, such as the embedded model, as a Hugging Face folder, for frameworks that start from one; if it was
dequantized, it is labelled so.

    ADVISOR_HOME/cache/checkpoints/KEY/NAME/       config.json, model.safetensors, tokenizer.json, README.md, ...
    ADVISOR_HOME/cache/checkpoints/KEY/about.json  what it was made from, and the tokens of a test text

KEY is the hash of the source file: built once, whole or not at all, by numpy in llama.cpp's interpreter. The weights
are those of llama.cpp's own F16 file. The tokenizer is written from the GGUF's vocabulary and merges: what transformers
makes of this GGUF has another class, other special tokens and no splitting of digits.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from executors.folder import PARTIAL, RunFolder, locked, sha256_file, write_text
from executors.interpreters import interpreter_for
from executors.process import Watch, run_worker
from executors.tokens import checkpoint_ids, first_difference, model_ids
from executors.toolchain import installed_version
from knowledge.base import (
    EXIT_STEP_FAILED,
    AdvisorError,
    advisor_home,
    file_error,
    printable,
    read_json,
    write_json,
)
from knowledge.gguf import GgufFile, model_from_gguf, read_gguf
from knowledge.hf_config import gguf_name
from knowledge.models import embedded_path

SCHEMA = "advisor.checkpoint/1"
VERSION = 3  # of what is written: another one is another cache entry
ABOUT = "about.json"
WEIGHTS = "model.safetensors"
EMBEDDED_NAME = "SmolLM2-135M-Instruct"
WAIT_SECONDS = 300.0  # for another process that builds the same
_PARTS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip
_VOCABULARY = ("tokens", "merges", "token_type")
_PLAIN = {"F32", "F16"}
About = dict[str, Any]


def hf_folder(source: Path, watch: Watch, *, framework: str | None = None) -> Path:
    """The folder of the GGUF `source` (a Llama whose tensors are F32, F16, Q8_0 or Q4_1), built if need be.

    With `framework`, its tokenizer was proven in that framework's interpreter, by the `tokenizers` library, to make the
    same tokens as llama.cpp. Raises AdvisorError `unsupported-architecture` (exit 2), `tokenizer-mismatch`,
    `toolchain-missing`, and what a worker raises.
    """
    cache = advisor_home().absolute() / "cache" / "checkpoints"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        sha256 = sha256_file(source)
        entry = cache / f"{sha256[:32]}-{VERSION}"
        with _turn(RunFolder(cache)):
            about = _sound(entry) or _build(source, sha256, entry, watch)
            if framework is not None:
                _prove_tokenizer(entry, about, framework, watch)
    except OSError as error:
        raise file_error(error, Path(error.filename or cache)) from error
    return entry / str(about["folder"])


@contextlib.contextmanager
def _turn(cache: RunFolder) -> Iterator[None]:
    """Hold the cache; wait while another process builds in it."""
    deadline = time.monotonic() + WAIT_SECONDS
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(cache))
                break
            except AdvisorError as error:
                if error.code != "run-in-progress" or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield


def _sound(entry: Path) -> About | None:
    """The record of a whole entry: every file there with its size. None where it has to be built."""
    if not (entry / ABOUT).is_file():
        return None
    try:
        about = read_json(entry / ABOUT, "checkpoint record")
        folder = entry / about["folder"]
        whole = all((folder / name).stat().st_size == size for name, size in about["files"].items())
    except (AdvisorError, OSError, KeyError, TypeError, AttributeError):
        return None
    return about if whole and folder.parent == entry else None


def _build(source: Path, sha256: str, entry: Path, watch: Watch) -> About:
    partial = entry.with_name(entry.name + PARTIAL)
    for old in (partial, entry):
        if old.exists():
            shutil.rmtree(old)
    file = read_gguf(source)
    tensors, config = _tensors(file), _config(file)
    _require_byte_level(file)
    types = sorted({str(tensor.dtype) for tensor in file.tensors if tensor.dimensions > 1})
    name, made = _name(file, sha256), "converted" if _PLAIN.issuperset(types) else "dequantized"
    label = f"{made} from {' and '.join(types)}"
    folder = partial / f"{name}-{made}"
    folder.mkdir(parents=True)
    _ask({"op": "write_weights", "model": str(source), "tensors": tensors, "output": str(folder / WEIGHTS)}, watch)
    arrays = {
        key: {"offset": span.offset, "count": span.count, "bytes": span.bytes}
        for key in _VOCABULARY
        for span in [file.arrays[f"tokenizer.ggml.{key}"]]
    }
    tokenizer = _ask(
        {
            "op": "write_tokenizer",
            "model": str(source),
            "arrays": arrays,
            "pre": file.metadata.get("tokenizer.ggml.pre", ""),
            "output": str(folder / "tokenizer.json"),
        },
        watch,
    )
    write_json(folder / "config.json", {**config, f"{made}_from": types})
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", ids)
    write_json(folder / "tokenizer_config.json", _tokenizer_config(file, config, tokenizer["special"]))
    write_text(folder / "README.md", _readme(file, name, label))
    about: About = {
        "schema": SCHEMA,
        "folder": folder.name,
        "label": label,
        "source": {"name": source.name, "sha256": sha256},
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "ids": model_ids(source, "llama.cpp", watch),
        "proven": [],
    }
    write_json(partial / ABOUT, about)
    partial.rename(entry)
    return about


def _prove_tokenizer(entry: Path, about: About, framework: str, watch: Watch) -> None:
    """Compare the tokens that the folder's tokenizer makes with llama.cpp's; `tokenizer-mismatch` where they differ."""
    environment = f"{framework} {installed_version(framework)}".strip()
    if environment in about["proven"]:
        return
    for reader, ids in checkpoint_ids(entry / about["folder"], framework, watch).items():
        at = first_difference(about["ids"], ids)
        if at is None:
            continue
        raise AdvisorError(
            "tokenizer-mismatch",
            f"{framework}'s {reader} reads the dequantized checkpoint's tokenizer otherwise than llama.cpp, "
            f"from token {at} of the test text.",
            f"remove {entry} and try again; if it stays, this version of {reader} is not supported",
            EXIT_STEP_FAILED,
        )
    write_json(entry / ABOUT, {**about, "proven": [*about["proven"], environment]})


def _ask(request: dict[str, Any], watch: Watch) -> dict[str, Any]:
    return run_worker(interpreter_for("llama.cpp"), "checkpoint", request, watch).result


# ---- what the GGUF's header becomes


def _name(file: GgufFile, sha256: str) -> str:
    """The model's name, fit for a folder and a heading; the GGUF of the embedded model does not know its own."""
    packaged = embedded_path()
    if packaged is not None and sha256_file(packaged) == sha256:
        return EMBEDDED_NAME
    return re.sub(r"[^A-Za-z0-9.]+", "-", model_from_gguf(file).name).strip("-.") or "model"


def _tensors(file: GgufFile) -> list[dict[str, Any]]:
    """Each tensor under its Hugging Face name, with its place in the file; AdvisorError where one has no such name."""
    model = model_from_gguf(file)
    if model.architecture != "llama" or model.is_moe or len(file.shards) > 1:
        raise _unsupported(file, f"{model.architecture} in {len(file.shards)} files")
    names = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    names += [f"model.layers.{layer}.{part}.weight" for layer in range(model.layers) for part in _PARTS]
    known = {gguf_name(name)[0]: name for name in names}
    heads = {"attn_q": model.heads, "attn_k": model.kv_heads}  # whose rows llama.cpp keeps in another order
    placed, offset = [], file.data_offset
    for tensor in file.tensors:
        if tensor.name not in known:
            raise _unsupported(file, f"a tensor {tensor.name}")
        size = tensor.stored_bytes or 0
        placed.append({
            "name": known[tensor.name],
            "type": tensor.dtype,
            "offset": offset,
            "bytes": size,
            "rows": tensor.rows,
            "row_length": tensor.row_length,
            "dimensions": tensor.dimensions,
            "heads": heads.get(tensor.role, 0),
        })  # fmt: skip
        offset += -(-size // file.alignment) * file.alignment
    return placed


def _config(file: GgufFile) -> dict[str, Any]:
    """config.json in the words of transformers' LlamaConfig."""
    model, read = model_from_gguf(file), file.metadata
    epsilon = read.get("llama.attention.layer_norm_rms_epsilon")
    if not isinstance(epsilon, float):
        raise _unsupported(file, "no llama.attention.layer_norm_rms_epsilon")
    scaled = [key for key in read if key.startswith("llama.rope.scaling.") and read[key] not in ("none", 1.0)]
    if scaled:
        raise _unsupported(file, f"{scaled[0]}")
    bos, eos = read.get("tokenizer.ggml.bos_token_id"), read.get("tokenizer.ggml.eos_token_id")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": read.get("tokenizer.ggml.padding_token_id", eos),
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.hidden,
        "initializer_range": 0.02,
        "intermediate_size": model.intermediate,
        "max_position_embeddings": model.context,
        "mlp_bias": False,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": float(f"{epsilon:.6g}"),  # stored in 32 bits
        "rope_theta": read.get("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": not any(tensor.name == "output.weight" for tensor in file.tensors),
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": model.vocab,
    }


def _require_byte_level(file: GgufFile) -> None:
    """Only what was compared with llama.cpp's tokenizer: byte-level BPE without a token that begins every text."""
    read = file.metadata
    if read.get("tokenizer.ggml.model") != "gpt2":
        raise _unsupported(file, "a tokenizer other than byte-level BPE")
    missing = [key for key in _VOCABULARY if f"tokenizer.ggml.{key}" not in file.arrays]
    if missing:
        raise _unsupported(file, f"no list tokenizer.ggml.{missing[0]}")
    if read.get("tokenizer.ggml.add_bos_token", False):
        raise _unsupported(file, "a token that begins every text")


def _tokenizer_config(file: GgufFile, config: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    names = {number: token for token, number in special.items()}
    unknown = file.metadata.get("tokenizer.ggml.unknown_token_id")
    roles = {"bos_token": config["bos_token_id"], "eos_token": config["eos_token_id"], "unk_token": unknown}
    found = {role: names[number] for role, number in roles.items() if number in names}
    if config["pad_token_id"] in names:
        found["pad_token"] = names[config["pad_token_id"]]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # transformers 5 gives GPT2Tokenizer a pre-tokenizer of its own
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "chat_template": file.metadata.get("tokenizer.chat_template", ""),
        **found,
    }


def _readme(file: GgufFile, name: str, label: str) -> str:
    licence = printable(str(file.metadata.get("general.license", "unknown")), 60)
    return f"""# {name}, {label}

A demonstration checkpoint: the weights of `{file.path.name}`, {label} to F16, value for value those of llama.cpp's own
F16 file. It is a 16-bit reference for that file, and not the original release of {name}.

The tokenizer is written from the vocabulary and merges of the GGUF. Licence of the weights: {licence}.
"""


def _unsupported(file: GgufFile, what: str) -> AdvisorError:
    message = f"{file.path.name} cannot become a Hugging Face folder here: it has {what}."
    hint = "name the model's Hugging Face folder instead"
    return AdvisorError("unsupported-architecture", message, hint)
