"""Merges LoRA adapters, as peft saves them, into the tensors of the base, one slab of rows at a time.

    W' = W + (alpha / rank) * B @ A        (alpha / sqrt(rank) with use_rslora; B @ A is transposed for an embedding)
    W' = m * (W + ...) / |W + ...|         (with use_dora; the norm is that of each row, m is the learned magnitude)

in float32; only the written file is rounded. Invariant: every tensor of the adapter is merged exactly once; an adapter
that cannot be merged exactly is refused. LoRA: https://arxiv.org/abs/2106.09685,
DoRA: https://arxiv.org/abs/2402.09353
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convert.checkpoint import Array, Tensor, read_json, read_tensors
from edge_agent.core.errors import ConvertError

Rows = Callable[[int, int], Array]
"""Returns the rows of a weight from one number up to another, as float32."""

_PAIR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<part>A|B|magnitude_vector)(?:\.default)?(?:\.weight)?"
)
_WHOLE = re.compile(r"(?:base_model\.model\.)?(?P<module>.+?)(?P<base>\.base_layer)?(?:\.modules_to_save(?:\.default)?)?\.weight")

_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal")  # ways to initialise A and B that do not change the base

# Options of peft's LoraConfig that change the arithmetic and are not supported here; each must be off. `fan_in_fan_out` is not
# in this list: it is for layers that store their weight transposed, and peft turns it off for all others.
_UNSUPPORTED = (
    "use_qalora", "use_bdlora", "lora_bias", "megatron_config", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip

_WHERE = r"(.*\.)?({})$"  # how peft matches a module against a pattern
_MAX_PATTERNS, _MAX_PATTERN_CHARS, _MAX_REPEATS = 4096, 256, 3


@dataclass(frozen=True, slots=True)
class Pair:
    """A (rank, in) and B (out, rank) of one module, and their scale. For an embedding, `in` is the vocabulary and the
    weight is transposed. `magnitude` (out,) belongs to DoRA.
    """

    a: Tensor
    b: Tensor
    scale: float
    is_embedding: bool = False
    magnitude: Tensor | None = None

    def opened(self, rows: Rows) -> Rows:
        """`rows` with this pair added. Reads A and B now."""
        a, b, scale = self.a.load(), self.b.load(), np.float32(self.scale)
        left, right = (a.T, b.T) if self.is_embedding else (b, a)
        magnitude = self.magnitude.load().reshape(-1, 1) if self.magnitude else None

        def added(start: int, stop: int) -> Array:
            weight: Array = left[start:stop] @ right
            weight *= scale
            weight += rows(start, stop)
            if magnitude is not None:
                weight *= magnitude[start:stop] / np.linalg.norm(weight, axis=1, keepdims=True)
            return weight

        return added


@dataclass(frozen=True, slots=True)
class Replacement:
    """A whole weight in the adapter: one that was trained too (`modules_to_save`), or the base weight of a pair.

    A base weight (`is_base`) replaces every tensor that shares it.
    """

    tensor: Tensor
    is_base: bool


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter changes, by the base's tensor names: whole weights first, then pairs."""

    folder: pathlib.Path
    replacements: dict[str, Replacement]
    pairs: dict[str, Pair]


