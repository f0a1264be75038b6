"""Tier 1 on tiny graphs that a framework itself wrote: slow, and only with the Pythons named in OPENVINO_PYTHON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from advisor.compression import Compression, CompressionPass
from advisor.plan import QuantizeSettings
from executors import ir_integrity
from executors.executor import Task
from executors.ir_integrity import TOKENIZER
from executors.openvino import compress
from executors.process import Watch

pytestmark = pytest.mark.slow


def python_of(framework: str) -> str:
    """The Python that has the framework; skips the test where none is named."""
    name = f"{framework.upper()}_PYTHON"
    return os.environ.get(name) or pytest.skip(f"needs {name}: a Python with the framework")


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVISOR_HOME", str(tmp_path / "home"))
    for framework, version in (("openvino", "2026.4.1"), ("olive", "0.13.0")):
        if python := os.environ.get(f"{framework.upper()}_PYTHON"):
            record = tmp_path / "home" / "toolchains" / framework / "toolchain.json"
            record.parent.mkdir(parents=True)
            record.write_text(json.dumps({"framework": framework, "version": version, "python": python}))


def watch(folder: Path) -> Watch:
    return Watch(folder / "log.txt", lambda _: None, 600, 600, None, None)


# ---- OpenVINO

IR = """
import sys, numpy as np, openvino as ov
from openvino import opset13 as op
folder, first = sys.argv[1:]
draw = np.random.default_rng(0)
x = y = op.parameter([1, -1, 64], np.float32)
for name, shape in ((first, (64, 64)), ("lm_head", (32, 64))):
    weight = op.constant(draw.standard_normal(shape).astype(np.float16), name=name + ".weight")
    y = op.matmul(y, op.convert(weight, np.float32), False, True)
ov.save_model(ov.Model([y], [x]), folder + "/openvino_model.xml")
"""


def ir(folder: Path, first: str = "layers.0.mlp.up_proj") -> Path:
    """A 16-bit graph of two matrices, with files for a tokenizer."""
    folder.mkdir()
    subprocess.run([python_of("openvino"), "-c", IR, str(folder), first], check=True)
    for name in TOKENIZER:
        (folder / name).write_text("<net>\n</net>\n")
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return ir(tmp_path / "reference")


def packed(reference: Path, step: CompressionPass) -> Path:
    output = reference.with_name(step.mode)
    settings = QuantizeSettings(
        input="work/r", output="work/m", precision=step.mode, compression=Compression(passes=[step])
    )
    compress(Task(settings, {"input": reference, "output": output}, 1, watch(reference.parent)), settings)
    return output


def checked(artifact: Path, reference: Path, step: CompressionPass) -> dict[str, Any]:
    return ir_integrity.integrity(
        artifact, reference=reference, planned=[(step, [])], expected_bytes=0, watch=watch(reference.parent)
    )


@pytest.mark.parametrize(
    ("mode", "kind", "scale_bytes"), [("mxfp4", "f4e2m1", 1), ("nf4", "nf4", 2), ("int4_sym", "i4", 2)]
)
def test_four_bit_weights_are_packed_as_planned(reference: Path, mode: Any, kind: str, scale_bytes: int) -> None:
    step = CompressionPass(mode=mode, group_size=32)
    found = checked(packed(reference, step), reference, step)
    assert found["status"] == "pass", found
    assert found["types"] == {f"{kind}, 2 scales per row": 1, "u8": 1}
    head = 32 * 64 + 32 * 3
    assert found["tensor_bytes"] == 64 * 64 // 2 + 64 * 2 * scale_bytes + head


def test_a_power_of_two_that_is_no_number_is_found(reference: Path) -> None:
    step = CompressionPass(mode="mxfp4", group_size=32)
    artifact = packed(reference, step)
    weights = artifact / "openvino_model.bin"
    data = bytearray(weights.read_bytes())
    data[64 * 64 // 2 : 64 * 64 // 2 + 128] = b"\xff" * 128
    weights.write_bytes(data)
    found = checked(artifact, reference, step)
    assert found["code"] == "wrong-values"
    assert "128 values or scales that are not numbers" in found["reason"]


def test_a_missing_weight_is_told_and_not_looked_up(reference: Path, tmp_path: Path) -> None:
    step = CompressionPass(mode="nf4", group_size=32)
    found = checked(packed(ir(tmp_path / "other", "layers.1.mlp.up_proj"), step), reference, step)
    assert found["code"] == "wrong-tensors"
    assert "layers.0.mlp.up_proj.weight is missing" in found["reason"]
