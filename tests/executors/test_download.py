"""Downloading a hub's model: into Hugging Face's cache, resumed, checked, from a real server on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fake_run import MACHINE, FakeExecutor, fake_model, fake_plan
from house_checkpoint import LAB
from house_gguf import House
from hub_server import Fault, Hub, Repo

from advisor.plan import AcquireSettings, ModelSource, SourceFile
from executors.download import download
from executors.runner import run_plan
from knowledge.base import AdvisorError
from knowledge.records import ModelSpec
from knowledge.store import find_model

CACHE = "hf-home/hub/models--house-lab--House-1M"


def source_of(spec: ModelSpec) -> ModelSource:
    files = [SourceFile(path=file.path, bytes=file.bytes, sha256=file.sha256) for file in spec.files]
    return ModelSource(kind="hub", hf_id=spec.hf_id, revision=spec.revision, files=files, licence=spec.licence)


def fetch(source: ModelSource, target: Path, notes: list[str] | None = None, **options: Any) -> dict[str, Any]:
    told = notes if notes is not None else []
    return download(source, target, lambda done, total, text: None, told.append, **options)


def failed(source: ModelSource, target: Path, **options: Any) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        fetch(source, target, **options)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def planned(hub: Hub) -> ModelSource:
    return source_of(find_model(LAB))


@pytest.fixture
def large(hub: Hub, tmp_path: Path) -> ModelSource:
    """A GGUF of 6 MB, its weights noise."""
    house = House()
    house.tensors[0] = ("token_embd.weight", (64, 96), 0)
    body = house.write(tmp_path / "x.gguf").read_bytes() + os.urandom(6_000_000)
    hub.repos[LAB] = Repo({"House-F16.gguf": body}, {"license": "mit"})
    return source_of(find_model(LAB))


def test_a_checkpoint_arrives_whole_and_is_hashed(hub: Hub, planned: ModelSource, tmp_path: Path) -> None:
    notes: list[str] = []
    done = fetch(planned, tmp_path / "model", notes)
    for name, body in hub.repos[LAB].files.items():
        if name.endswith((".json", ".safetensors")):
            assert (tmp_path / "model" / name).read_bytes() == body
    assert not (tmp_path / "model" / "pytorch_model.bin").exists()
    assert (done["name"], done["revision"]) == ("House-1M", hub.repos[LAB].commit)
    assert "licence apache-2.0" in notes[0]
    assert "to download" in notes[0]


def test_the_cache_is_hugging_faces_own(hub: Hub, planned: ModelSource, tmp_path: Path) -> None:
    fetch(planned, tmp_path / "model")
    from huggingface_hub import try_to_load_from_cache

    shard = "model-00001-of-00002.safetensors"
    found = try_to_load_from_cache(LAB, shard, cache_dir=tmp_path / "hf-home" / "hub", revision=planned.revision)
    assert isinstance(found, str)
    assert Path(found).read_bytes() == hub.repos[LAB].files[shard]
    assert Path(found).resolve().name == next(file.sha256 for file in planned.files if file.path == shard)


def test_what_huggingface_hub_downloaded_is_not_downloaded_again(
    hub: Hub, planned: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for file in planned.files:
        hf_hub_download(
            LAB, file.path, revision=planned.revision, endpoint=hub.url, cache_dir=tmp_path / "hf-home" / "hub"
        )
    hub.requests.clear()
    notes: list[str] = []
    fetch(planned, tmp_path / "model", notes)
    assert not hub.requests
    assert "already in" in notes[0]


def test_a_second_run_links_and_asks_nothing(hub: Hub, planned: ModelSource, tmp_path: Path) -> None:
    first = fetch(planned, tmp_path / "one")
    hub.requests.clear()
    assert fetch(planned, tmp_path / "two")["sha256"] == first["sha256"]
    assert not hub.requests


def test_offline_runs_from_the_cache_or_says_why_not(
    hub: Hub, planned: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = failed(planned, tmp_path / "one")
    assert (error.code, error.exit_code) == ("not-cached", 7)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetch(planned, tmp_path / "two")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    fetch(planned, tmp_path / "three")
    assert not hub.requests


def test_a_plan_made_offline_downloads_nothing(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    plan = fake_plan(fake_model(tmp_path / "model.gguf"), "Q8_0+ffn_gate=Q5_0")
    assert plan.plan is not None
    settings = plan.plan.steps[0].settings
    assert isinstance(settings, AcquireSettings)
    settings.source, settings.offline = large, True
    hub.requests.clear()
    with pytest.raises(AdvisorError) as caught:
        run_plan(plan, tmp_path / "run", machine=MACHINE, executor=FakeExecutor(tmp_path / "pids"))
    assert (caught.value.code, caught.value.exit_code) == ("not-cached", 7)
    assert not hub.requests


def test_a_catalogue_model_is_taken_as_the_hub_has_it_now(hub: Hub, tmp_path: Path, planned: ModelSource) -> None:
    bare = ModelSource(kind="hub", hf_id=LAB)
    done = fetch(bare, tmp_path / "one")
    assert done["revision"] == planned.revision
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        assert fetch(bare, tmp_path / "two")["sha256"] == done["sha256"]
    finally:
        del os.environ["HF_HUB_OFFLINE"]


def test_a_broken_download_goes_on_where_it_was(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    hub.requests.clear()
    hub.faults = [Fault("/cdn/", times=2, cut=2_000_000)]
    fetch(large, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == hub.repos[LAB].files["House-F16.gguf"]
    starts = [int(request["range"].removeprefix("bytes=").rstrip("-")) for request in hub.asked("/cdn/")]
    assert starts[0] == 0
    assert 1_000_000 < starts[1] < starts[2]


def test_two_commits_are_not_mixed_in_a_file_without_a_hash(
    hub: Hub, large: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_server.LFS_FROM", 10**9)
    hub.faults = [Fault("/resolve/", times=1, cut=2_000_000), Fault("/resolve/", status=503)]
    bare = large.model_copy(update={"files": [file.model_copy(update={"sha256": ""}) for file in large.files]})
    assert failed(bare, tmp_path / "model.gguf").code == "hub-busy"
    hub.faults = []
    files = hub.repos[LAB].files
    files["House-F16.gguf"] = files["House-F16.gguf"][:-6_000_000] + os.urandom(6_000_000)
    fetch(source_of(find_model(LAB)), tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == files["House-F16.gguf"]


def test_what_is_in_the_cache_for_another_commit_is_not_downloaded_again(
    hub: Hub, large: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(large, tmp_path / "one.gguf")
    hub.repos[LAB].files["README.md"] = b"a new card"
    later = source_of(find_model(LAB))
    assert later.revision != large.revision
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notes: list[str] = []
    assert fetch(later, tmp_path / "two.gguf", notes)["revision"] == later.revision
    assert (tmp_path / "two.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()
    assert "already in" in notes[0]


def test_a_cache_that_cannot_be_written_is_named(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    blobs = tmp_path / CACHE / "blobs"
    blobs.parent.mkdir(parents=True)
    blobs.write_text("")
    assert str(blobs) in failed(large, tmp_path / "model.gguf").message


def test_a_hub_that_sends_the_whole_file_again_is_understood(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    hub.faults = [Fault("/cdn/", times=1, cut=2_000_000)]
    hub.ranges = False
    fetch(large, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == hub.repos[LAB].files["House-F16.gguf"]


def test_a_hub_that_stays_broken_ends_the_run_and_keeps_what_came(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    hub.faults = [Fault("/cdn/", times=1, cut=2_000_000), Fault("/cdn/", status=503)]
    error = failed(large, tmp_path / "model.gguf")
    assert (error.code, error.exit_code) == ("hub-busy", 7)
    hub.faults, hub.requests = [], []
    fetch(large, tmp_path / "model.gguf")
    assert hub.asked("/cdn/")[0]["range"] != "bytes=0-"


def test_other_bytes_than_the_hub_lists_are_refused_and_not_kept(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    body = hub.repos[LAB].files["House-F16.gguf"]
    hub.faults = [Fault("/cdn/", body=b"\0" * len(body))]
    error = failed(large, tmp_path / "model.gguf")
    assert (error.code, error.exit_code) == ("hash-mismatch", 7)
    assert not (tmp_path / "model.gguf").exists()
    hub.faults = []
    fetch(large, tmp_path / "model.gguf")


def test_a_damaged_cache_is_seen(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    fetch(large, tmp_path / "one.gguf")
    blob = next((tmp_path / CACHE / "blobs").iterdir())
    blob.write_bytes(b"\0" * blob.stat().st_size)
    assert failed(large, tmp_path / "two.gguf").code == "hash-mismatch"


def test_too_little_disk_is_said_before_the_first_byte(
    hub: Hub, large: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("executors.download.shutil.disk_usage", lambda _: usage._replace(free=1000))
    hub.requests.clear()
    assert failed(large, tmp_path / "model.gguf").code == "disk-full"
    assert not hub.asked("/cdn/")


def test_a_gated_model_is_explained_by_the_run_too(hub: Hub, planned: ModelSource, tmp_path: Path) -> None:
    hub.repos[LAB].gated, hub.repos[LAB].token = True, "hf_right"
    assert failed(planned, tmp_path / "model").code == "gated-model"


def test_cancelling_keeps_what_came(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    assert failed(large, tmp_path / "model.gguf", cancel=cancel).code == "cancelled"
    assert fetch(large, tmp_path / "model.gguf")["bytes"] > 6_000_000


def test_a_plan_cannot_name_a_place_outside_the_cache(hub: Hub, planned: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves the run folder"):
        SourceFile(path="../../evil", bytes=3)
    sly = planned.model_copy(update={"files": [SourceFile.model_construct(path="../../evil", bytes=3, sha256="")]})
    assert failed(sly, tmp_path / "model").code == "bad-plan"
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.slow
def test_a_killed_download_goes_on_where_it_was(hub: Hub, large: ModelSource, tmp_path: Path) -> None:
    hub.faults = [Fault("/cdn/", times=1, drip=0.05)]
    script = (
        "import sys; from pathlib import Path; from advisor.plan import ModelSource\n"
        "from executors.download import download\n"
        "source = ModelSource.model_validate_json(sys.argv[1])\n"
        "download(source, Path(sys.argv[2]), lambda *_: None, lambda _: None)\n"
    )
    command = [sys.executable, "-c", script, large.model_dump_json(), str(tmp_path / "model.gguf")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    blobs = tmp_path / CACHE / "blobs"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(path.stat().st_size > 1_000_000 for path in blobs.glob("*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model.gguf").exists()
    hub.requests.clear()
    fetch(large, tmp_path / "model.gguf")
    assert int(hub.asked("/cdn/")[0]["range"].removeprefix("bytes=").rstrip("-")) > 500_000
    assert (tmp_path / "model.gguf").read_bytes() == hub.repos[LAB].files["House-F16.gguf"]
