"""Copies a tokenizer into a GGUF: tokens, their kinds, merges or scores, special ids and the chat template.

Owns the reading of `tokenizer.json` (byte-level BPE as in Qwen, or a SentencePiece model that transformers saved as BPE, as
in Gemma), of `tokenizer.model` and of the files next to them. Invariant: ids do not change. An embedding row without a
token gets an unused placeholder. A learned token without a row is refused; an added one cannot be used and is left out.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gguf
from gguf import TokenType

from convert import pretokenizer
from convert.architectures import Architecture
from convert.checkpoint import read_json
from convert.pretokenizer import SPACE
from convert.sentencepiece import read_pieces
from edge_agent.core.errors import ConvertError

_SPECIAL = ("bos", "eos", "unk", "sep", "pad", "mask")
_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10_000.0  # the same values as in llama.cpp's converter
_MIN_SPLITS_COVERED = 0.9
_MAX_PIECE_CHARS = 1024


class _TokenizerFiles(NamedTuple):
    """The contents of `tokenizer.json` (empty if there is none), `tokenizer_config.json` and `config.json` in one folder."""

    folder: pathlib.Path
    tokenizer: dict[str, Any]
    settings: dict[str, Any]
    model: dict[str, Any]


class _Added(NamedTuple):
    """A token that was added to the learned ones."""

    text: str
    id: int
    is_special: bool
    eats_spaces: bool = False

    @classmethod
    def checked(cls, text: Any, i: Any, is_special: bool, eats_spaces: bool = False) -> _Added:
        if not isinstance(text, str) or not text:
            raise ValueError(f"an added token {text!r:.40}")
        return cls(text, i, is_special, eats_spaces)

    @classmethod
    def of(cls, i: Any, entry: dict[str, Any]) -> _Added:
        """The token of an entry as `tokenizer.json` and `tokenizer_config.json` have them."""
        return cls.checked(entry["content"], i, bool(entry.get("special")), bool(entry.get("lstrip") or entry.get("rstrip")))


def _placeholder(i: int) -> bytes:
    return f"[PAD{i}]".encode()


def is_placeholder(text: bytes) -> bool:
    """Whether this is the text of a row without a token, here or in llama.cpp's converter."""
    return text.startswith(b"[PAD") and text.endswith(b"]") and text[4:-1].isdigit()


class _Tokens:
    """Texts, kinds and scores by id, for the `n_rows` rows of the embedding."""

    def __init__(self, n_rows: int) -> None:
        self.texts = [_placeholder(i) for i in range(n_rows)]
        self.kinds = [int(TokenType.UNUSED)] * n_rows
        self.scores = [_UNUSED_SCORE] * n_rows

    def put(self, i: Any, text: str | bytes, kind: int, score: float = 0.0) -> None:
        if type(i) is not int or not 0 <= i < len(self.texts):
            raise ConvertError(
                f"The token {text!r:.40} has the id {i!r:.20}, but the embedding has {len(self.texts)} rows; was the vocabulary resized?"
            )
        self.texts[i] = text if isinstance(text, bytes) else text.encode()
        self.kinds[i], self.scores[i] = int(kind), score

    def put_added(self, added: _Added) -> bool:
        """Put an added token; returns False if the embedding has no row for it."""
        if type(added.id) is int and added.id >= len(self.texts):
            return False
        if added.is_special or _looks_special(added.text):
            self.put(added.id, added.text, TokenType.CONTROL, _ADDED_SCORE)
        else:
            self.put(added.id, added.text.replace(SPACE, " "), TokenType.USER_DEFINED, _ADDED_SCORE)
        return True

    def known(self) -> dict[int, bytes]:
        """The text of every row that has a token."""
        return {i: text for i, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True)) if kind != TokenType.UNUSED}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A checked tokenizer, ready to be written. `left_out` are the added tokens for which the embedding has no row."""

    files: _TokenizerFiles
    architecture: Architecture
    tokens: _Tokens
    pre: str
    added: list[_Added]
    left_out: dict[int, str]
    template: str | None

    def __str__(self) -> str:
        return f"'{self.files.folder}'"

    def notes(self) -> list[str]:
        """What a person should know about the copy, in words."""
        said = []
        if self.left_out:
            first, n_rows = min(self.left_out), len(self.tokens.texts)
            more = f" and {len(self.left_out) - 1} more" if len(self.left_out) > 1 else ""
            said.append(
                f"the added token {self.left_out[first]!r:.40} (id {first}){more} is left out: the embedding has {n_rows:,} rows, "
                "so the model cannot read it"
            )
        if eaters := sorted({added.text for added in self.added if added.eats_spaces}):
            said.append(f"the token {eaters[0]!r:.40} takes the spaces beside it along in transformers, but not in llama.cpp")
        return said

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Write everything that a GGUF says about its tokenizer."""
        is_sentencepiece = _is_sentencepiece(self.architecture)
        writer.add_tokenizer_model(self.architecture.vocabulary)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens.texts)
        if is_sentencepiece:
            writer.add_token_scores(self.tokens.scores)
            writer.add_add_space_prefix(False)
        writer.add_token_types(self.tokens.kinds)
        if not is_sentencepiece:
            writer.add_token_merges(_merges(self.files.tokenizer))
        for role, i in self.special_ids().items():
            getattr(writer, f"add_{role}_token_id")(i)
        _write_frame(writer, self.files, self.architecture.adds_bos)
        if self.template:
            writer.add_chat_template(self.template)

    def special_ids(self) -> dict[str, int]:
        """The ids of the special tokens: from the tokenizer if it names them, otherwise from config.json.

        Chat models of Gemma name the end of a turn as their tokenizer's "eos". Here it becomes llama.cpp's "eot", and "eos" is the
        end of a text, as in the published files: a program that reads one id from the file then finds each under its own name.
        """
        ids = {entry.text: entry.id for entry in reversed(self.added) if entry.id not in self.left_out}
        found = {}
        for role in _SPECIAL:
            i = ids.get(_text(self.files.settings.get(f"{role}_token")), self.files.model.get(f"{role}_token_id"))
            if type(i) is int and 0 <= i < len(self.tokens.texts):
                found[role] = i
        if self.architecture.ends:
            text_end, turn_end = (ids.get(text) for text in self.architecture.ends)
            if turn_end is not None:
                found["eot"] = turn_end
                if found.get("eos", turn_end) == turn_end and text_end is not None:
                    found["eos"] = text_end
        return found

    def followed_by(self, later: Vocabulary) -> Vocabulary:
        """The tokenizer of an adapter that was trained on top of this one: `later`, which may only add tokens.

        Raises `ConvertError` if a token of this one has another text there, or if `later` adds a token that has no row.
        """
        mine, theirs = self.tokens.known(), later.tokens.known()
        for i, text in mine.items():
            if theirs.get(i) != text:
                other = repr(theirs[i].decode(errors="replace")) if i in theirs else "no token"
                raise ConvertError(
                    f"The token {i} is {text.decode(errors='replace')!r:.40} in the tokenizer of {self}, but {other:.40} in that of the "
                    f"adapter {later}; give the base that the adapter was trained on, or remove the wrong tokenizer files."
                )
        for i, added in sorted(later.left_out.items()):
            if self.left_out.get(i) != added:
                raise ConvertError(
                    f"The adapter {later} adds the token {added!r:.40} with the id {i}, but the embedding has {len(self.tokens.texts)} "
                    "rows; a resized vocabulary is not supported, so merge the adapter with peft first."
                )
        if later.template is None:
            later = replace(later, template=self.template)
        return later

    def differs_from(self, other: Vocabulary) -> bool:
        """Whether a GGUF would hold another tokenizer."""
        mine, theirs = ((one.tokens.texts, one.tokens.kinds, one.special_ids(), one.template) for one in (self, other))
        return mine != theirs


