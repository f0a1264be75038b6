"""The GGUF reader: what a whole file says, and one clear sentence for each kind of broken one."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from house_gguf import House, entry, f32, numbers, string, strings, text, u32
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.base import AdvisorError
from knowledge.gguf import model_from_gguf, read_gguf, tokenizer_sha256

EPSILON = "llama.attention.layer_norm_rms_epsilon"


def refused(path: Path) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        model_from_gguf(path)
    error = caught.value
    assert error.message.endswith(".")
    assert error.hint
    assert error.exit_code == 2
    assert "\n" not in error.message
    return error


def test_whole_file_gives_its_model(tmp_path: Path) -> None:
    spec = model_from_gguf(House().write(tmp_path / "house.gguf"))
    assert (spec.name, spec.architecture, spec.layers, spec.hidden, spec.vocab) == ("House", "llama", 2, 64, 96)
    assert (spec.licence, spec.commercial_use) == ("apache-2.0", "yes")
    assert spec.source_precision == "Q8_0"
    assert spec.tied_embeddings
    assert spec.params == sum(t.elements for t in spec.tensors)
    (group,) = spec.attention
    assert (group.kind, group.layers, group.kv_heads, group.key_length) == ("full", 2, 2, 16)
    assert spec.header_bytes % 32 == 0


def test_tensors_keep_the_order_types_and_sizes_of_the_file(tmp_path: Path) -> None:
    house = House()
    file = read_gguf(house.write(tmp_path / "house.gguf"))
    assert [t.name for t in file.tensors] == [name for name, _, _ in house.tensors]
    by_name = {t.name: t for t in file.tensors}
    assert by_name["blk.1.ffn_down.weight"].stored_bytes == 128 // 32 * 34 * 64
    assert by_name["blk.1.ffn_down.weight"].layer == 1
    assert by_name["output_norm.weight"].dtype == "F32"
    ends = file.data_offset + sum(-(-(t.stored_bytes or 0) // 32) * 32 for t in file.tensors)
    assert ends == file.file_bytes


def test_version_2_is_read_as_well(tmp_path: Path) -> None:
    assert read_gguf(House(version=2).write(tmp_path / "v2.gguf")).version == 2


def test_unknown_licence_is_never_guessed(tmp_path: Path) -> None:
    house = House()
    del house.metadata["general.license"]
    assert model_from_gguf(house.write(tmp_path / "a.gguf")).licence == "unknown"
    house.set("general.license", string("general.license", "House Licence 7"))
    assert model_from_gguf(house.write(tmp_path / "b.gguf")).commercial_use == "unknown"


def test_grouped_query_and_experts_are_counted(tmp_path: Path) -> None:
    house = House()
    house.set("llama.expert_count", u32("llama.expert_count", 4))
    house.set("llama.expert_used_count", u32("llama.expert_used_count", 2))
    for name in ("ffn_gate", "ffn_up", "ffn_down"):
        for i in range(2):
            at = next(k for k, t in enumerate(house.tensors) if t[0] == f"blk.{i}.{name}.weight")
            house.tensors[at] = (f"blk.{i}.{name}_exps.weight", (*house.tensors[at][1], 4), 8)
    spec = model_from_gguf(house.write(tmp_path / "moe.gguf"))
    experts = sum(t.elements for t in spec.tensors if t.role.endswith("_exps"))
    assert spec.active_params == spec.params - experts // 2
    assert all(t.dimensions == 3 for t in spec.tensors if t.role.endswith("_exps"))


def test_sliding_window_layers_form_a_group_of_their_own(tmp_path: Path) -> None:
    house = House(layers=6)
    for key in [k for k in house.metadata if k.startswith("llama.")]:
        raw = house.metadata.pop(key)
        name = key.replace("llama.", "gemma3.")
        house.metadata[name] = text(name) + raw[8 + len(key) :]
    house.set("general.architecture", string("general.architecture", "gemma3"))
    house.set("w", u32("gemma3.attention.sliding_window", 256))
    kinds = {g.kind: g for g in model_from_gguf(house.write(tmp_path / "swa.gguf")).attention}
    assert kinds["window"].layers == 5
    assert kinds["window"].window == 256
    assert kinds["full"].layers == 1


def test_trailing_bytes_are_noted_and_not_refused(tmp_path: Path) -> None:
    file = read_gguf(House().write(tmp_path / "x.gguf", extra=4096))
    assert any("follow the last tensor" in note for note in file.notes)


def test_a_text_too_long_to_keep_is_walked_over(tmp_path: Path) -> None:
    """Some files carry a whole tokenizer.json."""
    house = House().set("t", string("tokenizer.huggingface.json", b"x" * (3 * 2**20)))
    file = read_gguf(house.write(tmp_path / "long.gguf"))
    assert "tokenizer.huggingface.json" not in file.metadata
    assert file.metadata["llama.block_count"] == 2


def test_recurrent_models_may_have_no_heads(tmp_path: Path) -> None:
    house = House()
    house.set("llama.attention.head_count", u32("llama.attention.head_count", 0))
    house.set("llama.attention.head_count_kv", u32("llama.attention.head_count_kv", 0))
    sizes = {"inner_size": 128, "conv_kernel": 4, "state_size": 16, "group_count": 1}
    for name, value in sizes.items():
        house.set(name, u32(f"llama.ssm.{name}", value))
    (group,) = model_from_gguf(house.write(tmp_path / "mamba.gguf")).attention
    assert (group.kind, group.layers, group.state_elements) == ("recurrent", 2, 3 * (128 + 32) + 16 * 128)


def test_a_speculative_last_layer_may_be_left_out(tmp_path: Path) -> None:
    house = House().set("llama.block_count", u32("llama.block_count", 3))
    house.set("n", u32("llama.nextn_predict_layers", 1))
    assert model_from_gguf(house.write(tmp_path / "mtp.gguf")).layers == 3


FOREIGN = {
    "safetensors": struct.pack("<Q", 100) + b'{"__metadata__":{}}' + b" " * 100,
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "pickle": b"\x80\x02}q\x00." + b"\0" * 50,
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "web page": b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "JSON": b'{"cpu": 1, "gpu": 2, "padding": "......................"}',
    "older ggml": b"tjgg" + b"\1\0\0\0" * 20,
    "zeros": bytes(4096),
    "GGUF": random.Random(7).randbytes(4096),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_file_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(FOREIGN[what])
    assert what.lower() in refused(path).message.lower()


def test_missing_empty_and_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    assert refused(tmp_path / "missing.gguf").code == "not-found"
    assert "is empty" in refused(tmp_path / "empty.gguf").message
    assert "folder" in refused(tmp_path).message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "regular file" in refused(tmp_path / "pipe.gguf").message


def test_every_truncated_header_is_refused(tmp_path: Path) -> None:
    head, _ = House().header()
    for cut in [*range(1, len(head), 97), len(head) - 1]:
        assert refused(House().write(tmp_path / "cut.gguf", cut=cut)).code == "bad-gguf"


@pytest.mark.parametrize("missing", [1, 33, 10_000])
def test_missing_weights_are_seen_without_reading_them(tmp_path: Path, missing: int) -> None:
    assert "truncated" in refused(House().write(tmp_path / "short.gguf", missing=missing)).message


def _with(key: str, raw: bytes) -> House:
    return House().set(key, raw)


def _tensor(
    index: int, name: str | None = None, shape: tuple[int, ...] | None = None, kind: int | None = None
) -> House:
    house = House()
    old = house.tensors[index]
    house.tensors[index] = (name or old[0], shape or old[1], old[2] if kind is None else kind)
    return house


INF, NAN = float("inf"), float("nan")
BROKEN: dict[str, tuple[House, str]] = {
    "huge tensor count": (House(tensor_count=2**62), "tensors"),
    "tensor count beyond the file": (House(tensor_count=5000), "tensors"),
    "huge key count": (House(key_count=2**60), "metadata entries"),
    "version 1": (House(version=1), "version 1"),
    "version 9": (House(version=9), "version 9"),
    "big endian": (House(version=0x03000000), "big-endian"),
    "alignment 24": (_with("a", u32("general.alignment", 24)), "alignment"),
    "alignment 0": (_with("a", u32("general.alignment", 0)), "alignment"),
    "alignment as text": (_with("a", string("general.alignment", "32")), "alignment"),
    "key twice": (_with("again", string("general.name", "b")), "repeated"),
    "empty key": (_with("e", string("", "b")), "empty"),
    "key of unknown type": (_with("k", entry("x", 77, b"")), "unknown type 77"),
    "nested arrays": (_with("k", entry("x", 9, struct.pack("<IQ", 9, 1))), "unknown type 9"),
    "text of a gigabyte": (_with("k", entry("x", 8, struct.pack("<Q", 2**30))), "text"),
    "array of 2^60 texts": (_with("k", entry("x", 9, struct.pack("<IQ", 8, 2**60))), "texts"),
    "array of 2^60 numbers": (_with("k", entry("x", 9, struct.pack("<IQ", 4, 2**60))), "values"),
    "unknown ggml type": (_tensor(3, kind=99), "unknown type 99"),
    "removed ggml type": (_tensor(3, kind=4), "unknown type 4"),
    "row is no whole block": (_tensor(3, shape=(60, 64)), "rows of 60"),
    "zero dimension": (_tensor(3, shape=(64, 0)), "impossible shape"),
    "dimension of 2^62": (_tensor(3, shape=(64, 2**62)), "impossible shape"),
    "five dimensions": (_tensor(3, shape=(64, 1, 1, 1, 1)), "dimensions"),
    "name of 100 letters": (_tensor(3, name="blk.0." + "x" * 100 + ".weight"), "text"),
    "tensor twice": (_tensor(3, name="blk.0.attn_k.weight", shape=(64, 32)), "two tensors"),
    "block_count 0": (_with("llama.block_count", u32("llama.block_count", 0)), "block_count"),
    "block_count 10^9": (_with("llama.block_count", u32("llama.block_count", 10**9)), "block_count"),
    "block_count above the tensors": (_with("llama.block_count", u32("llama.block_count", 3)), "3 layers"),
    "block_count below the tensors": (_with("llama.block_count", u32("llama.block_count", 1)), "layer 1"),
    "no heads": (_with("llama.attention.head_count", u32("llama.attention.head_count", 0)), "heads"),
    "no kv heads": (_with("llama.attention.head_count_kv", u32("llama.attention.head_count_kv", 0)), "heads"),
    "heads for one layer": (
        _with("llama.attention.head_count", numbers("llama.attention.head_count", [4])),
        "1 of 2",
    ),
    "epsilon NaN": (_with(EPSILON, f32(EPSILON, NAN)), "positive"),
    "epsilon negative": (_with(EPSILON, f32(EPSILON, -1.0)), "positive"),
    "epsilon infinite": (_with(EPSILON, f32(EPSILON, INF)), "positive"),
    "context 2^31": (_with("llama.context_length", u32("llama.context_length", 2**31)), "context_length"),
    "context 0": (_with("llama.context_length", u32("llama.context_length", 0)), "context_length"),
    "eos 10^9": (_with("tokenizer.ggml.eos_token_id", u32("tokenizer.ggml.eos_token_id", 10**9)), "eos token"),
    "fewer tokens than rows": (_with("tokenizer.ggml.tokens", strings("tokenizer.ggml.tokens", ["a"])), "1 tokens"),
    "more experts used than there are": (
        House().set("e", u32("llama.expert_count", 2)).set("u", u32("llama.expert_used_count", 3)),
        "experts",
    ),
    "no architecture": (_with("general.architecture", string("general.architecture", "")), "architecture"),
    "architecture with a path": (_with("general.architecture", string("general.architecture", "../x")), "architecture"),
    "adapter": (_with("t", string("general.type", "adapter")), "LoRA"),
    "projector": (_with("general.architecture", string("general.architecture", "clip")), "projector"),
    "vocabulary only": (House(tensors=[]), "weights"),
}  # fmt: skip
BROKEN["vocabulary only"][0].tensors.clear()


@pytest.mark.parametrize("what", BROKEN)
def test_broken_header_is_refused_in_one_sentence(tmp_path: Path, what: str) -> None:
    house, words = BROKEN[what]
    message = refused(house.write(tmp_path / "broken.gguf")).message
    assert any(word in message for word in words.split("|")), message


def test_overlapping_and_gapped_tensors_are_refused(tmp_path: Path) -> None:
    for at in (0, 32, 2**60):
        house = House(offsets={"blk.0.attn_v.weight": at})
        assert "was due" in refused(house.write(tmp_path / "overlap.gguf")).message


def test_control_characters_of_a_file_never_reach_the_terminal(tmp_path: Path) -> None:
    house = House().set("general.name", string("general.name", "evil\x1b[2J\n<script>"))
    assert "\x1b" not in model_from_gguf(house.write(tmp_path / "evil.gguf")).name
    house = House()
    house.tensors[5] = ("blk.0.\x1b[31m", (64, 32), 8)
    assert "\x1b" not in refused(house.write(tmp_path / "evil2.gguf")).message


def _split(folder: Path, *, keep: int = 2, number: int = 1) -> Path:
    """A model in two parts: the second holds the tensors of the last layer."""
    names = [folder / f"house-{i:05d}-of-00002.gguf" for i in (1, 2)]
    for i in range(keep):
        part = House()
        part.metadata = part.metadata if i == 0 else {}
        part.set("split.count", u32("split.count", 2)).set("split.no", u32("split.no", i if i == 0 else number))
        part.set("split.tensors.count", entry("split.tensors.count", 5, struct.pack("<i", 20)))
        part.tensors = [t for t in part.tensors if t[0].startswith("blk.1.") == bool(i)]
        part.write(names[i])
    return names[0]


def test_split_model_is_read_whole(tmp_path: Path) -> None:
    spec = model_from_gguf(_split(tmp_path))
    assert len(spec.tensors) == len(House().tensors)
    assert spec.layers == 2


def test_split_model_with_a_missing_or_wrong_part_is_refused(tmp_path: Path) -> None:
    assert refused(_split(tmp_path, keep=1)).code == "not-found"
    assert "part 2" in refused(_split(tmp_path, number=7)).message


def test_later_part_names_the_first(tmp_path: Path) -> None:
    first = _split(tmp_path)
    later = first.with_name("house-00002-of-00002.gguf")
    assert first.name in refused(later).message + refused(later).hint


def test_equal_tokenizers_have_equal_hashes(tmp_path: Path) -> None:
    one = read_gguf(House().write(tmp_path / "a.gguf"))
    other = read_gguf(House(layers=3).write(tmp_path / "b.gguf"))
    words = strings("tokenizer.ggml.tokens", [f"u{i}" for i in range(96)])
    different = read_gguf(_with("tokenizer.ggml.tokens", words).write(tmp_path / "c.gguf"))
    assert tokenizer_sha256(one) == tokenizer_sha256(other) != tokenizer_sha256(different)


def _large_vocabulary(path: Path, count: int) -> Path:
    house = House().set("tokenizer.ggml.tokens", strings("tokenizer.ggml.tokens", [f"token{i}" for i in range(count)]))
    house.set("m", strings("tokenizer.ggml.merges", [f"a{i} b{i}" for i in range(count)]))
    house.tensors[0] = ("token_embd.weight", (64, count), 8)
    return house.write(path)


def test_a_large_vocabulary_costs_little_time_and_memory(tmp_path: Path) -> None:
    path = _large_vocabulary(tmp_path / "large.gguf", 49_152)
    started = time.process_time()
    read_gguf(path)
    assert time.process_time() - started < 0.2
    tracemalloc.start()
    read_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_headers_never_raise_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    _damage(tmp_path, data)


@pytest.mark.slow
@settings(max_examples=4000, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_fuzzed_headers_never_raise_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    _damage(tmp_path, data)


def _damage(folder: Path, data: st.DataObject) -> None:
    """Overwrite some bytes of a valid header: it is read, or refused with our own error, quickly."""
    head, size = House().header()
    raw = bytearray(head)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        raw[at : at + len(piece)] = piece
    path = folder / "fuzzed.gguf"
    path.write_bytes(bytes(raw))
    os.truncate(path, len(raw) + size + 64)
    started = time.process_time()
    with contextlib.suppress(AdvisorError):
        model_from_gguf(path)
    assert time.process_time() - started < 2
