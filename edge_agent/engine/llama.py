"""llama.cpp as the engine needs it: text to tokens, tokens to logits; the only importer of `llama_cpp` in the runtime.

Owns one model, one context and its KV cache. Knows nothing of questions. Not safe for several threads at once, except
for `tokenize`, `piece` and `stop`. Invariant: sequence 0 of the KV cache begins with exactly the tokens in `cached`;
whatever an interruption left behind them is removed before the next evaluation.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from edge_agent.core.errors import ModelRefused
from edge_agent.engine.passes import MAX_LINES, MAX_READS, TokenTree
from edge_agent.model.answers import Path

Logits = npt.NDArray[np.float32]  # (vocabulary,)

_log_lines: deque[str] = deque(maxlen=20)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]  # a ctypes factory
def _keep_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Keep llama.cpp's last words for an error message instead of printing them."""
    _log_lines.append(text.decode("utf-8", errors="replace").strip())


llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()

# llama.cpp asks between two operations whether to go on, a thousand times a pass. A Python function would have to wait
# for the interpreter's lock each time; C's own `atoi` of the text "0" or "1" answers at once.
_AS_FLAG = ctypes.cast(ctypes.CDLL(None).atoi, llama_cpp.ggml_abort_callback)
_GO, _STOP = b"0", b"1"


class Stopped(Exception):
    """An evaluation was ended by `stop`; nothing is broken."""


@dataclass(frozen=True, slots=True)
class Options:
    """How llama.cpp runs: the context and the longest batch in tokens, threads (None: as many as there are cores).

    A batch needs 55 kB a token at Qwen3-0.6B's shape, and most questions fit 256. `n_threads` is for batches of one token,
    `n_threads_batch` for longer ones. `repack` arranges the weights for this processor when the model is opened, a copy of most of
    them, which takes time and memory once; None does so where each decision is known to become faster (`repacking_pays`).
    """

    n_ctx: int = 2048
    n_batch: int = 256
    n_threads: int | None = None
    n_threads_batch: int | None = None
    flash_attention: bool = True
    mmap: bool = True
    mlock: bool = False
    repack: bool | None = None


def repacking_pays(quantization: str, architecture: str) -> bool:
    """Whether rearranged weights are faster on a processor of `platform.machine()`'s name: of x86-64, K-quants are not, as was
    measured (`benchmarks/README.md`); elsewhere they are taken for so. `edge-agent bench --tune` finds out.
    """
    return architecture.lower() not in ("x86_64", "amd64") or quantization in ("Q4_0", "IQ4_NL")


class Llama:
    """An open model, with a LoRA as a GGUF adapter on it if one is given; raises `ModelRefused` if llama.cpp cannot open it.

    `on_tensor` is llama.cpp's `cb_eval`: called around every operation, which makes each of them slow.
    """

    def __init__(self, path: pathlib.Path, options: Options, adapter: pathlib.Path | None = None, on_tensor: Any = None) -> None:
        self.options = options
        self.cached: list[int] = []
        self.n_forward = 0
        params = llama_cpp.llama_model_default_params()
        params.use_mmap, params.use_mlock, params.use_extra_bufts = options.mmap, options.mlock, bool(options.repack)
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ModelRefused(f"llama.cpp cannot load '{path}' ({_last_error()}); fetch or convert it again.")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        params = _context_params(options)
        if on_tensor is not None:
            params.cb_eval = self._on_tensor = on_tensor  # kept, or the collector of garbage would take it from llama.cpp
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise ModelRefused(f"llama.cpp cannot make a context of {options.n_ctx} tokens ({_last_error()}); lower n_ctx.")
        if adapter:
            self._put_on(adapter)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(options.n_batch, 0, MAX_LINES)
        self._flag = ctypes.create_string_buffer(_GO)
        llama_cpp.llama_set_abort_callback(self._context, _AS_FLAG, ctypes.cast(self._flag, ctypes.c_void_p))

    def _put_on(self, adapter: pathlib.Path) -> None:
        """Let every evaluation go through the adapter; freed with the model."""
        opened = llama_cpp.llama_adapter_lora_init(self._model, os.fsencode(adapter))
        scale = (ctypes.c_float * 1)(1.0)
        if not opened or llama_cpp.llama_set_adapters_lora(self._context, (llama_cpp.llama_adapter_lora_p_ctypes * 1)(opened), 1, scale):
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_model_free(self._model)
            raise ModelRefused(f"llama.cpp cannot put the adapter '{adapter}' on this model ({_last_error()}); give the one made for it.")

    @property
    def n_parameters(self) -> int:
        """How many weights the model has."""
        return int(llama_cpp.llama_model_n_params(self._model))

    @property
    def n_embedding(self) -> int:
        """How many of them are the table of token embeddings: work only for tokens whose logits are read."""
        return int(llama_cpp.llama_model_n_embd(self._model)) * self.n_vocab

    @property
    def is_open(self) -> bool:
        """False once closed."""
        return bool(self._context)

    def close(self) -> None:
        """Free everything; closing twice is fine."""
        if self._context:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_model_free(self._model)
            self._context = self._model = None

    def stop(self) -> None:
        """End the evaluation under way, from another thread: it raises `Stopped`. Every later one too, until `go`."""
        self._flag[0] = _STOP

    def go(self) -> None:
        """Take `stop` back."""
        self._flag[0] = _GO

    def tokenize(self, text: str, parse_special: bool = False) -> list[int]:
        """Tokens of `text`, none added in front; control tokens are recognised only with `parse_special`."""
        data = text.encode()
        buffer = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, parse_special)
        if n < 0:
            raise ModelRefused(f"The model's tokenizer failed on {text!r:.80}; convert the model again.")
        return list(buffer[:n])

    def piece(self, token: int) -> bytes:
        """The text of one token."""
        buffer = ctypes.create_string_buffer(256)
        n = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[: max(n, 0)]

    def is_added(self, token: int) -> bool:
        """Whether the tokenizer has this token beside those that it learned: a control or a user-defined one."""
        attributes = llama_cpp.llama_vocab_get_attr(self._vocab, token)
        return bool(attributes & (llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED | llama_cpp.LLAMA_TOKEN_ATTR_CONTROL))

    def ends_turn(self, token: int) -> bool:
        """Whether generation ends with this token."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Logits (vocabulary,) after `tokens`."""
        return self.evaluate(tokens, TokenTree((), (), (), 1, {(): -1}))[()]

    def evaluate(self, before: Sequence[int], tree: TokenTree) -> dict[Path, Logits]:
        """Logits (vocabulary,) at the places that `tree` reads, behind the tokens `before`.

        What `cached` and `before` share is not evaluated again; the rest of `before` and the whole tree make one
        batch if they fit. Afterwards line 0 of the tree is cached. Raises `Stopped` or `ModelRefused`.
        """
        at_end = -1 in tree.reads.values()
        if len(tree.tokens) + at_end > self.options.n_batch:
            raise ModelRefused(f"A batch of {self.options.n_batch} tokens does not hold this model's answers; raise n_batch.")
        keep = min(_common_length(self.cached, before), len(before) - at_end)
        self.keep(keep)
        n_alone = len(before) - keep + len(tree.tokens) - self.options.n_batch
        while n_alone > 0:  # the tree and what stands before it go into one batch, the last
            n_alone -= self.prefill(before, min(n_alone, self.options.n_batch))
        start, rest = len(self.cached), before[len(self.cached) :]
        for line in range(1, tree.n_lines):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, line, 0, start)
        reads = {place: len(rest) + at for place, at in tree.reads.items()}  # index in the batch
        wanted, every_line = set(reads.values()), tuple(range(tree.n_lines))
        for i, token in enumerate(rest):
            self._put(i, token, start + i, every_line, i in wanted)
        for i, (token, depth, lines) in enumerate(zip(tree.tokens, tree.depths, tree.lines, strict=True), len(rest)):
            self._put(i, token, len(before) + depth, lines, i in wanted)
        try:
            self._decode(len(rest) + len(tree.tokens))
        finally:
            for line in range(1, tree.n_lines):
                llama_cpp.llama_memory_seq_rm(self._memory, line, -1, -1)
        self.cached += [*rest, *(token for token, lines in zip(tree.tokens, tree.lines, strict=True) if 0 in lines)]
        return {place: self._logits(at) for place, at in reads.items()}

    def prefill(self, tokens: Sequence[int], n: int) -> int:
        """Evaluate the next `n` of `tokens` that are not cached, at most one batch, and read nothing; gives how many it did.

        Raises `Stopped` or `ModelRefused`.
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
        """The KV cache of the first `n_tokens` tokens in `cached`, for `restore` in another process."""
        spare = 1
        llama_cpp.llama_memory_seq_cp(self._memory, 0, spare, 0, n_tokens)
        try:
            data = bytearray(llama_cpp.llama_state_seq_get_size(self._context, spare))
            view = (ctypes.c_uint8 * len(data)).from_buffer(data)
            return memoryview(data)[: llama_cpp.llama_state_seq_get_data(self._context, view, len(data), spare)]
        finally:
            llama_cpp.llama_memory_seq_rm(self._memory, spare, -1, -1)

    def restore(self, tokens: Sequence[int], state: memoryview) -> bool:
        """Begin with `tokens` evaluated, from what `state` gave for them; False (and nothing cached) if llama.cpp refuses it."""
        self.keep(0)
        data = np.frombuffer(state, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        taken = llama_cpp.llama_state_seq_set_data(self._context, data, len(state), 0)
        if taken != len(state) or llama_cpp.llama_memory_seq_pos_max(self._memory, 0) != len(tokens) - 1:
            llama_cpp.llama_memory_clear(self._memory, True)
            return False
        self.cached = list(tokens)
        return True

    def grammar_argmax(self, sampler: Any, logits: Logits) -> int:
        """The most probable token that the sampler (from `grammar`) lets through; it is accepted."""
        candidates = np.zeros(len(logits), _TOKEN_DATA)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        array = llama_cpp.llama_token_data_array(
            data=candidates.ctypes.data_as(llama_cpp.llama_token_data_p), size=len(candidates), selected=-1, sorted=False
        )
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        token = int(candidates["id"][int(np.argmax(candidates["logit"]))])
        if not self.ends_turn(token):
            llama_cpp.llama_sampler_accept(sampler, token)
        return token

    def grammar(self, gbnf: str) -> Any:
        """llama.cpp's own sampler for a GBNF grammar; free it with `free_grammar`."""
        return llama_cpp.llama_sampler_init_grammar(self._vocab, gbnf.encode(), b"root")

    def free_grammar(self, sampler: Any) -> None:
        """Free what `grammar` made."""
        llama_cpp.llama_sampler_free(sampler)

    def keep(self, n: int) -> None:
        """Forget all but the first `n` cached tokens, and what an interruption left."""
        llama_cpp.llama_memory_seq_rm(self._memory, 0, n, -1)
        del self.cached[n:]

    def _put(self, i: int, token: int, position: int, lines: Sequence[int], wanted: bool) -> None:
        batch = self._batch
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
        batch.n_seq_id[i] = len(lines)
        for k, line in enumerate(lines):
            batch.seq_id[i][k] = line

    def _decode(self, n_tokens: int) -> None:
        self._batch.n_tokens = n_tokens
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status == 2:
            raise Stopped
        if status != 0:
            self.cached.clear()
            llama_cpp.llama_memory_clear(self._memory, True)
            raise ModelRefused(f"llama.cpp failed to evaluate the prompt (status {status}: {_last_error()}).")
        self.n_forward += 1

    def _logits(self, i: int) -> Logits:
        pointer = llama_cpp.llama_get_logits_ith(self._context, i)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,)).copy()


_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)


def _context_params(options: Options) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = options.n_ctx, options.n_batch, options.n_batch
    params.n_seq_max, params.kv_unified = MAX_LINES, True  # lines of a tree share the prompt's cells
    params.n_threads = options.n_threads or available_cpus()
    params.n_threads_batch = options.n_threads_batch or options.n_threads or available_cpus()
    params.flash_attn_type = (
        llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if options.flash_attention else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.n_outputs_max = MAX_READS  # room for the logits of a whole batch would be 300 MB
    return params


def available_cpus() -> int:
    """CPUs that this process may use (a container or `taskset` may leave it fewer than there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_features() -> list[str]:
    """The CPU extensions that this build of llama.cpp uses, such as AVX2 or DOTPROD."""
    parts = llama_cpp.llama_print_system_info().decode().replace(":", "|").split("|")
    return [part.split("=")[0].strip() for part in parts if part.strip().endswith("= 1")]


def build() -> str:
    """What a stored state depends on beside the model: llama.cpp's version and the CPU's extensions."""
    return f"{llama_cpp.__version__} {' '.join(cpu_features())}"


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _last_error() -> str:
    return next((line for line in reversed(_log_lines) if "error" in line.lower() or "fail" in line.lower()), "no reason given")
