"""An older transformers, which toolchains keep beside the newer one for architectures that a converter takes from it
alone (executors/toolchains/toolchains.toml)."""

from __future__ import annotations

import sys
from pathlib import Path

from .protocol import Request, WorkerError

FOLDER = Path(sys.prefix) / "share" / "transformers-4"


def prefer_older(request: Request) -> None:
    """Import the older one from here on, where the request says `older`. Raises `toolchain-missing`."""
    if not request.get("older"):
        return
    if not FOLDER.is_dir():
        raise WorkerError("toolchain-missing", "This environment lacks the older transformers.")
    sys.path.insert(0, str(FOLDER))
