"""Makes a small model with random weights of an architecture, as a Hugging Face folder. Run by a Python that has torch
and transformers (the toolchain `export`): made_models.py ARCHITECTURE FOLDER TOKENIZER_FOLDER."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

VOCABULARY, WIDTH, EXPERTS = 49152, 256, 8
COMMON: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 4096, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 64, "num_hidden_layers": 6, "sliding_window": 512, "query_pre_attn_scalar": 64},
    ),
    "gemma2": ("Gemma2Config", {"head_dim": 64, "sliding_window": 512, "query_pre_attn_scalar": 64}),
    "lfm2": ("Lfm2Config", {"layer_types": ["conv", "conv", "full_attention", "conv"]}),
    "qwen3moe": (
        "Qwen3MoeConfig",
        {"head_dim": 64, "num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": 256,
         "tie_word_embeddings": False},
    ),
    "granitehybrid": (
        "GraniteMoeHybridConfig",
        {"layer_types": ["mamba", "mamba", "attention", "mamba"], "num_local_experts": 0, "num_experts_per_tok": 0,
         "shared_intermediate_size": 512, "mamba_n_heads": 8, "mamba_d_head": 64, "mamba_d_state": 64,
         "mamba_n_groups": 1, "position_embedding_type": "nope"},
    ),
}  # fmt: skip
GPT_OSS: dict[str, Any] = {
    **COMMON, "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "intermediate_size": WIDTH,
    "num_hidden_layers": 2, "head_dim": 64, "num_local_experts": EXPERTS, "num_experts_per_tok": 2,
    "experts_per_token": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 128,
    "rms_norm_eps": 1e-5, "rope_theta": 150000, "swiglu_limit": 7.0, "tie_word_embeddings": False,
    "attention_bias": True, "hidden_act": "silu", "torch_dtype": "bfloat16", "initial_context_length": 4096,
    "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096,
                     "rope_type": "yarn", "truncate": False},
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
                            "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
}  # fmt: skip


def main(architecture: str, folder: Path, tokenizer: Path) -> None:
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    if architecture == "gpt-oss":
        save_file(gpt_oss(), folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(GPT_OSS))
    else:
        name, own = CONFIGS[architecture]
        config = getattr(transformers, name)(**COMMON | own)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.05)
        model.save_pretrained(folder)
        as_published(folder / "config.json")
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(tokenizer / file, folder / file)


def as_published(path: Path) -> None:
    """The configuration as transformers before 5 wrote it, which is what most of the hub holds."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters", None) or {}
    if "full_attention" in rope:
        config |= {"rope_theta": rope["full_attention"]["rope_theta"], "sliding_window_pattern": 6}
        config |= {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"], "rope_scaling": None}
    elif rope:
        config |= {"rope_theta": rope["rope_theta"], "rope_scaling": None}
    path.write_text(json.dumps(config))


def gpt_oss() -> dict[str, torch.Tensor]:
    """The tensors of openai/gpt-oss-*: experts as blocks of 32 weights in E2M1 with an 8-bit scale each."""

    def plain(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape) * 0.05).to(torch.bfloat16)

    def packed(name: str, rows: int) -> dict[str, torch.Tensor]:
        blocks = torch.randint(0, 256, (EXPERTS, rows, WIDTH // 32, 16), dtype=torch.uint8)
        scales = torch.randint(118, 124, (EXPERTS, rows, WIDTH // 32), dtype=torch.uint8)
        return {f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": plain(EXPERTS, rows)}

    tensors = {"model.embed_tokens.weight": plain(VOCABULARY, WIDTH), "lm_head.weight": plain(VOCABULARY, WIDTH)}
    tensors["model.norm.weight"] = torch.ones(WIDTH, dtype=torch.bfloat16)
    heads = {"q_proj": (512, WIDTH), "k_proj": (128, WIDTH), "v_proj": (128, WIDTH), "o_proj": (WIDTH, 512)}
    for layer in range(2):
        here: dict[str, torch.Tensor] = {
            "input_layernorm.weight": torch.ones(WIDTH, dtype=torch.bfloat16),
            "post_attention_layernorm.weight": torch.ones(WIDTH, dtype=torch.bfloat16),
            "self_attn.sinks": plain(8),
            "mlp.router.weight": plain(EXPERTS, WIDTH),
            "mlp.router.bias": plain(EXPERTS),
            **packed("mlp.experts.gate_up_proj", 2 * WIDTH),
            **packed("mlp.experts.down_proj", WIDTH),
        }
        for name, (rows, columns) in heads.items():
            here |= {f"self_attn.{name}.weight": plain(rows, columns), f"self_attn.{name}.bias": plain(rows)}
        tensors |= {f"model.layers.{layer}.{name}": tensor for name, tensor in here.items()}
    return tensors


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
