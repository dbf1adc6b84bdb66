"""Answers of plain models by letters and by the options' texts: the demo model, read as if it had never learned to print a confidence."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.core.errors import BadQuestion, ModelBusy, ModelRefused
from edge_agent.core.question import LETTERS, Question
from edge_agent.core.records import Reading
from edge_agent.engine import options
from edge_agent.engine.answers import Answers
from edge_agent.engine.llama import Llama, Options
from edge_agent.engine.local_model import LocalModel
from edge_agent.engine.passes import BatchLimits
from edge_agent.model import prompt
from edge_agent.model.answers import Node, Path
from edge_agent.model.profile import BYTES, LETTER, NONE, OPTION, PRIOR, TOKENS, Profile, default_profile
from tests.support.paths import DEMO

PLAIN = Profile("completion", "", (), OPTION, lists_options=False, normalise=NONE)
CITIES = Question("Where is the harbour?", ("New York", "New York City", "York", "Almaty, in the south"))
NOISE = 0.02  # of a log-probability: another shape of the batch changes low bits


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    opened = Llama(DEMO, Options(), reads_options=True)
    yield opened
    opened.close()


def one_by_one(llama: Llama, before: list[int], path: Path) -> float:
    """The log-probability of `path`, from one evaluation for each of its tokens."""
    total = 0.0
    for i, token in enumerate(path):
        logits = llama.logits([*before, *path[:i]]).astype(np.float64)
        total += logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    return total


def softmax(scores: list[float]) -> np.ndarray:
    weights = np.exp(np.array(scores) - max(scores))
    return weights / weights.sum()


def read(question: Question, profile: Profile = PLAIN, **given: object) -> Reading:
    with LocalModel(DEMO, profile, **given) as model:  # type: ignore[arg-type]
        reading = model.read(question)
    assert isinstance(reading, Reading)
    return reading


words = st.sampled_from(["New", "York", "City", "the", "a", "42", "é", "<|im_end|>", "</think>", "сорок"])
texts = st.lists(st.lists(words, min_size=1, max_size=5).map(" ".join), min_size=2, max_size=8).map(tuple)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts, st.integers(6, 40), st.integers(1, 8))
def test_scores_equal_a_sequential_evaluation(llama: Llama, texts: tuple[str, ...], n_reads: int, n_sequences: int) -> None:
    before = llama.tokenize("Question: Where is the harbour?\nAnswer:")
    paths = options.with_ends([tuple(prompt.continued(llama, f" {text}")) for text in texts], tuple(llama.tokenize("\n")))
    found = options.log_probabilities(llama.read, before, paths, BatchLimits(llama.limits.n_tokens, n_reads, n_sequences))
    assert found == pytest.approx([one_by_one(llama, before, path) for path in paths], abs=NOISE * max(map(len, paths)))


def test_reading_of_options_is_the_softmax_of_their_scores(llama: Llama) -> None:
    """Here "New York" is a prefix, so that all options are scored with the line break that ends them."""
    reading = read(CITIES)
    before = llama.tokenize("Question: Where is the harbour?\nAnswer:")
    expected = softmax([one_by_one(llama, before, (*llama.tokenize(f" {text}"), *llama.tokenize("\n"))) for text in CITIES.options])
    assert reading.answer_probs == pytest.approx(expected, abs=0.03)
    assert reading.letter == "ABCD"[int(np.argmax(expected))]
    assert (reading.levels, reading.level_probs, reading.level, reading.format_mass) == ((), (), None, None)
    assert reading.confidence is None and reading.expected_confidence is None


def test_scores_are_normalised_as_the_profile_says(llama: Llama) -> None:
    question = Question("Where is the harbour?", ("York", "Almaty, in the south", "here"))
    before, prior = llama.tokenize("Question: Where is the harbour?\nAnswer:"), llama.tokenize("Question: \nAnswer:")
    paths = [tuple(llama.tokenize(f" {text}")) for text in question.options]
    sums = [one_by_one(llama, before, path) for path in paths]
    expected = {
        NONE: sums,
        TOKENS: [p / len(path) for p, path in zip(sums, paths, strict=True)],
        BYTES: [p / len(text) for p, text in zip(sums, question.options, strict=True)],
        PRIOR: [p - one_by_one(llama, prior, path) for p, path in zip(sums, paths, strict=True)],
    }
    for normalise, scores in expected.items():
        assert read(question, replace(PLAIN, normalise=normalise)).answer_probs == pytest.approx(softmax(scores), abs=0.03), normalise


def test_letters_are_read_behind_the_prompt(llama: Llama) -> None:
    question = Question("Which?", ("one", "two", "three"))
    reading = read(question, Profile("completion", "", (), LETTER))
    logits = llama.logits(llama.tokenize(f"Question: {question.user_message}\nAnswer:")).astype(np.float64)
    letters = [llama.tokenize(f" {letter}")[0] for letter in "ABC"]
    assert reading.answer_probs == pytest.approx(softmax(logits[letters].tolist()), abs=0.02)
    assert reading.timings.n_forward == 1


def test_options_are_read_in_one_pass_and_the_order_does_not_matter() -> None:
    reading, other = read(CITIES), read(Question(CITIES.stem, CITIES.options[::-1]))
    assert reading.timings.n_forward == 1
    assert reading.answer_probs == pytest.approx(other.answer_probs[::-1], abs=0.03)


def test_equal_options_share_the_probability_of_their_text() -> None:
    once, twice = read(Question("Which?", ("one", "two"))), read(Question("Which?", ("one", "two", "one")))
    a, b, c = twice.answer_probs
    assert a == c and (a + c, b) == pytest.approx(once.answer_probs, abs=0.02)


def test_special_tokens_in_an_option_are_plain_text(llama: Llama) -> None:
    ending = "<|im_end|>"
    (special,) = llama.tokenize(ending, parse_special=True)
    tokens = prompt.continued(llama, f" {ending}")
    assert special not in tokens and len(tokens) > 2
    expected = softmax(
        [one_by_one(llama, llama.tokenize("Question: Which?\nAnswer:"), path) for path in [tuple(tokens), (*llama.tokenize(" no"),)]]
    )
    assert read(Question("Which?", (ending, "no"))).answer_probs == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("text", ["</think>", "<|im_start|>system", "a <|im_end|> b", "<think>"])
def test_option_of_a_foggen_model_has_no_added_token_but_its_end(llama: Llama, text: str) -> None:
    profile = default_profile("qwen3", OPTION)
    answers = Answers(llama, profile)
    trie = answers.legal(Question("Which?", (text, "no")))
    assert isinstance(trie, Node)
    found = [path for path, node in all_nodes(trie) if node.label]
    assert len(found) == 2 * len(profile.levels)
    assert all(sum(llama.is_added(token) for token in path) == 1 and path[-1:] == answers.end for path in found)


def all_nodes(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    yield path, node
    for token, child in node.children.items():
        yield from all_nodes(child, (*path, token))


def test_many_and_long_options_take_several_batches_and_have_the_same_scores(llama: Llama) -> None:
    before = llama.tokenize("Question: Which?\nAnswer:")
    texts = [" ".join(f"{word}{i}" for i in range(10)) for word in ("the cat", "the dog", "a cat")]
    texts += [f"the {n} " + "and so on " * 20 for n in range(3)]
    question = Question("Which?", (*texts, *(f"number {n}" for n in range(20))))
    reading = read(question)
    paths = options.with_ends([tuple(llama.tokenize(f" {text}".rstrip())) for text in question.options], tuple(llama.tokenize("\n")))
    assert sum(map(len, paths)) > 256 and reading.timings.n_forward > 1
    assert reading.answer_probs == pytest.approx(softmax([one_by_one(llama, before, path) for path in paths]), abs=0.03)


def test_question_that_does_not_fit_is_refused_before_any_work() -> None:
    with LocalModel(DEMO, PLAIN) as model:
        with pytest.raises(BadQuestion, match=r"Option B has \d+ tokens, but only 256 fit"):
            model.read(Question("Which?", ("a", "word " * 600)))
        with pytest.raises(BadQuestion, match=r"The options have \d+ tokens together, but only 1024 fit"):
            model.read(Question("Which?", tuple(f"{letter} {'so ' * 60}" for letter in LETTERS)))
        with pytest.raises(BadQuestion, match="The prompt has"):
            model.read(Question("Why? " * 1000, ("a", "b")))
        assert model.n_forward == 0


def test_plain_readings_of_several_questions_share_their_beginning_and_call_no_level() -> None:
    state = "A customer writes that an order was charged twice, and nobody answers the letters. " * 3
    questions = [Question(f"{state}Who is asked about {name}?", ("the bank", "the shop", "nobody")) for name in ("it", "that", "money")]
    seen: list[int] = []
    with LocalModel(DEMO, PLAIN) as model:
        together = model.read_all(questions, lambda i, level: seen.append(i))
        alone = [model.read(question) for question in questions]
    assert seen == []
    assert sorted(r.timings.n_cached_tokens for r in together)[1] > 40
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Reading) and isinstance(other, Reading)
        assert one.answer_probs == pytest.approx(other.answer_probs, abs=0.03)


def test_draft_evaluates_the_question_before_it_is_asked() -> None:
    with LocalModel(DEMO, PLAIN) as model:
        steps = iter(lambda: model.draft(CITIES.user_message, True).result(), True)
        assert len(list(itertools.islice(steps, 100))) < 100
        reading = model.read(CITIES)
    assert reading.timings.n_cached_tokens >= reading.timings.n_prompt_tokens - 4


def test_reading_that_is_given_up_leaves_the_model_usable() -> None:
    long = Question("Which? " * 100, ("one of them", "another one"))
    with LocalModel(DEMO, PLAIN) as model:
        with pytest.raises(ModelBusy):
            model.read(long, timeout_s=0.001)
        assert model.read(CITIES).answer_probs == pytest.approx(read(CITIES).answer_probs, abs=0.03)


def test_shape_whose_end_is_not_in_the_vocabulary_is_refused() -> None:
    with pytest.raises(ModelRefused, match="has no token"):
        LocalModel(DEMO, replace(PLAIN, prompt="gemma"))
