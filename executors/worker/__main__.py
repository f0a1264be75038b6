"""`python -I executors/worker FRAMEWORK [FILE]`: answer one request (see protocol), in the framework's own interpreter.

The siblings are loaded as the package `advisor_worker`, and this folder is taken off the module path: a sibling named
like a framework (openvino.py) must not hide the framework. FILE is the worker module of a framework that is not ours;
it is loaded as one of the siblings.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

FRAMEWORKS = {
    "llama.cpp": "llamacpp",
    "openvino": "openvino",
    "olive": "olive",
    "mlx": "mlx",
    "openvino-embedding": "openvino_embedding",
    "olive-embedding": "olive_embedding",
    "toolchain": "toolchain",
    "checkpoint": "checkpoint",
    "export": "export",
}


def main() -> None:
    os.environ["CI"] = "true"  # the very word: OpenVINO's telemetry, sent when it is imported, stops at no other
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        "advisor_worker", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["advisor_worker"] = package
    spec.loader.exec_module(package)
    protocol = importlib.import_module("advisor_worker.protocol")
    framework = sys.argv[1] if len(sys.argv) > 1 else ""
    own = sys.argv[2] if len(sys.argv) > 2 else None
    protocol.answer(lambda: (_own(own) if own else _sibling(FRAMEWORKS[framework])).OPERATIONS)


def _sibling(name: str) -> ModuleType:
    return importlib.import_module(f"advisor_worker.{name}")


def _own(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("advisor_worker.own", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


main()
