"""Builds Hugging Face checkpoints for the tests: a llama of 1.3 million parameters, in a folder or as hub files."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

from hub_server import Repo

CARD = {"license": "apache-2.0"}
LAB = "house-lab/House-1M"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "eos_token_id": 2,
}  # fmt: skip


def shapes(layers: int = 2) -> dict[str, list[int]]:
    found = {"model.embed_tokens.weight": [1000, 256], "lm_head.weight": [1000, 256], "model.norm.weight": [256]}
    for i in range(layers):
        for name, shape in {
            "self_attn.q_proj": [256, 256], "self_attn.k_proj": [128, 256], "self_attn.v_proj": [128, 256],
            "self_attn.o_proj": [256, 256], "mlp.gate_proj": [512, 256], "mlp.up_proj": [512, 256],
            "mlp.down_proj": [256, 512], "input_layernorm": [256], "post_attention_layernorm": [256],
        }.items():  # fmt: skip
            found[f"model.layers.{i}.{name}.weight"] = shape
    return found


def safetensors(
    path: Path, tensors: dict[str, list[int]], *, dtype: str = "BF16", missing: int = 0, **changes: Any
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        width = 1 if changes.get(name, {}).get("dtype") == "U8" else 2
        end = offset + width * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end], **changes.get(name, {})}
        offset = end
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    os.truncate(path, 8 + len(raw) + offset - missing)


def checkpoint(tmp_path: Path, **config: object) -> Repo:
    """The checkpoint of the folder tests, sharded."""
    names = list(shapes().items())
    files = {"config.json": json.dumps({**CONFIG, **config}).encode(), "README.md": b"---\nlicense: mit\n---\n# House"}
    mapping = {}
    for number, part in enumerate((names[:5], names[5:]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        safetensors(tmp_path / shard, dict(part))
        files[shard] = (tmp_path / shard).read_bytes()
        mapping |= {name: shard for name, _ in part}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": mapping}).encode()
    files["tokenizer.json"] = b"{}"
    files["pytorch_model.bin"] = b"\x80\x04pickle"
    return Repo(files, CARD)


def one_file(tmp_path: Path, **config: object) -> Repo:
    safetensors(tmp_path / "model.safetensors", shapes())
    weights = (tmp_path / "model.safetensors").read_bytes()
    return Repo({"config.json": json.dumps({**CONFIG, **config}).encode(), "model.safetensors": weights}, CARD)