def has_tokenizer(folder: pathlib.Path) -> bool:
    """Whether the folder of an adapter holds a tokenizer of its own."""
    names = ("tokenizer.json", "tokenizer.model")
    return (folder / "tokenizer_config.json").is_file() and any((folder / name).is_file() for name in names)


def read(folder: pathlib.Path, n_rows: int, architecture: Architecture, config: dict[str, Any]) -> Vocabulary:
    """Read and check the tokenizer in `folder` for an embedding of `n_rows` rows. `config` is config.json. Raises `ConvertError`."""
    model_file, tokenizer_file = folder / "tokenizer.model", folder / "tokenizer.json"
    has_pieces = _is_sentencepiece(architecture) and model_file.is_file()
    tokenizer = {} if has_pieces and not tokenizer_file.is_file() else read_json(tokenizer_file)
    files = _TokenizerFiles(folder, tokenizer, read_json(folder / "tokenizer_config.json"), config)
    tokens = _Tokens(n_rows)
    try:
        pre = _check_rules(files, architecture, has_pieces)
        if has_pieces:
            ids = tokenizer["model"]["vocab"] if tokenizer else {}
            for i, piece in enumerate(read_pieces(model_file)):
                _check_same_id(piece.text.decode(errors="replace"), i, ids, folder)
                tokens.put(i, piece.text, piece.kind, piece.score)
        elif _is_sentencepiece(architecture):
            _put_merged(tokens, files)
        else:
            _put_byte_level(tokens, files)
        added = list(_added(files))
        left_out = {entry.id: entry.text for entry in added if not tokens.put_added(entry)}
        _check_roles(files, left_out, n_rows)
        return Vocabulary(files, architecture, tokens, pre, added, left_out, _chat_template(files))
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(folder, error) from error


