"""The settings of a chain: `Recipe`, read from a TOML file.

Owns the names, types and limits of the settings. Invariant: every `Recipe` can be run; a wrong key or value is refused with
its name.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.core.errors import BadSetting

CONFIGS = pathlib.Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True)
class Pretrain:
    """A base trained from scratch on the bank: the number of steps (about 2,048 tokens each) and its shape."""

    steps: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """Rounds that rotate over `domains`. Each trains on new questions of its domain and on some of the buffer.

    Without `domains`, a chain of options draws from all domains of its data in every round.
    """

    domains: tuple[str, ...]
    rounds: int
    new_questions: int
    replayed_questions: int
    buffer_questions: int
    merge_each_round: bool
    measured_questions: int
    unknown_share: float = 0.0
    verification_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Labels:
    """How a label is found: `by` "generated" texts, or by answers drawn from "scored" legal ones. `exact` uses the
    probability of the right answer itself. `rounding` of the share to a level is half-up or half-even.
    """

    by: str
    samples: int
    temperature: float
    exact: bool = False
    rounding: str = "half-up"

    def __post_init__(self) -> None:
        if self.by not in ("generated", "scored"):
            raise BadSetting(f"labels.by is {self.by!r}; it must be 'generated' or 'scored'")
        if self.rounding not in ("half-up", "half-even"):
            raise BadSetting(f"labels.rounding is {self.rounding!r}; it must be 'half-up' or 'half-even'")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of the tokens of the completion in the loss."""

    level: float = 1.0
    letter: float = 1.0
    rest: float = 1.0


@dataclass(frozen=True, slots=True)
class Lora:
    """The fine-tuning of one round."""

    r: int
    alpha: int
    learning_rate: float
    epochs: int
    batch_tokens: int
    weights: Weights


@dataclass(frozen=True, slots=True)
class OpenEnded:
    """The round after the last: short answers instead of letters.

    `first_pass`: a model that prints no short answers by itself first trains on some, with the levels of its letters.
    """

    questions: int
    first_pass: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """How many held-out questions of each domain the finished GGUFs are measured on."""

    questions_per_domain: int


@dataclass(frozen=True, slots=True)
class Sibling:
    """A larger model that labels the first questions for a model that is too small to print the format."""

    path: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole chain. `base` is the folder or the Hugging Face name of a checkpoint, or a GGUF; otherwise `pretrain` makes it.

    `answer_kind` is `letter`, or `option` for a model that answers with the text of an option (`option_chain`).
    """

    name: str
    seed: int
    chain: ChainConfig
    labels: Labels
    lora: Lora
    base: str = ""
    pretrain: Pretrain | None = None
    open_ended: OpenEnded | None = None
    sibling: Sibling | None = None
    card: Card | None = None
    answer_kind: str = "letter"

    def __post_init__(self) -> None:
        if self.answer_kind not in ("letter", "option"):
            raise BadSetting(f"answer_kind is {self.answer_kind!r}; it must be 'letter' or 'option'")
        if self.answer_kind == "option":
            self._check_option()
        if bool(self.base) == bool(self.pretrain):
            raise BadSetting("a recipe needs either a `base` or a [pretrain] table")

    def _check_option(self) -> None:
        """Refuse what a chain of options would ignore."""
        chain = self.chain
        if self.labels.by != "scored" or chain.merge_each_round or chain.unknown_share or chain.verification_share:
            raise BadSetting(
                "a recipe that answers with options needs labels.by = 'scored' and merge_each_round = false, and no unknown or "
                "verification share"
            )
        if self.pretrain or self.open_ended or self.card:
            raise BadSetting("a recipe that answers with options has no [pretrain], [open_ended] or [card] table")


_TABLES = {"chain": ChainConfig, "labels": Labels, "lora": Lora, "pretrain": Pretrain, "open_ended": OpenEnded, "sibling": Sibling, "card": Card,
           "weights": Weights}  # fmt: skip


def load(name_or_path: str, changes: Sequence[str] = ()) -> Recipe:
    """The recipe with this name in `configs`, or in this file, with `changes` such as `chain.rounds=2`. Raises `BadSetting`."""
    path = CONFIGS / f"{name_or_path}.toml"
    if not path.exists():
        path = pathlib.Path(name_or_path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise BadSetting(f"cannot read the recipe {name_or_path!r} ({error}); give one of {known}, or a TOML file") from error
    for change in changes:
        _change(values, change)
    return _built(Recipe, values, path.name)


def _change(values: dict[str, Any], change: str) -> None:
    """Set one value, in TOML."""
    try:
        parsed = tomllib.loads(change)
    except ValueError as error:
        raise BadSetting(f"cannot read {change!r} ({error}); write it as in TOML: chain.rounds=2") from error
    for table, value in parsed.items():
        if isinstance(value, dict) and isinstance(values.get(table), dict):
            values[table] |= value
        else:
            values[table] = value


def _built(kind: type, values: dict[str, Any], where: str) -> Any:
    """A dataclass from a table, with the type of each value checked."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in fields:
            raise BadSetting(f"{where}: {name!r} is not a setting; use one of {', '.join(fields)}")
        if name in _TABLES:
            values[name] = _built(_TABLES[name], dict(value), f"{where} [{name}]")
        elif isinstance(value, list):
            values[name] = tuple(value)
        elif str(fields[name].type) not in (type(value).__name__, "float" if isinstance(value, int) else ""):
            raise BadSetting(f"{where}: {name} is {value!r}; it must be a {fields[name].type}")
    missing = [n for n, f in fields.items() if n not in values and f.default is dataclasses.MISSING]
    if missing:
        raise BadSetting(f"{where}: {missing[0]} is missing")
    return kind(**values)
