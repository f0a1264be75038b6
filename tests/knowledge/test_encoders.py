"""Encoders: what their folders say, which of their tensors count, how many bytes they take in 8 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from house_checkpoint import CONFIG as DECODER
from house_checkpoint import safetensors as decoder_weights
from house_checkpoint import shapes as decoder_shapes
from house_encoder import MATRICES, MODULES, POOLING, ROWS, SMALL, TABLE_ROWS, encoder

from executors.checkpoint_files import copy_checkpoint
from knowledge.base import EXIT_BAD_INPUT, AdvisorError, write_json
from knowledge.checkpoint import read_model_path
from knowledge.models import find_model
from knowledge.pooling import read_pooling
from knowledge.precisions import resolve_precision
from knowledge.records import ModelSpec
from knowledge.shapes import groups_of
from knowledge.weights import weights

MEASURED = {("openvino", "int8"): 24_102_594, ("olive", "int8-dynamic"): 23_312_187}  # artifacts of all-MiniLM-L6-v2


def sizes(spec: ModelSpec, framework: str, precision: str) -> Any:
    return weights(spec, resolve_precision(precision, framework)[0])


def refused(folder: Path) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        read_model_path(folder)
    return caught.value


# ---- tensors


def test_an_encoder_is_counted_without_its_pooler_and_its_table_of_numbers(tmp_path: Path) -> None:
    spec = read_model_path(encoder(tmp_path / "house"))
    assert spec.params == MATRICES + SMALL
    assert (spec.modality, spec.is_encoder, spec.use_cases) == ("embedding", True, ("embedding",))
    assert not [t for t in spec.tensors if "pooler" in t.name or "position_ids" in t.name]


def test_the_tensors_read_are_those_that_the_architecture_has(tmp_path: Path) -> None:
    spec = read_model_path(encoder(tmp_path / "house"))
    written = replace(spec, tensors=(), dimensions=(("positions", 128), ("types", 2)))

    def named(one: ModelSpec) -> set[Any]:
        return {(g.suffix, g.role, g.row_length, g.rows, g.layers) for g in groups_of(one)}

    assert named(spec) == named(written)


def test_a_text_is_cut_where_the_sentence_model_says_and_not_where_the_table_ends(tmp_path: Path) -> None:
    assert read_model_path(encoder(tmp_path / "house")).context == 64


def test_a_decoder_with_a_pooling_layer_makes_vectors_and_is_no_encoder(tmp_path: Path) -> None:
    decoder_weights(tmp_path / "model.safetensors", decoder_shapes())
    write_json(tmp_path / "config.json", DECODER)
    assert read_model_path(tmp_path).modality == "text"
    write_json(tmp_path / "modules.json", MODULES)
    spec = read_model_path(tmp_path)
    assert (spec.modality, spec.is_encoder) == ("embedding", False)


# ---- pooling


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        (POOLING, "mean"),
        ({"word_embedding_dimension": 64, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"embedding_dimension": 64, "pooling_mode": "mean", "include_prompt": True}, "mean"),
    ],
)
def test_old_and_new_descriptions_of_pooling_are_read(tmp_path: Path, pooling: Any, mode: str) -> None:
    found = read_pooling(encoder(tmp_path / "house", pooling=pooling))
    assert (found.mode, found.dimension, found.normalize, found.max_tokens) == (mode, 64, True, 64)
    assert found.papers == ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json")


DENSE = [*MODULES, {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}]
OUTSIDE = [MODULES[0], {**MODULES[1], "path": "../1_Pooling"}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modules": None}, "modules.json"),
        ({"pooling": None}, "1_Pooling/config.json"),
        ({"modules": MODULES[:1]}, "names no pooling"),
        ({"modules": DENSE}, "Dense"),
        ({"modules": {"a": 1}}, "names no pooling"),
        ({"modules": OUTSIDE}, "not a list of modules"),
        ({"pooling": {"word_embedding_dimension": 64, "pooling_mode_max_tokens": True}}, "max_tokens"),
        ({"pooling": {**POOLING, "pooling_mode_cls_token": True}}, "and"),
        ({"pooling": {"word_embedding_dimension": 64}}, "pools by nothing"),
        ({"pooling": {"pooling_mode_mean_tokens": True}}, "how many numbers"),
        ({"pooling": []}, "no JSON object"),
    ],
)
def test_an_encoder_that_does_not_say_how_it_pools_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    error = refused(encoder(tmp_path / "house", **changes))
    assert (error.code, error.exit_code) == ("bad-checkpoint", EXIT_BAD_INPUT)
    assert words in error.message
    assert error.hint


def test_a_pooling_folder_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "house", pooling=None)
    other = encoder(tmp_path / "other")
    (folder / "1_Pooling").symlink_to(other / "1_Pooling")
    assert "link" in refused(folder).message


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "house")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickles" in refused(folder).message


def test_a_copy_has_the_description_of_the_pooling_where_it_was(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "house")
    copy_checkpoint(folder, tmp_path / "copy", lambda _: None)
    assert read_pooling(tmp_path / "copy") == read_pooling(folder)


# ---- sizes


def test_eight_bits_take_a_byte_a_scale_per_row_and_32_bits_for_the_rest(tmp_path: Path) -> None:
    spec = read_model_path(encoder(tmp_path / "house"))
    rows = ROWS + TABLE_ROWS
    assert sizes(spec, "openvino", "int8").tensor_bytes == MATRICES + 3 * rows + 4 * SMALL
    assert sizes(spec, "openvino", "int8-sym").tensor_bytes == MATRICES + 2 * rows + 4 * SMALL
    assert sizes(spec, "olive", "int8-dynamic").tensor_bytes == MATRICES + 5 * ROWS + 5 * 3 + 4 * SMALL


@pytest.mark.parametrize(("framework", "precision"), MEASURED)
def test_the_predicted_folder_is_within_two_per_cent_of_the_measured_one(framework: str, precision: str) -> None:
    measured = MEASURED[framework, precision]
    assert sizes(find_model("all-MiniLM-L6-v2"), framework, precision).file_bytes == pytest.approx(measured, rel=0.02)
