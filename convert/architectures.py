"""What a GGUF must say about each architecture: hyper-parameters from `config.json`, names of tensors.

Owns one table an architecture; the next is an entry away. Invariant: a configuration with a value that llama.cpp
would not honour is refused, not ignored. Keys as llama.cpp's converter writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf

from edge_agent.errors import ConvertError


@dataclass(frozen=True, slots=True)
class Architecture:
    """How checkpoints of one kind become a GGUF. `hyper_parameters` writes them; `pre` names the pre-tokenizer."""

    name: str
    gguf_kind: gguf.MODEL_ARCH
    pre: str
    hyper_parameters: Callable[[gguf.GGUFWriter, dict[str, Any]], None]


def of(config: dict[str, Any]) -> Architecture:
    """The architecture of a `config.json`."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if name not in _BY_NAME:
        raise ConvertError(f"The checkpoint is a {name}; known here: {', '.join(_BY_NAME)}.")
    return _BY_NAME[name]


def tensor_name(architecture: Architecture, config: dict[str, Any], name: str) -> str:
    """The name of a checkpoint's tensor in the GGUF."""
    names = gguf.get_tensor_name_map(architecture.gguf_kind, _number(config, "num_hidden_layers"))
    found: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ConvertError(f"The tensor '{name}' has no place in a {architecture.name} GGUF; is the checkpoint of that kind?")
    return found


def _qwen3(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    if config.get("use_sliding_window") or _rope(config).get("rope_type", "default") != "default":
        raise ConvertError("The checkpoint uses a sliding window or scaled RoPE, which is not converted here.")
    if config.get("attention_bias") or config.get("hidden_act", "silu") != "silu":
        raise ConvertError("The checkpoint has attention biases or another activation than silu, unlike any Qwen3.")
    writer.add_block_count(_number(config, "num_hidden_layers"))
    writer.add_context_length(_number(config, "max_position_embeddings"))
    writer.add_embedding_length(_number(config, "hidden_size"))
    writer.add_feed_forward_length(_number(config, "intermediate_size"))
    writer.add_head_count(_number(config, "num_attention_heads"))
    writer.add_head_count_kv(_number(config, "num_key_value_heads"))
    writer.add_key_length(_number(config, "head_dim"))
    writer.add_value_length(_number(config, "head_dim"))
    writer.add_rope_freq_base(float(_rope(config).get("rope_theta", config.get("rope_theta", 10_000.0))))
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE's parameters: `rope_parameters` since transformers 5, `rope_scaling` and `rope_theta` before."""
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _number(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
        raise ConvertError(f"config.json has {key} = {value!r}; a whole number is needed.")
    return value


_BY_NAME = {"Qwen3ForCausalLM": Architecture("qwen3", gguf.MODEL_ARCH.QWEN3, "qwen2", _qwen3)}
