"""A Hugging Face folder as a run's source: what is copied, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.plan import ModelSource, Plan
from executors.acquire import acquire, source_bytes
from knowledge.base import AdvisorError
from knowledge.checkpoint import read_model_path
from probes.declared import declared_profile

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 64,
    "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 8, "tie_word_embeddings": True,
}  # fmt: skip
SHAPES = {
    "model.embed_tokens.weight": (8, 64),
    "model.norm.weight": (64,),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.self_attn.k_proj.weight": (64, 64),
    "model.layers.0.self_attn.v_proj.weight": (64, 64),
    "model.layers.0.self_attn.o_proj.weight": (64, 64),
    "model.layers.0.mlp.gate_proj.weight": (64, 64),
    "model.layers.0.mlp.up_proj.weight": (64, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 64),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.post_attention_layernorm.weight": (64,),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny checkpoint with what published ones have beside it."""
    place = tmp_path / "tiny"
    place.mkdir()
    header, at = {}, 0
    for name, shape in SHAPES.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    (place / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "tokenizer.json").write_text("{}")
    (place / "merges.txt").write_text("a b\n")
    (place / "modeling_tiny.py").write_text("raise SystemExit\n")
    (place / "optimizer.bin").write_bytes(b"pickle")
    (place / "consolidated.safetensors").write_bytes(b"the same weights in another layout")
    (place / "onnx").mkdir()
    (place / "my notes.txt").write_text("to do")
    (place / "samples.json").mkdir()
    return place


def source(folder: Path) -> ModelSource:
    return ModelSource(kind="folder", path=str(folder), hf_id="")


def test_weights_configuration_and_tokenizer_are_copied_and_no_code_and_no_pickle(folder: Path, tmp_path: Path) -> None:
    told: list[float] = []
    found = acquire(source(folder), tmp_path / "copy", told.append)
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {"config.json", "merges.txt", "model.safetensors", "tokenizer.json"}
    assert (
        found["bytes"] == source_bytes(source(folder)) == sum(p.stat().st_size for p in (tmp_path / "copy").iterdir())
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


def test_a_tokenizer_that_is_code_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    refused(folder, tmp_path, "remote-code")


def test_a_link_that_leaves_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.json").write_text("{}")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    refused(folder, tmp_path, "bad-checkpoint")


def test_a_link_to_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "vocab.json").symlink_to("blob")
    refused(folder, tmp_path, "bad-checkpoint")


def test_a_cut_weight_file_is_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, tmp_path, "bad-checkpoint")


def test_a_plan_whose_folder_is_gone_or_a_file_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AdvisorError) as caught:
        acquire(source(tmp_path / "nowhere"), tmp_path / "copy", print)
    assert caught.value.code == "not-found"
    with pytest.raises(AdvisorError) as caught:
        acquire(source(folder / "config.json"), tmp_path / "copy", print)
    assert caught.value.code == "bad-model"


def refused(folder: Path, tmp_path: Path, code: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        acquire(source(folder), tmp_path / "copy", lambda share: None)
    assert caught.value.code == code
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(("framework", "precision", "made"), [
    ("llama.cpp", "Q8_0", "work/reference-f16.gguf"), ("openvino", "int8", "work/reference-ir"),
])  # fmt: skip
def test_a_plan_from_a_folder_converts_it_first(folder: Path, framework: str, precision: str, made: str) -> None:
    machine = declared_profile(ram_bytes=8 * 2**30, vendor="intel", os="linux", target="cpu")
    asked = Constraints(model=str(folder), framework=framework, precision=precision, target="cpu", context=512)
    plan = Plan.model_validate(make_plan(asked, machine, read_model_path(folder)))
    assert plan.plan is not None
    first, second = plan.plan.steps[:2]
    assert (first.settings.kind, first.outputs) == ("acquire", ["work/source"])
    assert second.settings.kind == "convert"
    assert (second.settings.input, second.settings.output) == ("work/source", made)
    assert str(folder) in (*first.command, *second.command)
    assert second.estimate.peak_ram_bytes is not None
    assert second.estimate.peak_ram_bytes > 400e6  # torch alone
