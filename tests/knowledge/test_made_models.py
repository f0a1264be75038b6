"""Models that other frameworks' tools have made: ONNX, OpenVINO and MLX, read from their headers alone."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from house_onnx import (
    BLOCK,
    FLOAT,
    GENAI,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    PARAMS,
    UINT8,
    VOCAB,
    HouseOnnx,
    field,
    house_ir,
    house_mlx,
    node,
    tensor,
    varint,
)  # fmt: skip
from hub_server import Hub, Repo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advisor.constraints import Constraints
from advisor.decide import make_plan
from knowledge.base import AdvisorError
from knowledge.checkpoint import read_model_path
from knowledge.onnx_file import read_onnx
from knowledge.precisions import stored_precision
from knowledge.protobuf import MAX_TEXT
from knowledge.records import ModelSpec
from knowledge.store import find_model
from knowledge.weights import weights
from probes.declared import declared_profile

EMBEDDING = 4 * VOCAB * HIDDEN
BODY = PARAMS - VOCAB * HIDDEN  # the head included: it is in blocks as the layers are


def refused(path: Path) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        read_model_path(path)
    assert caught.value.message.count(".") <= caught.value.message.count(".onnx") + 8
    assert "\n" not in caught.value.message
    return caught.value


def stored(spec: ModelSpec) -> int:
    return weights(spec, stored_precision(spec)).tensor_bytes


# ---- ONNX


@pytest.mark.parametrize(("symmetric", "name", "zero_points"), [(True, "int4-b32", 0), (False, "int4-asym-b32", 0.5)])
def test_an_onnx_folder_has_the_bytes_that_it_stores(
    tmp_path: Path, symmetric: bool, name: str, zero_points: float
) -> None:
    spec = read_model_path(HouseOnnx(symmetric=symmetric).write(tmp_path / "onnx"))
    blocks = BODY // BLOCK
    assert (spec.source_framework, spec.source_precision, spec.source_bits) == ("olive", name, 4)
    assert (spec.architecture, spec.layers, spec.params, spec.context) == ("llama", LAYERS, PARAMS, 4096)
    assert stored(spec) == BODY // 2 + round(blocks * (4 + zero_points)) + EMBEDDING + 4 * LAYERS * HIDDEN


def test_weights_inside_the_file_count_as_those_beside_it(tmp_path: Path) -> None:
    inside = read_model_path(HouseOnnx(inline=True).write(tmp_path / "a") / "model.onnx")
    beside = read_model_path(HouseOnnx().write(tmp_path / "b") / "model.onnx")
    assert stored(inside) == stored(beside)
    assert weights(inside, stored_precision(inside)).file_bytes < 1.1 * stored(inside)


def test_an_onnx_file_alone_is_of_unknown_architecture_with_the_memory_that_can_be_counted(tmp_path: Path) -> None:
    spec = read_model_path(HouseOnnx().write(tmp_path / "onnx", genai=None) / "model.onnx")
    assert spec.architecture == "unknown"
    assert [(g.kind, g.layers, g.kv_heads, g.key_length) for g in spec.attention] == [("full", LAYERS, KV_HEADS, 64)]
    assert (spec.vocab, spec.hidden) == (VOCAB, HIDDEN)
    assert "what architecture" in spec.notes


def test_a_graph_without_a_cache_says_that_its_memory_is_not_counted(tmp_path: Path) -> None:
    house = HouseOnnx()
    house.inputs = []
    spec = read_model_path(house.write(tmp_path / "onnx", genai=None) / "model.onnx")
    assert spec.attention == ()
    assert "not counted" in spec.notes


def test_a_quantized_embedding_and_experts_are_recognized(tmp_path: Path) -> None:
    house = HouseOnnx()
    data = house.add("model.embed_tokens.weight_Q8", UINT8, [VOCAB, HIDDEN])
    scales = house.add("model.embed_tokens.weight_scales", FLOAT, [VOCAB, HIDDEN // 32])
    house.nodes.append(node("GatherBlockQuantized", [data, "ids", scales], bits=8, block_size=32))
    experts = house.add("model.layers.0.moe.experts.gate_up_proj.qweight", UINT8, [4, 2 * HIDDEN, HIDDEN // 2])
    wide = house.add("model.layers.0.moe.experts.gate_up_proj.scales", FLOAT, [4, 2 * HIDDEN, HIDDEN // 32])
    house.nodes.append(node("QMoE", ["x", "router", experts, wide], expert_weight_bits=4, block_size=32))
    spec = read_model_path(house.write(tmp_path / "onnx"))
    assert spec.params == PARAMS + VOCAB * HIDDEN + 4 * 2 * HIDDEN * HIDDEN


def broken_onnx(what: str) -> bytes:
    house = HouseOnnx()
    extra = {
        "dims": field(1, 2**41) + field(2, FLOAT) + field(8, "bad"),
        "dtype": field(1, 4) + field(2, 99) + field(8, "bad"),
        "size": field(1, 4) + field(2, FLOAT) + field(8, "bad") + field(9, b"123"),
        "twice": tensor("model.embed_tokens.weight", FLOAT, [2]),
        "outside": tensor("bad", FLOAT, [4], location="../../etc/passwd", offset=0, length=16),
        "absolute": tensor("bad", FLOAT, [4], location="/etc/passwd", offset=0, length=16),
        "beyond": tensor("bad", FLOAT, [4], location="model.onnx.data", offset=2**40, length=16),
        "negative": tensor("bad", FLOAT, [4], location="model.onnx.data", offset=-8, length=16),
        "absent": tensor("bad", FLOAT, [4], location="other.data", offset=0, length=16),
        "name": field(1, 4) + field(2, FLOAT) + field(8, "n" * (MAX_TEXT + 1)),
        "place": tensor("bad", FLOAT, [4], location="model.onnx.data", offset="x", length=16),
    }.get(what)
    if extra is not None:
        house.tensors.append(extra)
        return house.raw()
    whole = house.raw()
    nested = field(1, b"")
    for _ in range(12):
        nested = field(1, field(5, field(1, "g") + field(6, nested)))
    return {
        "truncated": whole[: len(whole) // 2], "no graph": field(1, 10), "two graphs": whole + field(7, b""),
        "no protobuf": b"This is no model, it is a text.", "empty": b"", "endless number": b"\xff" * 64,
        "long field": varint(7 << 3 | 2) + varint(2**40), "nested": field(7, nested),
        "no matrices": field(7, field(5, tensor("a", FLOAT, [4]))),
    }[what]  # fmt: skip


@pytest.mark.parametrize(
    "what",
    ["dims", "dtype", "size", "twice", "outside", "absolute", "beyond", "negative", "absent", "name", "place",
     "truncated", "no graph", "two graphs", "no protobuf", "empty", "endless number", "long field", "nested",
     "no matrices"],
)  # fmt: skip
def test_a_broken_onnx_header_is_refused_in_one_sentence(tmp_path: Path, what: str) -> None:
    folder = HouseOnnx().write(tmp_path / "onnx")
    (folder / "model.onnx").write_bytes(broken_onnx(what))
    assert refused(folder / "model.onnx").code in ("bad-onnx", "bad-checkpoint")


@pytest.mark.parametrize(
    "genai",
    [{}, {"model": {"decoder": {"filename": "../model.onnx"}}}, {"model": {"decoder": {"pipeline": []}}},
     {**GENAI, "model": {**GENAI["model"], "context_length": -1}},
     {**GENAI, "model": {**GENAI["model"], "vocab_size": 2**60}}],
)  # fmt: skip
def test_a_broken_genai_config_is_refused(tmp_path: Path, genai: dict[str, object]) -> None:
    assert refused(HouseOnnx().write(tmp_path / "onnx", genai=genai)).code == "bad-checkpoint"


def test_weights_that_are_a_link_are_refused(tmp_path: Path) -> None:
    folder = HouseOnnx().write(tmp_path / "onnx")
    (folder / "model.onnx.data").rename(tmp_path / "elsewhere")
    (folder / "model.onnx.data").symlink_to(tmp_path / "elsewhere")
    assert "not there" in refused(folder).message


# ---- OpenVINO


@pytest.mark.parametrize(
    ("kind", "group", "name", "per_group"),
    [("u4", 64, "int4-asym-g64", 2.5), ("i4", 128, "int4-sym-g128", 2), ("i4", -1, "int4-sym-cw", 2),
     ("nf4", -1, "nf4-cw", 2)],
)  # fmt: skip
def test_an_openvino_folder_names_its_precision_and_bytes(
    tmp_path: Path, kind: str, group: int, name: str, per_group: float
) -> None:
    spec = read_model_path(house_ir(tmp_path / "ir", kind=kind, group=group))
    body = PARAMS - 2 * VOCAB * HIDDEN
    rows = LAYERS * (2 * HIDDEN + HIDDEN + 512 + 512 + HIDDEN)
    groups = rows if group < 0 else body // group
    assert (spec.source_framework, spec.source_precision) == ("openvino", name)
    assert stored_precision(spec).scheme == "openvino"
    assert stored(spec) == body // 2 + round(groups * per_group) + 2 * VOCAB * (HIDDEN + 3)


def test_the_graph_file_stands_for_its_folder(tmp_path: Path) -> None:
    folder = house_ir(tmp_path / "ir")
    assert read_model_path(folder / "openvino_model.xml").params == read_model_path(folder).params == PARAMS


def test_an_openvino_folder_without_a_config_is_of_unknown_architecture(tmp_path: Path) -> None:
    folder = house_ir(tmp_path / "ir")
    (folder / "config.json").unlink()
    spec = read_model_path(folder)
    assert spec.architecture == "unknown"
    assert stored(spec) > 0


@pytest.mark.parametrize(
    "head", ['<!DOCTYPE net [<!ENTITY a "a">]>', '<!DOCTYPE net SYSTEM "file:///etc/passwd">'], ids=["entity", "system"]
)
def test_document_types_and_entities_are_refused(tmp_path: Path, head: str) -> None:
    error = refused(house_ir(tmp_path / "ir", head=head))
    assert error.code == "bad-ir"
    assert "document type" in error.message


@pytest.mark.parametrize(
    ("old", "new"),
    [("256, 4, 64", "256, 4, 63"), ("256, 4, 64", "-1, 4, 64"), ("<net", "<net><net"), ('size="', 'size="9'),
     ("256, 4, 64", "9999999999999, 4, 64")],
)  # fmt: skip
def test_a_broken_graph_is_refused(tmp_path: Path, old: str, new: str) -> None:
    folder = house_ir(tmp_path / "ir")
    graph = folder / "openvino_model.xml"
    graph.write_text(graph.read_text().replace(old, new, 1))
    assert refused(folder).code == "bad-ir"


# ---- MLX


@pytest.mark.parametrize(("bits", "group", "name"), [(4, 64, "4bit-g64"), (8, 32, "8bit-g32"), (6, 128, "6bit-g128")])
def test_an_mlx_folder_names_its_precision_and_bytes(tmp_path: Path, bits: int, group: int, name: str) -> None:
    spec = read_model_path(house_mlx(tmp_path / "mlx", bits=bits, group=group))
    assert (spec.source_framework, spec.source_precision, spec.params) == ("mlx", name, PARAMS)
    assert stored(spec) == PARAMS * bits // 8 + PARAMS // group * 4 + 2 * HIDDEN


@pytest.mark.parametrize(
    "block",
    [{"group_size": 48}, {"group_size": 64, "mode": "other"}, {}, {"group_size": True}, {"group_size": 32, "bits": 4}],
)
def test_a_broken_quantization_block_is_refused(tmp_path: Path, block: dict[str, object]) -> None:
    assert refused(house_mlx(tmp_path / "mlx", quantization=block)).code == "bad-checkpoint"


def test_a_quantized_mlx_repository_of_the_hub_is_a_model_as_it_is(hub: Hub, tmp_path: Path) -> None:
    folder = house_mlx(tmp_path / "mlx")
    hub.repos["lab/House-4bit"] = Repo({path.name: path.read_bytes() for path in folder.iterdir()})
    spec = find_model("lab/House-4bit")
    assert (spec.source_framework, spec.source_precision, spec.path) == ("mlx", "4bit-g64", "")
    assert stored(spec) == stored(read_model_path(folder))


# ---- what can run them


def plan_of(spec: ModelSpec, chip: str = "M3", **request: object) -> dict[str, object]:
    profile = declared_profile(ram_bytes=16 * 2**30, chip=chip)
    return make_plan(Constraints(model=spec.name, **request), profile, spec)  # type: ignore[arg-type]


def test_a_made_model_is_a_candidate_as_it_is_and_nowhere_else(tmp_path: Path) -> None:
    document = plan_of(read_model_path(house_mlx(tmp_path / "mlx")))
    rows = document["recommendations"]
    assert isinstance(rows, list)
    assert {(r["framework"], r["precision"]) for r in rows} == {("mlx", "4bit-g64")}
    assert rows[0]["memory"]["weights_bytes"] == stored(read_model_path(tmp_path / "mlx"))
    rejected = document["rejected"]
    assert isinstance(rejected, list)
    assert any(r["rule"] == "source.format" and r["framework"] == "llama.cpp" for r in rejected)


def test_a_made_model_is_never_quantized_anew(tmp_path: Path) -> None:
    document = plan_of(read_model_path(house_mlx(tmp_path / "mlx")), precision="8bit-g64")
    assert document["status"] == "infeasible"
    assert isinstance(document["rejected"], list)
    assert any(r["rule"] == "source.as-it-is" and "original" in r["change"] for r in document["rejected"])


def test_an_onnx_file_of_unknown_architecture_is_planned(tmp_path: Path) -> None:
    spec = read_model_path(HouseOnnx().write(tmp_path / "onnx", genai=None) / "model.onnx")
    document = plan_of(spec, chip="Core Ultra 7 155H", framework="olive")
    assert isinstance(document["recommendations"], list)
    assert [r["precision"] for r in document["recommendations"]][:1] == ["int4-b32"]


def test_the_steps_of_a_made_model_only_try_and_time_it(tmp_path: Path) -> None:
    document = plan_of(read_model_path(house_mlx(tmp_path / "mlx")))
    work = document["plan"]
    assert isinstance(work, dict)
    assert {step["kind"] for step in work["steps"]} <= {"validate", "benchmark"}
    assert all(step["settings"]["kind"] == "guide" for step in work["steps"])


# ---- hostile bytes


@pytest.mark.slow
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    cut=st.floats(0, 1),
    target=st.sampled_from(["onnx", "ir", "mlx"]),
)
@settings(max_examples=600, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_read_or_refused_in_our_own_words(
    tmp_path: Path, flips: list[tuple[float, int]], cut: float, target: str
) -> None:
    folder = tmp_path / target
    if target == "onnx":
        HouseOnnx().write(folder)
    else:
        (house_ir if target == "ir" else house_mlx)(folder)
    name = {"onnx": "model.onnx", "ir": "openvino_model.xml", "mlx": "model.safetensors"}[target]
    limit = (folder / name).stat().st_size if target != "mlx" else 4096
    raw = bytearray((folder / name).read_bytes())
    for where, value in flips:
        raw[min(len(raw) - 1, int(where * limit))] = value
    if cut > 0.7:
        raw = raw[: int((cut - 0.7) / 0.3 * len(raw))]
    (folder / name).write_bytes(bytes(raw))
    with contextlib.suppress(AdvisorError):
        spec = read_model_path(folder)
        assert 0 < spec.params < 2**50
        assert stored(spec) >= 0


@pytest.mark.slow
@given(raw=st.binary(max_size=400))
@settings(max_examples=1500, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_an_onnx_header_or_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "any.onnx"
    path.write_bytes(raw)
    with contextlib.suppress(AdvisorError):
        assert read_onnx(path).path == path
