"""Sizes of a language model by whatever name a benchmark, a file or a registry gives it.

`knowledge.models.find_model` answers a person and refuses what is unclear; this module answers rows of measurements:
`Qwen_Qwen3-30B-A3B-Thinking-2507-Q4_K_M.gguf`, `qwen3moe 30B.A3B Q4_0`, `llama_v3_2_3b_instruct`, `gemma3:270m`.
Names become words; the row (of the catalogue, then of data/model_shapes.csv) all of whose words occur in the name, and
that has most of them, is taken, unless the size in the name or the row's own column contradicts it. What remains are
the sizes alone, with shapes typical of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from knowledge.models import load_models
from knowledge.records import AttentionGroup, ModelSpec
from knowledge.tables import read_rows

_LIMIT = 300


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SIZE = re.compile(r"(?:\d+x)?\d+(?:\.\d+)?[bm]")
_EFFECTIVE = re.compile(r"[eh]\d+(?:\.\d+)?b")
_ACTIVE = re.compile(r"a\d+(?:\.\d+)?[bm]")
_SHARED_EXPERTS = 0.84  # of 8x7B: attention and embeddings are shared, 46.7 of 56 billion
EXPERTS_USE = 0.4  # of the parameters at most, for a token; with embeddings for each layer, models use more
_HYBRID_ATTENTION = 0.25  # of a hybrid model's layers attend, as in Qwen3.5, where its row does not tell
_UNTIED_FROM = 3.5e9  # parameters: smaller models mostly share embedding and head

_REPAIRS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"\.gguf$|\.onnx$|\.safetensors$", ""),
        (r"[/\\]", " "),
        # what says how it is stored, not what it is
        (
            r"(?<![a-z0-9])(?:ud[-_])?(?:i?q\d(?:_[0-9a-z]+)*|tq\d_\d|[2-8]-?bit|w\d+a\d+|mxfp\d|nvfp4|bf16|fp?16|fp?32"
            r"|fp8|int[48])(?![a-z0-9])",
            " ",
        ),
        (r"(?<=\d)p(?=\d+b\b)", "."),
        (r"scout-17b-16e|17bx16e scout", "scout"),
        (r"maverick-17b-128e|17bx128e maverick", "maverick"),
        (r"(\d)_(\d)(?=_)", r"\1.\2"),  # llama_v3_2_3b: version 3.2
        (r"(\d+b)\.i1", r"\1 "),
        (r"(?<![\d.])0(\d)b", r"0.\1b"),  # 06b
        (r"\b(\d)b\d\b", r"\1b"),  # 7b1
        (r"(?<=\D)(\d\d) *- *a(\d)b", r"\1b a\2b"),
        (r"(\d+)\.0(?=[bm])", r"\1"),
        (r"\b([rmhv])(\d)", r"\1 \2"),
        (r"tinyllama", "tiny llama"),
    )
)
_SAYS_NOTHING = _words(
    """instruct it chat hf base gguf mlx ud qat uncensored heretic crack latest unsloth community ggml org bartowski
    lmstudio google meta microsoft the pt sft dpo model thinking reasoning preview xl gptq awq exl2 exl3 main quantized
    quant imatrix i1 abliterated distilled claude opus aggressive v"""
)
_SAYS_MUCH = _words("coder math vl vision omni embedding distill next moe lite guard")
_DATE = re.compile(r"2[45]\d\d|\d{4,}")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What speed and memory follow from. `kv_values` are cached values per token over all layers; `origin` says how it
    is known: `catalogue`, `shapes` (data/model_shapes.csv), `size` (parameters alone) or `file` (a file's size alone).
    `window_values` of them are kept for the last `window` tokens only. `queries` are the query values per token of the
    layers that attend to every token before it, `window_queries` of those that attend to the window.

    `active_params` equals `params` for a dense model. `name` is the row that was taken, empty without one.
    """

    params: float
    active_params: float
    layers: int
    hidden: int
    kv_values: float
    vocab: int
    tied: bool
    recurrent: bool
    origin: str
    queries: float
    name: str = ""
    spec: ModelSpec | None = None
    window_values: float = 0.0
    window: int = 0
    window_queries: float = 0.0

    @property
    def is_moe(self) -> bool:
        return self.active_params < EXPERTS_USE * self.params


@dataclass(frozen=True, slots=True)
class _Entry:
    words: frozenset[str]
    sized: bool
    facts: ModelFacts


@lru_cache(maxsize=4096)
def model_facts(name: str, params_b: float | None = None, active_b: float | None = None) -> ModelFacts | None:
    """The facts of the model called `name`; `params_b` and `active_b` (10^9) are what else is said of it, and give way
    to the size in the name where they disagree. None where neither name nor figure tells a size."""
    written, written_active = _sizes_in(name[:_LIMIT])
    facts = _row_of(name[:_LIMIT])
    known = facts.params / 1e9 if facts else 0.0
    if facts and written and not (0.6 < known / written < 1.67) and not facts.is_moe and not _effective(name):
        facts = None
    if facts and not written and params_b and not (0.55 < known / params_b < 1.8):
        facts = None
    if facts is None:
        size = params_b if params_b and (not written or 0.75 < params_b / written < 1.34) else written or params_b
        if not size:
            return None
        facts = typical_facts(size * 1e9, "size")
    active = written_active or active_b
    if not facts.is_moe and active and active * 1e9 < 0.8 * facts.params and facts.origin != "catalogue":
        facts = replace(facts, active_params=active * 1e9)
    return facts


