"""Olive's work for execution providers that need another host: a folder to take there, and its results.

    work/olive/   checkpoint/ (a Hugging Face folder), olive.json (for olive run --config), calibration.jsonl, README.md

On a machine without the provider the run stops there and says what it needs. On one that has it `advisor run` on the
same run folder goes on by itself; a model that Olive made by hand in that folder (its `model/`) is taken as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advisor.olive_workflow import CALIBRATION_FILE, MODEL, OUTPUT, Workflow, config_of, hosts
from executors.executor import Task
from executors.folder import copy_file, write_text
from executors.hf_folder import hf_folder
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError, write_json

FRAMEWORK = "olive"
CONFIG = "olive.json"
CALIBRATION_TEXT = Path(__file__).parent / "data" / "calibration_text.txt"
OLIVE_VERSION = "0.13.0"  # whose passes the workflows name


def prepare(task: Task, workflow: Workflow) -> dict[str, Any]:
    """Fill `output` with what the host needs: nothing in it names a path outside."""
    source, output = task.paths["input"], task.paths["output"]
    folder = source if source.is_dir() else hf_folder(source, task.watch, framework=FRAMEWORK)
    (output / MODEL).mkdir(parents=True)
    size = 0
    for path in sorted(folder.iterdir()):
        if path.is_file():
            copy_file(path, output / MODEL / path.name, lambda _: None)
            size += path.stat().st_size
    write_json(output / CONFIG, config_of(workflow))
    paragraphs = CALIBRATION_TEXT.read_text(encoding="utf-8").split("\n\n")
    lines = [json.dumps({"text": " ".join(text.split())}) for text in paragraphs if text.strip()]
    write_text(output / CALIBRATION_FILE, "\n".join(lines) + "\n")
    write_text(output / "README.md", instructions(workflow))
    return {"bytes": size}


def instructions(workflow: Workflow) -> str:
    """What a person does on the host, by advisor or by hand."""
    host = hosts()[workflow.backend]
    packages = " ".join(host["packages"])
    network = f"\nThis needs the network there: {host['network']}.\n" if host.get("network") else ""
    return f"""# Made for {host["provider"]}, not run yet

Needs {host["host"]}.
{network}
With advisor: take the whole run folder there, install advisor and its Olive toolchain, put the provider's packages into
that environment instead of those for the CPU (PYTHON is its interpreter: `advisor toolchain list`), and go on:

    advisor toolchain install olive
    PYTHON -m pip uninstall -y onnxruntime onnxruntime-genai
    PYTHON -m pip install {packages}
    advisor run RUN_DIR

By hand, in this folder:

    pip install olive-ai=={OLIVE_VERSION} {packages}
    olive run --config {CONFIG}

Olive ends without an error where a pass failed: look whether `{OUTPUT}/` holds a model. Then bring the run folder back,
and `advisor run RUN_DIR` takes the model in `{OUTPUT}/` and judges it as far as it runs here.

The configuration was checked against the passes of Olive {OLIVE_VERSION}; it was not run. Recipe: {host["source"]}.
"""


def optimize(task: Task, workflow: Workflow, scratch: Path) -> dict[str, Any]:
    """The model folder `output`: what Olive left in the prepared folder, or what it makes here if this is the host.

    Raises AdvisorError `needs-host`, and what the worker raises.
    """
    folder, host = task.paths["input"], hosts()[workflow.backend]
    request: dict[str, Any] = {
        "output": str(task.paths["output"].absolute()),
        "threads": task.threads,
        "record": str(task.watch.log_path.with_name(CONFIG).absolute()),
    }
    if (folder / OUTPUT).is_dir():
        return _ask(task, {**request, "op": "import", "input": str((folder / OUTPUT).absolute())})
    offered = _ask(task, {"op": "host"})["providers"]
    if host["provider"] not in offered:
        raise AdvisorError(
            "needs-host",
            f"This step needs {host['host']}: {host['provider']} is not among what ONNX Runtime offers here "
            f"({', '.join(offered)}).",
            "take the run folder to such a machine and run there: advisor run RUN_DIR "
            "(work/olive/README.md says what to install, and how to do it by hand)",
            EXIT_TOOLCHAIN_MISSING,
        )
    config = config_of(workflow)
    config["input_model"]["model_path"] = str((folder / MODEL).absolute())
    for data in config.get("data_configs", []):
        data["load_dataset_config"]["data_files"] = str((folder / CALIBRATION_FILE).absolute())
    about = {"config": config, "versions": {"olive-ai": OLIVE_VERSION}, "offline": not host.get("network")}
    return _ask(task, {**request, **about, "op": "optimize"}, scratch)


def _ask(task: Task, request: dict[str, Any], scratch: Path | None = None) -> dict[str, Any]:
    done = task.makers.ask(FRAMEWORK, request, task.watch, scratch=scratch)
    return {**done.result, "peak_rss_bytes": done.peak_rss_bytes}
