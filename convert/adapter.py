"""Writes adapters as one GGUF adapter for a base GGUF: a few megabytes instead of a model.

Owns the file. Several adapters in a row are one of a higher rank, since what they add is a sum:

    s1 * B1 @ A1 + s2 * B2 @ A2 = [s1 * B1, s2 * B2] @ [A1; A2]

The scales are in B, and the file's own alpha is 0, which llama.cpp takes for "as it is". Invariant: what the adapter says
is what the merge would add, or it is refused.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType

from convert.checkpoint import Array
from convert.export import Model, Written, open_model
from convert.lora import Merged
from convert.output import Output, header
from edge_agent.core.errors import ConvertError

Half = npt.NDArray[np.float16]

_WHOLE = ("token_embd.weight", "output.weight")


def export_adapter(source: pathlib.Path, adapters: Sequence[pathlib.Path], out: pathlib.Path, name: str | None = None) -> Written:
    """Write `out`/NAME-adapter.gguf of `adapters`, in order, for GGUFs of the checkpoint in `source`; raises `ConvertError`."""
    if not adapters:
        raise ConvertError("No adapter is named; give one or more with --adapter.")
    name = name or adapters[-1].resolve().name
    if pathlib.PurePath(name).name != name:
        raise ConvertError(f"The name '{name}' is no plain file name; give one without slashes.")
    model = open_model(source, adapters)
    tensors = _tensors(model)
    head = header(_fields(model, name), model.architecture.name, ((n, data.shape, GGMLQuantizationType.F16) for n, data in tensors.items()))
    target = out / f"{name}-adapter.gguf"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with Output(target, head) as output:
            for data in tensors.values():
                output.write(data.data)
                output.end_tensor()
            sha256 = output.finish()
    except OSError as error:
        raise ConvertError(f"Writing to '{out}' failed ({error.strerror or error}); check the folder and its space.") from error
    return Written(target, "adapter", sha256, output.n_bytes, [])


def _fields(model: Model, name: str) -> dict[str, gguf.GGUFValue]:
    writer = gguf.GGUFWriter(None, model.architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name.encode("utf-8", "replace").decode())
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    return dict(writer.kv_data[0])


def _tensors(model: Model) -> dict[str, Half]:
    tensors: dict[str, Half] = {}
    for name, tensor in model.tensors.items():
        if tensor.is_replaced or any(pair.magnitude or pair.is_embedding for pair in tensor.pairs) or (name in _WHOLE and tensor.pairs):
            raise ConvertError(f"The adapter does more to '{name}' than a GGUF adapter can say; merge it (without --adapter-gguf).")
        if tensor.pairs:
            tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"] = (_rounded(name, half) for half in _halves(tensor))
    return tensors


def _halves(tensor: Merged) -> tuple[Array, Array]:
    """A (ranks, in) and B (out, ranks) of all pairs together."""
    a: Array = np.concatenate([pair.a.load() for pair in tensor.pairs], axis=0)
    b: Array = np.concatenate([np.float32(pair.scale) * pair.b.load() for pair in tensor.pairs], axis=1)
    return a, b


def _rounded(name: str, half: Array) -> Half:
    """As float16: eleven bits of a small change are more than a bfloat16 model keeps of it."""
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(half, dtype=np.float16)
    if not np.isfinite(rounded).all():
        raise ConvertError(f"The adapter has a value for '{name}' that is no number, or too large for a GGUF adapter; merge it.")
    return rounded
