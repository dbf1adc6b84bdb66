"""Merges LoRA adapters, as peft saves them, into the tensors of the base, one slab of rows at a time.

    W' = W + (alpha / rank) * B @ A        (alpha / sqrt(rank) with use_rslora; B @ A is transposed for an embedding)
    W' = m * (W + ...) / |W + ...|         (with use_dora; the norm is that of each row, of each column in an embedding, and m is
                                            the learned magnitude)

in float32; only the written file is rounded. Invariant: every tensor of the adapter is merged exactly once; an adapter
that cannot be merged exactly is refused. LoRA: https://arxiv.org/abs/2106.09685,
DoRA: https://arxiv.org/abs/2402.09353
"""

from __future__ import annotations

import hashlib
import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from convert.architectures import EMBEDDING, HEAD, Rows
from convert.checkpoint import Array, Tensor, read_json, read_tensors, slabs
from convert.names import unwrapped
from edge_agent.core.errors import ConvertError

_NAMED = r"(?:\.(?P<adapter>(?!(?:weight|bias)$)[^.]+))?"  # the name of the adapter, as long as it is in memory
_PAIR = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<part>A|B|magnitude_vector)" + _NAMED + r"(?:\.weight)?"
)
_WHOLE = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+?)(?P<base>\.base_layer)?(?:\.modules_to_save" + _NAMED + r")?(?:\.original_module)?\.weight"
)
_UNTRAINED = ".original_module.weight"  # beside `modules_to_save`, in memory: the base's own weight

_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal")  # ways to initialise A and B that do not change the base

# Options of an adapter_config.json that are read here, say how the adapter was trained or loaded, or only matter together with
# another one. Any other option that is on may change the arithmetic, so it is refused. `fan_in_fan_out` is for layers that store
# their weight transposed, and peft turns it off for all others. The last line is what other trainers add.
_KNOWN = frozenset((
    "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "init_lora_weights", "target_modules",
    "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern", "ensure_weight_tying",
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "bias",
    "fan_in_fan_out", "runtime_config", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "megatron_core",
    "qalora_group_size", "tokenizer_name_or_path", "base_model_class", "parent_library", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr",
))  # fmt: skip

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

        def added(start: int, stop: int) -> Array:
            weight: Array = left[start:stop] @ right
            weight *= scale
            weight += rows(start, stop)
            return weight

        if self.magnitude is None:
            return added
        magnitude: Array = self.magnitude.load().reshape(-1)

        def scaled(start: int, stop: int) -> Array:
            weight = added(start, stop)
            weight *= magnitude[start:stop, None] / np.linalg.norm(weight, axis=1, keepdims=True)
            return weight

        if not self.is_embedding:
            return scaled
        squares = sum(np.square(added(*part), dtype=np.float64).sum(axis=0) for part in slabs((len(left), right.shape[1])))
        factor: Array = (magnitude / np.sqrt(squares)).astype(np.float32)
        return lambda start, stop: added(start, stop) * factor


@dataclass(frozen=True, slots=True)
class Replacement:
    """A whole weight in the adapter: one that was trained too (`modules_to_save`), or the base weight of a pair.

    A base weight (`is_base`) replaces every tensor that shares it.
    """

    tensor: Tensor
    is_base: bool


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter changes, by the base's tensor names: whole weights first, then pairs.

    `hashes` identify it: that of its numbers, which does not depend on how they are stored, and that of its files, which older
    versions wrote into what they made.
    """

    folder: pathlib.Path
    replacements: dict[str, Replacement]
    pairs: dict[str, Pair]
    hashes: tuple[str, str]


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
        inside = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
        give = f"give one of the folders in it: {', '.join(inside[:5])}" if inside else "give the folder of a LoRA that peft saved"
        raise ConvertError(f"There is no 'adapter_config.json' in '{folder}'; {give}.")
    config = _checked_config(folder, read_json(folder / "adapter_config.json"))
    tensors = read_tensors(folder, "adapter_model")
    parts, modules, whole = _sorted(folder, tensors, base)
    if not parts and not whole:
        raise ConvertError(f"The adapter '{folder}' has no LoRA matrices; check the folder.")
    replacements = {}
    for name, (is_base, tensor) in whole.items():
        _check_whole(folder, name, tensor, base[name])
        replacements[name] = Replacement(tensor, is_base)
    pairs = {}
    for name, found in parts.items():
        module, is_embedding = modules[name]
        _check_parts(folder, module, set(found), bool(config.get("use_dora")))
        pair = Pair(found["A"], found["B"], _scale(folder, config, module, found["A"]), is_embedding, found.get("magnitude_vector"))
        _check_fit(folder, name, pair, base[name])
        pairs[name] = pair
    _check_listed(folder, config, base, {*whole, *parts}, set(whole))
    numbers = {f"{name} {part}": tensor for name, found in parts.items() for part, tensor in found.items()}
    numbers |= {name: tensor for name, (_, tensor) in whole.items()}
    return Adapter(folder, replacements, pairs, (_sha256_of_numbers(numbers), _sha256_of_files(tensors.values())))


def _sorted(
    folder: pathlib.Path, tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, tuple[str, bool]], dict[str, tuple[bool, Tensor]]]:
    """The tensors of an adapter by the base's names: the parts of each pair; each pair's module, and whether that is an
    embedding; and the whole weights, and whether they are the base of a pair.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    modules: dict[str, tuple[str, bool]] = {}
    whole: dict[str, tuple[bool, Tensor]] = {}
    named: dict[str, Tensor] = {}
    for tensor in tensors.values():
        if (name := unwrapped(tensor.name)).endswith(_UNTRAINED):
            continue
        if not (match := _PAIR.fullmatch(name) or _WHOLE.fullmatch(name)):
            what = "trains a bias, which the base does not have" if name.endswith(".bias") else "is not a LoRA matrix"
            raise ConvertError(f"The adapter '{folder}' has '{tensor.name}', which {what}; merge it with peft first.")
        place = _place(folder, match["module"], base)
        if match.re is _PAIR:
            held = parts.setdefault(place, {})
            first = held.setdefault(match["part"], tensor)
            modules[place] = match["module"], bool(match["embedding"]) or modules.get(place, ("", False))[1]
        else:
            first = whole.setdefault(place, (bool(match["base"]), tensor))[1]
        if first is not tensor:
            raise ConvertError(
                f"The adapter '{folder}' has both '{first.name}' and '{tensor.name}', which are the same weight; remove one of them."
            )
        if match["adapter"]:
            named.setdefault(match["adapter"], tensor)
    if len(named) > 1:
        one, other, *_ = named.values()
        raise ConvertError(
            f"'{folder}' holds several adapters: '{one.name}' and '{other.name}' belong to two; save each in its own folder."
        )
    return parts, modules, whole


