"""Tier 1 on tiny graphs that a framework wrote: slow, and only with the Pythons in OPENVINO_PYTHON and OLIVE_PYTHON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from advisor.compression import Compression, CompressionPass
from advisor.plan import QuantizeSettings
from executors import ir_integrity, onnx_integrity
from executors.embedding_tiers import worker_of
from executors.executor import Task
from executors.ir_integrity import TOKENIZER
from executors.openvino import compress
from executors.process import Watch
from executors.validation import ask
from knowledge.base import AdvisorError

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


# ---- ONNX

GRAPH = """
import sys, numpy as np, onnx
from onnx import TensorProto as T, helper, numpy_helper
draw = np.random.default_rng(0)
ROWS, COLUMNS, BLOCK = 64, 128, 32

def stored(name, values):
    return numpy_helper.from_array(values, name)

def packed(name, kind, dims):
    size = int(np.prod(dims)) * (4 if kind in (T.INT4, T.UINT4) else 8)
    return helper.make_tensor(name, kind, dims, draw.bytes(-(-size // 8)), raw=True)

def shape(*dims):
    return helper.make_tensor_type_proto(T.FLOAT, dims)

node = helper.make_node
tables = [stored("table", draw.standard_normal((50, COLUMNS)).astype(np.float32))]
scales = draw.random((COLUMNS // BLOCK, ROWS)).astype(np.float32)
nodes = [node("Gather", ["table", "ids"], ["x"], "/model/embed_tokens/Gather")]
matmul = node("MatMul", ["x", "w"], ["logits"], "/lm_head/MatMul")
{program}
graph = helper.make_graph(
    nodes, "tiny", [helper.make_value_info("ids", helper.make_tensor_type_proto(T.INT64, [1]))],
    [helper.make_value_info("logits", shape(1, ROWS))], tables,
)
opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
if {valid}:
    import onnxruntime
    onnxruntime.InferenceSession(model.SerializeToString()).run(None, {{"ids": np.array([1])}})
open(sys.argv[1] + "/model.onnx", "wb").write(model.SerializeToString())
"""
BY_ROW = """
tables += [packed("q", T.INT8, [COLUMNS, ROWS]), stored("s", scales[0]), packed("z", T.INT8, [ROWS])]
nodes += [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1), matmul]
"""
BY_BLOCK = """
tables += [packed("q", T.UINT4, [COLUMNS, ROWS]), stored("s", scales)]
nodes += [node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=BLOCK), matmul]
"""
FOUR_BITS_BY_ROW = """
tables += [packed("q", T.UINT4, [COLUMNS, ROWS]), stored("s", scales[0]), packed("z", T.UINT4, [ROWS])]
nodes += [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1), matmul]
"""
BFLOAT16 = """
tables += [helper.make_tensor("b", T.BFLOAT16, [COLUMNS, ROWS], scales.repeat(BLOCK, axis=0).reshape(-1))]
nodes += [node("Cast", ["b"], ["w"], to=T.FLOAT), matmul]
"""
COMPILED = "nodes += [node('EPContext', ['x'], ['logits'], domain='com.microsoft')]"
ELSEWHERE = "nodes += [node('Custom', [], ['w'], domain='mine'), matmul]"
UNBLOCKED = """
tables += [packed("q", T.UINT8, [ROWS, 4, 16]), stored("s", scales)]
nodes += [node("MatMulNBits", ["x", "q", "s"], ["logits"], domain="com.microsoft", K=COLUMNS, N=ROWS)]
"""
UNTYPED = """
tables += [stored("w", scales)]
tables[-1].data_type = 999
nodes += [matmul]
"""
UNTYPED_PACKED = """
tables += [stored("w_quantized", scales), stored("w_scale", scales)]
tables[-2].data_type = 999
"""
GENAI = {"model": {"vocab_size": 64, "decoder": {"filename": "model.onnx", "outputs": {"logits": "logits"}}}}


def onnx_folder(folder: Path, program: str, *, valid: bool = True, genai: dict[str, Any] = GENAI) -> Path:
    """A folder with a graph of an embedding and what `program` adds; ONNX Runtime runs the `valid` ones."""
    folder.mkdir()
    (folder / "genai_config.json").write_text(json.dumps(genai))
    (folder / "tokenizer.json").write_text("{}")
    subprocess.run([python_of("olive"), "-c", GRAPH.format(program=program, valid=valid), str(folder)], check=True)
    return folder


def seen(folder: Path) -> dict[str, Any]:
    return onnx_integrity.integrity(folder, expected_bytes=0, watch=watch(folder.parent))


@pytest.mark.parametrize(
    ("program", "kind", "weight_bytes"),
    [
        (BY_ROW, "8 bits by 0, asymmetric", 128 * 64 + 64 * 4 + 64),
        (BY_BLOCK, "4 bits by 32, symmetric", 128 * 64 // 2 + 4 * 64 * 4),
        (FOUR_BITS_BY_ROW, "4 bits by 0, asymmetric", 128 * 64 // 2 + 64 * 4 + 32),
        (BFLOAT16, "f16", 128 * 64 * 2),
    ],
    ids=["by row", "by block", "four bits by row", "bfloat16"],
)
def test_weights_are_seen_through_what_unpacks_them(tmp_path: Path, program: str, kind: str, weight_bytes: int) -> None:
    found = seen(onnx_folder(tmp_path / "model", program))
    assert found["status"] == "pass", found
    assert found["types"] == {"f32": 1, kind: 1}
    assert found["parameters"] == 50 * 128 + 64 * 128
    assert found["tensor_bytes"] == 50 * 128 * 4 + weight_bytes


@pytest.mark.parametrize(("change", "words"), [("[:] = 0", "are zero"), ("[0] = np.nan", "not numbers")])
def test_bad_scales_behind_a_weight_are_found(tmp_path: Path, change: str, words: str) -> None:
    found = seen(onnx_folder(tmp_path / "model", f"scales{change}\n{BY_BLOCK}"))
    assert found["code"] == "wrong-values"
    assert words in found["reason"]


@pytest.mark.parametrize(
    ("program", "decoder"),
    [(COMPILED, {}), (ELSEWHERE, {}), (BY_ROW, {"pipeline": [{}]})],
    ids=["compiled", "unknown", "one of several"],
)
def test_of_hidden_weights_nothing_is_claimed(tmp_path: Path, program: str, decoder: dict[str, Any]) -> None:
    genai = {"model": {"vocab_size": 64, "decoder": decoder}} if decoder else GENAI
    found = seen(onnx_folder(tmp_path / "model", program, valid=False, genai=genai))
    assert found["status"] == "pass"
    assert "parameters" not in found
    assert found["checks"][-1] == {"id": "values", "status": "unknown", "text": onnx_integrity.HIDDEN}


@pytest.mark.parametrize("program", [UNBLOCKED, UNTYPED], ids=["no block size", "no such type"])
def test_a_malformed_graph_is_a_damaged_file(tmp_path: Path, program: str) -> None:
    found = seen(onnx_folder(tmp_path / "model", program, valid=False))
    assert (found["status"], found["code"]) == ("fail", "damaged-file")
    assert "model.onnx is malformed" in found["reason"]


def test_a_malformed_encoder_is_a_damaged_file(tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path / "model", UNTYPED_PACKED, valid=False)
    with pytest.raises(AdvisorError, match=r"model.onnx is malformed") as caught:
        ask({"op": "scan", "model": str(folder)}, watch(tmp_path), framework="olive", worker=worker_of("olive"))
    assert caught.value.code == "damaged-file"
