"""OpenVINO's executor without OpenVINO: places, names, refusals, and what integrity says of what a worker found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import tiny_model

from advisor.compression import CompressionPass
from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.plan import Plan
from executors.executor import executor_for
from executors.ir_integrity import TOKENIZER, _other_tokenizer, _other_types
from executors.openvino import _configuration, parts_of
from executors.schedule import schedule
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError
from knowledge.gguf import read_gguf
from knowledge.ir import read_ir
from knowledge.models import embedded_model
from probes.declared import declared_profile

GATE = CompressionPass(mode="int4_asym", group_size=32, roles=["ffn_gate"])
REST = CompressionPass(mode="int8_asym")
PLANNED = [(GATE, ["mlp.gate_proj"]), (REST, [])]


def openvino_plan() -> Plan:
    asked = Constraints(model="embedded", framework="openvino", target="cpu", precision="int8")
    profile = declared_profile(ram_bytes=2**34, vendor="intel", os="linux", target="cpu")
    return Plan.model_validate(make_plan(asked, profile, embedded_model()))


def row(name: str, kind: str, groups: int) -> dict[str, Any]:
    return {"name": name, "type": kind, "groups": groups, "shape": [8, 64], "elements": 512}


def reference() -> list[dict[str, Any]]:
    return [row("model.embed_tokens.weight", "f16", 0), row("model.layers[0].mlp.gate_proj.weight", "f16", 0)]


def test_a_rung_is_compressed_by_its_own_recipe_in_its_own_place() -> None:
    jobs = schedule(openvino_plan())
    first, second = (next(job for job in rung if job.step.kind == "quantize") for rung in jobs.rungs[:2])
    assert (first.output, second.output) == ("work/rungs/0/model", "work/rungs/1/model")
    modes = [
        [step.mode for step in job.made.compression.passes]
        for job in (first, second)
        if job.made is not None and job.made.compression is not None
    ]
    assert modes == [["int8_asym"], ["int4_asym", "int8_asym"]]


def test_roles_are_found_in_a_graph_by_hugging_face_s_names() -> None:
    assert parts_of(["ffn_gate"]) == ["mlp.gate_proj"]
    assert parts_of(["attn_v"]) == ["self_attn.v_proj"]
    assert parts_of(["token_embd"]) == ["embed_tokens"]
    assert "self_attn.o_proj" in parts_of(["attn"])
    assert parts_of([]) == []


def test_a_role_that_no_graph_has_is_refused() -> None:
    with pytest.raises(AdvisorError, match="No weights are called nonsense"):
        parts_of(["nonsense"])


def test_without_openvino_its_plan_is_refused_with_how_to_install_it() -> None:
    with pytest.raises(AdvisorError) as caught:
        _ = executor_for("openvino").version
    assert (caught.value.code, caught.value.exit_code) == ("toolchain-missing", EXIT_TOOLCHAIN_MISSING)


def test_a_framework_without_an_executor_is_refused() -> None:
    with pytest.raises(AdvisorError, match="cannot run tensorflow plans yet"):
        executor_for("tensorflow")


def test_weights_packed_as_planned_pass() -> None:
    made = [row("model.embed_tokens.weight", "u8", 1), row("model.layers[0].mlp.gate_proj.weight", "u4", 2)]
    assert _other_types(made, reference(), PLANNED) == ""


@pytest.mark.parametrize(
    ("kind", "groups"),
    [("u4", 1), ("i4", 2), ("u8", 1), ("f16", 0)],
    ids=["group", "symmetry", "bits", "not compressed"],
)
def test_a_weight_packed_otherwise_is_named(kind: str, groups: int) -> None:
    made = [row("model.embed_tokens.weight", "u8", 1), row("model.layers[0].mlp.gate_proj.weight", kind, groups)]
    assert "gate_proj.weight is" in _other_types(made, reference(), PLANNED)


def test_the_embedding_keeps_the_backup_mode_of_a_four_bit_recipe() -> None:
    planned: list[tuple[CompressionPass, list[str]]] = [(CompressionPass(mode="int4_sym", group_size=64), [])]
    made = [row("model.embed_tokens.weight", "i4", 1), row("model.layers[0].mlp.gate_proj.weight", "i4", 1)]
    assert "embed_tokens.weight is i4" in _other_types(made, reference(), planned)


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("2026.4.1.0-3408", "2026.3.0.0-3200", ""),
        ("hello", "goodbye", ""),
        ("StringToken", "StringTaken", "openvino_tokenizer.xml is not the reference's"),
        ("1.0", "1.1", "openvino_tokenizer.xml is not the reference's"),
    ],
    ids=["version", "chat template", "graph", "layer's own"],
)
def test_a_tokenizer_is_its_graph_and_not_what_this_says_of_itself(
    tmp_path: Path, old: str, new: str, wrong: str
) -> None:
    own = '\n\t\t\t<rt_info>\n\t\t\t\t<attribute name="a" version="1.0" />\n\t\t\t</rt_info>'
    about = '\n\t<rt_info>\n\t\t<chat_template value="hello" />\n\t\t<genai value="2026.4.1.0-3408" />\n\t</rt_info>'
    graph = f'<net>\n\t<layers>\n\t\t<layer type="StringToken">{own}\n\t\t</layer>\n\t</layers>{about}\n</net>\n'
    for folder, text in (("a", graph.replace(old, new)), ("b", graph)):
        (tmp_path / folder).mkdir()
        for name in TOKENIZER:
            (tmp_path / folder / name).write_text(text if name == TOKENIZER[0] else "")
    assert _other_tokenizer(tmp_path / "a", tmp_path / "b").startswith(wrong)
    assert bool(_other_tokenizer(tmp_path / "a", tmp_path / "b")) == bool(wrong)


def test_the_configuration_says_what_the_gguf_says(tmp_path: Path) -> None:
    files = _configuration(read_gguf(tiny_model().write(tmp_path / "m.gguf")))
    config = files["config.json"]
    assert (config["model_type"], config["hidden_size"], config["num_hidden_layers"]) == ("llama", 64, 2)
    assert files["generation_config.json"]["eos_token_id"] == config["eos_token_id"] == 2


def test_an_architecture_that_openvino_s_reader_lacks_is_refused_in_a_sentence(tmp_path: Path) -> None:
    header = replace(read_gguf(tiny_model().write(tmp_path / "m.gguf")), metadata={"general.architecture": "falcon"})
    with pytest.raises(AdvisorError, match="does not know falcon models"):
        _configuration(header)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph = '<net><layers><layer type="Const"><data offset="0" size="64"/></layer></layers></net>'
    (tmp_path / "openvino_model.xml").write_text(graph)
    (tmp_path / "openvino_model.bin").write_bytes(bytes(64))
    return tmp_path


def test_a_whole_model_folder_is_read_without_openvino(folder: Path) -> None:
    assert (read_ir(folder).constants, read_ir(folder).weight_bytes) == (1, 64)


def test_a_truncated_weight_file_is_found_without_openvino(folder: Path) -> None:
    (folder / "openvino_model.bin").write_bytes(bytes(63))
    with pytest.raises(AdvisorError, match="has 63 bytes and its graph names 64"):
        read_ir(folder)


@pytest.mark.parametrize("text", ["", "<net>", '<!DOCTYPE net [<!ENTITY a "b">]><net/>', "<net/>", "\x00"])
def test_what_is_no_graph_is_refused_in_a_sentence(folder: Path, text: str) -> None:
    (folder / "openvino_model.xml").write_text(text)
    with pytest.raises(AdvisorError, match=r"OpenVINO graph|names no weights"):
        read_ir(folder)