def _check_parts(folder: pathlib.Path, module: str, found: set[str], is_dora: bool) -> None:
    wanted = {"A", "B"} | ({"magnitude_vector"} if is_dora else set())
    if lost := sorted(wanted - found):
        raise ConvertError(f"The adapter '{folder}' has no lora_{lost[0]} for '{module}'; save or download it again.")
    if found - wanted:
        raise ConvertError(
            f"The adapter '{folder}' has a lora_magnitude_vector for '{module}', but its adapter_config.json does not say use_dora; "
            "save or download it again."
        )


def _check_listed(folder: pathlib.Path, config: dict[str, Any], base: Mapping[str, Tensor], changed: set[str], whole: set[str]) -> None:
    """Refuse an adapter that lacks the weights of a module that its configuration lists and the base has."""
    modules = {name.removesuffix(".weight"): name for name, tensor in base.items() if len(tensor.shape) == 2}
    targets, excluded = config.get("target_modules"), config.get("exclude_modules") or []
    if isinstance(targets, list) and isinstance(excluded, list) and config.get("layers_to_transform") is None:
        for module, name in modules.items():
            if name not in changed and _ends_with_one(module, targets) and not _ends_with_one(module, excluded):
                raise _lost(folder, module, "target_modules")
    kept = config.get("modules_to_save") or []
    tied = {EMBEDDING, HEAD} if config.get("ensure_weight_tying") and base.get(HEAD) is base.get(EMBEDDING) else set()
    for name in base:
        module = name.removesuffix(".weight")
        parents = [".".join(module.split(".")[:n]) for n in range(1, module.count(".") + 2)]
        is_kept = any(_ends_with_one(parent, kept) for parent in parents)
        if is_kept and name not in whole and not (name in tied and whole & tied):
            raise _lost(folder, module, "modules_to_save")


def _ends_with_one(module: str, names: Sequence[Any]) -> bool:
    """Whether a module is meant by one of the names, as peft reads them: the whole of it, or its end."""
    return any(module == name or module.endswith(f".{name}") for name in names)


def _lost(folder: pathlib.Path, module: str, key: str) -> ConvertError:
    return ConvertError(f"The adapter '{folder}' has no weights for '{module}', which its {key} lists; save or download it again.")


def _sha256_of_numbers(tensors: Mapping[str, Tensor]) -> str:
    """A hash of the names, shapes and numbers. The same numbers have the same hash in every file, dtype and order."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {list(tensor.shape)}\n".encode())
        for rows in slabs(tensor.shape):
            found.update(tensor.load(*rows).astype("<f4", copy=False).data)
    return found.hexdigest()


def _sha256_of_files(tensors: Iterable[Tensor]) -> str:
    """The hash of the adapter's safetensors; of several shards, one after another."""
    found = hashlib.sha256()
    for path in sorted({tensor.path for tensor in tensors}):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
    return found.hexdigest()


def _place(folder: pathlib.Path, module: str, base: Mapping[str, Tensor]) -> str:
    """The base's name for the weight of an adapter's module. Adapters of bare or wrapped models use shorter or longer names."""
    for name in (module, f"model.{module}", module.replace("language_model.", "", 1)):
        if f"{name}.weight" in base:
            return f"{name}.weight"
    raise ConvertError(f"The adapter '{folder}' changes '{module}.weight', which the base does not have; check the base.")


def _checked_config(folder: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    if str(config.get("peft_type", "LORA")).upper() != "LORA":
        raise ConvertError(f"The adapter '{folder}' is of type {config['peft_type']!r:.40}; only LORA can be merged.")
    if used := sorted(key for key, value in config.items() if value and key not in _KNOWN):
        raise ConvertError(f"The adapter '{folder}' uses {used[0]!r:.60}, which cannot be merged here; merge it with peft first.")
    if isinstance(start := config.get("init_lora_weights"), str) and start not in _HARMLESS_STARTS:
        raise ConvertError(f"The adapter '{folder}' was initialised with {start!r:.40}, which changes the base; merge it with peft first.")
    if not isinstance(config.get("modules_to_save") or [], list):
        raise ConvertError(f"The adapter '{folder}' has an unusual modules_to_save; merge it with peft first.")
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
    if not fits or (pair.magnitude and math.prod(pair.magnitude.shape) != weight.shape[pair.is_embedding]):
        raise ConvertError(
            f"The adapter '{folder}' does not fit the base at '{name}': B {list(b)} times A {list(a)} cannot be added to "
            f"{list(weight.shape)}; give the base it was trained on."
        )
