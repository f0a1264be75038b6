"""Encoders that turn text into vectors: their tensors under GGUF's names, without what the vectors do not need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from knowledge.records import Tensor

ENCODERS = frozenset(
    {"bert", "roberta", "xlm-roberta", "nomic_bert", "mpnet", "distilbert", "modernbert", "camembert"}
)  # model_type of a config.json

_UNUSED = re.compile(r"(?:\w+\.)?(?:pooler\..+|embeddings\.position_ids)")  # the classifier's layer; a table of numbers
_TOP = {  # BERT's names as transformers writes them, GGUF's, role
    "word_embeddings.weight": ("token_embd.weight", "token_embd"),
    "position_embeddings.weight": ("position_embd.weight", "other"),
    "token_type_embeddings.weight": ("token_types.weight", "other"),
    "LayerNorm.weight": ("token_embd_norm.weight", "norm"),
    "LayerNorm.bias": ("token_embd_norm.bias", "bias"),
}
_LAYER = {
    "attention.self.query": ("attn_q", "attn_q"),
    "attention.self.key": ("attn_k", "attn_k"),
    "attention.self.value": ("attn_v", "attn_v"),
    "attention.output.dense": ("attn_output", "attn_output"),
    "attention.output.LayerNorm": ("attn_output_norm", "norm"),
    "intermediate.dense": ("ffn_up", "ffn_up"),
    "output.dense": ("ffn_down", "ffn_down"),
    "output.LayerNorm": ("layer_output_norm", "norm"),
}
_NAME = re.compile(
    r"(?:\w+\.)?(?:embeddings\.(?P<top>.+)|encoder\.layer\.(?P<layer>\d{1,4})\.(?P<part>.+)\.(?P<end>\w+))"
)


def encoder_tensors(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """The tensors that make vectors, named and given roles as in GGUF where they are called as BERT's are."""
    for tensor in tensors:
        if _UNUSED.fullmatch(tensor.name):
            continue
        match = _NAME.fullmatch(tensor.name)
        if match and match["top"] in _TOP:
            name, role = _TOP[match["top"]]
            yield replace(tensor, name=name, role=role)
        elif match and match["part"] in _LAYER:
            suffix, role = _LAYER[match["part"]]
            layer, end = int(match["layer"]), match["end"]
            yield replace(
                tensor, name=f"blk.{layer}.{suffix}.{end}", role="bias" if end == "bias" else role, layer=layer
            )
        else:
            yield tensor
