"""Merges a LoRA adapter, as peft saves it, into the base's tensors as they stream by.

    W' = W + (alpha / rank) * B @ A        (alpha / sqrt(rank) with use_rslora)

in float32, rounded only when the file is written. Invariant: every tensor of the adapter is merged exactly once, or
the conversion is refused; nothing that cannot be merged exactly is passed over. LoRA: https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

import math
import pathlib
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from convert.checkpoint import Array, Tensor, read_json, read_tensors
from edge_agent.errors import ConvertError

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")

_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal")  # ways to start A and B that leave the base as it is

# Options of peft's LoraConfig that change the arithmetic and are not merged here; each must be off.
_UNSUPPORTED = (
    "use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save",
    "lora_bias", "megatron_config", "layer_replication", "target_parameters", "trainable_token_indices",
    "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: pairs of A (rank, in) and B (out, rank) by module, and their scale."""

    folder: pathlib.Path
    scale: float
    pairs: dict[str, tuple[Tensor, Tensor]]

    def merge(self, name: str, weight: Array) -> Array:
        """`weight` (out, in) with this adapter's share added, if it has one for the tensor `name`."""
        pair = self.pairs.get(name.removesuffix(".weight"))
        if pair is None:
            return weight
        a, b = (tensor.load() for tensor in pair)
        merged: Array = weight + np.float32(self.scale) * (b @ a)
        return merged


def open_adapter(folder: pathlib.Path, base: dict[str, Tensor]) -> Adapter:
    """Read an adapter and check that it fits `base`; raises `ConvertError` naming the tensor and both shapes."""
    if not (folder / "adapter_config.json").is_file():
        raise ConvertError(f"There is no 'adapter_config.json' in '{folder}'; give a folder with a LoRA as peft saves it.")
    config = read_json(folder / "adapter_config.json")
    scale = _scale(folder, config)
    parts: dict[str, dict[str, Tensor]] = {}
    for tensor in read_tensors(folder, "adapter_model").values():
        match = _KEY.fullmatch(tensor.name)
        if not match:
            raise ConvertError(f"The adapter '{folder}' holds '{tensor.name}', which is no LoRA matrix; it cannot be merged.")
        parts.setdefault(match["module"], {})[match["part"]] = tensor
    if not parts:
        raise ConvertError(f"The adapter '{folder}' holds no LoRA matrices; train it again.")
    pairs = {}
    for module, found in parts.items():
        if set(found) != {"A", "B"}:
            raise ConvertError(f"The adapter '{folder}' has only one half of '{module}'; download it again.")
        pairs[module] = (found["A"], found["B"])
        _check_rank(folder, module, found["A"], config["r"])
        _check_fit(folder, module, found["A"], found["B"], base.get(f"{module}.weight"))
    return Adapter(folder, scale, pairs)


def _scale(folder: pathlib.Path, config: dict[str, Any]) -> float:
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise ConvertError(f"The adapter '{folder}' is of type {config['peft_type']}; only LORA can be merged.")
    if used := [key for key in _UNSUPPORTED if config.get(key)]:
        raise ConvertError(f"The adapter '{folder}' uses {used[0]}, which cannot be merged here; merge it with peft first.")
    if config.get("bias", "none") != "none":
        raise ConvertError(f"The adapter '{folder}' trains biases; merge it with peft first.")
    if isinstance(start := config.get("init_lora_weights"), str) and start not in _HARMLESS_STARTS:
        raise ConvertError(f"The adapter '{folder}' was started by '{start}', which changes the base; merge it with peft first.")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ConvertError(f"The adapter '{folder}' has r = {rank!r} and lora_alpha = {alpha!r}; both must be numbers.")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _check_rank(folder: pathlib.Path, module: str, a: Tensor, rank: int) -> None:
    if a.shape[:1] != (rank,):
        raise ConvertError(f"The adapter '{folder}' says r = {rank}, and its A of '{module}' is {list(a.shape)}; download it again.")


def _check_fit(folder: pathlib.Path, module: str, a: Tensor, b: Tensor, weight: Tensor | None) -> None:
    if weight is None:
        raise ConvertError(f"The adapter '{folder}' changes '{module}.weight', which the base does not have; wrong base?")
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or weight.shape != (b.shape[0], a.shape[1]):
        raise ConvertError(
            f"The adapter '{folder}' does not fit the base at '{module}.weight': B {list(b.shape)} times A "
            f"{list(a.shape)} cannot be added to {list(weight.shape)}; give the base that it was trained on."
        )