@dataclass(frozen=True, slots=True)
class Merged:
    """A tensor of the base after the adapters: the weight it starts from (an adapter may have replaced it) and the pairs
    to add, in order.
    """

    start: Tensor
    pairs: tuple[Pair, ...] = ()
    is_replaced: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape. No adapter changes it."""
        return self.start.shape

    def opened(self) -> Rows:
        """Its rows. Loads the matrices of the adapters, but never the whole weight."""
        rows: Rows = self.start.load
        for pair in self.pairs:
            rows = pair.opened(rows)
        return rows


def merged(base: Mapping[str, Tensor], adapters: Sequence[Adapter], tied: Sequence[str] = ()) -> dict[str, Merged]:
    """Every tensor of `base` after `adapters`, in order. `tied` names the tensors that share one weight in the base."""
    found = {name: Merged(tensor) for name, tensor in base.items()}
    for adapter in adapters:
        for name, replacement in adapter.replacements.items():
            for shared in tied if replacement.is_base and name in tied else (name,):
                found[shared] = Merged(replacement.tensor, is_replaced=True)
        for name, pair in adapter.pairs.items():
            found[name] = replace(found[name], pairs=(*found[name].pairs, pair))
    return found


def open_adapter(folder: pathlib.Path, base: Mapping[str, Tensor]) -> Adapter:
    """Read an adapter and check that it fits `base`. Raises `ConvertError` with the tensor and both shapes."""
    if not (folder / "adapter_config.json").is_file():
        raise ConvertError(f"There is no 'adapter_config.json' in '{folder}'; give the folder of a LoRA that peft saved.")
    config = _checked_config(folder, read_json(folder / "adapter_config.json"))
    parts: dict[str, dict[str, Tensor]] = {}
    embeddings: set[str] = set()
    replacements = {}
    for tensor in read_tensors(folder, "adapter_model").values():
        if match := _PAIR.fullmatch(tensor.name):
            parts.setdefault(match["module"], {})[match["part"]] = tensor
            if match["embedding"]:
                embeddings.add(match["module"])
        elif match := _WHOLE.fullmatch(tensor.name):
            name = _place(folder, match["module"], base)
            _check_whole(folder, name, tensor, base[name])
            replacements[name] = Replacement(tensor, is_base=bool(match["base"]))
        else:
            raise ConvertError(f"The adapter '{folder}' has '{tensor.name}', which is not a LoRA matrix; it cannot be merged.")
    if not parts and not replacements:
        raise ConvertError(f"The adapter '{folder}' has no LoRA matrices; check the folder.")
    pairs = {}
    for module, found in parts.items():
        wanted = {"A", "B"} | ({"magnitude_vector"} if config.get("use_dora") else set())
        if set(found) != wanted or (module in embeddings and len(wanted) > 2):
            raise ConvertError(f"The adapter '{folder}' has {sorted(found)} for '{module}'; {sorted(wanted)} are needed.")
        name = _place(folder, module, base)
        pair = Pair(found["A"], found["B"], _scale(folder, config, module, found["A"]), module in embeddings, found.get("magnitude_vector"))
        _check_fit(folder, name, pair, base[name])
        pairs[name] = pair
    return Adapter(folder, replacements, pairs)


def _place(folder: pathlib.Path, module: str, base: Mapping[str, Tensor]) -> str:
    """The base's name for the weight of an adapter's module. Adapters of bare or wrapped models use shorter or longer names."""
    for name in (module, f"model.{module}", module.replace("language_model.", "", 1)):
        if f"{name}.weight" in base:
            return f"{name}.weight"
    raise ConvertError(f"The adapter '{folder}' changes '{module}.weight', which the base does not have; check the base.")


def _checked_config(folder: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise ConvertError(f"The adapter '{folder}' is of type {config['peft_type']!r:.40}; only LORA can be merged.")
    if used := [key for key in _UNSUPPORTED if config.get(key)]:
        raise ConvertError(f"The adapter '{folder}' uses {used[0]}, which cannot be merged here; merge it with peft first.")
    if config.get("bias", "none") != "none":
        raise ConvertError(f"The adapter '{folder}' trains biases; merge it with peft first.")
    if isinstance(start := config.get("init_lora_weights"), str) and start not in _HARMLESS_STARTS:
        raise ConvertError(f"The adapter '{folder}' was initialised with {start!r:.40}, which changes the base; merge it with peft first.")
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict) or len(patterns) > _MAX_PATTERNS or not all(map(_is_harmless, patterns)):
            raise ConvertError(f"The adapter '{folder}' has an unusual {key}; merge it with peft first.")
    return config


def _is_harmless(pattern: str) -> bool:
    """Whether an untrusted pattern compiles and cannot take very long: few repeats, and none of them of a group."""
    repeats = sum(pattern.count(sign) for sign in "*+{")
    if len(pattern) > _MAX_PATTERN_CHARS or repeats > _MAX_REPEATS or re.search(r"\)[*+?{]", pattern):
        return False
    try:
        re.compile(_WHERE.format(pattern))  # as it is used: flags at the start of the pattern are an error here
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _scale(folder: pathlib.Path, config: dict[str, Any], module: str, a: Tensor) -> float:
    """The factor for B @ A. As in peft, a pattern applies if it matches the end of the module's name.

    peft uses the first match, but does not save the order of its patterns. If several match, the shape of A decides the rank.
    """

    def possible(key: str, patterns: str) -> list[Any]:
        known: dict[str, Any] = config.get(patterns) or {}
        return [value for pattern, value in known.items() if re.match(_WHERE.format(pattern), module)] or [config.get(key)]

    ranks, alphas = possible("r", "rank_pattern"), possible("lora_alpha", "alpha_pattern")
    alpha, rank = alphas[0], a.shape[0] if a.shape else 0
    if not all(type(r) is int and r > 0 for r in ranks) or not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
        raise ConvertError(f"The adapter '{folder}' has r = {ranks[0]!r:.40} and lora_alpha = {alpha!r:.40}; both must be valid numbers.")
    if rank not in ranks:
        raise ConvertError(
            f"The adapter '{folder}' has r = {ranks[0]!r:.40}, but its A for '{module}' is {list(a.shape)}; download it again."
        )
    if any(other != alpha for other in alphas):
        raise ConvertError(f"The adapter '{folder}' has several alpha_patterns for '{module}'; merge it with peft first.")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _check_whole(folder: pathlib.Path, name: str, tensor: Tensor, weight: Tensor) -> None:
    if tensor.shape != weight.shape:
        raise ConvertError(
            f"The adapter '{folder}' has '{name}' as {list(tensor.shape)}, but the base has {list(weight.shape)}; a resized vocabulary "
            "is not supported, so merge it with peft first."
        )


def _check_fit(folder: pathlib.Path, name: str, pair: Pair, weight: Tensor) -> None:
    a, b = pair.a.shape, pair.b.shape
    made = (*b[:1], *a[1:])
    fits = len(a) == len(b) == 2 and a[0] == b[1] and weight.shape == (made[::-1] if pair.is_embedding else made)
    if not fits or (pair.magnitude and pair.magnitude.shape != weight.shape[:1]):
        raise ConvertError(
            f"The adapter '{folder}' does not fit the base at '{name}': B {list(b)} times A {list(a)} cannot be added to "
            f"{list(weight.shape)}; give the base it was trained on."
        )
