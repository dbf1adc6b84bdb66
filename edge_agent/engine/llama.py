"""llama.cpp for the engine: text to tokens, tokens to logits. The only module of the runtime that imports `llama_cpp`.

Owns one model, one context and its KV cache. Does not know questions. Not thread-safe, except for `tokenize`, `piece` and
`stop`. Invariant: sequence 0 of the KV cache starts with exactly the tokens in `cached`; whatever an interrupted evaluation
left after them is removed before the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import platform
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import llama_cpp
import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import ModelError, ModelRefused
from edge_agent.engine import options as answer_options
from edge_agent.engine.passes import MAX_READS, MAX_SEQUENCES, BatchLimits, TokenTree
from edge_agent.engine.spare_cpus import SpareCpus, available_cpus
from edge_agent.model.answers import Path

Logits = npt.NDArray[np.float32]  # (vocabulary,)
T = TypeVar("T")

_log_lines: deque[str] = deque(maxlen=20)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]  # a ctypes factory
def _keep_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Keep the last lines of llama.cpp's log for error messages, instead of printing them."""
    _log_lines.append(text.decode("utf-8", errors="replace").strip())


llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))

# A portable build has several CPU backends, one for each kind of processor, and llama.cpp loads the best of them when it is asked
# to. A build for one processor has none of these files. The bindings open `libggml.so` a second time, which may be another file
# with a list of backends of its own; through libllama we reach the one that libllama uses.
_LIBRARIES = pathlib.Path(llama_cpp.__file__).with_name("lib")
_VARIANTS = sorted(_LIBRARIES.glob("libggml-cpu-*.so"))
if _VARIANTS:
    llama_cpp.llama_cpp._lib.ggml_backend_load_all_from_path(os.fsencode(_LIBRARIES))
llama_cpp.llama_backend_init()

# llama.cpp calls the abort callback between operations, about a thousand times in each pass. A Python function would wait for
# the interpreter lock every time; C's `atoi` of the text "0" or "1" returns at once.
_AS_FLAG = ctypes.cast(ctypes.CDLL(None).atoi, llama_cpp.ggml_abort_callback)
_GO, _STOP = b"0", b"1"


class Stopped(Exception):
    """`stop` ended the evaluation. The model can still be used."""


@dataclass(frozen=True, slots=True)
class Options:
    """How llama.cpp runs: the context size and the largest batch in tokens, and the threads (None: one for each CPU).

    A batch needs 55 kB for each token with Qwen3-0.6B, and most questions fit in 256 tokens. `n_threads` is for batches of one
    token, `n_threads_batch` for larger ones. `repack` makes a copy of most weights in the layout that suits this CPU, which
    takes time and memory when the model is opened; None does this only where it makes decisions faster (`repacking_pays`).
    """

    n_ctx: int = 2048
    n_batch: int = 256
    n_threads: int | None = None
    n_threads_batch: int | None = None
    flash_attention: bool = True
    mmap: bool = True
    mlock: bool = False
    repack: bool | None = None

    def for_quantization(self, quantization: str) -> Options:
        """The same options with `repack` decided for a model of this quantization on this machine."""
        return self if self.repack is not None else replace(self, repack=repacking_pays(quantization, platform.machine()))


def repacking_pays(quantization: str, architecture: str) -> bool:
    """Whether repacked weights are faster on a CPU with this `platform.machine()`.

    On x86-64 they are not for K-quants, as measured in `docs/speed.md`. Elsewhere they are assumed to be faster;
    `edge-agent bench --tune` measures it.
    """
    return architecture.lower() not in ("x86_64", "amd64") or quantization in ("Q4_0", "IQ4_NL")


class Llama:
    """An open model, with a GGUF adapter on top if one is given. Raises `ModelRefused` if llama.cpp cannot open it.

    `on_tensor` is llama.cpp's `cb_eval`: it is called around every operation and makes evaluation slow. `spare_cpus` says how many
    of the threads may run now. With `reads_options` a batch may read the whole vocabulary at many more places.
    """

    def __init__(
        self,
        path: pathlib.Path,
        options: Options,
        adapter: pathlib.Path | None = None,
        on_tensor: Any = None,
        spare_cpus: SpareCpus | None = None,
        reads_options: bool = False,
    ) -> None:
        self.options = options
        self.cached: list[int] = []
        self.n_forward = 0
        self._added: dict[int, bool] = {}
        self._special: dict[str, list[int]] = {}
        self._in_use = threading.Lock()  # held while other threads read the vocabulary, so that `close` does not free it under them
        self._spare_cpus = spare_cpus or SpareCpus()
        params = llama_cpp.llama_model_default_params()
        params.use_mmap, params.use_mlock, params.use_extra_bufts = options.mmap, options.mlock, bool(options.repack)
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ModelRefused(f"llama.cpp cannot load '{path}' ({_last_error()}); fetch or convert it again.")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        n_batch = options.n_batch
        self.limits = answer_options.limits(n_batch, self.n_vocab) if reads_options else BatchLimits(n_batch, MAX_READS, MAX_SEQUENCES)
        params = _context_params(options, self.limits)
        self._n_threads = self._most_threads = (params.n_threads, params.n_threads_batch)
        if on_tensor is not None:
            params.cb_eval = self._on_tensor = on_tensor  # a reference, so that it is not garbage-collected while llama.cpp uses it
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise ModelRefused(f"llama.cpp cannot create a context of {options.n_ctx} tokens ({_last_error()}); lower n_ctx.")
        if adapter:
            self._load_adapter(adapter)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(n_batch, 0, self.limits.n_sequences)
        self._flag = ctypes.create_string_buffer(_GO)
        llama_cpp.llama_set_abort_callback(self._context, _AS_FLAG, ctypes.cast(self._flag, ctypes.c_void_p))

    def _load_adapter(self, adapter: pathlib.Path) -> None:
        """Use the adapter in every evaluation. It is freed with the model."""
        opened = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(adapter))
        scale = (ctypes.c_float * 1)(1.0)
        if not opened or llama_cpp.llama_set_adapters_lora(self._context, (llama_cpp.llama_adapter_lora_p_ctypes * 1)(opened), 1, scale):
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_model_free(self._model)
            raise ModelRefused(f"llama.cpp cannot use the adapter '{adapter}' with this model ({_last_error()}); give the one made for it.")

    @property
    def n_parameters(self) -> int:
        """The number of weights."""
        return int(llama_cpp.llama_model_n_params(self._model))

    @property
    def n_embedding(self) -> int:
        """The number of weights in the token embeddings. They cost work only for tokens whose logits are read."""
        return int(llama_cpp.llama_model_n_embd(self._model)) * self.n_vocab

    @property
    def is_open(self) -> bool:
        """Whether the model is still open."""
        return bool(self._context)

    def close(self) -> None:
        """Free the model. Closing twice is fine."""
        with self._in_use:
            if self._context:
                llama_cpp.llama_batch_free(self._batch)
                llama_cpp.llama_free(self._context)
                llama_cpp.llama_model_free(self._model)
                self._context = self._model = self._vocab = None

    def stop(self) -> None:
        """Make the current evaluation raise `Stopped`, and every later one until `go`. May be called from another thread."""
        self._flag[0] = _STOP

    def go(self) -> None:
        """Undo `stop`."""
        self._flag[0] = _GO

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """The tokens of `text`, without a BOS token. Control tokens are recognised only with `parse_special`.

        Raises `ModelError` if the model is closed.
        """
        if parse_special and (known := self._special.get(text)):
            return list(known)
        data = text.encode()
        buffer = (llama_cpp.llama_token * (len(data) + 8))()
        with self._vocabulary() as vocab:
            n = llama_cpp.llama_tokenize(vocab, data, len(data), buffer, len(buffer), False, parse_special)
        if n < 0:
            raise ModelRefused(f"The tokenizer of the model failed on {text!r:.80}; convert the model again.")
        if parse_special:  # a text of the template, the same for each question
            self._special[text] = buffer[:n]
        return list(buffer[:n])

    def piece(self, token: int) -> bytes:
        """The text of one token."""
        buffer = ctypes.create_string_buffer(256)
        with self._vocabulary() as vocab:
            n = llama_cpp.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(n, 0)]

    def is_added(self, token: int) -> bool:
        """Whether this token was added to the learned ones: a control token or a user-defined token."""
        if (known := self._added.get(token)) is None:  # asked for each token of a prompt, and the answer never changes
            with self._vocabulary() as vocab:
                attributes = llama_cpp.llama_vocab_get_attr(vocab, token)
            known = bool(attributes & (llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED | llama_cpp.LLAMA_TOKEN_ATTR_CONTROL))
            self._added[token] = known
        return known

    def bos(self) -> list[int]:
        """The token that the vocabulary puts before every text; none if it puts none."""
        with self._vocabulary() as vocab:
            return [llama_cpp.llama_vocab_bos(vocab)] if llama_cpp.llama_vocab_get_add_bos(vocab) else []

    def ends_turn(self, token: int) -> bool:
        """Whether this token ends the generation."""
        with self._vocabulary() as vocab:
            return bool(llama_cpp.llama_vocab_is_eog(vocab, token))

    @contextlib.contextmanager
    def _vocabulary(self) -> Iterator[Any]:
        """The vocabulary, which is not freed meanwhile. Raises `ModelError` if the model is closed."""
        with self._in_use:
            if self._vocab is None:
                raise ModelError("The model is closed; open it again.")
            yield self._vocab

    def logits(self, tokens: Sequence[int]) -> Logits:
        """The logits (vocabulary,) after `tokens`."""
        return self.evaluate(tokens, TokenTree((), (), (), 1, {(): -1}))[()]

    def evaluate(self, before: Sequence[int], tree: TokenTree) -> dict[Path, Logits]:
        """The logits (vocabulary,) at the paths that `tree` reads, after the tokens `before`."""
        return self.read(before, tree, lambda path, logits: logits.copy())

    def read(self, before: Sequence[int], tree: TokenTree, take: Callable[[Path, Logits], T]) -> dict[Path, T]:
        """What `take` makes of the logits (vocabulary,) at each path that `tree` reads, which are overwritten by the next evaluation.

        Tokens that `cached` and `before` have in common are not evaluated again. The rest of `before` and the tree go into
        one batch if they fit. Afterwards sequence 0 of the tree is cached. Raises `Stopped` or `ModelRefused`.
        """
        at_end = -1 in tree.reads.values()
        if len(tree.tokens) + at_end > self.options.n_batch:
            raise ModelRefused(f"A batch of {self.options.n_batch} tokens cannot hold the answers of this model; raise n_batch.")
        keep = min(_common_length(self.cached, before), len(before) - at_end)
        self.keep(keep)
        n_alone = len(before) - keep + len(tree.tokens) - self.options.n_batch
        while n_alone > 0:  # the last batch holds the whole tree
            n_alone -= self.prefill(before, min(n_alone, self.options.n_batch))
        start, rest = len(self.cached), before[len(self.cached) :]
        for sequence in range(1, tree.n_sequences):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, sequence, 0, start)
        reads = {path: len(rest) + at for path, at in tree.reads.items()}  # index in the batch
        wanted, all_sequences = set(reads.values()), tuple(range(tree.n_sequences))
        for i, token in enumerate(rest):
            self._put(i, token, start + i, all_sequences, i in wanted)
        for i, (token, depth, sequences) in enumerate(zip(tree.tokens, tree.depths, tree.sequences, strict=True), len(rest)):
            self._put(i, token, len(before) + depth, sequences, i in wanted)
        try:
            self._decode(len(rest) + len(tree.tokens))
        finally:
            for sequence in range(1, tree.n_sequences):
                llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self.cached += [*rest, *(token for token, sequences in zip(tree.tokens, tree.sequences, strict=True) if 0 in sequences)]
        return {path: take(path, self._view(at)) for path, at in reads.items()}

    def prefill(self, tokens: Sequence[int], n: int) -> int:
        """Evaluate the next `n` of `tokens` that are not cached, at most one batch, and read no logits.

        Returns how many tokens were evaluated. Raises `Stopped` or `ModelRefused`.
        """
        start = _common_length(self.cached, tokens)
        chunk = tokens[start : start + min(n, self.options.n_batch)]
        if chunk:
            self.keep(start)
            for i, token in enumerate(chunk):
                self._put(i, token, start + i, (0,), False)
            self._decode(len(chunk))
            self.cached += chunk
        return len(chunk)

    def state(self, n_tokens: int) -> memoryview:
        """The KV cache of the first `n_tokens` cached tokens, for `restore` in another process."""
        spare = 1
        llama_cpp.llama_memory_seq_cp(self._memory, 0, spare, 0, n_tokens)
        try:
            data = bytearray(llama_cpp.llama_state_seq_get_size(self._context, spare))
            view = (ctypes.c_uint8 * len(data)).from_buffer(data)
            return memoryview(data)[: llama_cpp.llama_state_seq_get_data(self._context, view, len(data), spare)]
        finally:
            llama_cpp.llama_memory_seq_rm(self._memory, spare, -1, -1)

    def restore(self, tokens: Sequence[int], state: memoryview) -> bool:
        """Load the KV cache of `tokens` that `state` returned. False, with nothing cached, if llama.cpp refuses it."""
        self.keep(0)
        data = np.frombuffer(state, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        taken = llama_cpp.llama_state_seq_set_data(self._context, data, len(state), 0)
        if taken != len(state) or llama_cpp.llama_memory_seq_pos_max(self._memory, 0) != len(tokens) - 1:
            llama_cpp.llama_memory_clear(self._memory, True)
            return False
        self.cached = list(tokens)
        return True

    def keep(self, n: int) -> None:
        """Drop all but the first `n` cached tokens, and whatever an interrupted evaluation left."""
        llama_cpp.llama_memory_seq_rm(self._memory, 0, n, -1)
        del self.cached[n:]

    def _put(self, i: int, token: int, position: int, sequences: Sequence[int], wanted: bool) -> None:
        batch = self._batch
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
        batch.n_seq_id[i] = len(sequences)
        for k, sequence in enumerate(sequences):
            batch.seq_id[i][k] = sequence

    def _decode(self, n_tokens: int) -> None:
        self._batch.n_tokens = n_tokens
        self._use_spare_cpus()
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status == 2:
            raise Stopped
        if status != 0:
            self.cached.clear()
            llama_cpp.llama_memory_clear(self._memory, True)
            raise ModelRefused(
                f"llama.cpp cannot evaluate the prompt (status {status}: {_last_error()}); check the free memory and the model file."
            )
        self.n_forward += 1

    def _use_spare_cpus(self) -> None:
        """Run as many threads as there are free CPUs now, and not more than the options say."""
        n_spare = self._spare_cpus.count()
        n_threads = (min(n_spare, self._most_threads[0]), min(n_spare, self._most_threads[1]))
        if n_threads != self._n_threads:
            llama_cpp.llama_set_n_threads(self._context, *n_threads)
            self._n_threads = n_threads

    def _view(self, i: int) -> Logits:
        """llama.cpp's own memory."""
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, i), shape=(self.n_vocab,))