def typical_facts(params: float, origin: str) -> ModelFacts:
    """Shapes usual for a dense model of `params` parameters."""
    billions = params / 1e9
    layers = max(12, round(24 * (billions / 1.5) ** 0.33)) if billions < 10 else round(40 * (billions / 13) ** 0.4)
    hidden = max(64, round((params / (12 * layers)) ** 0.5))
    vocab = 128_000 if billions > 0.8 else 60_000
    tied = params < _UNTIED_FROM
    return ModelFacts(
        params, params, layers, hidden, layers * 2048.0, vocab, tied, False, origin, float(layers * hidden)
    )


def facts_of_spec(spec: ModelSpec) -> ModelFacts:
    """The facts of a catalogue model or of one read from a file."""
    values, window_values, window = 0, 0, 0
    queries = {"full": 0, "window": 0}
    for group in spec.attention:
        looks = _looks(group, spec)
        if looks:
            length = spec.head_dim if group.kind == "latent" else group.key_length
            queries[looks] += group.layers * spec.heads * length
        if group.kind not in ("full", "window", "latent"):
            continue
        heads = 1 if group.kind == "latent" else group.kv_heads
        kept = heads * (group.key_length + group.value_length) * group.layers
        values += kept
        if group.kind == "window":
            window_values, window = window_values + kept, max(window, group.window)
    recurrent = any(group.kind == "recurrent" for group in spec.attention)
    active = spec.active_params or spec.params
    return ModelFacts(
        float(spec.params), float(active), spec.layers, spec.hidden, float(values), spec.vocab, spec.tied_embeddings,
        recurrent, "catalogue", float(queries["full"]), spec.name, spec, float(window_values), window,
        float(queries["window"]),
    )  # fmt: skip


def _looks(group: AttentionGroup, spec: ModelSpec) -> str:
    """How far the layers of a group look back: `full` or `window`; empty where they do not. Layers that use the cache
    of others look as far as those with keys as long."""
    if group.kind == "none" and group.kv_heads:
        return next((g.kind for g in spec.attention if g.kind != "none" and g.key_length == group.key_length), "full")
    return {"full": "full", "latent": "full", "window": "window"}.get(group.kind, "")


def words_of(name: str) -> list[str]:
    """The words of a model's name, sizes kept together ("30b", "a3b", "e2b"), other digits apart from letters."""
    text = name.lower()
    for pattern, substitute in _REPAIRS:
        text = pattern.sub(substitute, text)
    found: list[str] = []
    for word in re.split(r"[^a-z0-9.]+", text):
        word = word.strip(".")
        joined = re.fullmatch(r"(\d+(?:\.\d+)?[bm])\.?(a\d+(?:\.\d+)?[bm])", word)
        if joined:
            found += [joined[1], joined[2]]
        elif _SIZE.fullmatch(word) or _EFFECTIVE.fullmatch(word) or _ACTIVE.fullmatch(word):
            found.append(word)
        else:
            found += [part for part in re.findall(r"[a-z]+|\d+(?:\.\d+)?", word) if part]
    return found


def _telling(name: str) -> frozenset[str]:
    return frozenset(word for word in words_of(name) if word not in _SAYS_NOTHING and not _DATE.fullmatch(word))


def _is_size(word: str) -> bool:
    return bool(_SIZE.fullmatch(word) or _EFFECTIVE.fullmatch(word))


@lru_cache(maxsize=1)
def _entries() -> tuple[_Entry, ...]:
    entries = []
    for spec in load_models():
        facts = facts_of_spec(spec)
        for name in dict.fromkeys((spec.name, *spec.aliases, spec.hf_id.rpartition("/")[2])):
            entries.append((_telling(name), facts))
    for row in read_rows("model_shapes.csv"):
        params = float(row["params_b"]) * 1e9
        active = float(row["active_b"]) * 1e9 if row["active_b"] else params
        layers, hidden, recurrent = int(row["layers"]), int(row["hidden"]), row["recurrent"] == "yes"
        facts = ModelFacts(
            params, active, layers, hidden, float(row["kv_values"]), int(row["vocab"]), row["tied"] == "yes", recurrent,
            "shapes", layers * hidden * (_HYBRID_ATTENTION if recurrent else 1.0), row["name"],
        )  # fmt: skip
        entries.append((_telling(row["name"]), facts))
    return tuple(_Entry(words, any(map(_is_size, words)), facts) for words, facts in entries if words)


def _row_of(name: str) -> ModelFacts | None:
    words = _telling(name)
    size = next((value for value in map(_billions, sorted(words)) if value), None)
    best: tuple[float, ModelFacts] | None = None
    for entry in _entries():
        if not entry.words <= words:
            continue
        if size and not entry.sized and not 0.7 < entry.facts.params / 1e9 / size < 1.4:
            continue
        score = len(entry.words) + 0.5 * (entry.facts.origin == "catalogue")
        score -= 0.6 * len(words & _SAYS_MUCH - entry.words)
        if best is None or score > best[0]:
            best = (score, entry.facts)
    return best[1] if best else None


def _effective(name: str) -> bool:
    return any(_EFFECTIVE.fullmatch(word) or word in ("scout", "maverick") for word in words_of(name))


def _billions(word: str) -> float | None:
    match = re.fullmatch(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])", word)
    if not match:
        return None
    value = float(match[2]) * (1.0 if match[3] == "b" else 1e-3)
    return value * int(match[1]) * _SHARED_EXPERTS if match[1] else value


def _sizes_in(name: str) -> tuple[float | None, float | None]:
    """The parameters and the active parameters (10^9) that a name writes."""
    words = words_of(name)
    active = next((_billions(word[1:]) for word in words if _ACTIVE.fullmatch(word)), None)
    totals = [value for value in map(_billions, words) if value and 0.01 <= value <= 3000]
    glued = re.search(r"(\d+(?:\.\d+)?)b ?a(\d+(?:\.\d+)?)b", name.lower())
    if glued:
        return float(glued[1]), float(glued[2])
    return (max(totals) if totals else None), active
