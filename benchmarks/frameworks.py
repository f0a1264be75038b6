"""The embedded model in all four frameworks, side by side: `advisor plan` and `advisor run` for each row, then
`advisor report compare` over the runs, written as docs/frameworks.md.

    python benchmarks/frameworks.py [--out docs/frameworks.md] [--workdir DIR] [--only FRAMEWORK] [--runs RUN...]

Needs the four toolchains (advisor toolchain install FRAMEWORK) and, on two cores, an hour. With --workdir the runs stay
there: what is finished is not done again, so the table can be written anew in seconds. --runs writes it from finished
runs and runs nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from executors.report_md import escape, table
from executors.report_text import LABELS, interval, quantity

MODEL = "embedded"
ROWS = (
    ("llama.cpp", "Q8_0+ffn_gate=Q5_0"),
    ("llama.cpp", "Q4_K_M"),
    ("openvino", "int8+ffn_gate=int4-asym-g32"),
    ("openvino", "int8"),
    ("olive", "int8"),
    ("olive", "int4-kquant-b32"),
    ("mlx", "8bit-g64"),
    ("mlx", "6bit-g64"),
    ("mlx", "4bit-g64"),
)
FINISHED = (0, 5)  # exit codes: passed, or a required gate did not pass
Document = Mapping[str, Any]


def advisor(*arguments: str, accepted: Sequence[int] = (0,)) -> dict[str, Any]:
    """The document of a command; its progress stays on the terminal. RuntimeError for any other exit code."""
    command = [str(Path(sys.executable).with_name("advisor")), *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in accepted:
        raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {done.stdout[:400]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def name_of(framework: str, precision: str) -> str:
    return f"{framework}-{precision}".replace("+", "-").replace("=", "-").lower()


def run_all(workdir: Path, only: str | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each row's run folder and report, made or gone on with."""
    for framework, precision in ROWS:
        if only not in (None, framework):
            continue
        folder = workdir / name_of(framework, precision)
        plan = folder.with_name(f"{folder.name}.plan.json") if not (folder / "plan.json").is_file() else folder
        if plan is not folder:
            request = ("--framework", framework, "--precision", precision, "--target", "cpu")
            advisor("plan", MODEL, *request, "--out", str(plan))
        yield folder, advisor("run", str(plan), "--workdir", str(folder), accepted=FINISHED)


def finished(folders: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """Runs that are there, with their reports."""
    return [(folder, json.loads((folder / "report.json").read_text(encoding="utf-8"))) for folder in folders]


def comparison(folders: Sequence[Path]) -> str:
    """The tables of `advisor report compare`, one level deeper."""
    command = [str(Path(sys.executable).with_name("advisor")), "report", "compare", *map(str, folders), "--markdown"]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = text.replace("\n## ", "\n### ").splitlines()
    return "\n".join(["## Side by side", *lines[1:], ""])


def predictions(runs: Sequence[tuple[Path, Document]]) -> list[str]:
    """A row per run and metric: what the plan predicted, what was measured."""
    rows = []
    for _, report in runs:
        for line in report["predicted_vs_measured"]:
            metric = line["metric"]
            within = {True: "yes", False: "**no**", None: "–"}[line["within"]]
            rows.append(
                (
                    escape(f"{report['framework']} {report['precision']}"),
                    LABELS[metric],
                    quantity(metric, line["mid"]),
                    interval(metric, line["low"], line["high"]),
                    quantity(metric, line["measured"]),
                    within,
                )
            )
    return table(("", "", "predicted", "interval", "measured", "within"), rows)


def runtimes(runs: Sequence[tuple[Path, Document]]) -> list[str]:
    """What the runtimes make of their own weights, where a run asked."""
    rows = []
    for _, report in runs:
        found, weights = report["validation"].get("runtime") or {}, report["validation"]["distribution"]
        if "kl_divergence" in found:
            kls = (weights["kl_divergence"]["mean"], found["kl_divergence"]["mean"])
            tops = (weights["same_top1"]["value"], found["same_top1"]["value"])
            shown = [*(f"{kl:.4f}" for kl in kls), *(f"{top:.3f}" for top in tops)]
            rows.append((escape(f"{report['framework']} {report['precision']}"), *shown))
    if not rows:
        return []
    header = ("", "KL: weights against the reference", "KL: runtime against its weights",
              "top-1: weights against the reference", "top-1: runtime against its weights")  # fmt: skip
    words = (
        "MLX's CPU kernel for packed weights sums in the 16-bit type (here float16; in bfloat16 it is off by more). "
        "What that costs is the runtime's on this machine and not the artifact's: the weights are judged unpacked, in "
        "32 bits. Its Metal kernels were not run."
    )
    return ["## What quantization lost, and what the runtime does", "", words, "", *table(header, rows)]


def document(runs: Sequence[tuple[Path, Document]], how: str) -> str:
    environment = runs[0][1]["environment"]
    versions = dict.fromkeys(report["framework_version"] for _, report in runs)
    memory = environment["memory_bytes"] / 2**30
    climbed = [
        f"{escape(report['framework'])}: `--escalate` climbed from {escape(report['rungs'][0]['precision'])} to "
        f"{escape(report['precision'])}"
        for _, report in runs
        if len(report["rungs"]) > 1
    ]
    days = ", ".join(sorted({report["created"][:10] for _, report in runs}))
    where = (
        f"{environment['cpu']}, {environment['physical_cores']} cores of which {environment['threads']} computed, "
        f"{memory:.0f} GiB, {environment['os']}"
    )
    head = [
        "# Four frameworks, one model",
        "",
        f"Written by {how} on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}; runs of {days}.",
        "",
        f"- Machine: {escape(where)}; shared with other work, so that speeds are rough and their ratios better",
        f"- Versions: {escape(', '.join(versions))}; advisor {escape(environment['advisor'])}",
        f"- Each row: `advisor plan {MODEL} --framework F --precision P --target cpu --out plan.json`, then "
        "`advisor run plan.json`; then `advisor report compare RUN...`",
        *(f"- {one}" for one in climbed),
        "",
        "Every artifact is compared with the 16-bit reference of its own runtime, on the same tokens. The model is a "
        "demonstration (135 million parameters, dequantized from 4 bits): quality is lost sooner than in larger ones. "
        "MLX on Linux is a functional test and its timing one of a few tokens.",
        "",
    ]
    lines = [*head, comparison([folder for folder, _ in runs]), *runtimes(runs)]
    return "\n".join([*lines, "## Predicted and measured", "", *predictions(runs)]).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "frameworks.md")
    parser.add_argument("--workdir", type=Path, help="keep the runs here")
    parser.add_argument("--only", metavar="FRAMEWORK", help="the rows of one framework")
    parser.add_argument("--runs", type=Path, nargs="+", metavar="RUN", help="write it from these finished runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workdir = (arguments.workdir or Path(temporary)).absolute()
        workdir.mkdir(parents=True, exist_ok=True)
        runs = finished(arguments.runs) if arguments.runs else list(run_all(workdir, arguments.only))
        how = "`make bench-frameworks`"
        if arguments.runs:
            how = "`benchmarks/frameworks.py --runs` from runs that were made one by one"
        arguments.out.write_text(document(runs, how), encoding="utf-8")
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
