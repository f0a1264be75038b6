"""Inputs that must be refused: one sentence, a hint, exit 2, never a traceback. `{name}` stands for a fixture file.

Rows are the arguments; most are also meant with --json, which the tests add.
"""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from house_gguf import House, entry, u32

BAD_SIZES = (
    "banana", "-3GB", "0", "", " ", "8XB", "1e3GB", "nan", "inf", "8GB8", "99999999TB", "0x8", "8 G B", "8.5.5GB",
    "+8GB",
    "8GB;ls", "0.0000000001KB", "GB",
)  # fmt: skip
BAD_NUMBERS = ("0", "-1", "abc", "", "1e99", "inf", "nan", "4;5")
OTHER = ("--ram", "8GB")

OPTIONS: list[list[str]] = [
    *([f"--ram={size}"] for size in BAD_SIZES),
    *([*OTHER, f"--vram={size}"] for size in BAD_SIZES[:6]),
    *([*OTHER, f"--max-disk={size}"] for size in BAD_SIZES[:6]),
    *([*OTHER, f"--context={number}"] for number in (*BAD_NUMBERS, "4.5", "99999999999")),
    *([*OTHER, f"--concurrency={number}"] for number in (*BAD_NUMBERS[:4], "2000")),
    *([*OTHER, f"--top={number}"] for number in (*BAD_NUMBERS[:4], "101")),
    *([*OTHER, f"--min-decode-tps={number}"] for number in (*BAD_NUMBERS, "1e300")),
    *([*OTHER, f"--max-ttft-ms={number}"] for number in BAD_NUMBERS),
    *([*OTHER, f"--max-quality-loss={number}"] for number in ("-1", "101", "abc", "", "nan", "inf", "%")),
    *([*OTHER, option, word] for option, word in (
        ("--target", "tpu"), ("--target", ""), ("--vendor", "3dfx"), ("--os", "beos"), ("--use-case", "poetry"),
        ("--priority", "luck"), ("--power", "steam"), ("--framework", "tensorflow"), ("--kv-cache", "q3_0"),
        ("--precision", "banana"), ("--precision", ""), ("--precision", "Q4_K_M; rm"), ("--chip", ""), ("--device",
        " "),
        ("--device", "x" * 400), ("--chip", "y" * 400), ("--profile", ""), ("--out", ""),
    )),
    ["--ram"], ["--ram", "8GB", "--ram", "16GB"], ["--ra", "8GB"], ["--rma", "8GB"], ["--ram", "8GB", "--taget", "npu"],
    ["--ram", "8GB", "embedded", "embedded"], ["--ram", "8GB", "--offline=yes"], ["--json=1"], ["--ram", "8GB", "-x"],
    ["--target", "npu", "--target", "npu", *OTHER], ["--context", "--top", "3"],
]  # fmt: skip

MODELS: list[list[str]] = [
    [model, *OTHER]
    for model in (
        "no-such-lab/No-Such-Model-7B", "qwen9-77b-nonesuch", "", " ", "x" * 5000, "../../etc/passwd", "/dev/null",
        "nope.gguf", "nope/", "https://example.org/model.gguf", "\x1b[2Jmodel", "mo\x00del", "a/b/c", "..", "-", "*",
        "{missing}", "{text}", "{folder}", "{loop}", "{empty}", "{zeros}", "{random}", "{magic}", "{cut8}", "{cut24}",
        "{cut200}", "{cut1000}", "{version0}", "{version99}", "{many_tensors}", "{many_keys}", "{long_string}",
        "{long_array}",
        "{unknown_type}", "{deep_array}", "{no_architecture}", "{no_layers}", "{billion_layers}", "{no_heads}",
        "{no_width}", "{nan_epsilon}", "{huge_context}", "{missing_weights}", "{far_tensor}", "{flat_tensor}",
        "{huge_tensor}", "{nine_dimensions}", "{unknown_tensor_type}", "{twice}", "{no_tensors}", "{bad_json_folder}",
        "{empty_config_folder}", "{list_config_folder}", "{absurd_config_folder}", "{bad.onnx}",
    )
]  # fmt: skip

