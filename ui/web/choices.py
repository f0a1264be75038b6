"""What the page offers to choose from: devices, models, and the model files that lie in the workspace."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from knowledge.base import advisor_home
from knowledge.chips import load_chips, load_products
from knowledge.models import load_models

_FORMATS = (".gguf", ".onnx")


@cache
def device_names() -> list[str]:
    """Products first, then chips, by name."""
    products = sorted({row.name for row in load_products()}, key=str.lower)
    return products + sorted({row.name for row in load_chips()} - set(products), key=str.lower)


@cache
def model_names() -> list[str]:
    return ["embedded", *sorted((row.name for row in load_models()), key=str.lower)]


def local_models() -> dict[str, Path]:
    """Model files and folders in `models` of the data folder, by name; links are not followed."""
    root = advisor_home() / "models"
    entries = sorted(root.iterdir()) if root.is_dir() else []
    return {
        path.name: path
        for path in entries
        if not path.is_symlink() and (path.suffix in _FORMATS or (path / "config.json").is_file())
    }
