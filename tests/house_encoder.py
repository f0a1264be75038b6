"""Builds the folder of a tiny encoder for the tests: a BERT in the layout of sentence-transformers."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500, "max_position_embeddings": 128,
    "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
POOLING: dict[str, Any] = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
MATRICES = 500 * 64 + 128 * 64 + 2 * 64 + 2 * (4 * 64 * 64 + 2 * 128 * 64)
ROWS = 2 * (4 * 64 + 128 + 64)  # of the layers
TABLE_ROWS = 500 + 128 + 2
SMALL = 2 * 64 + 2 * (4 * 64 + 2 * 64 + 128 + 64 + 2 * 64)


def shapes() -> dict[str, list[int]]:
    found = {
        "embeddings.word_embeddings.weight": [500, 64], "embeddings.position_embeddings.weight": [128, 64],
        "embeddings.token_type_embeddings.weight": [2, 64], "embeddings.LayerNorm.weight": [64],
        "embeddings.LayerNorm.bias": [64], "pooler.dense.weight": [64, 64], "pooler.dense.bias": [64],
    }  # fmt: skip
    for layer in range(2):
        for name, shape in {
            "attention.self.query": [64, 64], "attention.self.key": [64, 64], "attention.self.value": [64, 64],
            "attention.output.dense": [64, 64], "intermediate.dense": [128, 64], "output.dense": [64, 128],
        }.items():  # fmt: skip
            found[f"encoder.layer.{layer}.{name}.weight"] = shape
            found[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= {f"encoder.layer.{layer}.{name}.{end}": [64] for end in ("weight", "bias")}
    return found


def encoder(
    folder: Path, *, config: dict[str, Any] | None = None, modules: Any = MODULES, pooling: Any = POOLING
) -> Path:
    """The folder, weights of zeros in 32 bits; without a file where None is given."""
    folder.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"embeddings.position_ids": {"dtype": "I64", "shape": [1, 128], "data_offsets": [0, 1024]}}
    end = 1024
    for name, shape in shapes().items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    (folder / "tokenizer.json").write_text("{}" + " " * 998)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# House")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    if modules is not None:
        (folder / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder
