"""What a model may answer to a question, in its own tokens, and how likely a plain model finds each answer.

Owns the choice between letters and the options' texts. Invariant: the text of an option never becomes a special token, and an
option is tokenized in the same way wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_agent.core.question import Question
from edge_agent.core.records import Reading
from edge_agent.engine import options
from edge_agent.engine.llama import Llama
from edge_agent.engine.passes import TokenTree, letter_trees
from edge_agent.engine.probabilities import Walk
from edge_agent.model import prompt
from edge_agent.model.answers import AnswerFormat, Node, Path, printed
from edge_agent.model.profile import BYTES, OPTION, PRIOR, TOKENS, Profile


class Answers:
    """The answers of one model with this profile. `end` are the tokens that end an answer by an option's text."""

    def __init__(self, llama: Llama, profile: Profile) -> None:
        self._llama, self._profile = llama, profile
        self._tries: dict[str, Node] = {}
        self._puts_space = prompt.puts_a_space(llama)
        self.end = tuple(prompt.tokens(llama, [profile.shape.end_segment])) if profile.answer_kind == OPTION else ()

    def legal(self, question: Question) -> Node | list[Path]:
        """The trie of the legal answers, or, of a plain model, the path of each answer in the order of the letters.

        Raises `BadQuestion` if the options are too long.
        """
        if self._profile.is_plain:
            return options.with_ends(self.paths(question), self.end)
        if self._profile.answer_kind == OPTION:
            return self._format(question).trie(self._tokenize, self.end)
        letters = question.letters
        if letters not in self._tries:
            self._tries[letters] = self._format(question).trie(self._tokenize)
        return self._tries[letters]

    def tokens(self, question: Question, reading: Reading) -> list[int]:
        """The tokens of the answer that a reading chose."""
        if reading.level is None:
            return list(self.paths(question)[question.letters.index(reading.letter)])
        answers = self._format(question)
        return self._tokenize(answers.text(reading.level, next(a for a, letters in answers.answers.items() if reading.letter in letters)))

    def n_tokens(self, question: Question) -> int:
        """How many tokens of the context the options need; 0 for letters. Raises `BadQuestion` if the options are too long."""
        return sum(len(path) + len(self.end) for path in self.paths(question)) if self._profile.answer_kind == OPTION else 0

    def letter_trees(self, walk: Walk) -> Iterator[tuple[Path, TokenTree]]:
        """The trees that the distribution of the letters needs, each with the path after which it is evaluated."""
        if self._profile.answer_kind != OPTION:
            return ((walk.path, tree) for tree in letter_trees(walk.path, walk.node))
        return options.batches((path for path, _ in walk.node.branches(walk.path)), self._llama.limits, walk.path)

    def log_probs(self, before: Sequence[int], paths: Sequence[Path]) -> list[float]:
        """The log-probability of each path after the tokens `before`."""
        return options.log_probabilities(self._llama.read, before, paths, self._llama.limits)

    def probs(self, question: Question, paths: Sequence[Path], log_probs: Sequence[float]) -> tuple[float, ...]:
        """The probability of each answer of a plain model among all of them, from the log-probabilities of their paths.

        Long and rare texts are unlikely whatever the question, so options are normalised as the profile says: by their number of tokens
        or bytes, or by how likely they are without the question, which is evaluated here.
        """
        how = self._profile.normalise if self._profile.answer_kind == OPTION else ""
        scores = list(log_probs)
        if how == PRIOR:
            prior = self.log_probs(prompt.tokens(self._llama, self._profile.segments("")), paths)
            scores = [one - other for one, other in zip(log_probs, prior, strict=True)]
        elif how == BYTES:
            scores = [one / len(printed(option).encode()) for one, option in zip(log_probs, question.options, strict=True)]
        elif how == TOKENS:
            scores = [one / len(path) for one, path in zip(log_probs, paths, strict=True)]
        return options.answer_probs(scores, paths)

    def paths(self, question: Question) -> list[Path]:
        """The tokens of each answer: of its letter, or of the option's text. Raises `BadQuestion` if the options are too long."""
        texts = [printed(option) for option in question.options] if self._profile.answer_kind == OPTION else list(question.letters)
        start = self._profile.shape.answer_start if self._profile.is_plain else " "
        paths = [tuple(prompt.continued(self._llama, start + text, self._puts_space)) for text in texts]
        options.check_size(paths, question.letters)
        return paths

    def _format(self, question: Question) -> AnswerFormat:
        return AnswerFormat(self._profile.levels, question.letters, question.options if self._profile.answer_kind == OPTION else ())

    def _tokenize(self, text: str) -> list[int]:
        return prompt.plain_tokens(self._llama, text)
