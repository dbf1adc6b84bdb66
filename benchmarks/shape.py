"""Writes a checkpoint with the exact shape of Qwen3-0.6B and random weights, so that benchmarks need no download.

    python -m benchmarks.shape OUT [--tokenizer FOLDER] [--adapter] [--seed 0]

The speed does not depend on the values of the weights. It depends a little on the tokenizer: without --tokenizer (a folder
with Qwen's real tokenizer.json and tokenizer_config.json), the tokenizer of the demo model is used, padded to Qwen's
vocabulary, and a question has more tokens. --adapter also writes OUT-adapter, a LoRA of rank 16 on all linear layers.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

HIDDEN, FEED_FORWARD, LAYERS, HEADS, KV_HEADS, HEAD, VOCABULARY = 1024, 3072, 28, 16, 8, 128, 151_936
DEMO_TOKENIZER = pathlib.Path(__file__).parent.parent / "models" / "demo" / "base"


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the checkpoint. `lm_head` is tied and not stored."""
    queries, keys = HEADS * HEAD, KV_HEADS * HEAD
    linear = {
        "self_attn.q_proj": (queries, HIDDEN),
        "self_attn.k_proj": (keys, HIDDEN),
        "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, queries),
        "mlp.gate_proj": (FEED_FORWARD, HIDDEN),
        "mlp.up_proj": (FEED_FORWARD, HIDDEN),
        "mlp.down_proj": (HIDDEN, FEED_FORWARD),
    }
    norms = {"input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,), "self_attn.q_norm": (HEAD,), "self_attn.k_norm": (HEAD,)}
    layer = {**norms, **linear}
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,)}
    return found | {f"model.layers.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in layer.items()}


def config() -> dict[str, object]:
    """The config.json for transformers."""
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD,
        "vocab_size": VOCABULARY, "max_position_embeddings": 40960, "rope_theta": 1_000_000, "rms_norm_eps": 1e-6, "hidden_act": "silu",
        "tie_word_embeddings": True, "attention_bias": False, "dtype": "float16",
    }  # fmt: skip


RANK, ALPHA = 16, 32


def write_adapter(out: pathlib.Path, rng: np.random.Generator) -> None:
    """A random LoRA for the checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, shape in shapes().items():
        if name.endswith("_proj.weight"):
            stem = f"base_model.model.{name.removesuffix('.weight')}.lora_"
            for half, size in (("A", (RANK, shape[1])), ("B", (shape[0], RANK))):
                tensors[f"{stem}{half}.weight"] = rng.standard_normal(size, np.float32) * 0.02
    save_file(tensors, out / "adapter_model.safetensors", {"format": "pt"})
    targets = sorted({name.split(".")[-2] for name in shapes() if name.endswith("_proj.weight")})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "target_modules": targets}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=1))


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, default=DEMO_TOKENIZER)
    parser.add_argument("--adapter", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng, tensors = np.random.default_rng(arguments.seed), {}
    for name, shape in tqdm(shapes().items(), unit="tensor"):
        ones = len(shape) == 1
        tensors[name] = np.ones(shape, np.float16) if ones else (rng.standard_normal(shape, np.float32) * 0.02).astype(np.float16)
    save_file(tensors, arguments.out / "model.safetensors", {"format": "pt"})
    (arguments.out / "config.json").write_text(json.dumps(config(), indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(arguments.tokenizer / name, arguments.out / name)
    if arguments.adapter:
        write_adapter(arguments.out.with_name(arguments.out.name + "-adapter"), rng)


if __name__ == "__main__":
    main()
