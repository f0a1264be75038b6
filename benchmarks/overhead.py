"""What advisor adds to a framework: a whole `advisor run` of the embedded model against the same calls made directly by
a plain script (direct_FRAMEWORK.py), one after the other, on the same files and tokens; budget 10 %. Processor seconds
of both stand beside the wall's: they hold still where other work disturbs.

    python benchmarks/overhead.py [--framework llama.cpp|openvino|olive|mlx] [--precision NAME] [--rounds 1]

Takes a few minutes. Prints a table, then JSON. All but llama.cpp are taken from their toolchains under ADVISOR_HOME;
the Hugging Face folder that Olive and MLX start from is there for both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from executors import olive
from executors.hf_folder import hf_folder
from executors.interpreters import interpreter_for
from executors.openvino import parts_of
from executors.process import Watch
from executors.validation import ANSWER_TOKENS, TEXT
from knowledge.base import advisor_home
from knowledge.models import embedded_path

BUDGET = 0.10
FROM_CHECKPOINT = ("olive", "mlx")


def cpu_seconds() -> float:
    """Of all processes that this one started and that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def advisor(home: Path, *arguments: str) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a whole command, and its JSON document."""
    command = [str(Path(sys.executable).with_name("advisor")), *arguments, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "ADVISOR_HOME": str(home)}, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def job_of(plan: dict[str, Any], prompts: list[str], folder: Path) -> dict[str, Any]:
    """The calls of the plan's steps, for the plain script; `prompts` as the run's smoke test put them."""
    work = plan["plan"]
    settings = {step["settings"]["kind"]: step["settings"] for step in work["steps"]}
    tiers = {
        step["settings"]["tier"]: step["settings"] for step in work["steps"] if step["settings"]["kind"] == "validate"
    }
    form = ".gguf" if work["framework"] == "llama.cpp" else ""
    passes = (settings["quantize"].get("compression") or {"passes": []})["passes"]
    onnx = settings["quantize"].get("onnx") or {"passes": []}
    few = tiers.get("runtime", {})
    return {
        "source": str(embedded_path()),
        "plain": str(folder / "plain.gguf"),
        "reference": str(folder / f"reference{form}"),
        "artifact": str(folder / f"made{form}"),
        "passes": [{"parts": parts_of(step.get("roles", [])), **step} for step in passes],
        "onnx": {"passes": [{**step, "parts": olive.parts_of(step.get("roles", []))} for step in onnx["passes"]]},
        "mlx": settings["quantize"].get("mlx"),
        "runtime": {key: few[key] for key in ("blocks", "block_tokens") if key in few},
        "scores": str(folder / "scores.f16"),
        "text": str(TEXT),
        "threads": work["threads"],
        "type": settings["quantize"].get("type", ""),
        "tensor_types": settings["quantize"].get("tensor_types", []),
        "context": tiers["reference"]["context"],
        "blocks": tiers["reference"]["blocks"],
        "block_tokens": tiers["reference"]["block_tokens"],
        "smoke_context": tiers["smoke"]["context"],
        "prompts": prompts,
        "answer_tokens": ANSWER_TOKENS,
        "bench_context": settings["benchmark"]["context"],
        "pairs": settings["benchmark"]["pairs"],
        "prompt_tokens": settings["benchmark"]["prompt_tokens"],
        "decode_tokens": settings["benchmark"]["decode_tokens"],
    }


def direct(plan: dict[str, Any], prompts: list[str], folder: Path) -> tuple[float, dict[str, float]]:
    """Wall seconds of the plain scripts, and their parts. OpenVINO's begins with llama.cpp making a 16-bit GGUF."""
    job = job_of(plan, prompts, folder)
    start = time.perf_counter()
    if plan["plan"]["framework"] == "llama.cpp":
        parts = _script("direct_llamacpp.py", Path(sys.executable), job)
        return time.perf_counter() - start, parts
    if (framework := plan["plan"]["framework"]) in FROM_CHECKPOINT:
        job["plain"] = str(checkpoint(folder, framework))
        parts = _script(f"direct_{framework}.py", interpreter_for(framework), job)
        return time.perf_counter() - start, parts
    first = _script(
        "direct_llamacpp.py", Path(sys.executable), {**job, "reference": job["plain"], "only": "dequantize"}
    )
    rest = _script("direct_openvino.py", interpreter_for("openvino"), job)
    return time.perf_counter() - start, first | rest


def checkpoint(folder: Path, framework: str) -> Path:
    """The embedded model as a Hugging Face folder, in the cache of ADVISOR_HOME."""
    source = embedded_path()
    assert source is not None
    watch = Watch(folder / "checkpoint.log", lambda _: None, 600, 600, None, None)
    return hf_folder(source, watch, framework=framework)


def _script(name: str, python: Path, job: dict[str, Any]) -> dict[str, float]:
    command = [str(python), str(Path(__file__).with_name(name))]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": str(job["threads"])}  # as a run's workers have it
    done = subprocess.run(command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True, env=env)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])  # frameworks print there as well
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often both are run, in turn; the best of each counts"
    )
    parser.add_argument("--framework", choices=("llama.cpp", "openvino", *FROM_CHECKPOINT), default="llama.cpp")
    parser.add_argument("--precision", help="instead of the plan's own choice")
    rounds, framework = (arguments := parser.parse_args()).rounds, arguments.framework
    ours, plain, busy = [], [], {"advisor": 0.0, "script": 0.0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "toolchains").symlink_to(advisor_home() / "toolchains")
        if framework in FROM_CHECKPOINT:
            (folder / "cache").mkdir()
            (folder / "cache" / "checkpoints").symlink_to(checkpoint(folder, framework).parent.parent)
        wanted = ("--precision", arguments.precision) if arguments.precision else ()
        request = ("embedded", "--framework", framework, "--target", "cpu", *wanted)
        _, plan = advisor(folder, "plan", *request, "--out", str(folder / "plan.json"))
        for number in range(rounds):
            begun = cpu_seconds()
            seconds, report = advisor(
                folder, "run", str(folder / "plan.json"), "--workdir", str(folder / f"run{number}")
            )
            ours.append((seconds, {step["id"]: step["seconds"] for step in report["steps"]}))
            (folder / f"plain{number}").mkdir()
            between = cpu_seconds()
            prompts = [answer["prompt"] for answer in report["validation"]["smoke"]["answers"]]
            plain.append(direct(plan, prompts, folder / f"plain{number}"))
            busy["advisor"] += between - begun
            busy["script"] += cpu_seconds() - between
    (seconds, steps), (script, parts) = min(ours, key=lambda row: row[0]), min(plain, key=lambda row: row[0])
    overhead, of_cpu = seconds / script - 1, busy["advisor"] / busy["script"] - 1
    print(f"{'advisor run':>14} {seconds:7.1f} s   " + "  ".join(f"{key} {value:.1f}" for key, value in steps.items()))
    print(f"{'plain script':>14} {script:7.1f} s   " + "  ".join(f"{key} {value:.1f}" for key, value in parts.items()))
    print(f"{'overhead':>14} {overhead:7.1%}     budget {BUDGET:.0%}; of processor seconds {of_cpu:.1%}")
    found = {"advisor_seconds": seconds, "script_seconds": script, "overhead": overhead, "cpu_overhead": of_cpu}
    print(json.dumps({**found, "steps": steps, "parts": parts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
