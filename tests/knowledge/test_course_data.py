"""The course's knowledge as data: complete, each claim with a verdict and a source, our figures those of our tables."""

import pytest

from knowledge.course import course_rows, load_claims, load_course
from knowledge.matrix import load_backends, load_frameworks
from knowledge.models import find_model
from knowledge.precisions import resolve_precision
from knowledge.sources import load_sources
from knowledge.weights import weights

CLAIMS = {claim.id: claim for claim in load_claims()}
FRAMEWORKS = {framework.name for framework in load_frameworks()}


def test_every_claim_has_a_verdict_our_words_and_a_source_that_exists() -> None:
    sources = {source.id for source in load_sources()}
    assert len(CLAIMS) == len(load_claims()) >= 90
    for claim in load_claims():
        assert claim.claim
        assert claim.ours
        assert claim.source in sources or " PR " in claim.source, claim.id


def test_every_part_of_the_module_is_covered() -> None:
    parts = {claim.part for claim in load_claims()}
    assert {"README", *(f"part {number}" for number in range(1, 8))} <= parts


def test_every_row_of_the_course_names_its_claim() -> None:
    assert all(row["verdict"] and row["says"] for row in course_rows())


@pytest.mark.parametrize("kind", ["requirement", "platform", "preference", "benchmark", "gate", "stage", "deployment"])
def test_its_tables_are_there(kind: str) -> None:
    wanted = {
        "requirement": 6, "platform": 6, "preference": 2, "benchmark": 5, "gate": 3, "stage": 3, "deployment": 5
    }  # fmt: skip
    assert len(load_course()[kind]) == wanted[kind]


def test_its_frameworks_are_ours() -> None:
    course = load_course()
    named = {branch["framework"] for branch in course["tree"][0]["branch"]}
    named |= {row[place] for row in course["platform"] for place in ("first", "second")}
    named |= {name for row in course["preference"] for name in row["order"]}
    named |= {name for row in course["requirement"] for name in row["grades"]}
    assert named == FRAMEWORKS


@pytest.mark.parametrize(
    ("claim", "precision", "saved"), [("B8", "Q4_0", 71.9), ("B9", "Q5_1", 62.5), ("B10", "Q8_0", 46.9)]
)
def test_what_we_say_a_type_saves_is_what_our_table_says(claim: str, precision: str, saved: float) -> None:
    bits = resolve_precision(precision, "llama.cpp")[0].bits
    assert round(100 * (1 - bits / 16), 1) == saved
    assert f"{saved:g} %" in CLAIMS[claim].ours


@pytest.mark.parametrize(
    ("model", "framework", "precision", "gigabytes"),
    [
        ("Llama-3.1-8B-Instruct", "llama.cpp", "Q4_K_M", 4.9),  # A1
        ("Mistral-7B-Instruct-v0.3", "llama.cpp", "Q4_K_M", 4.4),  # A1
        ("Mistral-7B-Instruct-v0.3", "mlx", "4bit-g64", 4.07),  # A5, F6
        ("Mistral-7B-Instruct-v0.3", "mlx", "8bit-g64", 7.69),  # F6
        ("Phi-3-mini-4k-instruct", "mlx", "4bit-g64", 2.15),  # F7
    ],
)
def test_what_we_say_a_model_takes_is_what_we_compute(
    model: str, framework: str, precision: str, gigabytes: float
) -> None:
    size = weights(find_model(model), resolve_precision(precision, framework)[0]).tensor_bytes / 1e9
    assert size == pytest.approx(gigabytes, rel=0.02)


def test_openvino_serves_no_nvidia_gpu_and_llama_cpp_does() -> None:
    served = {
        b.framework
        for b in load_backends()
        if b.engine == "gpu" and b.serves_vendor("nvidia") and b.support == "supported"
    }
    assert CLAIMS["G5.nvidia"].verdict == "wrong"
    assert "openvino" not in served
    assert "llama.cpp" in served
