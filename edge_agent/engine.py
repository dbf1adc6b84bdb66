"""Runs a GGUF with llama.cpp and reads one answer from it; the only importer of `llama_cpp` in the runtime.

Owns tokens, logits and the KV cache. Knows nothing of policies, clouds or databases. Invariant: the KV cache holds
exactly the tokens in `_cached`, so that a prompt which begins like the last one (the system message does) is not
evaluated again; and no text of a person ever becomes a special token.

A decision is read off the trie of legal answers (`answer.py`): the first batch carries the prompt and the answer's
fixed beginning up to the last place where a level is chosen, a second one the chosen level and the words before the
letter. Nothing is sampled; a stretch without a branch costs no pass of its own.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import llama_cpp
import numpy as np

from edge_agent import gguf_check
from edge_agent.answer import AnswerFormat, Node, first_batch, parse
from edge_agent.errors import BadQuestion, ModelError, ModelRefused
from edge_agent.profile import Kind, Profile, Segment, from_metadata
from edge_agent.question import Question
from edge_agent.records import Reading, Timings
from edge_agent.walk import Logits, Path, Walk

DEFAULT_N_CTX = 2048
N_BATCH = 512
MAX_ANSWER_TOKENS = 64

_log_lines: deque[str] = deque(maxlen=20)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]  # a ctypes factory
def _keep_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Keep llama.cpp's last words for an error message instead of printing them."""
    _log_lines.append(text.decode("utf-8", errors="replace").strip())


llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