def _context_params(options: Options, limits: BatchLimits) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = options.n_ctx, options.n_batch, options.n_batch
    params.n_seq_max, params.kv_unified = limits.n_sequences, True  # all sequences of a tree share the cells of the prompt
    params.n_threads = options.n_threads or available_cpus()
    params.n_threads_batch = options.n_threads_batch or options.n_threads or available_cpus()
    params.flash_attn_type = (
        llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if options.flash_attention else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.n_outputs_max = limits.n_reads  # a buffer for the logits of a whole batch would take 300 MB
    return params


def cpu_features() -> list[str]:
    """The CPU extensions that this build of llama.cpp uses, such as AVX2 or DOTPROD."""
    parts = llama_cpp.llama_print_system_info().decode().replace(":", "|").split("|")
    return [part.split("=")[0].strip() for part in parts if part.strip().endswith("= 1")]


def variant() -> str | None:
    """Which CPU backend of a portable build was loaded, such as `armv8.2_2`; None in a build for one processor."""
    return next((path.stem.removeprefix("libggml-cpu-") for path in _VARIANTS if _is_loaded(path)), None)


def _is_loaded(library: pathlib.Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(ctypes.CDLL(str(library), mode=os.RTLD_NOLOAD))
    return False


def build() -> str:
    """What a stored state depends on besides the model: the version of llama.cpp and the CPU extensions."""
    return f"{llama_cpp.__version__} {' '.join(cpu_features())}"


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _last_error() -> str:
    return next((line for line in reversed(_log_lines) if "error" in line.lower() or "fail" in line.lower()), "no reason given")
