"""One GGUF read by the engine and by the recipe's transformers model: the same levels, options and format mass.

Labels come from the recipe and decisions from the engine, so a difference would teach a model something else than the device asks.
"""

import math
import pathlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from edge_agent.core.question import Question
from edge_agent.core.records import LevelReading, Reading
from edge_agent.engine.llama import Options
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import NONE, OPTION, TOKENS, Profile, Way, from_metadata
from edge_agent.model.shapes import COMPLETION
from models.recipe import gguf_base, option_chain
from models.recipe.answers import OptionAnswers, read, score_plain
from models.recipe.bank import Item, draw_many
from tests.support.tiny_bases import gemma_base, llama_base

TOLERANCE = 0.05
"""In the logarithm of a probability. The engine keeps keys and values, and multiplies, in half precision; with these sharp random weights
that made 0.021 at most. A missing BOS makes 1.3."""
THEIR_WORD = {NONE: "nothing", TOKENS: TOKENS}
ITEMS = [
    *draw_many(7, 6, "test"),
    Item("long", 1, "", "", "Қай қала үлкен?", ("Алматы", "Нұр-Сұлтан, бұрынғы Ақмола", "a b a b", "42 < 43"), 0),
]
PREFIXES = Item("prefixes", 1, "", "", "Which is longer?", ("a b", "a b c", "a", "Łódź  a"), 1)
"""An option that is the start of others, two spaces in one, and letters beyond ASCII."""
FILES = [("llama", "F16"), ("llama", "F32"), ("gemma", "F16"), ("gemma", "F32")]


class Both:
    """One file, open in the engine under each profile that is asked for, and as the recipe's model."""

    def __init__(self, path: pathlib.Path, folder: pathlib.Path) -> None:
        self.path, self.metadata = path, read_header(path).metadata
        base = gguf_base.opened(str(path), folder / "opened")
        # Double precision: autocast to bfloat16 leaves it alone, so what is compared is the arithmetic, not the rounding of training.
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).eval()
        self.tok = AutoTokenizer.from_pretrained(base)

    def engine(self, profile: Profile, items: list[Item]) -> tuple[list[Reading], list[LevelReading]]:
        """The readings of the engine, and the levels as they were before the answers."""
        levels: dict[int, LevelReading] = {}
        with LocalModel(self.path, profile, Options(n_ctx=2048)) as model:
            found = model.read_all([Question(item.stem, item.options) for item in items], levels.__setitem__)
        readings = [one for one in found if isinstance(one, Reading)]
        return readings, [levels[i] for i in sorted(levels)]


@pytest.fixture(scope="module", params=FILES, ids="-".join)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    name, quantization = request.param
    folder = tmp_path_factory.mktemp(f"{name}-{quantization}")
    return Both((llama_base if name == "llama" else gemma_base)(folder, quantization, OPTION), folder)


def apart_by_format(both: Both) -> float:
    """How far levels, options and format mass are apart at most, in the logarithm of a probability; infinite for another level."""
    profile, items = from_metadata(both.metadata), [*ITEMS, PREFIXES]
    assert profile == option_chain.profile_of(both.model)
    readings, levels = both.engine(profile, items)
    found = [0.0]
    for ours, level, theirs in zip(readings, levels, read(both.model, OptionAnswers(both.tok, profile), items, 1.0, 1024), strict=True):
        found.append(0.0 if ours.level == theirs.level else math.inf)
        found.append(_apart(ours.level_probs, theirs.level_probs))
        found.append(_apart(ours.answer_probs, theirs.option_probs))
        found.append(_apart([level.format_mass or 0.0], np.array([theirs.format_mass])))
    return max(found)


def apart_as_plain(both: Both, normalise: str) -> float:
    """The same of the options as continuations of a plain question, by one of the ways to normalise."""
    profile = replace(from_metadata(both.metadata, Way("plain", OPTION, COMPLETION)), normalise=normalise)
    readings, _ = both.engine(profile, ITEMS)
    scores = score_plain(both.model, both.tok, ITEMS)
    return max(_apart(ours.answer_probs, theirs.probs(THEIR_WORD[normalise])) for ours, theirs in zip(readings, scores, strict=True))


def _apart(ours: Sequence[float], theirs: np.ndarray) -> float:
    return float(np.abs(np.log(ours) - np.log(theirs)).max())


def test_levels_options_and_format_mass_are_the_same(both: Both) -> None:
    assert apart_by_format(both) < TOLERANCE


@pytest.mark.parametrize("normalise", [NONE, TOKENS])
def test_options_of_a_plain_question_are_the_same(both: Both, normalise: str) -> None:
    assert apart_as_plain(both, normalise) < TOLERANCE


def test_another_weight_shows(both: Both) -> None:
    """The comparison can fail: a norm that is a tenth larger moves it beyond the tolerance, in both ways of answering."""
    weight = both.model.get_decoder().layers[0].input_layernorm.weight.data
    kept = weight.clone()
    try:
        weight *= 1.1
        assert apart_by_format(both) > TOLERANCE and apart_as_plain(both, NONE) > TOLERANCE
    finally:
        weight.copy_(kept)