class LocalModel:
    """A model on this device: `read` gives a `Reading` of a `Question`. Use as a context manager, or `close`.

    Calls from several threads wait for each other. Raises `ModelMissing` or `ModelRefused` on opening.
    """

    def __init__(
        self, path: pathlib.Path, profile: Profile | None = None, n_ctx: int = DEFAULT_N_CTX, n_threads: int | None = None
    ) -> None:
        header = gguf_check.read_header(path)
        self.profile = profile or from_metadata(header.metadata)
        self.n_ctx = n_ctx
        self._lock = threading.Lock()
        self._cached: list[int] = []
        self._n_forward = 0
        self._tries: dict[str, Node] = {}
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), llama_cpp.llama_model_default_params())
        if not self._model:
            raise ModelRefused(f"llama.cpp cannot load '{path}' ({_last_error()}); fetch or convert it again.")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._context = llama_cpp.llama_init_from_model(self._model, _context_params(n_ctx, n_threads))
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise ModelRefused(f"llama.cpp cannot make a context of {n_ctx} tokens ({_last_error()}); lower n_ctx.")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(N_BATCH, 0, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory; closing twice is fine."""
        with self._lock:
            if self._context:
                llama_cpp.llama_batch_free(self._batch)
                llama_cpp.llama_free(self._context)
                llama_cpp.llama_model_free(self._model)
                self._context = self._model = None

    def prompt_tokens(self, question: Question) -> list[int]:
        """The tokens of the whole prompt; raises `BadQuestion` if they and an answer do not fit the context."""
        tokens: list[int] = []
        for segment in self.profile.segments(question.user_message):
            tokens += self._segment_tokens(segment)
        room = self.n_ctx - MAX_ANSWER_TOKENS
        if len(tokens) > room:
            raise BadQuestion(f"The question makes a prompt of {len(tokens)} tokens and {room} fit; shorten the question.")
        return tokens

    def read(self, question: Question) -> Reading:
        """Level and letter with their probabilities, by walking the trie of legal answers."""
        with self._opened():
            prompt = self.prompt_tokens(question)
            trie = self._trie(question)
            started, n_forward = time.perf_counter(), self._n_forward
            n_cached = min(_common_length(self._cached, prompt), len(prompt) - 1)  # the last token's logits are read again
            path, stops = first_batch(trie)
            known = dict(zip(stops, self._logits_at(prompt, path, stops), strict=True))
            prefilled = time.perf_counter()
            walk = Walk(trie, lambda at: known[at] if at in known else self._logits_at(prompt, at, [at])[0])
            level, letter = walk.level(), walk.letter()
            done = time.perf_counter()
            return Reading(
                levels=self.profile.levels,
                level_probs=tuple(level.probs[name] for name in self.profile.levels),
                level=level.greedy,
                letters=question.letters,
                answer_probs=tuple(letter.probs[name] for name in question.letters),
                letter=letter.greedy,
                format_mass=walk.format_mass,
                timings=Timings(
                    prefill_ms=_ms(started, prefilled),
                    decode_ms=_ms(prefilled, done),
                    total_ms=_ms(started, done),
                    n_prompt_tokens=len(prompt),
                    n_cached_tokens=n_cached,
                    n_forward=self._n_forward - n_forward,
                ),
            )

    def read_by_grammar(self, question: Question) -> tuple[str, str]:
        """Level and letter by llama.cpp's own GBNF sampler, greedy, a token at a time: the reference for `read`."""
        grammar = AnswerFormat(self.profile.levels, question.letters).gbnf().encode()
        with self._opened():
            tokens, answer = self.prompt_tokens(question), b""
            sampler = llama_cpp.llama_sampler_init_grammar(self._vocab, grammar, b"root")
            try:
                for _ in range(MAX_ANSWER_TOKENS):
                    logits = self._logits_at(tokens, (), [()])[0]
                    token = _constrained_argmax(sampler, logits)
                    if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                        break
                    llama_cpp.llama_sampler_accept(sampler, token)
                    tokens.append(token)
                    answer += self._piece(token)
            finally:
                llama_cpp.llama_sampler_free(sampler)
        text = answer.decode()
        letter = parse(text)[1]
        assert letter is not None, f"the grammar let {text!r} through"
        return text.split("\n")[0].removeprefix("Confidence: "), letter

    def greedy(self, question: Question, max_tokens: int = MAX_ANSWER_TOKENS) -> str:
        """What the model prints by itself, without any constraint, up to its end of turn."""
        with self._opened():
            tokens, text = self.prompt_tokens(question), b""
            for _ in range(max_tokens):
                token = int(np.argmax(self._logits_at(tokens, (), [()])[0]))
                if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                    break
                tokens.append(token)
                text += self._piece(token)
            return text.decode("utf-8", errors="replace")

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """The model for this thread alone; a closed one is refused, since llama.cpp would abort the process."""
        with self._lock:
            if not self._context:
                raise ModelError("The model was closed; open it again.")
            yield

    def _trie(self, question: Question) -> Node:
        letters = question.letters
        if letters not in self._tries:
            answers = AnswerFormat(self.profile.levels, letters)
            self._tries[letters] = answers.trie(lambda text: self._tokenize(text, parse_special=False))
        return self._tries[letters]

    def _segment_tokens(self, segment: Segment) -> list[int]:
        if segment.kind is Kind.SPECIAL:
            tokens = self._tokenize(segment.text, parse_special=True)
            if len(tokens) != 1:
                raise ModelRefused(f"The model's vocabulary has no token '{segment.text}'; it cannot be asked this way.")
            return tokens
        if segment.kind is Kind.MODEL:
            return self._tokenize(segment.text, parse_special=False)
        return self._plain_tokens(segment.text)

    def _plain_tokens(self, text: str) -> list[int]:
        """Tokens of a stranger's text, none of them an added one.

        llama.cpp leaves control tokens alone with `parse_special=False`, but still makes one token of user-defined
        ones such as `</think>`. Where that happens the text is cut behind the token's first character. Tokens of
        white space alone (Gemma has some) are ordinary text and stay.
        """
        tokens, parts = [], deque([text])
        while parts:
            part = parts.popleft()
            part_tokens = self._tokenize(part, parse_special=False)
            added = next((piece for token in part_tokens if (piece := self._added_piece(token))), None)
            if added is None:
                tokens += part_tokens
                continue
            pieces = part.split(added)
            if len(pieces) == 1:  # the token is not spelled as its text: it could not be cut apart
                raise ModelRefused(f"The model's tokenizer makes {added!r:.40} of other text; it cannot be asked safely.")
            for i, piece in reversed(list(enumerate(pieces))):
                head = added[1:] if i else ""
                tail = added[0] if i < len(pieces) - 1 else ""
                parts.appendleft(head + piece + tail)
        return tokens

    def _added_piece(self, token: int) -> str | None:
        attributes = llama_cpp.llama_vocab_get_attr(self._vocab, token)
        added = llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED | llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
        piece = self._piece(token).decode("utf-8", errors="replace") if attributes & added else ""
        return piece if len(piece) > 1 and not piece.isspace() else None

    def _tokenize(self, text: str, parse_special: bool) -> list[int]:
        data = text.encode()
        buffer = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, parse_special)
        if n < 0:
            raise ModelRefused(f"The model's tokenizer failed on {text!r:.80}; convert the model again.")
        return list(buffer[:n])

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        n = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(n, 0)]

    def _logits_at(self, prompt: Sequence[int], path: Path, wanted: Sequence[Path]) -> list[Logits]:
        """Logits after `prompt` + each of `wanted` (prefixes of `path`, rising), evaluating what is not cached."""
        tokens = [*prompt, *path]
        rows = [len(prompt) + len(prefix) - 1 for prefix in wanted]
        keep = min(_common_length(self._cached, tokens), rows[0])
        llama_cpp.llama_memory_seq_rm(self._memory, 0, keep, -1)
        del self._cached[keep:]
        found: dict[int, Logits] = {}
        for start in range(keep, len(tokens), N_BATCH):
            found |= self._decode(start, tokens[start : start + N_BATCH], rows)
        return [found[row] for row in rows]

    def _decode(self, start: int, tokens: list[int], rows: list[int]) -> dict[int, Logits]:
        """Evaluate `tokens` at positions from `start` on; logits of those positions that are in `rows`."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        outputs = {}
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, start + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = start + i in rows
            if batch.logits[i]:
                outputs[start + i] = i
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            self._cached.clear()
            llama_cpp.llama_memory_clear(self._memory, True)
            raise ModelRefused(f"llama.cpp failed to evaluate the prompt (status {status}: {_last_error()}).")
        self._cached += tokens
        self._n_forward += 1
        return {row: self._logits(i) for row, i in outputs.items()}

    def _logits(self, i: int) -> Logits:
        pointer = llama_cpp.llama_get_logits_ith(self._context, i)
        return np.ctypeslib.as_array(pointer, shape=(self._n_vocab,)).copy()


_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)


def _constrained_argmax(sampler: Any, logits: Logits) -> int:
    """The most probable token that the sampler (a grammar) lets through."""
    candidates = np.zeros(len(logits), _TOKEN_DATA)
    candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
    array = llama_cpp.llama_token_data_array(
        data=candidates.ctypes.data_as(llama_cpp.llama_token_data_p), size=len(candidates), selected=-1, sorted=False
    )
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    return int(candidates["id"][int(np.argmax(candidates["logit"]))])


def _context_params(n_ctx: int, n_threads: int | None) -> Any:
    params = llama_cpp.llama_context_default_params()
    threads = n_threads or _available_cpus()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = n_ctx, N_BATCH, N_BATCH, 1
    params.n_threads = params.n_threads_batch = threads
    params.n_outputs_max = 32  # a reading looks at a few positions: room for the logits of all would be 300 MB
    return params


def _available_cpus() -> int:
    """CPUs that this process may use (a container or `taskset` may leave it fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_features() -> list[str]:
    """The CPU extensions that this build of llama.cpp uses, such as AVX2 or DOTPROD."""
    parts = llama_cpp.llama_print_system_info().decode().replace(":", "|").split("|")
    return [part.split("=")[0].strip() for part in parts if part.strip().endswith("= 1")]


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)


def _last_error() -> str:
    return next((line for line in reversed(_log_lines) if "error" in line.lower() or "fail" in line.lower()), "no reason given")
