"""Hugging Face folders: read from bounded headers; refused in one sentence when broken, hostile or not usable."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from house_checkpoint import CONFIG, safetensors, shapes
from house_gguf import House
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.base import AdvisorError
from knowledge.checkpoint import read_model_path
from knowledge.hf_config import gguf_name
from knowledge.precisions import resolve_precision
from knowledge.weights import weights


def folder(tmp_path: Path, **config: Any) -> Path:
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    safetensors(path / "model.safetensors", shapes())
    return path


def refused(path: Path) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        read_model_path(path)
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


def test_whole_folder_gives_its_model(tmp_path: Path) -> None:
    spec = read_model_path(folder(tmp_path))
    assert (spec.architecture, spec.layers, spec.hidden, spec.kv_heads, spec.head_dim) == ("llama", 2, 256, 2, 64)
    assert spec.params == sum(math.prod(shape) for shape in shapes().values())
    assert spec.source_precision == "bf16"
    assert not spec.tied_embeddings
    assert {t.name for t in spec.tensors} >= {"token_embd.weight", "output.weight", "blk.1.ffn_down.weight"}


def test_planned_gguf_of_a_folder_keeps_norms_in_32_bit(tmp_path: Path) -> None:
    spec = read_model_path(folder(tmp_path))
    norms = (2 * 2 + 1) * 256
    f16 = weights(spec, resolve_precision("F16", "llama.cpp")[0])
    assert f16.tensor_bytes == 2 * (spec.params - norms) + 4 * norms


def test_licence_comes_from_the_card_and_is_never_guessed(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert read_model_path(path).licence == "unknown"
    (path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    assert (read_model_path(path).licence, read_model_path(path).commercial_use) == ("mit", "yes")


def test_sharded_folder_is_read_whole(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "model.safetensors").unlink()
    names = list(shapes().items())
    parts = {"model-00001-of-00002.safetensors": names[:10], "model-00002-of-00002.safetensors": names[10:]}
    for file, part in parts.items():
        safetensors(path / file, dict(part))
    index = {"weight_map": {name: file for file, part in parts.items() for name, _ in part}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(read_model_path(path).tensors) == len(names)
    (path / "model-00002-of-00002.safetensors").unlink()
    assert "missing" in refused(path).message


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x\u202e.safetensors"]
)
def test_index_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    error = refused(path)
    assert error.code == "bad-checkpoint"
    assert "\u202e" not in error.message


def test_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path)
    outside = tmp_path / "outside.safetensors"
    (path / "model.safetensors").rename(outside)
    (path / "model.safetensors").symlink_to(outside)
    assert "link" in refused(path).message


def test_hub_cache_snapshot_with_links_to_its_blobs_is_read(tmp_path: Path) -> None:
    plain = folder(tmp_path)
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (plain / file).rename(blobs / file)
        (snapshot / file).symlink_to(Path("..", "..", "blobs", file))
    assert read_model_path(snapshot).layers == 2


def test_code_of_the_folder_is_never_run(tmp_path: Path) -> None:
    error = refused(folder(tmp_path, auto_map={"AutoModel": "modeling_x.Model"}))
    assert error.code == "remote-code"


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "pickle" in refused(path).message


def test_already_quantized_folder_is_refused(tmp_path: Path) -> None:
    assert "awq" in refused(folder(tmp_path, quantization_config={"quant_method": "awq"})).message


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 0}, {"num_hidden_layers": 10**9}, {"num_hidden_layers": 5}, {"num_hidden_layers": "2"},
        {"hidden_size": -1}, {"hidden_size": None}, {"num_attention_heads": 0}, {"num_attention_heads": True},
        {"max_position_embeddings": 2**31}, {"vocab_size": 2**40}, {"vocab_size": 2000}, {"eos_token_id": 10**9},
        {"eos_token_id": [1, -7]}, {"eos_token_id": "x"}, {"rms_norm_eps": -1.0}, {"rms_norm_eps": float("nan")},
        {"head_dim": 2.5},
    ],
    ids=str,
)  # fmt: skip
def test_absurd_numbers_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    assert refused(folder(tmp_path, **change)).code == "bad-checkpoint"


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\0" * 20, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"[]" + bytes(8),
        struct.pack("<Q", 5) + b"{nope" + bytes(8), struct.pack("<Q", 200_000) + b"[" * 200_000,
    ],
    ids=["empty", "zeros", "absurd length", "list", "no JSON", "deep"],
)  # fmt: skip
def test_broken_safetensors_header_is_refused(tmp_path: Path, raw: bytes) -> None:
    path = folder(tmp_path)
    (path / "model.safetensors").write_bytes(raw)
    assert refused(path).code == "bad-checkpoint"


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F99"}, {"shape": [-1]}, {"shape": [2**60]}, {"shape": "x"}, {"shape": [256] * 20}, {"shape": [True]},
        {"data_offsets": [0]}, {"data_offsets": [10, 5]}, {"data_offsets": [0, 512]},
        {"data_offsets": [2**50, 2**50 + 512]},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_tensor_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = folder(tmp_path)
    safetensors(path / "model.safetensors", shapes(), **{"model.norm.weight": entry})
    assert refused(path).code == "bad-checkpoint"


def test_truncated_weights_are_seen_without_reading_them(tmp_path: Path) -> None:
    path = folder(tmp_path)
    safetensors(path / "model.safetensors", shapes(), missing=10)
    assert "truncated" in refused(path).message


def test_broken_config_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path)
    for raw in ('{"hidden_size": ', "[]", "{" * 100_000, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")):
        (path / "config.json").write_text(raw)
        assert refused(path).code == "bad-checkpoint"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "empty"),
        ({"encoder.onnx": b"\x08\x07", "decoder.onnx": b"\x08\x07"}, "2 ONNX graphs"),
        ({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, "2 GGUF files"),
        ({"pytorch_model.bin": b"\x80\x02"}, "pickle"),
        ({"notes.txt": b"hello"}, "not a Hugging Face checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_folders_are_named(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    path = tmp_path / "other"
    path.mkdir()
    for name, raw in files.items():
        (path / name).write_bytes(raw)
    error = refused(path)
    assert error.code == "unsupported-model"
    assert words in error.message


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("notes.txt", b"This is not a model.\n", "no known format"),
        ("graph.xml", b"<net/>", "openvino_model.xml"),
        ("model.safetensors", struct.pack("<Q", 40) + b'{"a":1}' + b" " * 40, "folder"),
        ("model.pt", b"PK\x03\x04", "pickle"),
        ("empty.bin", b"", "empty"),
        ("page.html", b"<html></html>", "web page"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, raw: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(raw)
    error = refused(tmp_path / name)
    assert error.code == "unsupported-model"
    assert words in error.message


def test_gguf_under_any_name_is_recognized(tmp_path: Path) -> None:
    assert read_model_path(House().write(tmp_path / "model.bin")).architecture == "llama"


def test_nothing_at_the_path_is_said(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").code == "not-found"
    assert refused(Path("a\0b")).code in ("not-found", "unreadable")


def test_experts_are_stacked_as_gguf_stores_them(tmp_path: Path) -> None:
    path = folder(tmp_path, model_type="mixtral", num_local_experts=4, num_experts_per_tok=2)
    tensors = {name: shape for name, shape in shapes().items() if ".mlp." not in name}
    for i in range(2):
        tensors[f"model.layers.{i}.block_sparse_moe.gate.weight"] = [4, 256]
        for expert in range(4):
            for part, shape in (("w1", [512, 256]), ("w3", [512, 256]), ("w2", [256, 512])):
                tensors[f"model.layers.{i}.block_sparse_moe.experts.{expert}.{part}.weight"] = shape
    safetensors(path / "model.safetensors", tensors)
    spec = read_model_path(path)
    first = next(t for t in spec.tensors if t.role == "ffn_gate_exps")
    assert (first.name, first.rows, first.dimensions) == ("blk.0.ffn_gate_exps.weight", 4 * 512, 3)
    assert spec.active_params < spec.params == sum(math.prod(shape) for shape in tensors.values())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_folders_never_raise_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    _damage(tmp_path, data)


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_fuzzed_folders_never_raise_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    _damage(tmp_path, data)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("shared", "expected"),
    [(0, {"window": (2, 64), "full": (1, 512)}), (1, {"window": (2, 64), "none": (1, 512)})],
)
def test_layers_that_share_a_cache_and_wider_global_heads_are_counted(
    shared: int, expected: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    config = {
        **CONFIG, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512,
        "num_kv_shared_layers": shared, "num_global_key_value_heads": 1, "global_head_dim": 512,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    safetensors(tmp_path / "model.safetensors", shapes())
    groups = read_model_path(tmp_path).attention
    assert {group.kind: (group.kv_heads, group.key_length) for group in groups} == expected
    assert all(group.layers == 1 for group in groups)


def _damage(tmp_path: Path, data: st.DataObject) -> None:
    """Any JSON for some keys of the config, some bytes of the header overwritten: read, or our own error."""
    path = tmp_path / "fuzzed"
    path.mkdir(exist_ok=True)
    keys = data.draw(st.lists(st.sampled_from([*CONFIG, "text_config", "layer_types", "sliding_window"]), max_size=3))
    config = {**CONFIG, **{key: data.draw(JSON_VALUES) for key in keys}}
    (path / "config.json").write_text(json.dumps(config))
    safetensors(path / "model.safetensors", shapes())
    size = (path / "model.safetensors").stat().st_size
    with (path / "model.safetensors").open("r+b") as file:
        file.seek(data.draw(st.integers(0, min(size - 1, 4000))))
        file.write(data.draw(st.binary(max_size=6)))
    try:
        spec = read_model_path(path)
    except AdvisorError as error:
        assert error.exit_code == 2  # noqa: PT017
    else:
        assert spec.params > 0


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model.", "model.language_model.", "language_model."])
def test_the_text_part_of_a_larger_model_has_the_same_roles(prefix: str) -> None:
    assert gguf_name(f"{prefix}embed_tokens.weight")[:2] == ("token_embd.weight", "token_embd")
    assert gguf_name(f"{prefix}lm_head.weight")[:2] == ("output.weight", "output")
    assert gguf_name(f"{prefix}norm.weight")[:2] == ("output_norm.weight", "norm")
    assert gguf_name(f"{prefix}layers.3.mlp.up_proj.weight") == ("blk.3.ffn_up.weight", "ffn_up", 3)
    assert gguf_name(f"{prefix}vision.norm.weight")[1] == "norm"
