"""Writes LoRA adapters as one GGUF adapter for a base GGUF: a few megabytes instead of a whole model.

Owns the file. Several adapters become one of a higher rank, because what they add is a sum:

    s1 * B1 @ A1 + s2 * B2 @ A2 = [s1 * B1, s2 * B2] @ [A1; A2]

B includes the scales, and the alpha in the file is 0, so llama.cpp does not scale again. Invariant: the adapter adds
exactly what the merge would add; an adapter that does more is refused.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from convert.architectures import row_order
from convert.checkpoint import Array
from convert.export import Model, Written, held, open_model, say_replaced
from convert.lora import Merged
from convert.output import Output, check_name, default_name, header
from edge_agent.core.errors import ConvertError

Half = npt.NDArray[np.float16]

_WHOLE = ("token_embd.weight", "output.weight")


def export_adapter(
    source: pathlib.Path,
    adapters: Sequence[pathlib.Path],
    out: pathlib.Path,
    name: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Written:
    """Write `adapters` to `out`/NAME-adapter.gguf, for a GGUF of the checkpoint in `source`. Raises `ConvertError`."""
    if not adapters:
        raise ConvertError("No adapter is given; give one or more with --adapter.")
    name = check_name(name or default_name(adapters))
    model = open_model(source, adapters)
    tensors = _tensors(model)
    head = header(_fields(model, name), model.architecture.name, ((n, data.shape, GGMLQuantizationType.F16) for n, data in tensors.items()))
    target = out / f"{name}-adapter.gguf"
    try:
        out.mkdir(parents=True, exist_ok=True)
        say_replaced(target, model.adapters, say)
        with Output(target, head) as output:
            for data in tensors.values():
                output.write(data.data)
                output.end_tensor()
            sha256 = output.finish()
    except OSError as error:
        raise ConvertError(f"Cannot write to '{out}' ({error.strerror or error}); check the folder and its free space.") from error
    return Written(target, "adapter", sha256, output.n_bytes, [])


def _fields(model: Model, name: str) -> dict[str, gguf.GGUFValue]:
    writer = gguf.GGUFWriter(None, model.architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name.encode("utf-8", "replace").decode())
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for key, value in held(model.adapters).items():
        writer.add_string(key, value)
    return dict(writer.kv_data[0])


def _tensors(model: Model) -> dict[str, Half]:
    tensors: dict[str, Half] = {}
    for name, tensor in model.tensors.items():
        if tensor.is_replaced or any(pair.magnitude or pair.is_embedding for pair in tensor.pairs) or (name in _WHOLE and tensor.pairs):
            raise ConvertError(f"A GGUF adapter cannot hold what this adapter changes in '{name}'; merge it (leave --adapter-gguf out).")
        if tensor.pairs:
            tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"] = (_rounded(name, half) for half in _halves(model, name, tensor))
    return tensors


def _halves(model: Model, name: str, tensor: Merged) -> tuple[Array, Array]:
    """A (ranks, in) and B (out, ranks) of all pairs combined, with the rows of B as the GGUF has them."""
    a: Array = np.concatenate([pair.a.load() for pair in tensor.pairs], axis=0)
    b: Array = np.concatenate([np.float32(pair.scale) * pair.b.load() for pair in tensor.pairs], axis=1)
    order = row_order(model.architecture, model.config, name)
    return a, b if order is None else b[order]


def _rounded(name: str, half: Array) -> Half:
    """The matrix as float16: its eleven bits are more than a bfloat16 model keeps of so small a change."""
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(half, dtype=np.float16)
    if not np.isfinite(rounded).all():
        raise ConvertError(f"The adapter has a value for '{name}' that is not a number or is too large for a GGUF adapter; merge it.")
    return rounded
