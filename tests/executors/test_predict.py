"""`predict --batch`: every row comes back, odd cells are told, physics holds its directions, intervals are ordered."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor.case import METRICS
from advisor.cost_model import trees_from
from advisor.learned import load_predictor
from advisor.workload import case_of_row
from executors.batch import predict_file
from knowledge.base import MIB, AdvisorError
from knowledge.measurements import COLUMNS

ROW = {
    "device": "RTX 4070", "device_kind": "gpu", "chip": "RTX 4070", "memory_gb": "12", "bandwidth_gbs": "504",
    "framework": "llama.cpp", "backend": "cuda", "framework_version": "b6000",
    "model": "Qwen2.5-7B-Instruct", "params_b": "7.6", "active_params_b": "",
    "precision": "Q4_K_M", "file_size_gib": "4.36", "batch": "1",
    "prompt_tokens": "512", "gen_tokens": "128", "metric": "decode_tps",
}  # fmt: skip


def answers(tmp_path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> list[dict[str, str]]:
    with (tmp_path / "in.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(COLUMNS))
        writer.writeheader()
        writer.writerows(rows)
    predict_file(tmp_path / "in.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def middle(row: dict[str, str]) -> float:
    case, _ = case_of_row(row)
    assert case
    return load_predictor().estimate(case, row["metric"]).mid


def test_a_known_card_decodes_at_the_speed_people_measure() -> None:
    assert 60 < middle(ROW) < 110


@pytest.mark.parametrize(
    ("device", "model", "precision", "runtime"),
    [("Apple M5 Max", "laguna-xs-2.1:nvfp4", "nvfp4", "mlx"), ("Apple M3 Max", "Qwen3.5", "INT4 int4", "mlx"),
     ("Apple M5 Max", "gemma4:12b-mlx", "", "mlx"), ("Apple M5 Max", "llama3.1:8b", "", "ollama"),
     ("Apple M3 Max", "gpt-oss:20b", "MXFP4", "ollama"), ("RTX 5090", "gemma3:12b", "int8", "ollama")],
)  # fmt: skip
def test_ollama_hands_the_formats_of_mlx_to_mlx(device: str, model: str, precision: str, runtime: str) -> None:
    case, _ = case_of_row({"device": device, "chip": device, "framework": "ollama", "model": model, "params_b": "12",
                           "precision": precision})  # fmt: skip
    assert case
    assert case.runtime == runtime


def test_the_same_rows_come_back_in_order_with_five_columns_more(tmp_path: Path) -> None:
    rows = [ROW | {"metric": metric, "batch": "1"} for metric in METRICS]
    found = answers(tmp_path, rows)
    assert [{column: row[column] for column in COLUMNS} for row in found] == rows
    for row in found:
        assert float(row["low"]) <= float(row["mid"]) <= float(row["high"])
        assert row["basis"]


def test_mid_is_empty_only_where_neither_parameters_nor_size_is_known(tmp_path: Path) -> None:
    unknown = ROW | {"model": "Coder", "params_b": "", "file_size_gib": ""}
    sized = unknown | {"file_size_gib": "4.4"}
    empty, by_size = answers(tmp_path, [unknown, sized])
    assert empty["mid"] == ""
    assert "neither" in empty["note"]
    assert by_size["mid"]


def test_nothing_known_but_the_size_is_a_wide_interval(tmp_path: Path) -> None:
    bare = dict.fromkeys(COLUMNS, "") | {"params_b": "7", "metric": "decode_tps"}
    (found,) = answers(tmp_path, [bare])
    assert float(found["high"]) > 3 * float(found["low"])


ODD = [
    {"params_b": "minus many", "note": "params_b"}, {"memory_gb": "1e999", "note": "memory_gb"},
    {"batch": "-4", "note": "batch"}, {"prompt_tokens": "NaN", "note": ""}, {"bandwidth_gbs": "0", "note": "bandwidth"},
    {"file_size_gib": "1e12", "note": "file_size_gib"}, {"precision": "☃", "note": "precision"},
    {"chip": "Quantum 9000", "device": "", "note": "device not recognized"}, {"metric": "tokens/day", "note": "metric"},
    {"precision": "Q99", "note": "precision not recognized, q4_k_m assumed"},
    {"precision": "Q99", "model": "Qwen2.5-7B-Q8_0", "note": "not recognized, q8_0 of the model's name taken"},
    {"chip": "Apple M2", "device": "", "note": "cuda does not run on Apple M2"},
    {"params_b": "1e308", "note": "params_b"}, {"params_b": "30 - A3", "note": "params_b"},
    {"backend": "cpu", "device_kind": "cpu", "note": "RTX 4070 is a graphics card and no CPU, cuda on it taken"},
    {"backend": "CPU", "chip": "RX 7900 XTX", "device": "", "note": "is a graphics card and no CPU, rocm on it taken"},
    {"framework": "\x00\x07", "note": ""}, {"model": "Qwen2.5-7B" + "0" * 4000, "note": ""},
]  # fmt: skip


@pytest.mark.parametrize("cells", ODD, ids=lambda cells: next(iter(cells)))
def test_an_odd_cell_is_told_and_the_row_answered(tmp_path: Path, cells: dict[str, str]) -> None:
    told = cells["note"]
    (found,) = answers(tmp_path, [ROW | {key: value for key, value in cells.items() if key != "note"}])
    assert float(found["mid"]) > 0
    assert told in found["note"]


@pytest.mark.parametrize(("written", "plain"), [("8B", "8"), ("8.03 b", "8.03"), ("350M", "0.35")])
def test_a_size_may_be_written_as_in_a_name(tmp_path: Path, written: str, plain: str) -> None:
    unnamed = ROW | {"model": "Coder", "file_size_gib": ""}
    found, same = answers(tmp_path, [unnamed | {"params_b": size} for size in (written, plain)])
    assert {**found, "params_b": plain} == same
    assert "params_b" not in found["note"]


@given(st.dictionaries(st.sampled_from(COLUMNS), st.text(max_size=40), max_size=17), st.sampled_from(METRICS))
def test_no_cell_breaks_a_prediction(cells: dict[str, str], metric: str) -> None:
    case, notes = case_of_row(cells)
    if case is None:
        assert notes
        return
    found = load_predictor().estimate(case, metric)
    assert 0 < found.low <= found.mid <= found.high


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    (found,) = answers(tmp_path, [ROW | {"device": "Grüße RTX 4070"}], encoding)
    assert float(found["mid"]) > 0


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff\xfe\x00", b"a,b\n1,2\n", b"hello", b"x" * 20 * MIB],
    ids=["empty", "zeros", "other columns", "a word", "one word without end"],
)
def test_what_is_no_table_is_bad_input(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(data)
    with pytest.raises(AdvisorError) as raised:
        predict_file(tmp_path / "in.csv", tmp_path / "out.csv")
    assert raised.value.exit_code == 2
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without end")
def test_a_file_without_end_is_read_up_to_the_limit(tmp_path: Path) -> None:
    with pytest.raises(AdvisorError, match="is larger than 256 MiB"):
        predict_file(Path("/dev/zero"), tmp_path / "out.csv")


def test_short_rows_and_missing_columns_are_answered(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("model;chip;metric\nLlama-3.2-3B;RTX 4070\n;;;;;;\n", encoding="utf-8")
    document = predict_file(tmp_path / "in.csv", tmp_path / "out.csv")
    assert (document["rows"], document["answered"]) == (2, 1)


@pytest.mark.parametrize(("metric", "direction"), [("ttft_ms", 1), ("peak_mem_gb", 1), ("decode_tps", -1)])
def test_a_longer_prompt_never_helps(metric: str, direction: int) -> None:
    lengths = ("32", "128", "512", "2048", "8192", "32768")
    values = [middle(ROW | {"metric": metric, "prompt_tokens": tokens}) for tokens in lengths]
    assert values == sorted(values, reverse=direction < 0)


def test_a_larger_model_of_the_same_precision_is_slower_and_takes_more_memory() -> None:
    small, large = (
        [middle(ROW | {"model": name, "params_b": "", "file_size_gib": "", "metric": m}) for m in METRICS]
        for name in ("Qwen2.5-1.5B", "Qwen2.5-14B")
    )
    assert [a > b for a, b in zip(small, large, strict=True)] == [True, True, False, False]


def test_less_evidence_is_a_wider_interval() -> None:
    def width(row: dict[str, str]) -> float:
        case, _ = case_of_row(row)
        assert case
        found = load_predictor().estimate(case, "decode_tps")
        return found.high / found.low

    measured = ROW | {"device": "RTX 3090", "chip": "RTX 3090", "memory_gb": "24", "bandwidth_gbs": "936"}
    nothing_alike = ROW | {"device": "Mystery", "chip": "Mystery", "framework": "other", "backend": "webgpu"}
    assert width(nothing_alike) > 1.3 * width(measured)


def test_five_thousand_rows_take_less_than_ten_seconds(tmp_path: Path) -> None:
    rows = [ROW | {"prompt_tokens": str(64 + index), "metric": METRICS[index % 4]} for index in range(1000)]
    begin = time.process_time()
    answers(tmp_path, rows)
    assert time.process_time() - begin < 10 / 5


def test_a_row_gets_the_leaf_that_it_falls_into_of_every_tree() -> None:
    trees = trees_from({"base": 0.5, "trees": [[0, 1.0, [1, 2.0, 0.1, 0.2], 0.4], 0.01]})
    found = [trees.predict(row) for row in ([1.0, 2.0], [1.0, 2.5], [1.5, 0.0])]
    assert found == pytest.approx([0.61, 0.71, 0.91])
