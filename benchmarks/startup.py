"""How long whole commands take and what memory they need: best of N processes each. Prints a table, then JSON.

    python benchmarks/startup.py [--runs 5]

Timings are of this machine at this moment: figures for a note, never a test.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Name, arguments, and the budget of wall time (seconds) and peak memory (MB) where one was set.
COMMANDS: tuple[tuple[str, tuple[str, ...], float | None, int | None], ...] = (
    ("plan, declared, NPU", ("plan", "--ram", "8GB", "--target", "npu"), 0.5, 100),
    ("plan, declared", ("plan", "--ram", "8GB"), None, None),
    ("plan, a GGUF file", ("plan", "{gguf}", "--ram", "8GB"), None, None),
    ("plan, probed", ("plan",), 1.2, None),
    ("probe", ("probe",), 1.2, None),
    ("probe --no-bench", ("probe", "--no-bench"), 0.7, None),
    ("bad input", ("plan", "--ram", "banana"), None, None),
)


def measure(arguments: list[str], runs: int, home: str) -> dict[str, Any]:
    """Best wall time in seconds and largest peak resident memory in MB of `runs` whole processes."""
    command = [str(Path(sys.executable).with_name("advisor")), *arguments, "--json"]
    walls, peaks, code = [], [], None
    for _ in range(runs):
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, "ADVISOR_HOME": home}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        walls.append(time.perf_counter() - start)
        peaks.append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)
        code = os.waitstatus_to_exitcode(status)
    return {"seconds": round(min(walls), 3), "peak_mb": round(max(peaks), 1), "exit": code}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    from knowledge.models import embedded_path

    results = []
    with tempfile.TemporaryDirectory() as home:
        for name, arguments, seconds, memory in COMMANDS:
            if "{gguf}" in arguments and embedded_path() is None:
                continue
            filled = [argument.format(gguf=embedded_path()) for argument in arguments]
            results.append(
                {"command": name, **measure(filled, runs, home), "budget_seconds": seconds, "budget_mb": memory}
            )
    print(f"{'command':22} {'best s':>8} {'budget':>7} {'peak MB':>8} {'budget':>7} {'exit':>5}")
    for row in results:
        budgets = [row["budget_seconds"] or "-", row["budget_mb"] or "-"]
        print(
            f"{row['command']:22} {row['seconds']:8} {budgets[0]:>7} {row['peak_mb']:8} {budgets[1]:>7} {row['exit']:5}"
        )
    print(json.dumps({"runs": runs, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
