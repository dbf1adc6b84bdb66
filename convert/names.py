"""Finds out which weight a tensor's name means, however the program that saved it decorated the name.

Owns the prefixes that torch and transformers put around the names of a model's weights. Knows no adapters. Invariant: two
tensors of one folder never get the same name; the folder is refused instead.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping

from convert.architectures import EMBEDDING, HEAD
from convert.checkpoint import Tensor
from edge_agent.core.errors import ConvertError

# What torch.compile, FSDP and activation checkpointing put before a part of a name, and DataParallel before the whole.
_WRAPPER = re.compile(r"(?:^module\.)|(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def unwrapped(name: str) -> str:
    """The name without what wrappers of the model put into it."""
    return _WRAPPER.sub("", name)


def of_base(tensors: Mapping[str, Tensor], folder: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the names of transformers' text models (`model.layers...`).

    A model that was saved without its head has no `model.`; one that was cut out of a larger model has more in front. The name
    of the embedding shows which it is. Raises `ConvertError`.
    """
    plain = unambiguous(((unwrapped(name), tensor) for name, tensor in tensors.items()), folder)
    last = EMBEDDING.removeprefix("model.")
    prefixes = [name.removesuffix(last) for name in plain if name.endswith(last)]
    if len(prefixes) != 1 or prefixes[0] == "model." or not (prefixes[0] == "" or prefixes[0].endswith(".")):
        return plain
    return unambiguous(((_full(name, prefixes[0]), tensor) for name, tensor in plain.items()), folder)


def unambiguous(named: Iterable[tuple[str, Tensor]], folder: pathlib.Path) -> dict[str, Tensor]:
    """The tensors by name. Raises `ConvertError` if two have the same one."""
    found: dict[str, Tensor] = {}
    for name, tensor in named:
        if (first := found.setdefault(name, tensor)) is not tensor:
            raise ConvertError(f"'{folder}' has both '{first.name}' and '{tensor.name}', which are the same weight; remove one of them.")
    return found


def _full(name: str, prefix: str) -> str:
    if name.endswith(HEAD):
        return HEAD
    return f"model.{name.removeprefix(prefix)}" if name.startswith(prefix) else name
