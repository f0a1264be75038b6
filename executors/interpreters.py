"""Which Python has a framework: its isolated toolchain's, or this one. Nothing is imported to find out."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knowledge.base import EXIT_TOOLCHAIN_MISSING, MIB, AdvisorError, advisor_home, exists, read_json
from knowledge.matrix import load_frameworks

# What can be asked for, and the module that shows that an interpreter has it; `export` reads Hugging Face folders.
MODULES = {"llama.cpp": "llama_cpp", "openvino": "openvino", "olive": "olive", "mlx": "mlx_lm", "export": "optimum"}


def interpreter_for(framework: str, toolchains: Path | None = None) -> Path:
    """The Python that has `framework`: its isolated toolchain, else the current interpreter.

    `toolchains` is the folder of isolated environments, ADVISOR_HOME/toolchains by default; `toolchain.json` in one
    names its interpreter in `python`. Nothing is imported. Raises AdvisorError `toolchain-missing` (exit 6).
    """
    hint = install_hint(framework)
    module = module_of(framework)
    if module is None:
        names = f"the frameworks are {', '.join(MODULES)}"
        raise AdvisorError("toolchain-missing", f"There is no framework {framework!r}.", names, EXIT_TOOLCHAIN_MISSING)
    record = (toolchains or advisor_home() / "toolchains") / framework / "toolchain.json"
    if exists(record):
        python = Path(str(read_record(framework, record).get("python", "")))
        if python.is_absolute() and python.is_file():
            return python
        message = f"The isolated toolchain of {framework} has lost its interpreter ({record})."
        raise AdvisorError("toolchain-missing", message, hint, EXIT_TOOLCHAIN_MISSING)
    if _is_here(module):
        return Path(sys.executable)
    raise AdvisorError("toolchain-missing", f"{framework} is not installed here.", hint, EXIT_TOOLCHAIN_MISSING)


def read_record(framework: str, record: Path) -> dict[str, Any]:
    """What the toolchain.json of an isolated toolchain says. AdvisorError `toolchain-missing` (exit 6) if damaged."""
    try:
        document = read_json(record, "toolchain record", limit_bytes=MIB)
    except AdvisorError as error:
        hint = install_hint(framework)
        raise AdvisorError("toolchain-missing", error.message, hint, EXIT_TOOLCHAIN_MISSING) from error
    return document if isinstance(document, dict) else {}


def module_of(framework: str) -> str | None:
    """The Python package that a framework is; None where there is no such framework."""
    own = next((row.imports for row in load_frameworks() if row.name == framework), "")
    return MODULES.get(framework) or own or None


def _is_here(module: str) -> bool:
    """Whether this interpreter has `module`, which a user may have named: to Python, `a.b` without `a` is an error."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def install_hint(framework: str) -> str:
    """What to do where `framework` is missing; one of the user's own is looked for in this interpreter alone."""
    own = next((row.python for row in load_frameworks() if row.name == framework and framework not in MODULES), "")
    if own:
        return f"{sys.executable} -m pip install {own}"
    return f"advisor toolchain install {framework}"
