"""The documentation says what the program does."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_line_reference_is_current(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path[:0] = ['scripts', '.']; import cli_reference; print(cli_reference.reference(), end='')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), "run make docs"
