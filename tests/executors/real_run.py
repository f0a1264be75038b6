"""Runs of the embedded model with a real framework. `python real_run.py FOLDER`: llama.cpp, from Q8_0 to a mix."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from fake_run import fake_plan

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.plan import BenchmarkSettings, ChecklistItem, ModelSource, Plan, ValidateSettings
from executors.hf_folder import hf_folder
from executors.process import Watch
from executors.runner import run_plan
from knowledge.models import embedded_model, embedded_path
from knowledge.records import ModelSpec
from probes.declared import declared_profile
from probes.profile import CPU, HardwareProfile, MemoryPool

MIX = "Q8_0+ffn_gate=Q5_0"
BYTES = {"Q8_0": 144_811_072, MIX: 134_857_792}  # measured with llama-cpp-python 0.3.36
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def linked_home(folder: Path, source: Path) -> Path:
    """`folder` as an ADVISOR_HOME of its own, with links to the toolchains of the home `source`."""
    (folder / "toolchains").mkdir()
    for path in (source / "toolchains").iterdir():
        if path.is_dir():
            (folder / "toolchains" / path.name).symlink_to(path)
    return folder


def embedded_checkpoint(home: Path, logs: Path) -> Path:
    """The embedded model as a Hugging Face folder, in the cache of `home`."""
    source = embedded_path()
    assert source is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(home))
        return hf_folder(source, Watch(logs / "log.txt", lambda event: None, 600, 600, None, None))


def small_plan(framework: str, precision: str, blocks: int, model: ModelSpec | None = None) -> Plan:
    """`precision` first, its ladder next; timed once, scored on `blocks` blocks of the text."""
    machine = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")
    spec = model or embedded_model()
    named = "embedded" if model is None else model.path
    asked = Constraints(model=named, framework=framework, target="cpu", precision=precision)
    plan = Plan.model_validate(make_plan(asked, machine, spec))
    assert plan.plan is not None
    for step in plan.plan.steps:
        if isinstance(step.settings, BenchmarkSettings):
            step.settings.pairs, step.settings.decode_tokens = 1, min(8, step.settings.decode_tokens)
        elif isinstance(step.settings, ValidateSettings):
            step.settings.blocks = blocks
    return plan


def real_plan() -> Plan:
    plan = fake_plan(
        Path("/"),
        "Q8_0",
        (MIX,),
        model=MODEL,
        base_model=MODEL,
        reference_note="dequantized from Q4_1: a demonstration",
    )
    work = plan.plan
    assert work is not None
    for step in work.steps:
        settings = step.settings
        if settings.kind == "acquire":
            settings.source = ModelSource(kind="embedded", hf_id=MODEL)
        elif settings.kind == "quantize" or (settings.kind == "validate" and settings.tier == "integrity"):
            settings.expected_bytes = BYTES["Q8_0"]
        elif isinstance(settings, BenchmarkSettings):
            settings.pairs, settings.prompt_tokens, settings.decode_tokens = 5, 32, 8
    work.ladder[0].expected_bytes = BYTES[MIX]
    header = ChecklistItem(
        id="header", phase="pre-deployment", text="It parses", kind="automatic", check="artifact-header"
    )
    work.checklist.append(header)
    return plan


def main() -> None:
    machine = HardwareProfile(
        origin="probed",
        fingerprint="machine-1",
        cpu=CPU(model="Test CPU"),
        memory=(
            MemoryPool(id="ram", kind="ram", total_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        ),
    )
    report = run_plan(real_plan(), Path(sys.argv[1]), machine=machine, escalate=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
