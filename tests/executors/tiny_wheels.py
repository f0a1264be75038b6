"""Wheels of one module and a lock that pins them: a framework for tests of toolchains."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

from executors.toolchain import RECORD, toolchain_folder
from executors.toolchain_lock import Recipe, find_recipe

FRAMEWORK = "mlx"  # a name that the rest of the house knows; what it holds here is `tiny` and `tiny-helper`


def write_wheel(folder: Path, name: str, version: str, module: str) -> Path:
    """A wheel of one module, as the wheel format wants it."""
    stem = f"{name.replace('-', '_')}-{version}"
    files = {
        f"{name.replace('-', '_')}.py": module,
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}")
    files[f"{stem}.dist-info/RECORD"] = "\n".join([*rows, f"{stem}.dist-info/RECORD,,"]) + "\n"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def pretend_installed(recipe: Recipe, **changes: Any) -> None:
    """The record of an environment with the recipe's packages, and a file for its interpreter, but nothing else."""
    folder = toolchain_folder(recipe.framework)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "python").touch()
    record = {"python": str(folder / "python"), "packages": dict(recipe.pins), "version": "1.0", **changes}
    (folder / RECORD).write_text(json.dumps(record))


def write_locks(folder: Path, **changes: Any) -> Recipe:
    """The folder of a lock that pins tiny 1.0 and tiny-helper 2.0; its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{FRAMEWORK}.lock.txt").write_text("# what the test built\ntiny==1.0\ntiny-helper==2.0\n")
    row = {
        "framework": FRAMEWORK, "distribution": "tiny", "imports": ["tiny"], "download_bytes": 2000,
        "temporary_bytes": 2000,
        "pythons": [f"{sys.version_info.major}.{sys.version_info.minor}"], "disk_bytes": 20_000_000, "seconds": 5,
        "source": "test", **changes,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in row.items()]
    (folder / "toolchains.toml").write_text("\n".join(["[one]", *lines]) + "\n")
    return find_recipe(FRAMEWORK, folder)
