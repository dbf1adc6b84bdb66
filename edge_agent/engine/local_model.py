"""Asks the model one question at a time: first for the confidence, then for the answer.

Owns the steps of a reading and the queue in front of the model. Does not know policies, clouds or databases. Invariant:
every evaluation runs on the queue's one thread; when a caller gives up, the model can still be used.

A reading comes from the trie of legal answers (`model/answers.py`). The first pass evaluates the new part of the prompt
together with the tokens that decide the level, and the letter after the likely level (`passes.py`). A second pass is needed
only if another level is chosen: it evaluates the rest of that level and the words before the letter. Nothing is sampled, and
tokens without a choice need no pass of their own.
"""

from __future__ import annotations

import codecs
import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np

from edge_agent.core.errors import BadQuestion, ModelError
from edge_agent.core.question import Question
from edge_agent.core.records import LevelReading, OpenReading, Reading, Timings
from edge_agent.engine.llama import Llama, Logits, Options, build
from edge_agent.engine.passes import TokenTree, letter_trees, level_trees
from edge_agent.engine.prefix_cache import PrefixFile
from edge_agent.engine.probabilities import Walk
from edge_agent.engine.spare_cpus import SpareCpus
from edge_agent.engine.waiting_line import WaitingLine
from edge_agent.model import catalog, gguf, prompt
from edge_agent.model.answers import AnswerFormat, Node, Path
from edge_agent.model.profile import Profile, from_metadata

MAX_ANSWER_TOKENS = 64  # of an answer in words, where nobody asks for more
FORMAT_RESERVE = 64  # tokens of the context kept free for the answer format
ANSWER_RESERVE = FORMAT_RESERVE + MAX_ANSWER_TOKENS
QUESTIONS_A_TURN = 16  # that one caller may have read before the others; more share a beginning better, but make others wait
DRAFT_TOKENS = 32  # evaluated in one step while a question is typed; whoever presses Enter waits for at most one step

Choose = Callable[[Logits], int]
"""Picks the next token from the logits."""


def most_probable(logits: Logits) -> int:
    """The choice of greedy decoding."""
    return int(np.argmax(logits))