PROFILES: list[list[str]] = [
    ["--profile", f"{{{name}}}"]
    for name in (
        "missing",
        "garbage_json",
        "array_json",
        "folder",
        "other_json",
        "binary_json",
        "nan_json",
        "deep_json",
    )
]

COMMANDS: list[list[str]] = [
    ["plna"], ["--ram", "8GB"], ["-q"], ["PLAN"], ["plan probe"], [""], ["run"], ["run", "{missing}"], ["run",
    "{text}"],
    ["run", "{garbage_json}"], ["run", "{array_json}"], ["run", "{other_json}"], ["run", "{folder}"], ["run",
    "{nan_json}"],
    ["run", "{plan_without_steps}"], ["run", "{deep_json}"], ["run", "{empty}"], ["run", "a", "b"], ["run", "{text}",
    "--nope"],
    ["checklist", "{missing}"], ["checklist", "{garbage_json}"], ["checklist", "{folder}"], ["check", "{missing}"],
    ["check", "{folder}"], ["check", "{text}"], ["history", "burn"], ["history", "list", "--run", "x"],
    ["knowledge"], ["knowledge", "magic"], ["knowledge", "models", "nonesuch-9000"], ["knowledge", "rules", "nonesuch"],
    ["probe", "--bench"], ["probe", "--save", "{folder}"], ["probe", "--save", "{text}"], ["doctor", "now"],
    ["validate"], ["validate", "{text}"], ["validate", "{missing}", "--reference", "embedded"],
    ["validate", "{text}", "--reference", "embedded"], ["validate", "{folder}", "--reference", "embedded"],
    ["validate", "{loop}", "--reference", "embedded"], ["validate", "", "--reference", "embedded"],
    ["validate", "{text}", "--reference", "embedded", "--workdir", "{text}"], ["report"], ["report", "compare"],
    ["report", "burn", "{folder}"], ["report", "compare", "{missing}"], ["report", "compare", "{folder}"],
    ["report", "compare", "{text}"],
    ["quickstart", "--workdir", ""], ["quickstart", "--workdir", "{text}"], ["quickstart", "embedded"],
]  # fmt: skip

ALL: list[list[str]] = [*(["plan", *row] for row in (*OPTIONS, *MODELS, *PROFILES)), *COMMANDS]

DEEP = 100_000
NAME = "general.name"


def _house(**changes: Any) -> Callable[[Path], Any]:
    """A House with other fields."""
    return lambda path: House(**changes).write(path)


def _told(key: str, kind: int, value: bytes) -> Callable[[Path], Any]:
    """A House whose metadata say something else under `key`."""
    return lambda path: House().set(key, entry(key, kind, value)).write(path)


def _number(key: str, value: int) -> Callable[[Path], Any]:
    return lambda path: House().set(f"llama.{key}", u32(f"llama.{key}", value)).write(path)


def _embedding(shape: tuple[int, ...], kind: int = 1) -> Callable[[Path], Any]:
    """A House whose token embedding has another shape."""

    def make_file(path: Path) -> None:
        house = House()
        house.tensors[0] = ("token_embd.weight", shape, kind)
        house.write(path)

    return make_file


def _unnamed(path: Path) -> None:
    house = House()
    del house.metadata["general.architecture"]
    house.write(path)


def _twice(path: Path) -> None:
    house = House()
    house.tensors.append(house.tensors[0])
    house.write(path)


def _empty(path: Path) -> None:
    house = House()
    house.tensors = []
    house.write(path)


def _folder(path: Path, config: str) -> None:
    path.mkdir()
    (path / "config.json").write_text(config)


