"""The options of `advisor plan`, one row each; together they say the same as `advisor.constraints.Constraints`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from advisor.constraints import (
    Constraints,
    FrameworkName,
    KvType,
    OsName,
    Priority,
    Target,
    UseCase,
    VendorName,
    Weights,
)
from knowledge.base import AdvisorError, parse_size
from ui.command import Parser, option_error


@dataclass(frozen=True, slots=True)
class Option:
    """`field` of Constraints; `read` turns the words given into its value, which Constraints then checks."""

    name: str
    field: str
    metavar: str
    meaning: str
    read: Callable[[str, str], Any]


def _word(text: str, option: str) -> str:
    return _text(text, option).lower()


def _text(text: str, option: str) -> str:
    if not text.strip():
        raise AdvisorError("bad-option", f"{option} is empty.", f"give {option} a value, or leave it out")
    if not text.isprintable():
        hint = f"write {option} without control characters"
        raise AdvisorError("bad-option", f"{option}: {text!r} holds characters that cannot be printed.", hint)
    return text.strip()


def _decimal_size(text: str, option: str) -> int:
    return parse_size(text, option, decimal=True)


def _percent(text: str, option: str) -> str:
    return _text(text, option).removesuffix("%").strip()


def _precision(text: str, option: str) -> str:
    """`text` as given, if any framework has such a precision; AdvisorError `unknown-precision` with the nearest."""
    from knowledge.precisions import resolve_precision

    resolve_precision(_text(text, option))
    return text.strip()


def _weights(text: str, option: str) -> dict[str, str]:
    """`speed=3,quality=1` as a mapping; what is not named weighs nothing."""
    pairs = [part.partition("=") for part in _word(text, option).split(",")]
    names = [name.strip() for name, _, _ in pairs]
    strange = [name for name in names if name not in Weights.model_fields]
    if strange or len(set(names)) < len(names) or not all(sign for _, sign, _ in pairs):
        hint = f"write {option} speed=3,quality=1; there are {', '.join(Weights.model_fields)}"
        raise AdvisorError("bad-option", f"{option}: {text!r} does not weigh each thing once.", hint)
    return {name.strip(): weight.strip() for name, _, weight in pairs}


def _choices(literal: Any) -> str:
    return "|".join(get_args(literal))


OPTIONS = (
    Option("--ram", "ram_bytes", "SIZE", "the machine's memory; 8GB means 8 GiB, as memory is sold", parse_size),
    Option(
        "--vram",
        "vram_bytes",
        "SIZE",
        "the graphics card's memory, or what a GPU may take of memory that it shares; 6GB means 6 GiB",
        parse_size,
    ),
    Option("--target", "target", _choices(Target), "where it shall run (default auto)", _word),
    Option("--vendor", "vendor", _choices(VendorName), "the vendor of the NPU, GPU or chip", _word),
    Option("--chip", "chip", "TEXT", "the processor or graphics chip, for example 'Core Ultra 7 155H'", _text),
    Option("--device", "device", "NAME", "a device by name, for example 'Raspberry Pi 5'", _text),
    Option("--profile", "profile", "FILE", "a machine saved by `advisor probe --save FILE`", _text),
    Option("--os", "os", _choices(OsName), "the operating system of the machine", _word),
    Option("--context", "context", "TOKENS", "tokens of prompt and answer together (default 4096)", _text),
    Option("--concurrency", "concurrency", "N", "requests at the same time (default 1)", _text),
    Option("--use-case", "use_case", _choices(UseCase), "what the model is for (default chat)", _word),
    Option("--priority", "priority", _choices(Priority), "what counts most (default balanced)", _word),
    Option("--weights", "weights", "LIST", "your own weights instead, for example speed=3,quality=1", _weights),
    Option("--power", "power", "mains|battery", "what feeds the machine", _word),
    Option("--min-decode-tps", "min_decode_tps", "RATE", "at least so many tokens per second while answering", _text),
    Option("--max-ttft-ms", "max_ttft_ms", "MS", "at most so many milliseconds to the first token", _text),
    Option("--max-quality-loss", "max_quality_loss_pct", "PCT", "at most so many per cent below 16 bits", _percent),
    Option("--max-disk", "max_disk_bytes", "SIZE", "at most so much disk; here 8GB means 8 x 10^9 B", _decimal_size),
    Option("--framework", "framework", _choices(FrameworkName), "only this framework", _word),
    Option("--precision", "precision", "NAME", "only this precision or family, for example Q4_K_M or int4", _precision),
    Option("--kv-cache", "kv_cache", _choices(KvType), "the type of the KV cache (default: f16)", _word),
    Option("--top", "top", "N", "how many recommendations (default 5)", _text),
)
FLAGS = (
    ("--enterprise", "enterprise", "for a company: support, licences and provenance count"),
    ("--cross-platform", "cross_platform", "one artifact for several kinds of machine"),
    ("--commercial", "commercial", "only models whose licence allows commercial use"),
    ("--offline", "offline", "nothing may be downloaded"),
    ("--tasks", "tasks", "let the run put sixty questions to reference and artifact too (a minute for a small model)"),
)


def add_constraints(parser: Parser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a catalogue name, a model of the Hugging Face hub, a .gguf or .onnx file, a model folder, or `embedded`; "
        "without one the best models for the machine are recommended as well",
    )
    for option in OPTIONS:
        parser.value(option.name, option.metavar, option.meaning, dest=option.field)
    for name, field, meaning in FLAGS:
        parser.flag(name, meaning, dest=field)


def constraints_from(arguments: argparse.Namespace) -> Constraints:
    """The Constraints that the arguments say; AdvisorError `bad-option` or `bad-size` names the first bad option."""
    given = {option.field: _read(option, arguments) for option in OPTIONS}
    given["model"] = None if arguments.model is None else _text(arguments.model, "MODEL")
    values = {field: value for field, value in given.items() if value is not None}
    flags = {field: getattr(arguments, field) for _, field, _ in FLAGS}
    names = {option.field: option.name for option in OPTIONS} | {"model": "MODEL"}
    try:
        return Constraints(**values, **flags)
    except ValidationError as error:
        raise option_error(error, lambda field: names[field]) from error


def _read(option: Option, arguments: argparse.Namespace) -> Any:
    text = getattr(arguments, option.field)
    return None if text is None else option.read(text, option.name)
