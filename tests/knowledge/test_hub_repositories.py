"""What a repository of the hub holds: checkpoints and GGUF files that are read, and all that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from house_checkpoint import CARD, CONFIG, LAB, one_file, safetensors, shapes
from house_gguf import House, entry, u32
from hub_server import Hub, Repo
from hypothesis import given
from hypothesis import strategies as st

from knowledge.base import AdvisorError, advisor_home
from knowledge.checkpoint import read_model_path
from knowledge.hub_files import safe_path
from knowledge.store import find_model


def refused(text: str, *, offline: bool = False) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        find_model(text, offline=offline)
    error = caught.value
    assert error.hint
    assert "\n" not in error.message
    return error


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"\x80\x04"}, "unsupported-model", "pickle"),
        ({"openvino_model.xml": b"<net/>", "openvino_model.bin": b""}, "unsupported-model", "pickle|OpenVINO"),
        ({"onnx/model.onnx": b""}, "unsupported-model", "ONNX"),
        ({"adapter_model.safetensors": b""}, "unsupported-model", "no config.json"),
        ({"README.md": b"# soon"}, "unsupported-model", "no weights"),
        ({}, "unsupported-model", "no weights"),
    ],
)
def test_what_cannot_be_used_is_named(hub: Hub, files: dict[str, bytes], code: str, words: str) -> None:
    hub.repos[LAB] = Repo(files)
    error = refused(LAB)
    assert error.code == code
    assert any(word in error.message for word in words.split("|"))


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "remote-code"),
        ({"quantization_config": {"quant_method": "awq"}}, "unsupported-model"),
        ({"num_hidden_layers": 10**9}, "bad-checkpoint"),
        ({"vocab_size": "many"}, "bad-checkpoint"),
    ],
)
def test_a_hostile_or_useless_config_is_refused(hub: Hub, tmp_path: Path, config: dict[str, object], code: str) -> None:
    hub.repos[LAB] = one_file(tmp_path, **config)
    error = refused(LAB)
    assert (error.code, error.exit_code) == (code, 2)
    assert LAB in error.message


@pytest.mark.parametrize(
    "path", ["../../etc/cron", "/etc/passwd", "a/../../b", "C:\\x", "a\\b", "x\x00y", "a//b", "..", " "]
)
def test_a_file_name_that_leaves_its_folder_is_refused(hub: Hub, path: str) -> None:
    hub.repos[LAB].info = {"siblings": [{"rfilename": path, "size": 3}]}
    assert refused(LAB).code == "bad-hub-answer"
    assert not list(advisor_home().rglob("*.partial"))


@given(st.text(max_size=40))
def test_a_safe_path_never_leaves_its_folder(path: str) -> None:
    if safe_path(path):
        assert (Path("/folder") / path).resolve().is_relative_to("/folder")


@pytest.mark.parametrize(
    "header",
    [b"", b"\0" * 7, b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}", (9).to_bytes(8, "little") + b"{" * 9],
)
def test_a_broken_weight_header_is_refused(hub: Hub, tmp_path: Path, header: bytes) -> None:
    hub.repos[LAB] = one_file(tmp_path)
    hub.repos[LAB].files["model.safetensors"] = header
    assert refused(LAB).code == "bad-checkpoint"


def test_a_truncated_weight_file_is_seen_from_its_header(hub: Hub, tmp_path: Path) -> None:
    hub.repos[LAB] = one_file(tmp_path)
    hub.repos[LAB].files["model.safetensors"] = hub.repos[LAB].files["model.safetensors"][:-1000]
    assert "truncated" in refused(LAB).message


# ---- GGUF


@pytest.fixture
def ggufs(hub: Hub, tmp_path: Path) -> Hub:
    whole = House().write(tmp_path / "x.gguf").read_bytes()
    names = ("House-Q4_K_M.gguf", "House-Q8_0.gguf", "sub/House-IQ2_M.gguf", "mmproj-House-F16.gguf")
    hub.repos["house-lab/House-GGUF"] = Repo({**dict.fromkeys(names, whole), "README.md": b"#"}, CARD)
    return hub


def test_a_gguf_repository_lists_its_files(ggufs: Hub) -> None:
    error = refused("house-lab/House-GGUF")
    assert (error.code, error.exit_code) == ("several-models", 2)
    assert "House-Q8_0.gguf" in error.message
    assert "mmproj" not in error.message


@pytest.mark.parametrize(
    "text",
    [
        "house-lab/House-GGUF:House-Q8_0.gguf",
        "house-lab/House-GGUF:Q8_0",
        "house-lab/House-GGUF:q8_0",
        "hf:house-lab/House-GGUF:Q8_0",
        "house-lab/House-GGUF@main:Q8_0",
        "https://huggingface.co/house-lab/House-GGUF/blob/main/House-Q8_0.gguf",
        "house-lab/House-GGUF:sub/House-IQ2_M.gguf",
    ],
)
def test_a_gguf_file_is_read_by_its_header(ggufs: Hub, tmp_path: Path, text: str) -> None:
    spec = find_model(text)
    local = read_model_path(House().write(tmp_path / "local.gguf"))
    assert spec.tensors == local.tensors
    assert spec.header_bytes == local.header_bytes
    assert spec.files[0].path.endswith(("House-Q8_0.gguf", "IQ2_M.gguf"))
    assert spec.source_precision == local.source_precision


def test_the_16_bit_file_of_several_is_the_one_to_start_from(ggufs: Hub) -> None:
    repo = ggufs.repos["house-lab/House-GGUF"]
    repo.files["House-BF16.gguf"] = repo.files["House-Q8_0.gguf"]
    assert [file.path for file in find_model("house-lab/House-GGUF").files] == ["House-BF16.gguf"]


def test_a_large_gguf_header_is_read_in_pieces_and_kept(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knowledge.hub_files._GGUF_STEP", 40_000)
    hub.repos[LAB] = Repo({"House.gguf": House().write(tmp_path / "x.gguf").read_bytes()}, CARD)
    first = find_model(LAB)
    assert len(hub.asked("/resolve/")) > 1
    hub.requests.clear()
    assert find_model(LAB, offline=True) == first
    assert not hub.requests


def test_a_broken_gguf_of_the_hub_is_refused(hub: Hub) -> None:
    hub.repos[LAB] = Repo({"House.gguf": b"GGUF" + b"\xff" * 5000}, CARD)
    assert refused(LAB).code == "bad-gguf"


def test_parts_of_a_split_model_are_not_taken_for_it(hub: Hub) -> None:
    hub.repos[LAB] = Repo({f"House-{n:05d}-of-00002.gguf": b"GGUF" for n in (1, 2)}, CARD)
    assert "merged" in refused(LAB).message


# ---- what a model reads and makes


@pytest.mark.parametrize(
    ("config", "modality", "cached"),
    [
        ({}, "text", 2),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "embedding", 0),
        ({"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"]}, "reranking", 0),
        (
            {
                "model_type": "whisper", "d_model": 256, "encoder_layers": 1, "decoder_layers": 1,
                "decoder_attention_heads": 4, "decoder_ffn_dim": 512, "max_target_positions": 448,
                "max_source_positions": 1500, "hidden_size": None,
            },
            "speech",
            1,
        ),
    ],
)  # fmt: skip
def test_what_a_model_reads_and_makes_is_read_from_its_config(
    hub: Hub, tmp_path: Path, config: dict[str, object], modality: str, cached: int
) -> None:
    repo = one_file(tmp_path, **config)
    if config.get("model_type") == "whisper":
        repo.files["config.json"] = repo.files["config.json"].replace(b'"hidden_size": null, ', b"")
    hub.repos[LAB] = repo
    spec = find_model(LAB)
    assert spec.modality == modality
    assert sum(group.layers for group in spec.attention if group.kind != "none") == cached
    assert sum(group.layers for group in spec.attention) == spec.layers


def test_the_encoder_of_images_is_counted_apart(hub: Hub, tmp_path: Path) -> None:
    config = json.dumps({**CONFIG, "vision_config": {}}).encode()
    safetensors(tmp_path / "vlm.safetensors", {**shapes(), "vision_tower.patch.weight": [100, 300]})
    hub.repos[LAB] = Repo({"config.json": config, "model.safetensors": (tmp_path / "vlm.safetensors").read_bytes()})
    seeing = find_model(LAB)
    hub.repos[LAB] = one_file(tmp_path)
    reading = find_model(LAB)
    assert (seeing.modality, reading.modality) == ("image-text", "text")
    assert (seeing.tower_params, reading.tower_params) == (30_000, 0)
    assert seeing.params == reading.params


@pytest.mark.parametrize(
    ("keys", "modality"),
    [
        ({"llama.pooling_type": u32("llama.pooling_type", 1)}, "embedding"),
        ({"llama.pooling_type": u32("llama.pooling_type", 4)}, "reranking"),
        ({"llama.attention.causal": entry("llama.attention.causal", 7, b"\0")}, "embedding"),
        ({}, "text"),
    ],
)
def test_what_a_gguf_is_for_is_read_from_its_header(
    hub: Hub, tmp_path: Path, keys: dict[str, bytes], modality: str
) -> None:
    house = House()
    house.metadata |= keys
    hub.repos[LAB] = Repo({"House.gguf": house.write(tmp_path / "house.gguf").read_bytes()})
    assert find_model(LAB).modality == modality