def _plan_without_steps(path: Path) -> None:
    path.write_text(json.dumps({"schema": "advisor.plan/1", "status": "needs_input"}))


FIXTURES: dict[str, Callable[[Path], Any]] = {
    "missing": lambda p: None,
    "text": lambda p: p.write_text("This is not a model.\n"),
    "folder": lambda p: p.mkdir(),
    "loop": lambda p: p.symlink_to(p),
    "empty": lambda p: p.write_bytes(b""),
    "zeros": lambda p: p.write_bytes(bytes(4096)),
    "random": lambda p: p.write_bytes(random.Random(7).randbytes(65536)),
    "magic": _house(magic=b"GGML"),
    "cut8": lambda p: House().write(p, cut=8),
    "cut24": lambda p: House().write(p, cut=24),
    "cut200": lambda p: House().write(p, cut=200),
    "cut1000": lambda p: House().write(p, cut=1000),
    "version0": _house(version=0),
    "version99": _house(version=99),
    "many_tensors": _house(tensor_count=2**62),
    "many_keys": _house(key_count=2**62),
    "long_string": _told(NAME, 8, struct.pack("<Q", 2**60)),
    "long_array": _told("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2**50)),
    "unknown_type": _told(NAME, 77, struct.pack("<I", 1)),
    "deep_array": _told(NAME, 9, struct.pack("<IQ", 9, 1) * DEEP + struct.pack("<IQ", 4, 0)),
    "no_architecture": _unnamed,
    "no_layers": _number("block_count", 0),
    "billion_layers": _number("block_count", 10**9),
    "no_heads": _number("attention.head_count", 0),
    "no_width": _number("embedding_length", 0),
    "nan_epsilon": _told("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", float("nan"))),
    "huge_context": _number("context_length", 2**31),
    "missing_weights": lambda p: House().write(p, missing=20_000),
    "far_tensor": _house(offsets={"output_norm.weight": 2**40}),
    "flat_tensor": _embedding((0, 96)),
    "huge_tensor": _embedding((2**62, 2**62)),
    "nine_dimensions": _embedding((1,) * 9),
    "unknown_tensor_type": _embedding((64, 96), 200),
    "twice": _twice,
    "no_tensors": _empty,
    "bad_json_folder": lambda p: _folder(p, '{"hidden_size": '),
    "empty_config_folder": lambda p: _folder(p, "{}"),
    "list_config_folder": lambda p: _folder(p, "[1, 2]"),
    "absurd_config_folder": lambda p: _folder(
        p, '{"model_type": "llama", "hidden_size": 1e400, "num_hidden_layers": -3}'
    ),
    "bad.onnx": lambda p: p.write_bytes(random.Random(8).randbytes(4096)),
    "garbage_json": lambda p: p.write_text('{"cpu": '),
    "array_json": lambda p: p.write_text("[1, 2, 3]"),
    "other_json": lambda p: p.write_text('{"schema": "something/else"}'),
    "binary_json": lambda p: p.write_bytes(os.urandom(4096)),
    "nan_json": lambda p: p.write_text('{"schema": "advisor.hardware/1", "disk": {"free_bytes": NaN}}'),
    "deep_json": lambda p: p.write_text("[" * DEEP),
    "plan_without_steps": _plan_without_steps,
}


def make(name: str, folder: Path) -> Path:
    """The fixture file of that name, with the suffix that its reader expects."""
    suffix = (
        "" if "." in name or "folder" in name or name in ("text", "loop") else ".json" if "json" in name else ".gguf"
    )
    path = folder / f"{name}{suffix}"
    FIXTURES[name](path)
    return path


def fill(arguments: list[str], folder: Path) -> list[str]:
    """`arguments` with each `{name}` replaced by the path of its fixture, made under `folder`."""
    return [
        str(make(argument[1:-1], folder)) if argument.startswith("{") and argument[1:-1] in FIXTURES else argument
        for argument in arguments
    ]
