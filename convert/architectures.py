"""What a GGUF needs for each architecture: hyper-parameters from `config.json`, and tensor names and shapes.

Owns one table entry for each architecture, at the end of this file. Invariant: a configuration value that llama.cpp would
ignore is refused. The keys are those of llama.cpp's converter; the configurations are those of transformers 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import ConvertError

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]
Order = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32]
Rows = Callable[[int, int], Array]
"""Returns the rows of a weight from one number up to another, as float32."""

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MAX_LAYERS = 512  # llama.cpp's own limit
_MAX_VOCABULARY = 1 << 22
_MAX_FLOAT32 = 3e38


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to convert checkpoints of one architecture.

    `hyper_parameters` writes the hyper-parameters and refuses values that llama.cpp would ignore. `shapes` are the required
    tensors, without the output head. `tied` is the default for a configuration that does not say whether the head is the
    embedding. `norm_shift` is added to the weight of every norm. `vocabulary` is llama.cpp's name for the tokenizer. `adds_bos`
    is the default for whether a text starts with a BOS token. `ends` are the tokens that end a text and a turn, if a GGUF must
    name both. With `turns_neighbours`, llama.cpp's RoPE turns two rows of a head that lie beside each other, where transformers
    turns one of its first half with one of its second, so the rows change places.
    """

    name: str
    gguf_kind: gguf.MODEL_ARCH
    hyper_parameters: Callable[[gguf.GGUFWriter, Config], None]
    shapes: Callable[[Config], Shapes]
    tied: bool
    norm_shift: float
    vocabulary: str
    adds_bos: bool
    ends: tuple[str, str] | None = None
    turns_neighbours: bool = False


def of(config: Config) -> Architecture:
    """The architecture of a `config.json`."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in _BY_NAME:
        raise ConvertError(f"The checkpoint is a {name!r:.60}, which is not supported; use one of {', '.join(_BY_NAME)}.")
    if quantized := config.get("quantization_config"):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else quantized
        raise ConvertError(f"The checkpoint is already quantized ({method!r:.40}); give the unquantized one.")
    return _BY_NAME[name]


def by_gguf_name(name: str) -> tuple[str, Architecture]:
    """transformers' name for the architecture that a GGUF calls `name`, and the architecture."""
    for class_name, architecture in _BY_NAME.items():
        if architecture.name == name:
            return class_name, architecture
    known = ", ".join(architecture.name for architecture in _BY_NAME.values())
    raise ConvertError(f"The architecture {name!r:.60} is not supported; use a file of one of these: {known}.")


def check_complete(architecture: Architecture, config: Config, found: Shapes) -> None:
    """Raise `ConvertError` unless `found` (name to shape) has exactly the tensors of this configuration."""
    shapes = architecture.shapes(config)
    if HEAD in found:
        shapes[HEAD] = shapes[EMBEDDING]
    for name, shape in shapes.items():
        if name not in found:
            raise ConvertError(
                f"The checkpoint lacks the tensor '{name}' (it has {len(found)}, such as '{min(found, default='none')}'); check that "
                "config.json belongs to these weights, or download them again."
            )
        if found[name] != shape:
            raise ConvertError(f"The tensor '{name}' is {list(found[name])}, but config.json needs {list(shape)}; download it again.")
    if more := sorted(set(found) - set(shapes)):
        raise ConvertError(f"The tensor '{more[0]:.100}' does not belong in a {architecture.name} GGUF; check the architecture.")


def is_tied(architecture: Architecture, config: Config) -> bool:
    """Whether the output head is the embedding."""
    return bool(config.get("tie_word_embeddings", architecture.tied))


def shift(architecture: Architecture, name: str) -> float:
    """The number to add to the weights of the GGUF's tensor `name`."""
    return architecture.norm_shift if name.endswith("norm.weight") else 0.0


