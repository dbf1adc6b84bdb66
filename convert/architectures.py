"""What a GGUF must say about each architecture: hyper-parameters from `config.json`, names of tensors.

Owns one table an architecture; the next is an entry away. Invariant: a configuration with a value that llama.cpp
would not honour is refused, not ignored. Keys as llama.cpp's converter writes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf

from edge_agent.errors import ConvertError


@dataclass(frozen=True, slots=True)
class Architecture:
    """How checkpoints of one kind become a GGUF. `hyper_parameters` writes them, `shapes` are the tensors that
    must be there, `pre` names the pre-tokenizer, and `tied` says what a configuration means that does not say whether
    the output head is the embedding.
    """

    name: str
    gguf_kind: gguf.MODEL_ARCH
    pre: str
    hyper_parameters: Callable[[gguf.GGUFWriter, dict[str, Any]], None]
    shapes: Callable[[dict[str, Any]], dict[str, tuple[int, ...]]]
    tied: bool


def of(config: dict[str, Any]) -> Architecture:
    """The architecture of a `config.json`."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in _BY_NAME:
        raise ConvertError(f"The checkpoint is a {name}; known here: {', '.join(_BY_NAME)}.")
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise ConvertError(f"The checkpoint is quantized already ({method!s:.40}); give the one that was not.")
    return _BY_NAME[name]


def check_complete(architecture: Architecture, config: dict[str, Any], found: dict[str, tuple[int, ...]]) -> None:
    """Raise `ConvertError` unless every tensor of this configuration is in `found` (name to shape) as it should be."""
    for name, shape in architecture.shapes(config).items():
        if name not in found:
            raise ConvertError(f"The checkpoint lacks the tensor '{name}'; download it again.")
        if found[name] != shape:
            raise ConvertError(f"The tensor '{name}' is {list(found[name])}, and config.json makes it {list(shape)}; download it again.")


def is_tied(architecture: Architecture, config: dict[str, Any]) -> bool:
    """Whether the output head is the embedding."""
    return bool(config.get("tie_word_embeddings", architecture.tied))


def tensor_name(architecture: Architecture, config: dict[str, Any], name: str) -> str:
    """The name of a checkpoint's tensor in the GGUF."""
    names = gguf.get_tensor_name_map(architecture.gguf_kind, _number(config, "num_hidden_layers"))
    found: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise ConvertError(f"The tensor '{name}' has no place in a {architecture.name} GGUF; is the checkpoint of that kind?")
    return found


def _qwen3(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    rope = _rope(config)
    if config.get("use_sliding_window") or rope.get("rope_type", rope.get("type", "default")) != "default":
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
    writer.add_rope_freq_base(_real(rope, "rope_theta", config.get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(_real(config, "rms_norm_eps", 1e-6))


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE's parameters: `rope_parameters` since transformers 5, `rope_scaling` and `rope_theta` before."""
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key) or {}
        if not isinstance(value, dict):
            raise ConvertError(f"config.json has {key} = {value!s:.80}; an object is needed.")
        rope |= value
    return rope


def _number(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
        raise ConvertError(f"config.json has {key} = {value!r}; a whole number is needed.")
    return value


def _real(values: dict[str, Any], key: str, default: Any) -> float:
    value = values.get(key, default)
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConvertError(f"config.json has {key} = {value!s:.80}; a number above 0 is needed.")
    return float(value)


def _qwen3_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor that a Qwen3 of this configuration has, but for the output head, with its shape."""
    hidden, wide, head = (_number(config, key) for key in ("hidden_size", "intermediate_size", "head_dim"))
    queries, keys = (head * _number(config, key) for key in ("num_attention_heads", "num_key_value_heads"))
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        "self_attn.q_norm": (head,), "self_attn.k_norm": (head,),
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden), "mlp.down_proj": (hidden, wide),
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (_number(config, "vocab_size"), hidden), "model.norm.weight": (hidden,)}
    for number in range(_number(config, "num_hidden_layers")):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


_BY_NAME = {"Qwen3ForCausalLM": Architecture("qwen3", gguf.MODEL_ARCH.QWEN3, "qwen2", _qwen3, _qwen3_shapes, tied=False)}