def write(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write a checked tokenizer. Raises `ConvertError` for what only shows now."""
    try:
        vocabulary.write(writer)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise _damaged(vocabulary.files.folder, error) from error


def _damaged(folder: pathlib.Path, error: Exception) -> ConvertError:
    return ConvertError(f"The tokenizer in '{folder}' is not what transformers writes ({error!r:.80}); download it again.")


def _is_sentencepiece(architecture: Architecture) -> bool:
    return architecture.vocabulary == "llama"


def _check_rules(files: _TokenizerFiles, architecture: Architecture, has_pieces: bool) -> str:
    """llama.cpp's name for the rules that split text. Raises `ConvertError` if it has none for those of the file."""
    if not _is_sentencepiece(architecture):
        _check_model(files, byte_fallback=False)
        return pretokenizer.byte_level(files.tokenizer, files.folder)
    if not has_pieces:
        _check_model(files, byte_fallback=True)
    if files.tokenizer:
        pretokenizer.check_sentencepiece(files.tokenizer, files.folder)
    return "default"


def _check_model(files: _TokenizerFiles, byte_fallback: bool) -> None:
    model = files.tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or bool(model.get("byte_fallback")) != byte_fallback:
        kind = "SentencePiece with byte fallback" if byte_fallback else "byte-level BPE"
        raise ConvertError(f"The tokenizer in '{files.folder}' is not {kind}, which this architecture needs.")


def _check_same_id(text: str, i: int, ids: dict[str, Any], folder: pathlib.Path) -> None:
    if ids.get(text, i) != i:
        raise ConvertError(
            f"The token {text!r:.40} has the id {i} in 'tokenizer.model', but {ids[text]!r:.20} in 'tokenizer.json' of '{folder}'; remove "
            "the file that does not belong to the weights."
        )


def _check_roles(files: _TokenizerFiles, left_out: dict[int, str], n_rows: int) -> None:
    for role in ("bos", "eos", "unk"):
        if (text := _text(files.settings.get(f"{role}_token"))) in left_out.values():
            raise ConvertError(
                f"The {role} token {text!r:.40} of the tokenizer in '{files.folder}' has no row in the embedding ({n_rows} rows); "
                "give the checkpoint that this tokenizer belongs to."
            )


def _merges(tokenizer: dict[str, Any]) -> list[bytes]:
    merges = [(merge if isinstance(merge, str) else " ".join(merge)).encode() for merge in tokenizer["model"]["merges"]]
    if not merges:
        raise ValueError("no merges")
    return merges


def _put_byte_level(tokens: _Tokens, files: _TokenizerFiles) -> None:
    for text, i in files.tokenizer["model"]["vocab"].items():
        tokens.put(i, text, TokenType.NORMAL)


def _put_merged(tokens: _Tokens, files: _TokenizerFiles) -> None:
    """A SentencePiece model that transformers saved as BPE: the score of a piece is the rank of its first merge.

    Such a file lists a merge for every way to split a piece in two. A tokenizer that was trained as BPE lists only one of
    them, and llama.cpp's SentencePiece would merge tokens that it does not.
    """
    model = files.tokenizer["model"]
    vocab: dict[str, Any] = model["vocab"]
    scores: dict[str, float] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        scores.setdefault(left + right, -float(rank))
        if len(left + right) > _MAX_PIECE_CHARS:
            raise ValueError(f"a piece of {len(left + right)} characters")
    n_splits = sum(text[:cut] in vocab and text[cut:] in vocab for text in scores for cut in range(1, len(text)))
    if len(model["merges"]) < _MIN_SPLITS_COVERED * n_splits:
        raise ConvertError(
            f"The tokenizer in '{files.folder}' was not made from a SentencePiece model, so llama.cpp would split text differently; "
            "use a checkpoint with a SentencePiece tokenizer."
        )
    for text, i in vocab.items():
        kind = TokenType.BYTE if len(text) == 6 and text.startswith("<0x") and text.endswith(">") else TokenType.NORMAL
        kind = TokenType.UNKNOWN if text == model.get("unk_token") else kind
        tokens.put(i, text, kind, scores.get(text, 0.0 if kind != TokenType.NORMAL else -float(len(model["merges"]))))


def _added(files: _TokenizerFiles) -> Iterator[_Added]:
    """The added tokens, from every file that may list them."""
    if (files.folder / "added_tokens.json").is_file():
        for text, i in read_json(files.folder / "added_tokens.json").items():
            yield _Added.checked(text, i, False)
    for entry in files.tokenizer.get("added_tokens") or []:
        yield _Added.of(entry["id"], entry)
    for i, entry in (files.settings.get("added_tokens_decoder") or {}).items():
        yield _Added.of(int(i), entry)


def _looks_special(text: str) -> bool:
    """Whether llama.cpp's converter treats this token as a control token, even if the model calls it ordinary."""
    framed = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(text.startswith(a) and text.endswith(b) for a, b in framed)


def _write_frame(writer: gguf.GGUFWriter, files: _TokenizerFiles, adds_bos: bool) -> None:
    """Write whether the tokenizer puts a BOS token before a text and an EOS token after it."""
    first, last = _frame(files.tokenizer.get("post_processor"))
    bos = adds_bos if first is None else first and first == _text(files.settings.get("bos_token"))
    writer.add_add_bos_token(bool(bos if first is not None else files.settings.get("add_bos_token", bos)))
    writer.add_add_eos_token(bool(last or (last is None and files.settings.get("add_eos_token"))))


def _frame(processor: Any) -> tuple[str | None, str | None]:
    """The tokens that the post-processor puts before and after a text: "" for none, None if there is no post-processor."""
    if not isinstance(processor, dict):
        return None, None
    for part in processor.get("processors", [processor]):
        if part.get("type") == "TemplateProcessing":
            ends = [step.get("SpecialToken", {}).get("id", "") for step in part["single"]]
            return str(ends[0]), str(ends[-1]) if len(ends) > 1 else ""
    return "", ""


def _chat_template(files: _TokenizerFiles) -> str | None:
    file = files.folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else files.settings.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if not isinstance(template, str):
        return None
    template.encode()  # raises for a lone surrogate
    return template


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