def row_order(architecture: Architecture, config: Config, name: str) -> Order | None:
    """The row of the checkpoint for each row of the GGUF's tensor `name`; None where they are in the same order."""
    if not architecture.turns_neighbours or not name.endswith((".attn_q.weight", ".attn_k.weight")):
        return None
    head = _head_dim(config)
    heads = _number(config, "num_attention_heads") if name.endswith(".attn_q.weight") else _kv_heads(config)
    order: Order = np.arange(heads * head).reshape(heads, 2, head // 2).swapaxes(1, 2).reshape(-1)
    return order


def reordered(rows: Rows, order: Order | None) -> Rows:
    """`rows` in this order. Each part is read with all rows between the first and the last that it needs."""
    if order is None:
        return rows

    def read(start: int, stop: int) -> Array:
        wanted = order[start:stop]
        first = int(wanted.min())
        part: Array = rows(first, int(wanted.max()) + 1)[wanted - first]
        return part

    return read


def tensor_names(architecture: Architecture, config: Config, names: Iterable[str]) -> dict[str, str]:
    """The GGUF name of each tensor of a checkpoint."""
    known = gguf.get_tensor_name_map(architecture.gguf_kind, _number(config, "num_hidden_layers", MAX_LAYERS))
    return {name: known.get_name(name, try_suffixes=(".weight",)) for name in names}


def _common(writer: gguf.GGUFWriter, config: Config, activation: str) -> None:
    """Write what the architectures below have in common."""
    if config.get("attention_bias") or activation != config.get("hidden_activation", config.get("hidden_act", activation)):
        raise ConvertError(f"The checkpoint has attention biases or an activation other than {activation}, which is not supported.")
    writer.add_block_count(_number(config, "num_hidden_layers", MAX_LAYERS))
    writer.add_context_length(_number(config, "max_position_embeddings"))
    writer.add_embedding_length(_number(config, "hidden_size"))
    writer.add_feed_forward_length(_number(config, "intermediate_size"))
    heads, shared = _number(config, "num_attention_heads"), _kv_heads(config)
    if heads % shared:
        raise ConvertError(f"config.json has {heads} attention heads, which {shared} key-value heads do not divide; check it.")
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_key_length(_head_dim(config))
    writer.add_value_length(_head_dim(config))
    writer.add_layer_norm_rms_eps(_real(config, "rms_norm_eps", 1e-6))


def _qwen3(writer: gguf.GGUFWriter, config: Config) -> None:
    if config.get("use_sliding_window"):
        raise ConvertError("The checkpoint uses a sliding window, which llama.cpp does not support for Qwen3.")
    _common(writer, config, "silu")
    writer.add_rope_freq_base(_rope_theta(config, "full_attention", "rope_theta", 10_000.0))


def _llama(writer: gguf.GGUFWriter, config: Config) -> None:
    if config.get("mlp_bias") or config.get("rope_interleaved") or config.get("partial_rotary_factor", 1.0) != 1.0:
        raise ConvertError("The checkpoint has biases or an unusual RoPE, which is not supported for Llama.")
    if _head_dim(config) % 2:
        raise ConvertError(f"config.json has heads of {_head_dim(config)} dimensions, which RoPE cannot pair; check it.")
    _common(writer, config, "silu")
    writer.add_rope_freq_base(_rope_theta(config, "full_attention", "rope_theta", 10_000.0))


_GEMMA_PERIOD = 6  # every sixth layer has full attention; llama.cpp supports no other pattern


def _gemma3(writer: gguf.GGUFWriter, config: Config) -> None:
    n_layers = _number(config, "num_hidden_layers", MAX_LAYERS)
    period = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", _GEMMA_PERIOD))
    usual = ["sliding_attention" if (i + 1) % _GEMMA_PERIOD else "full_attention" for i in range(n_layers)]
    if period != _GEMMA_PERIOD or config.get("layer_types", usual) != usual or config.get("use_bidirectional_attention"):
        raise ConvertError("The checkpoint does not have full attention in every sixth layer only; llama.cpp supports nothing else.")
    if config.get("query_pre_attn_scalar", 256) != _number(config, "head_dim") or config.get("attn_logit_softcapping") is not None:
        raise ConvertError("The checkpoint scales or caps attention in a way that llama.cpp does not support for Gemma 3.")
    if n_layers == 62:
        raise ConvertError("A Gemma 3 with 62 layers scales its attention differently, which is not supported here.")
    _common(writer, config, "gelu_pytorch_tanh")
    writer.add_sliding_window(_number(config, "sliding_window"))
    writer.add_rope_freq_base(_rope_theta(config, "full_attention", "rope_theta", 1_000_000.0))
    writer.add_rope_freq_base_swa(_rope_theta(config, "sliding_attention", "rope_local_base_freq", 10_000.0))
    if config.get("final_logit_softcapping") is not None:
        writer.add_final_logit_softcapping(_real(config, "final_logit_softcapping", 0.0))


def _rope_theta(config: Config, attention: str, old_key: str, default: float) -> float:
    """RoPE's base. transformers 5 keeps it in `rope_parameters`, for each kind of attention if there are several; older
    versions have a key of their own. A scaled RoPE is refused.
    """
    rope: Config = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key) or {}
        value = value.get(attention, value) if isinstance(value, dict) else value
        if not isinstance(value, dict):
            raise ConvertError(f"config.json has {key} = {value!r:.80}; it must be an object.")
        rope |= value
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ConvertError("The checkpoint uses scaled RoPE, which is not supported here.")
    return _real(rope, "rope_theta", config.get(old_key, default))


