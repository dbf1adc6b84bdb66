"""Asks a model one question at a time: the confidence first, then the letter.

Owns the order of a reading and the waiting line before the model. Knows nothing of policies, clouds or databases.
Invariant: every evaluation happens on the line's one thread; a caller who gives up leaves the model usable.

A decision is read off the trie of legal answers (`answer.py`): the first pass evaluates what is new of the prompt and
the tree of tokens that decides the level, and the letter behind the level that is likely (`tree.py`); only where another
level is chosen, a second one evaluates its rest and the words before the letter. Nothing is sampled; a stretch without a
branch costs no pass of its own.
"""

from __future__ import annotations

import codecs
import contextlib
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from edge_agent.core.errors import BadQuestion, ModelError
from edge_agent.core.question import Question
from edge_agent.core.records import LevelReading, OpenReading, Reading, Timings
from edge_agent.engine.llama import Llama, Logits, Options, build, repacking_pays
from edge_agent.engine.passes import TokenTree, letter_trees, level_trees
from edge_agent.engine.prefix_cache import PrefixFile
from edge_agent.engine.probabilities import Walk
from edge_agent.engine.waiting_line import WaitingLine
from edge_agent.model import gguf, prompt
from edge_agent.model.answers import AnswerFormat, Node, Path, parse
from edge_agent.model.profile import Profile, from_metadata

MAX_ANSWER_TOKENS = 64
ANSWER_ROOM = 2 * MAX_ANSWER_TOKENS  # of the context: the format's own words, and an answer in the model's
DRAFT_TOKENS = 32  # evaluated at once while a question is being written: a person who presses Enter waits for so many at most


