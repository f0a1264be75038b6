"""Models of the Hugging Face hub, asked of a real server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from house_checkpoint import LAB, one_file, safetensors, shapes
from hub_server import Fault, Hub
from hypothesis import given
from hypothesis import strategies as st

from knowledge.base import AdvisorError, advisor_home
from knowledge.checkpoint import read_model_path
from knowledge.hub import HubName, hub_model, hub_name
from knowledge.records import ModelSpec
from knowledge.shapes import tensors_of
from knowledge.store import find_model


def refused(text: str, *, offline: bool = False) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        find_model(text, offline=offline)
    error = caught.value
    assert error.hint
    assert "\n" not in error.message
    return error


def test_a_hub_model_is_the_one_that_a_download_of_it_would_be(hub: Hub, tmp_path: Path) -> None:
    spec = find_model(LAB)
    local = tmp_path / "downloaded"
    local.mkdir()
    for name, body in hub.repos[LAB].files.items():
        (local / name).write_bytes(body)
    whole = read_model_path(local)
    assert tensors_of(spec) == tensors_of(whole)
    assert (spec.params, spec.attention, spec.context) == (whole.params, whole.attention, whole.context)
    assert (spec.name, spec.hf_id, spec.path) == ("House-1M", LAB, "")


def test_no_weights_are_read(hub: Hub) -> None:
    spec = find_model(LAB)
    assert all(request["range"] for request in hub.asked("safetensors"))
    assert not hub.asked("pytorch_model")
    home = advisor_home() / "hub"
    kept = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    assert kept < 16_000 < sum(file.bytes for file in spec.files)


def test_the_commit_the_files_and_the_licence_are_carried(hub: Hub) -> None:
    spec = find_model(LAB)
    repo = hub.repos[LAB]
    assert spec.revision == repo.commit
    assert (spec.licence, spec.commercial_use) == ("apache-2.0", "yes")
    assert {file.path for file in spec.files} == set(repo.files) - {"pytorch_model.bin"}
    assert all(file.bytes == len(repo.files[file.path]) for file in spec.files)
    assert all(len(file.sha256) == 64 for file in spec.files if file.path.endswith(".safetensors"))


@pytest.mark.parametrize(
    ("card", "licence", "commercial"),
    [
        ({"license": "other", "license_name": "qwen-research"}, "qwen-research", "no"),
        ({}, "mit", "yes"),
        ({"license": ["mit"]}, "mit", "yes"),
    ],
)
def test_the_licence_is_the_hubs_then_the_cards_own(hub: Hub, card: dict, licence: str, commercial: str) -> None:  # type: ignore[type-arg]
    hub.repos[LAB].card = card
    spec = find_model(LAB)
    assert (spec.licence, spec.commercial_use) == (licence, commercial)


def test_an_unknown_licence_stays_unknown__transformers_js_1487(hub: Hub) -> None:
    hub.repos[LAB].card = {}
    hub.repos[LAB].files["README.md"] = b"# House"
    spec = find_model(LAB)
    assert (spec.licence, spec.commercial_use) == ("unknown", "unknown")


def test_a_second_reading_asks_for_one_answer_only(hub: Hub) -> None:
    first = find_model(LAB)
    hub.requests.clear()
    assert find_model(LAB) == first
    assert [request["path"] for request in hub.requests] == [f"/api/models/{LAB}"]


def test_an_interrupted_reading_goes_on_where_it_was(hub: Hub) -> None:
    hub.faults = [Fault("00002-of-00002", status=503)]
    assert refused(LAB).code == "hub-busy"
    hub.faults, hub.requests = [], []
    assert find_model(LAB).params > 0
    assert not hub.asked("00001-of-00002")
    assert not hub.asked("config.json")


def test_offline_uses_what_was_read_before__optimum_1796(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = find_model(LAB)
    hub.requests.clear()
    assert find_model(LAB, offline=True) == online
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert find_model(LAB) == online
    assert not hub.requests


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", ""])
def test_offline_and_not_kept_is_said_without_a_request(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    error = refused(LAB, offline=not variable)
    assert (error.code, error.exit_code) == ("not-cached", 2)
    assert not hub.requests


def test_offline_uses_hugging_faces_own_cache(hub: Hub, tmp_path: Path) -> None:
    repo = hub.repos[LAB]
    home = tmp_path / "hf-home" / "hub" / "models--house-lab--House-1M"
    snapshot = home / "snapshots" / repo.commit
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(repo.commit)
    for name, body in repo.files.items():
        (snapshot / name).write_bytes(body)
    spec = find_model(LAB, offline=True)
    assert (spec.hf_id, spec.revision, spec.path) == (LAB, repo.commit, str(snapshot))
    assert not hub.requests


def test_a_catalogue_name_asks_nobody(hub: Hub) -> None:
    sys.modules.pop("huggingface_hub", None)
    assert find_model("Qwen/Qwen3-8B").name == "Qwen3-8B"
    assert not hub.requests
    assert "huggingface_hub" not in sys.modules


def test_a_catalogue_model_asked_for_by_revision_keeps_what_the_catalogue_knows(hub: Hub, tmp_path: Path) -> None:
    hub.repos["Qwen/Qwen3-8B"] = one_file(tmp_path)
    spec = find_model("Qwen/Qwen3-8B@main")
    assert spec.name == "Qwen3-8B"
    assert spec.revision == hub.repos["Qwen/Qwen3-8B"].commit
    assert spec.scores
    assert "reasoning" in spec.use_cases


# ---- who may read


def test_a_gated_model_is_explained(hub: Hub) -> None:
    hub.repos[LAB].gated, hub.repos[LAB].token = True, "hf_right"
    error = refused(LAB)
    assert (error.code, error.exit_code) == ("gated-model", 2)
    assert "no token" in error.message
    assert f"{hub.url}/{LAB}" in error.hint
    assert "HF_TOKEN" in error.hint


def test_a_token_without_access_is_told_from_no_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos[LAB].gated, hub.repos[LAB].token = True, "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    error = refused(LAB)
    assert error.code == "gated-model"
    assert "no access" in error.message
    assert "hf_wrong" not in error.message + error.hint


def test_the_token_opens_a_gated_model_and_stays_with_its_host(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repos[LAB].gated, hub.repos[LAB].token = True, "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert find_model(LAB).params > 0
    elsewhere = hub.asked("/cdn/")
    assert elsewhere
    assert {request["token"] for request in elsewhere} == {""}
    assert {request["token"] for request in hub.asked("/resolve/")} == {"hf_right"}


# ---- bad days


@pytest.mark.parametrize(
    ("fault", "code", "exit_code", "words"),
    [
        (Fault("/api/", status=429, headers={"retry-after": "300"}), "hub-busy", 7, "in 300 s"),
        (Fault("/api/", status=500), "hub-busy", 7, "later"),
        (Fault("/api/", status=503), "hub-busy", 7, "later"),
        (Fault("/api/", status=404), "unknown-model", 2, "check its name"),
        (Fault("/api/", status=403), "gated-model", 2, "HF_TOKEN"),
        (Fault("/api/", status=418), "bad-hub-answer", 7, "HF_ENDPOINT"),
        (Fault("/api/", body=b"<html>Log in to the hotel"), "bad-hub-answer", 7, "HF_ENDPOINT"),
        (Fault("/api/", body=b"[]"), "bad-hub-answer", 7, "HF_ENDPOINT"),
        (Fault("/api/", body=b"[" * 100_000), "bad-hub-answer", 7, "HF_ENDPOINT"),
        (Fault("/api/", body=b'{"siblings": [], "sha": "../../x"}'), "bad-hub-answer", 7, "HF_ENDPOINT"),
        (Fault("config.json", status=404), "unknown-model", 2, "check its name"),
        (Fault("config.json", body=b"<html>"), "bad-hub-answer", 7, "HF_ENDPOINT"),
        (Fault("config.json", cut=20), "hub-unreachable", 7, "try again"),
        (Fault("00001-of", body=b"\xff" * 4096), "bad-hub-answer", 7, "HF_ENDPOINT"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_hub_on_a_bad_day_gives_one_sentence(hub: Hub, fault: Fault, code: str, exit_code: int, words: str) -> None:
    hub.faults = [fault]
    error = refused(LAB)
    assert (error.code, error.exit_code) == (code, exit_code)
    assert words in error.hint
    assert LAB in error.message
    hub.faults = []
    assert find_model(LAB).params > 0  # nothing bad was kept


def test_a_short_wait_is_waited_for(hub: Hub) -> None:
    hub.faults = [Fault("/api/", times=2, status=429, headers={"retry-after": "0"}), Fault("config.json", 1, 502)]
    assert find_model(LAB).params > 0


def test_a_silent_hub_is_given_up_in_time(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")
    hub.faults = [Fault("config.json", seconds=1.0)]
    assert refused(LAB).code == "hub-unreachable"


def test_a_hub_out_of_reach_leaves_a_name_that_is_not_known_here(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port.getsockname()[1]}")
        error = refused("meta-llama/Lama-3.2-1B-Instrukt")
    assert (error.code, error.exit_code) == ("unknown-model", 2)
    assert "could not be reached" in error.message
    assert "Llama-3.2-1B-Instruct" in error.hint


def test_a_name_that_the_hub_does_not_know_is_answered_with_the_nearest(hub: Hub) -> None:
    error = refused("meta-llama/Lama-3.2-1B-Instrukt")
    assert error.code == "unknown-model"
    assert "Llama-3.2-1B-Instruct" in error.hint


def test_an_endless_answer_is_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowledge.hub.MAX_INFO_BYTES", 10_000)
    hub.repos[LAB].info = {"padding": "x" * 20_000}
    error = refused(LAB)
    assert error.code == "bad-hub-answer"
    assert "more than" in error.message


def test_an_endpoint_that_is_no_address_is_bad_input(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    assert refused(LAB).code == "bad-endpoint"


def test_a_hub_without_ranges_or_sizes_is_read_all_the_same(hub: Hub) -> None:
    hub.ranges = hub.sizes = False
    spec = find_model(LAB)
    assert sum(file.bytes for file in spec.files if "safetensors" in file.path) > 1_000_000


def test_an_unknown_revision_is_said(hub: Hub) -> None:
    assert refused(f"{LAB}@v9").code == "unknown-revision"
    assert find_model(f"{LAB}@{hub.repos[LAB].commit}").revision == hub.repos[LAB].commit


# ---- names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b", HubName("a/b")),
        ("a/b@refs/pr/3", HubName("a/b", "refs/pr/3")),
        ("https://huggingface.co/a/b", HubName("a/b")),
        ("https://huggingface.co/a/b/tree/v1.0", HubName("a/b", "v1.0")),
        ("https://huggingface.co/a/b/tree/main/?library=x#y", HubName("a/b")),
        ("http://www.huggingface.co/a/b/?x", HubName("a/b")),
        ("hf.co/a/b:Q4_K_M", HubName("a/b", "", "Q4_K_M")),
        ("huggingface.co/a/b/resolve/v1/c/d.gguf?download=true", HubName("a/b", "v1", "c/d.gguf")),
        ("hf://a/b", HubName("a/b")),
        ("a/b:c/d.gguf", HubName("a/b", "", "c/d.gguf")),
        ("a", None), ("a/b/c", None), ("../b", None), ("a/..", None), ("a/b@../x", None), ("/a/b", None),
        ("a--b/c", None), ("a/b\n", None), ("ä/b", None), ("a/" + "b" * 100, None), ("", None),
    ],
)  # fmt: skip
def test_hub_names(text: str, name: HubName | None) -> None:
    assert hub_name(text if text != "a/b\n" else "a/b\nc") == name


@given(st.text(max_size=200))
def test_any_text_is_a_hub_name_or_none(text: str) -> None:
    found = hub_name(text)
    assert found is None or found.hf_id.count("/") == 1


@pytest.mark.parametrize("around", ["https://huggingface.co/{}", "hf.co/{}/", "https://hf.co/{}/tree/main?x=1"])
def test_a_web_address_is_looked_up_in_the_catalogue_first(hub: Hub, around: str) -> None:
    assert find_model(around.format("Qwen/Qwen3-4B"), offline=True) == find_model("Qwen/Qwen3-4B")
    assert not hub.requests


def test_an_address_elsewhere_is_no_model_of_the_hub(hub: Hub) -> None:
    assert refused("https://example.org/a/b").code == "unknown-model"
    assert not hub.requests


def test_a_local_folder_of_that_name_goes_first(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    local = tmp_path / "house-lab" / "House-1M"
    local.mkdir(parents=True)
    (local / "config.json").write_bytes(hub.repos[LAB].files["config.json"])
    safetensors(local / "model.safetensors", shapes())
    assert find_model(LAB).path == str(local)
    assert not hub.requests


def test_spec_of_the_hub_is_the_same_again(hub: Hub) -> None:
    specs: list[ModelSpec] = [hub_model(HubName(LAB)) for _ in range(2)]
    assert specs[0] == specs[1]