def _number(config: Config, key: str, at_most: int = (1 << 31) - 1) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= at_most:
        raise ConvertError(f"config.json has {key} = {value!r:.40}; it must be a whole number from 1 to {at_most}.")
    return value


def _kv_heads(config: Config) -> int:
    """The number of key-value heads; older configurations of Llama have as many as heads and do not say so."""
    return _number(config, "num_attention_heads" if config.get("num_key_value_heads") is None else "num_key_value_heads")


def _head_dim(config: Config) -> int:
    """The size of a head. Older configurations of Llama do not say it; the heads then share the hidden size."""
    if config.get("head_dim") is not None:
        return _number(config, "head_dim")
    return max(1, _number(config, "hidden_size") // _number(config, "num_attention_heads"))


def _real(values: Config, key: str, default: Any) -> float:
    value = values.get(key, default)
    if not isinstance(value, int | float) or not 0 < value < _MAX_FLOAT32:
        raise ConvertError(f"config.json has {key} = {value!r:.80}; it must be a number above 0.")
    return float(value)


def _shapes(config: Config, norms: tuple[str, ...], head_norms: tuple[str, ...] = ()) -> Shapes:
    """The tensors of this configuration. `norms` are the norms before and after the parts of a layer, `head_norms` those of heads."""
    hidden, wide, head = _number(config, "hidden_size"), _number(config, "intermediate_size"), _head_dim(config)
    queries, keys = head * _number(config, "num_attention_heads"), head * _kv_heads(config)
    layer: Shapes = {
        **dict.fromkeys(norms, (hidden,)),
        **dict.fromkeys(head_norms, (head,)),
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden), "mlp.down_proj": (hidden, wide),
    }  # fmt: skip
    shapes: Shapes = {EMBEDDING: (_number(config, "vocab_size", _MAX_VOCABULARY), hidden), "model.norm.weight": (hidden,)}
    for number in range(_number(config, "num_hidden_layers", MAX_LAYERS)):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes


_NORMS = ("input_layernorm", "post_attention_layernorm")
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")

_BY_NAME = {
    "Qwen3ForCausalLM": Architecture(
        name="qwen3",
        gguf_kind=gguf.MODEL_ARCH.QWEN3,
        hyper_parameters=_qwen3,
        shapes=lambda config: _shapes(config, _NORMS, _HEAD_NORMS),
        tied=False,
        norm_shift=0.0,
        vocabulary="gpt2",
        adds_bos=False,
    ),
    "Gemma3ForCausalLM": Architecture(
        name="gemma3",
        gguf_kind=gguf.MODEL_ARCH.GEMMA3,
        hyper_parameters=_gemma3,
        shapes=lambda config: _shapes(config, (*_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm"), _HEAD_NORMS),
        tied=True,
        norm_shift=1.0,  # its norms multiply by 1 + weight
        vocabulary="llama",
        adds_bos=True,
        ends=("<eos>", "<end_of_turn>"),
    ),
    "LlamaForCausalLM": Architecture(
        name="llama",
        gguf_kind=gguf.MODEL_ARCH.LLAMA,
        hyper_parameters=_llama,
        shapes=lambda config: _shapes(config, _NORMS),
        tied=False,
        norm_shift=0.0,
        vocabulary="gpt2",
        adds_bos=False,
        turns_neighbours=True,
    ),
}
