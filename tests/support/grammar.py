"""llama.cpp's own grammar sampler: the reference that readings are compared with.

Owns the grammars of the legal answers and the sampler. Loads only the vocabulary of the model; the logits come from the
engine, through `LocalModel.generate`.
"""

import ctypes
import os
import pathlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import llama_cpp
import numpy as np

from edge_agent.core.question import Question
from edge_agent.engine.llama import Logits
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.answers import AnswerFormat, parse
from edge_agent.model.profile import OPTION

N_MOST = 200  # tokens of an answer; an option may be long
_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)], align=True)


def gbnf(answers: AnswerFormat) -> str:
    """The grammar of exactly the legal answers."""
    levels = " | ".join(_literal(level) for level in answers.levels)
    printed = " | ".join(_literal(answer) for answer in answers.answers)
    return f'root ::= "Confidence: " ({levels}) "\\nFinal answer: " ({printed})'


def _literal(text: str) -> str:
    """A text in GBNF, with its own escapes."""
    return '"' + "".join(f"\\U{ord(c):08X}" if c in '"\\' or not c.isprintable() else c for c in text) + '"'


def token_gbnf(answers: AnswerFormat, tokenize: Callable[[str], Sequence[int]]) -> str:
    """The same grammar, but each answer only in the tokens that the tokenizer gives it."""
    texts = [answers.text(level, answer) for level in answers.levels for answer in answers.answers]
    return "root ::= " + " | ".join(" ".join(f"<[{token}]>" for token in tokenize(text)) for text in texts)


class GrammarReference:
    """Answers questions with the GBNF sampler of llama.cpp, greedily, one token at a time. Use as a context manager."""

    def __init__(self, path: pathlib.Path) -> None:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        assert self._model, path
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        llama_cpp.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """The tokens of `text`, without control tokens."""
        data = text.encode()
        buffer = (llama_cpp.llama_token * (len(data) + 8))()
        n = llama_cpp.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, False)
        return list(buffer[:n])

    def read(self, model: LocalModel, question: Question, own_tokens: bool = False) -> tuple[str, str]:
        """The level and the letter that `model` chooses under the grammar.

        With `own_tokens` it may spell an answer only as the tokenizer does. A model that never learned the format may prefer
        another spelling (`F`, `ina`, `l`), which a walk over the trie never takes.
        """
        options = question.options if model.profile.answer_kind == OPTION else ()
        answers = AnswerFormat(model.profile.levels, question.letters, options)
        grammar = token_gbnf(answers, self.tokenize) if own_tokens else gbnf(answers)
        excluded = self._other_ends(model.profile.shape.end_segment.text) if options else []
        sampler = llama_cpp.llama_sampler_init_grammar(self._vocab, grammar.encode(), b"root")
        try:
            text = model.generate(question, lambda logits: self._most_probable(sampler, logits, excluded), N_MOST)
        finally:
            llama_cpp.llama_sampler_free(sampler)
        letter = parse(text, options)[1]
        assert letter is not None, f"the grammar allowed {text!r}"
        return text.split("\n")[0].removeprefix("Confidence: "), letter

    def _other_ends(self, end: str) -> list[int]:
        """The tokens that end a generation, except the one that ends a turn of the model: an option is printed with that one."""
        ends = [token for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab)) if llama_cpp.llama_vocab_is_eog(self._vocab, token)]
        own = (ctypes.c_int32 * 8)()
        n = llama_cpp.llama_tokenize(self._vocab, end.encode(), len(end.encode()), own, len(own), False, True)
        assert n == 1 and own[0] in ends
        return [token for token in ends if token != own[0]]

    def _most_probable(self, sampler: object, logits: Logits, excluded: Sequence[int]) -> int:
        """The most probable token that the grammar allows and that is not excluded; the sampler accepts it."""
        candidates = np.zeros(len(logits), _TOKEN_DATA)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        candidates["logit"][list(excluded)] = -np.inf
        array = llama_cpp.llama_token_data_array(
            data=candidates.ctypes.data_as(llama_cpp.llama_token_data_p), size=len(candidates), selected=-1, sorted=False
        )
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        token = int(candidates["id"][int(np.argmax(candidates["logit"]))])
        if not llama_cpp.llama_vocab_is_eog(self._vocab, token):
            llama_cpp.llama_sampler_accept(sampler, token)
        return token
