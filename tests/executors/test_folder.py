"""The run folder: nothing leaves it, nothing half-written gets a final name, broken statuses are no statuses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_gguf import tiny_model

from advisor.origin import source_of
from advisor.plan import ModelSource
from executors import folder as folders
from executors.acquire import acquire
from executors.folder import (
    RunFolder,
    StepStatus,
    copy_file,
    damaged_outputs,
    link_or_copy,
    locked,
    open_folder,
    publish,
    read_status,
    remove_partials,
    sha256_file,
    sha256_tree,
    staging,
    step_key,
    write_status,
)
from knowledge.base import AdvisorError
from knowledge.store import find_model

STATUS = StepStatus("done", "k" * 64, {"work/a": "0" * 64}, 1.5, 1000, 2, {"x": [1.0, None]})


@given(st.text(max_size=60))
def test_no_path_leaves_the_folder(text: str) -> None:
    root = Path("/nonexistent/run")
    try:
        path = RunFolder(root).path(text)
    except AdvisorError:
        return
    assert path.is_relative_to(root)
    assert ".." not in path.parts


@pytest.mark.parametrize("text", ["/etc/passwd", "../x", "a/../../x", "", "~", "a\\b", "C:x", "a\x00", "a" * 301])
def test_paths_that_would_leave_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(AdvisorError) as refused:
        RunFolder(tmp_path).path(text)
    assert refused.value.code == "bad-path"


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/work").symlink_to("/etc")
    with pytest.raises(AdvisorError, match="symbolic link"):
        RunFolder(tmp_path / "run").path("work/passwd")


def test_the_lock_is_held_and_goes_with_its_process(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "run")
    with locked(folder), pytest.raises(AdvisorError, match=str(os.getpid())), locked(folder):
        pass
    script = (
        "import sys; from pathlib import Path; from executors.folder import RunFolder, locked\n"
        "with locked(RunFolder(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(folder.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AdvisorError, match=f"process {holder.pid}"), locked(folder):
        pass
    holder.kill()
    holder.communicate()
    with locked(folder):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks otherwise")
def test_a_file_system_without_locks_is_no_other_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(AdvisorError, match="No locks available") as refused, locked(open_folder(tmp_path / "run")):
        pass
    assert refused.value.code == "file-error"


def test_what_is_published_is_whole_and_replaces_what_was_there(tmp_path: Path) -> None:
    final = tmp_path / "work/model"
    one, two = staging(final), staging(final)
    assert one != two
    assert one.name.endswith(".partial")
    one.write_text("first")
    publish(one, final)
    two.mkdir()
    (two / "inner").write_text("second")
    final.unlink()
    publish(two, final)
    three = staging(final)
    three.mkdir()
    (three / "inner").write_text("third")
    publish(three, final)
    assert [path.name for path in final.parent.iterdir()] == ["model"]
    assert (final / "inner").read_text() == "third"


def test_stale_partials_go_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.partial").write_text("mine")
    root = tmp_path / "run"
    (root / "work/x.partial").mkdir(parents=True)
    (root / "work/x.partial/y").write_text("")
    (root / ".z.partial").write_text("")
    (root / "link.partial").symlink_to(outside)
    (root / "link").symlink_to(outside)
    (root / "kept").write_text("")
    assert remove_partials(RunFolder(root)) == 3
    assert sorted(path.name for path in root.iterdir()) == ["kept", "link", "work"]
    assert not list((root / "work").iterdir())
    assert (outside / "mine.partial").exists()


def test_copying_hashes_what_it_copies(tmp_path: Path) -> None:
    content = os.urandom(9 * 2**20 + 5)
    (tmp_path / "a").write_bytes(content)
    seen: list[float] = []
    assert copy_file(tmp_path / "a", tmp_path / "b", seen.append) == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "b").read_bytes() == content
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    with pytest.raises(AdvisorError):
        copy_file(tmp_path / "a", tmp_path / "b")


def test_what_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    unreadable = [
        lambda: copy_file(tmp_path / "there", tmp_path / "copy"),
        lambda: sha256_file(tmp_path / "there"),
        lambda: acquire(ModelSource(kind="file", path=str(tmp_path / "file/model.gguf")), tmp_path / "copy", print),
    ]
    for read in unreadable:
        with pytest.raises(AdvisorError, match="Cannot read") as refused:
            read()
        assert refused.value.code == "unreadable"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may do everything")
def test_a_file_that_only_may_be_read_is_published_and_one_that_may_not_is_named(tmp_path: Path) -> None:
    path, final = tmp_path / "blob", tmp_path / "work/model.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0o444)
    link_or_copy(path, final)
    assert final.samefile(path)
    path.chmod(0)
    with pytest.raises(AdvisorError, match="Cannot read"):
        acquire(ModelSource(kind="file", path=str(path)), tmp_path / "copy", lambda _: None)


def test_a_link_falls_back_to_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("content")
    link_or_copy(tmp_path / "a", tmp_path / "linked")

    def refuse(*_: object) -> None:
        raise OSError(1, "no hard links here")

    monkeypatch.setattr(folders.os, "link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "copied")
    assert (tmp_path / "a").samefile(tmp_path / "linked")
    assert not (tmp_path / "a").samefile(tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "content"


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_status(tmp_path, STATUS)
    assert read_status(tmp_path) == STATUS
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "done"


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=8))
def test_a_status_with_any_other_content_is_none(place: int, change: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "status.json"
        write_status(Path(name), STATUS)
        content = path.read_bytes()
        place %= len(content)
        changed = content[:place] + change + content[place + len(change) :]
        path.write_bytes(changed)
        assert read_status(Path(name)) in (None, STATUS)
        path.write_bytes(change)
        assert read_status(Path(name)) is None


def test_damaged_outputs_are_named(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "run")
    (folder.root / "work/scores").mkdir(parents=True)
    (folder.root / "work/scores/a").write_text("a")
    (folder.root / "work/scores/b").write_text("b")
    status = StepStatus("done", "k", sha256_tree(folder, "work/scores"))
    assert list(status.outputs) == ["work/scores/a", "work/scores/b"]
    assert damaged_outputs(folder, status) == []
    (folder.root / "work/scores/b").write_text("B")
    assert damaged_outputs(folder, status) == ["work/scores/b"]
    (folder.root / "work/scores/a").unlink()
    assert damaged_outputs(folder, status) == ["work/scores/a", "work/scores/b"]


def test_a_key_changes_with_everything_that_decides_a_result() -> None:
    key = step_key({"type": "Q8_0", "n": 1}, {"input:a": "0"}, "1")
    assert step_key({"n": 1, "type": "Q8_0"}, {"input:a": "0"}, "1") == key
    others = [
        step_key({"type": "Q5_0", "n": 1}, {"input:a": "0"}, "1"),
        step_key({"type": "Q8_0", "n": 1}, {"input:a": "1"}, "1"),
        step_key({"type": "Q8_0", "n": 1}, {"input:a": "0"}, "2"),
    ]
    assert len({key, *others}) == 4


def test_a_model_behind_a_link_is_copied_with_its_content(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"GGUFcontent")
    (tmp_path / "model.gguf").symlink_to("blob")
    source = ModelSource(kind="file", path=str(tmp_path / "model.gguf"))
    found = acquire(source, tmp_path / "copy", lambda _: None)
    assert (tmp_path / "copy").read_bytes() == b"GGUFcontent"
    assert not (tmp_path / "copy").is_symlink()
    assert found["sha256"] == hashlib.sha256(b"GGUFcontent").hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("m.gguf", b"", "bad-model"),
        ("m.gguf", b"PK\x03\x04", "bad-model"),
        ("m-00001-of-00002.gguf", b"GGUF", "split-model"),
    ],
)
def test_what_is_no_whole_gguf_is_not_copied(name: str, content: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AdvisorError) as refused:
        acquire(ModelSource(kind="file", path=str(tmp_path / name)), tmp_path / "copy", lambda _: None)
    assert refused.value.code == code
    assert not (tmp_path / "copy").exists()


def test_a_file_that_was_replaced_after_planning_is_not_copied(tmp_path: Path) -> None:
    path = tiny_model().write(tmp_path / "tiny.gguf")
    source = ModelSource(**source_of(find_model(str(path))))
    acquire(source, tmp_path / "one", lambda _: None)
    path.write_bytes(path.read_bytes() + bytes(32))
    with pytest.raises(AdvisorError) as refused:
        acquire(source, tmp_path / "two", lambda _: None)
    assert refused.value.code == "model-changed"
    assert not (tmp_path / "two").exists()


def test_a_named_pipe_is_no_model(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(AdvisorError, match="is not a file"):
        acquire(ModelSource(kind="file", path=str(tmp_path / "m.gguf")), tmp_path / "copy", lambda _: None)