class LocalModel:
    """A model on this device: `read` returns a `Reading` of a `Question`. Use as a context manager, or call `close`.

    Threads can share it; they wait for each other. With `prefix_folder` and `sha256` (of the model file and of its
    `adapter`), the evaluated system message is kept for the next process. Raises `ModelMissing` or `ModelRefused`.
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
        spare_cpus: SpareCpus | None = None,
    ) -> None:
        header = gguf.read_model(path)
        if adapter:
            gguf.read_adapter(adapter, header, catalog.adapters_in(path, header.metadata))
        self.profile = profile or from_metadata(header.metadata)
        self._llama = Llama(path, (options or Options()).for_quantization(header.quantization), adapter, on_tensor, spare_cpus)
        self._tries: dict[str, Node] = {}
        self._drafting: list[int] = []
        try:
            self._prefix = prompt.tokens(self._llama, prompt.prefix(self.profile.segments("")))
        except BaseException:
            self._llama.close()
            raise
        self._prefix_file = (
            PrefixFile(prefix_folder, [sha256, build(), repr(self._llama.options), *self._prefix])
            if prefix_folder and self._prefix
            else None
        )
        self.is_restored = self._restore_prefix()
        self._line = WaitingLine(self._llama.stop, self._llama.go)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Answer all waiting callers, then free the memory. Closing twice is fine; in a forked child it does nothing."""
        if self._line.is_forked:
            return
        self._line.close()
        self._llama.close()

    @property
    def n_ctx(self) -> int:
        """The largest number of tokens of a prompt and its answer together."""
        return self._llama.options.n_ctx

    @property
    def n_batch(self) -> int:
        """The largest number of tokens in one forward pass."""
        return self._llama.options.n_batch

    @property
    def n_parameters(self) -> int:
        """The number of weights."""
        return self._llama.n_parameters

    @property
    def n_embedding(self) -> int:
        """The number of weights in the token embeddings."""
        return self._llama.n_embedding

    @property
    def n_forward(self) -> int:
        """The number of forward passes since the model was opened."""
        return self._llama.n_forward

    @property
    def n_waiting(self) -> int:
        """How many callers wait for their turn."""
        return self._line.n_waiting

    def prompt_tokens(self, question: Question, max_answer_tokens: int = MAX_ANSWER_TOKENS) -> list[int]:
        """The tokens of the whole prompt.

        Raises `BadQuestion` if it is too long with an answer of `max_answer_tokens`, or if the model is for other questions.
        """
        self._check_open()
        if question.kind != self.profile.question_kind:
            wanted = "without options" if question.options else "with its options"
            raise BadQuestion(f"This model does not answer questions like '{question.stem:.40}'; ask it {wanted}.")
        tokens = prompt.tokens(self._llama, self.profile.segments(self.profile.user_message(question)))
        limit = self.n_ctx - FORMAT_RESERVE - max_answer_tokens
        if len(tokens) > limit:
            raise BadQuestion(f"The prompt has {len(tokens)} tokens, but only {max(0, limit)} fit; shorten the question.")
        return tokens

    def read(
        self,
        question: Question,
        on_level: Callable[[LevelReading], None] | None = None,
        timeout_s: float | None = None,
        on_text: Callable[[str], None] | None = None,
        max_answer_tokens: int = MAX_ANSWER_TOKENS,
    ) -> Reading | OpenReading:
        """Read the level with its probabilities, then the letter or an answer in words.

        `on_level` gets the level as soon as it is known, before the answer is read. `on_text` gets each piece of an answer
        in words, which has at most `max_answer_tokens`. Both run on the model's thread and must be quick.

        Raises `BadQuestion` before any work if the question does not fit; `ModelBusy` if too many callers wait or there is no answer
        within `timeout_s`.
        """
        return self.read_all([question], lambda _, level: on_level(level) if on_level else None, timeout_s, on_text, max_answer_tokens)[0]

    def read_all(
        self,
        questions: Sequence[Question],
        on_level: Callable[[int, LevelReading], None] | None = None,
        timeout_s: float | None = None,
        on_text: Callable[[str], None] | None = None,
        max_answer_tokens: int = MAX_ANSWER_TOKENS,
    ) -> list[Reading | OpenReading]:
        """Read several questions, like `read`, and evaluate what their prompts have in common at the beginning only once.

        They are read in one turn, so that no other caller's question takes the place of theirs in the KV cache. After
        `QUESTIONS_A_TURN` questions those who wait go first. `on_level` gets the index of the question, too. Questions with the same
        beginning are read one after another, whatever their order.
        """
        called = time.perf_counter()
        prompts = [self.prompt_tokens(question, max_answer_tokens) for question in questions]
        tries = [self._trie(question) for question in questions]
        ready = time.perf_counter()
        order = sorted(range(len(questions)), key=prompts.__getitem__)
        found: dict[int, Reading | OpenReading] = {}

        def work(turn: Sequence[int]) -> None:
            for i in turn:
                n_cached, started = self._n_cached(prompts[i]), time.perf_counter()
                clock = _Clock(called, started, (started - ready) * 1000, self._llama.n_forward, n_cached, len(prompts[i]))
                walk, level, known = self._read_level(prompts[i], tries[i])
                clock.prefilled = time.perf_counter()
                if on_level:
                    on_level(i, level)
                if questions[i].options:
                    found[i] = self._read_letter(questions[i], prompts[i], walk, level, known, clock)
                else:
                    found[i] = self._read_words(prompts[i], walk, level, clock, max_answer_tokens, on_text or (lambda piece: None))

        for start in range(0, len(order), QUESTIONS_A_TURN):
            turn = order[start : start + QUESTIONS_A_TURN]
            self._make_way(prompts[turn[0]])
            left_s = None if timeout_s is None else max(0.0, called + timeout_s - time.perf_counter())
            self._line.run(partial(work, turn), left_s, goes_on=start > 0)
        if questions and self._prefix_file and not self._prefix_file.is_there:
            with contextlib.suppress(ModelError):  # the queue is closed or full: a later reading saves it
                self._line.later(self._save_prefix)
        return [found[i] for i in range(len(questions))]

    def draft(self, user_message: str, complete: bool) -> Future[bool]:
        """Evaluate one more step of a question that is being typed, when no other job waits. True when nothing is left.

        If the message is not `complete`, its last token is left out, because the next letter may change it.
        """
        self._check_open()
        tokens = prompt.tokens(self._llama, self.profile.begun(user_message, complete))[:-1][: self.n_ctx - ANSWER_RESERVE]
        return self._line.later(lambda: self._draft(tokens))

    def generate(self, question: Question, choose: Choose = most_probable, max_answer_tokens: int = MAX_ANSWER_TOKENS) -> str:
        """What the model prints up to its end of turn, each token picked by `choose`; by default without any constraint.

        At most `max_answer_tokens`, the answer format included.
        """
        tokens = self.prompt_tokens(question, max_answer_tokens)
        return self._line.run(lambda: self._generate(tokens, choose, max_answer_tokens)[0])

    def time_evaluation(self, tokens: Sequence[int], n_cached: int) -> float:
        """Measure the evaluation of `tokens` after their first `n_cached` with the last logits, in ms. For `edge-agent bench`."""

        def work() -> float:
            self._llama.keep(n_cached)
            while self._llama.prefill(tokens[:n_cached], n_cached):
                pass
            started = time.perf_counter()
            self._llama.logits(tokens)
            return (time.perf_counter() - started) * 1000

        return self._line.run(work)

    def answer_tokens(self, reading: Reading) -> list[int]:
        """The tokens of the answer that a reading chose. For `edge-agent bench`."""
        return self._llama.tokenize(AnswerFormat(reading.levels, reading.letters).text(reading.level or "", reading.letter))

    def _read_level(self, tokens: list[int], trie: Node) -> tuple[Walk, LevelReading, dict[Path, Logits]]:
        """The first pass. Returns the walk, the level, and the logits that were read."""
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
        """The second pass, if one is needed."""
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

    def _read_words(
        self, tokens: list[int], walk: Walk, level: LevelReading, clock: _Clock, n_most: int, on_text: Callable[[str], None]
    ) -> OpenReading:
        """The answer in the model's own words, by greedy decoding, up to its end of turn."""
        path, node = walk.path, walk.node
        while node.children:  # the fixed words before the answer
            token, node = next(iter(node.children.items()))
            path = (*path, token)
        text, ended = self._generate([*tokens, *path], most_probable, n_most, on_text)
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
        """Stop the current step of a draft, unless this prompt can use it."""
        drafting = self._drafting
        if drafting and tokens[: len(drafting)] != drafting:
            self._line.stop_later()

    def _generate(
        self, tokens: list[int], choose: Choose, n_most: int, on_text: Callable[[str], None] = lambda piece: None
    ) -> tuple[str, bool]:
        """The generated text, and whether it reached the end of turn. `on_text` gets whole characters only."""
        decoder, text = codecs.getincrementaldecoder("utf-8")("replace"), ""
        for _ in range(n_most):
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
        """How many tokens of a prompt are cached. The last one never counts, because its logits must be read."""
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
        """Refuse to use a closed model, because llama.cpp would abort the process, and one that belongs to the parent process."""
        self._line.check_process()
        if not self._llama.is_open:
            raise ModelError("The model is closed; open it again.")


@dataclass(slots=True)
class _Clock:
    """The times of one reading, in seconds of `perf_counter`."""

    called: float
    started: float
    waited_ms: float
    n_forward: int
    n_cached: int
    n_prompt: int
    prefilled: float = 0.0

    def timings(self, n_forward: int) -> Timings:
        """The timings of a reading that ends now."""
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