class LocalModel:
    """A model on this device: `read` gives a `Reading` of a `Question`. Use as a context manager, or `close`.

    Threads may share it; they wait for each other. With `prefix_folder` and `sha256` (of the model file, and of the
    `adapter` on it), the evaluated system message is kept there for the next process. Raises `ModelMissing` or `ModelRefused` on opening.
    """

    def __init__(
        self,
        path: pathlib.Path,
        profile: Profile | None = None,
        options: Options | None = None,
        prefix_folder: pathlib.Path | None = None,
        sha256: str = "",
        adapter: pathlib.Path | None = None,
        on_tensor: Any = None,
    ) -> None:
        header = gguf.read_header(path)
        if adapter:
            gguf.read_adapter(adapter, header)
        self.profile = profile or from_metadata(header.metadata)
        options = options or Options()
        if options.repack is None:
            options = replace(options, repack=repacking_pays(header.quantization, platform.machine()))
        self._llama = Llama(path, options, adapter, on_tensor)
        self._tries: dict[str, Node] = {}
        self._drafting: list[int] = []
        try:
            self._prefix = prompt.tokens(self._llama, prompt.prefix(self.profile.segments("")))
        except BaseException:
            self._llama.close()
            raise
        self._prefix_file = (
            PrefixFile(prefix_folder, [sha256, build(), repr(self._llama.options), *self._prefix]) if prefix_folder else None
        )
        self.is_restored = self._restore_prefix()
        self._line = WaitingLine(self._llama.stop, self._llama.go)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Answer who still waits, then free the model's memory; closing twice is fine."""
        self._line.close()
        self._llama.close()

    @property
    def n_ctx(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return self._llama.options.n_ctx

    @property
    def n_parameters(self) -> int:
        """How many weights the model has."""
        return self._llama.n_parameters

    @property
    def n_embedding(self) -> int:
        """How many of them are the table of token embeddings."""
        return self._llama.n_embedding

    @property
    def n_forward(self) -> int:
        """Forward passes since the model was opened."""
        return self._llama.n_forward

    def prompt_tokens(self, question: Question) -> list[int]:
        """The tokens of the whole prompt; raises `BadQuestion` if the model is not for such questions, or it does not fit."""
        self._check_open()
        if question.kind != self.profile.question_kind:
            wanted = "without options" if question.options else "with its options"
            raise BadQuestion(f"This model answers other questions than '{question.stem:.40}'; ask {wanted}.")
        tokens = prompt.tokens(self._llama, self.profile.segments(question.user_message))
        room = self.n_ctx - ANSWER_ROOM
        if len(tokens) > room:
            raise BadQuestion(f"The question makes a prompt of {len(tokens)} tokens and {room} fit; shorten the question.")
        return tokens

    def read(
        self,
        question: Question,
        on_level: Callable[[LevelReading], None] | None = None,
        timeout_s: float | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reading | OpenReading:
        """The level with its probabilities, by walking the trie of legal answers; then the letter, or an answer in words.

        `on_level` is called on the model's own thread as soon as the level is known, before the answer is read, `on_text`
        with every piece of an answer in words; both must be quick. Raises `BadQuestion` before any work if the question
        does not fit; `ModelBusy` if too many wait, or there is no answer within `timeout_s`.
        """
        called = time.perf_counter()
        tokens, trie = self.prompt_tokens(question), self._trie(question)
        self._make_way(tokens)

        def work(waited_ms: float) -> Reading | OpenReading:
            clock = _Clock(called, time.perf_counter(), waited_ms, self._llama.n_forward, self._n_cached(tokens), len(tokens))
            walk, level, known = self._read_level(tokens, trie)
            clock.prefilled = time.perf_counter()
            if on_level:
                on_level(level)
            if question.options:
                return self._read_letter(question, tokens, walk, level, known, clock)
            return self._write(tokens, walk, level, clock, on_text or (lambda piece: None))

        reading = self._line.run(work, timeout_s)
        if self._prefix_file and not self._prefix_file.is_there:
            with contextlib.suppress(ModelError):  # the line is closing, or full: another reading will do it
                self._line.later(self._save_prefix)
        return reading

    def draft(self, user_message: str, complete: bool) -> Future[bool]:
        """Evaluate a little more of a question that is being written, while nobody else waits; True when nothing is left.

        Of a message that is not `complete` the last token is left out, since the next letter may change it.
        """
        self._check_open()
        segments = self.profile.segments(user_message)
        if not complete:
            segments = segments[: len(prompt.prefix(segments)) + 1]
        tokens = prompt.tokens(self._llama, segments)[:-1][: self.n_ctx - ANSWER_ROOM]
        return self._line.later(lambda: self._draft(tokens))

    def read_by_grammar(self, question: Question, own_tokens: bool = False) -> tuple[str, str]:
        """Level and letter by llama.cpp's own GBNF sampler, greedy, a token at a time: the reference for `read`.

        With `own_tokens` it may spell an answer only as the tokenizer does. A model that never learned the format prefers others
        (`F`, `ina`, `l`), which no walk over the trie follows.
        """
        answers = AnswerFormat(self.profile.levels, question.letters)
        grammar = answers.token_gbnf(self._llama.tokenize) if own_tokens else answers.gbnf()

        def work(_: float) -> str:
            sampler = self._llama.grammar(grammar)
            try:
                return self._generate(tokens, lambda logits: self._llama.grammar_argmax(sampler, logits))[0]
            finally:
                self._llama.free_grammar(sampler)

        tokens = self.prompt_tokens(question)
        text = self._line.run(work)
        letter = parse(text)[1]
        assert letter is not None, f"the grammar let {text!r} through"
        return text.split("\n")[0].removeprefix("Confidence: "), letter

    def greedy(self, question: Question) -> str:
        """What the model prints by itself, without any constraint, up to its end of turn."""
        tokens = self.prompt_tokens(question)
        return self._line.run(lambda _: self._generate(tokens, lambda logits: int(np.argmax(logits)))[0])

    def time_evaluation(self, tokens: Sequence[int], n_cached: int) -> float:
        """Milliseconds to evaluate `tokens` behind their first `n_cached`, and to read the last one's logits: for benchmarks."""

        def work(_: float) -> float:
            self._llama.keep(n_cached)
            while self._llama.prefill(tokens[:n_cached], n_cached):
                pass
            started = time.perf_counter()
            self._llama.logits(tokens)
            return (time.perf_counter() - started) * 1000

        return self._line.run(work)

    def answer_tokens(self, reading: Reading) -> list[int]:
        """The tokens of the answer that a reading stands for."""
        return self._llama.tokenize(AnswerFormat(reading.levels, reading.letters).text(reading.level, reading.letter))

    def _read_level(self, tokens: list[int], trie: Node) -> tuple[Walk, LevelReading, dict[Path, Logits]]:
        """The first pass: where the walk stands, how sure the model is, and the logits that it was read from."""
        known: dict[Path, Logits] = {}
        for tree in self._level_trees(trie):
            known |= self._llama.evaluate(tokens, tree)
        walk = Walk(trie, lambda path: known[path])
        level = walk.level()
        reading = LevelReading(
            levels=self.profile.levels,
            level_probs=tuple(level.probs[name] for name in self.profile.levels),
            level=level.greedy,
            format_mass=walk.format_mass,
        )
        return walk, reading, known

    def _level_trees(self, trie: Node) -> Iterator[TokenTree]:
        return level_trees(trie, self.profile.likely_level or self.profile.levels[-1])

    def _read_letter(
        self, question: Question, tokens: list[int], walk: Walk, level: LevelReading, known: dict[Path, Logits], clock: _Clock
    ) -> Reading:
        """The second pass, where one is needed."""
        for tree in letter_trees(walk.path, walk.node):
            if not tree.reads.keys() <= known.keys():
                known |= self._llama.evaluate([*tokens, *walk.path], tree)
        letter = walk.letter()
        return Reading(
            levels=level.levels,
            level_probs=level.level_probs,
            level=level.level,
            format_mass=walk.format_mass,
            letters=question.letters,
            answer_probs=tuple(letter.probs[name] for name in question.letters),
            letter=letter.greedy,
            timings=clock.timings(self._llama.n_forward),
        )

    def _write(self, tokens: list[int], walk: Walk, level: LevelReading, clock: _Clock, on_text: Callable[[str], None]) -> OpenReading:
        """The answer in the model's own words, greedily, up to its end of turn."""
        path, node = walk.path, walk.node
        while node.children:  # the words before the answer: nothing is chosen any more
            token, node = next(iter(node.children.items()))
            path = (*path, token)
        text, ended = self._generate([*tokens, *path], lambda logits: int(np.argmax(logits)), on_text)
        return OpenReading(
            levels=level.levels,
            level_probs=level.level_probs,
            level=level.level,
            format_mass=level.format_mass,
            text=text.strip(),
            ended=ended,
            timings=clock.timings(self._llama.n_forward),
        )

    def _draft(self, tokens: list[int]) -> bool:
        self._drafting = tokens
        try:
            return self._llama.prefill(tokens, DRAFT_TOKENS) < DRAFT_TOKENS
        finally:
            self._drafting = []

    def _make_way(self, tokens: list[int]) -> None:
        """End a draft's evaluation under way unless it is of use to this prompt."""
        drafting = self._drafting
        if drafting and tokens[: len(drafting)] != drafting:
            self._line.stop_later()

    def _generate(
        self, tokens: list[int], choose: Callable[[Logits], int], on_text: Callable[[str], None] = lambda piece: None
    ) -> tuple[str, bool]:
        """Text, each token chosen from the logits, and whether it came to the end of turn; `on_text` is given whole characters."""
        decoder, text = codecs.getincrementaldecoder("utf-8")("replace"), ""
        for _ in range(MAX_ANSWER_TOKENS):
            token = choose(self._llama.logits(tokens))
            ended = self._llama.ends_turn(token)
            piece = decoder.decode(b"" if ended else self._llama.piece(token), final=ended)
            if piece:
                text += piece
                on_text(piece)
            if ended:
                return text, True
            tokens = [*tokens, token]
        return text + decoder.decode(b"", final=True), False

    def _trie(self, question: Question) -> Node:
        letters = question.letters
        if letters not in self._tries:
            self._tries[letters] = AnswerFormat(self.profile.levels, letters).trie(self._llama.tokenize)
        return self._tries[letters]

    def _n_cached(self, tokens: list[int]) -> int:
        """How many of a prompt's tokens need no work; its last one is always evaluated, since its logits are read."""
        same = next((i for i, (a, b) in enumerate(zip(self._llama.cached, tokens, strict=False)) if a != b), len(self._llama.cached))
        return min(same, len(tokens) - 1)

    def _restore_prefix(self) -> bool:
        state = self._prefix_file.load() if self._prefix_file else None
        return state is not None and self._llama.restore(self._prefix, state)

    def _save_prefix(self) -> None:
        n = len(self._prefix)
        if self._prefix_file and not self._prefix_file.is_there and self._llama.cached[:n] == self._prefix:
            self._prefix_file.save(self._llama.state(n))

    def _check_open(self) -> None:
        """A closed model is refused, since llama.cpp would abort the process."""
        if not self._llama.is_open:
            raise ModelError("The model was closed; open it again.")


@dataclass(slots=True)
class _Clock:
    """Where the time of a reading goes, in seconds of `perf_counter`."""

    called: float
    started: float
    waited_ms: float
    n_forward: int
    n_cached: int
    n_prompt: int
    prefilled: float = 0.0

    def timings(self, n_forward: int) -> Timings:
        """The finished record."""
        done = time.perf_counter()
        return Timings(
            prefill_ms=_ms(self.started, self.prefilled),
            decode_ms=_ms(self.prefilled, done),
            total_ms=_ms(self.called, done),
            n_prompt_tokens=self.n_prompt,
            n_cached_tokens=self.n_cached,
            n_forward=n_forward - self.n_forward,
            waited_ms=round(self.waited_ms, 3),
        )


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
