"""Copies a tokenizer into a GGUF: tokens, their kinds, merges or scores, special ids and the chat template.

Owns the meaning of `tokenizer.json` (byte-level BPE as in Qwen, or a SentencePiece model that transformers saved as BPE, as
in Gemma) and of `tokenizer.model`. Invariants: ids do not change; an id has one text, and a text one id. An embedding row without
a token gets an unused placeholder. A learned token without a row is refused; an added one cannot be used and is left out.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gguf
from gguf import TokenType

from convert import pretokenizer
from convert.architectures import Architecture
from convert.pretokenizer import SPACE
from convert.sentencepiece import read_pieces
from convert.tokenizer_files import ROLES, Added, TokenizerFiles, read_files, text_of
from edge_agent.core.errors import ConvertError

_ADDED_SCORE, _UNUSED_SCORE = -1000.0, -10_000.0  # the same values as in llama.cpp's converter
_MAX_PIECE_CHARS = 1024


def _placeholder(i: int) -> bytes:
    return f"[PAD{i}]".encode()


def is_placeholder(text: bytes) -> bool:
    """Whether this is the text of a row without a token, here or in llama.cpp's converter."""
    return text.startswith(b"[PAD") and text.endswith(b"]") and text[4:-1].isdigit()


def _is_same_text(one: bytes, other: bytes) -> bool:
    """Whether two texts are the same, whichever way they write a space."""
    return one == other or one.replace(SPACE.encode(), b" ") == other.replace(SPACE.encode(), b" ")


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
        data = text if isinstance(text, bytes) else text.encode()
        if self.kinds[i] != TokenType.UNUSED and not _is_same_text(self.texts[i], data):
            raise ConvertError(
                f"The tokenizer has two tokens with the id {i}, {self.texts[i].decode(errors='replace')!r:.40} and "
                f"{data.decode(errors='replace')!r:.40}; an id must have one text, so save the tokenizer again."
            )
        self.texts[i] = data
        self.kinds[i], self.scores[i] = int(kind), score

    def put_added(self, added: Added) -> bool:
        """Put an added token; returns False if the embedding has no row for it."""
        if type(added.id) is int and added.id >= len(self.texts):
            return False
        if added.is_control:
            self.put(added.id, added.text, TokenType.CONTROL, _ADDED_SCORE)
        else:
            self.put(added.id, added.text.replace(SPACE, " "), TokenType.USER_DEFINED, _ADDED_SCORE)
        return True

    def check_distinct(self, left_out: Mapping[int, str]) -> None:
        """Refuse one text at two ids: llama.cpp ends the whole process over such a file."""
        first: dict[bytes, int] = {}
        for i, text in (*enumerate(self.texts), *((i, text.encode()) for i, text in left_out.items())):
            if (other := first.setdefault(text, i)) != i:
                raise ConvertError(
                    f"The token {text.decode(errors='replace')!r:.40} has two ids, {other} and {i}; a text must have one id, so remove "
                    "the added token from the tokenizer, or save the tokenizer again."
                )

    def order(self) -> list[int]:
        """The ids of the learned tokens that can be merged, in the order in which SentencePiece merges them."""
        pieces = [i for i, kind in enumerate(self.kinds) if kind == TokenType.NORMAL and len(self.texts[i].decode(errors="replace")) > 1]
        return sorted(pieces, key=lambda i: -self.scores[i])

    def known(self) -> dict[int, bytes]:
        """The text of every row that has a token."""
        return {i: text for i, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True)) if kind != TokenType.UNUSED}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A checked tokenizer, ready to be written. `left_out` are the added tokens for which the embedding has no row."""

    files: TokenizerFiles
    architecture: Architecture
    tokens: _Tokens
    pre: str
    left_out: dict[int, str]

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
        if eaters := sorted({added.text for added in self.files.added if added.eats_spaces}):
            said.append(f"the token {eaters[0]!r:.40} takes the spaces beside it along in transformers, but not in llama.cpp")
        if words := sorted({added.text for added in self.files.added if added.needs_word_ends}):
            said.append(f"the token {words[0]!r:.40} is only found as a whole word in transformers, but inside words too in llama.cpp")
        if "eos" not in self.special_ids():
            said.append(f"the tokenizer {self} names no end of a text (eos_token), so llama.cpp may not stop where it should")
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
        if self.files.template:
            writer.add_chat_template(self.files.template)

    def special_ids(self) -> dict[str, int]:
        """The ids of the special tokens: from the tokenizer if it names them, otherwise from config.json.

        Chat models of Gemma name the end of a turn as their tokenizer's "eos". Here it becomes llama.cpp's "eot", and "eos" is the
        end of a text, as in the published files: a program that reads one id from the file then finds each under its own name.
        """
        ids = {entry.text: entry.id for entry in reversed(self.files.added) if entry.id not in self.left_out}
        found = {}
        for role in ROLES:
            default = self.files.model.get(f"{role}_token_id")
            if isinstance(default, list):  # every id that ends a text; a GGUF has one
                default = default[0] if default else None
            i = ids.get(text_of(self.files.settings.get(f"{role}_token")), default)
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
        return later

    def differs_from(self, other: Vocabulary) -> bool:
        """Whether a GGUF would hold another tokenizer: other tokens, merges, rules, special ids or another template."""
        return self.fields() != other.fields()

    def fields(self) -> dict[str, gguf.GGUFValue]:
        """Everything that a GGUF would say about this tokenizer, by key. Of the scores only the order counts, so it stands for them."""
        writer = gguf.GGUFWriter(None, self.architecture.name)
        write(writer, self)
        fields = {key: value for key, value in writer.kv_data[0].items() if key.startswith("tokenizer.")}
        if gguf.Keys.Tokenizer.SCORES in fields:
            fields[gguf.Keys.Tokenizer.SCORES] = gguf.GGUFValue(self.tokens.order(), gguf.GGUFValueType.ARRAY)
        return fields


def read(
    folder: pathlib.Path, n_rows: int, architecture: Architecture, config: dict[str, Any], below: Vocabulary | None = None
) -> Vocabulary:
    """Read and check the tokenizer in `folder` for an embedding of `n_rows` rows. `config` is config.json. Raises `ConvertError`.

    The folder of an adapter may hold only some files of a tokenizer; `below` is the tokenizer that they are laid over.
    """
    tokens = _Tokens(n_rows)
    try:
        files = read_files(folder, config, _is_sentencepiece(architecture), below.files if below else None)
        pre = _check_rules(files, architecture)
        if files.pieces:
            ids = files.tokenizer["model"]["vocab"] if files.tokenizer else {}
            for i, piece in enumerate(read_pieces(files.pieces)):
                _check_same_id(piece.text.decode(errors="replace"), i, ids, folder)
                tokens.put(i, piece.text, piece.kind, piece.score)
        elif _is_sentencepiece(architecture):
            _put_merged(tokens, files)
        else:
            _put_byte_level(tokens, files)
        left_out = {entry.id: entry.text for entry in files.added if not tokens.put_added(entry)}
        _check_roles(files, left_out, n_rows)
        tokens.check_distinct(left_out)
        vocabulary = Vocabulary(files, architecture, tokens, pre, left_out)
        vocabulary.special_ids()  # raises for roles that are not tokens
        return vocabulary
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


def _check_rules(files: TokenizerFiles, architecture: Architecture) -> str:
    """llama.cpp's name for the rules that split text. Raises `ConvertError` if it has none for those of the file."""
    if not _is_sentencepiece(architecture):
        _check_model(files, byte_fallback=False)
        return pretokenizer.byte_level(files.tokenizer, files.folder)
    if not files.pieces:
        _check_model(files, byte_fallback=True)
    if files.tokenizer:
        pretokenizer.check_sentencepiece(files.tokenizer, files.folder)
    return "default"


def _check_model(files: TokenizerFiles, byte_fallback: bool) -> None:
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


def _check_roles(files: TokenizerFiles, left_out: dict[int, str], n_rows: int) -> None:
    for role in ("bos", "eos", "unk"):
        if (text := text_of(files.settings.get(f"{role}_token"))) in left_out.values():
            raise ConvertError(
                f"The {role} token {text!r:.40} of the tokenizer in '{files.folder}' has no row in the embedding ({n_rows} rows); "
                "give the checkpoint that this tokenizer belongs to."
            )


def _merges(tokenizer: dict[str, Any]) -> list[bytes]:
    merges = [(merge if isinstance(merge, str) else " ".join(merge)).encode() for merge in tokenizer["model"]["merges"]]
    if not merges:
        raise ValueError("no merges")
    return merges


def _pairs(files: TokenizerFiles) -> Iterator[tuple[str, str]]:
    """The two parts of each merge. Refuses a merge of or to a text that the vocabulary lacks, as transformers does."""
    model = files.tokenizer["model"]
    vocab: dict[str, Any] = model["vocab"]
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        for text in (left, right, left + right):
            if text not in vocab:
                raise ConvertError(
                    f"The tokenizer in '{files.folder}' merges {left!r:.40} and {right!r:.40}, but its vocabulary lacks {text!r:.40}; "
                    "download it again."
                )
        yield left, right


def _put_byte_level(tokens: _Tokens, files: TokenizerFiles) -> None:
    for text, i in files.tokenizer["model"]["vocab"].items():
        tokens.put(i, text, TokenType.NORMAL)
    for _ in _pairs(files):  # each of them is checked
        pass


def _put_merged(tokens: _Tokens, files: TokenizerFiles) -> None:
    """A SentencePiece model that transformers saved as BPE: the score of a piece is the rank of its first merge.

    Such a file lists a merge for every way to split a piece in two. A tokenizer that was trained as BPE lists only one of
    them, and llama.cpp's SentencePiece would merge tokens that it does not.
    """
    model = files.tokenizer["model"]
    vocab: dict[str, Any] = model["vocab"]
    scores: dict[str, float] = {}
    merges: set[tuple[str, str]] = set()
    for rank, (left, right) in enumerate(_pairs(files)):
        scores.setdefault(left + right, -float(rank))
        merges.add((left, right))
    added = {entry.id for entry in files.added}
    for text, i in vocab.items():
        kind = TokenType.BYTE if len(text) == 6 and text.startswith("<0x") and text.endswith(">") else TokenType.NORMAL
        kind = TokenType.UNKNOWN if text == model.get("unk_token") else kind
        if kind == TokenType.NORMAL and i not in added:
            _check_merges(files.folder, text, vocab, merges)
        tokens.put(i, text, kind, scores.get(text, 0.0 if kind != TokenType.NORMAL else -float(len(model["merges"]))))


def _check_merges(folder: pathlib.Path, text: str, vocab: dict[str, Any], merges: set[tuple[str, str]]) -> None:
    """Refuse a piece that llama.cpp would merge from two others, because it is in the vocabulary, but transformers would not."""
    if len(text) > _MAX_PIECE_CHARS:
        raise ValueError(f"a piece of {len(text)} characters")
    for cut in range(1, len(text)):
        if (parts := (text[:cut], text[cut:]))[0] in vocab and parts[1] in vocab and parts not in merges:
            raise ConvertError(
                f"The tokenizer in '{folder}' was not made from a SentencePiece model: it has no merge of {parts[0]!r:.40} and "
                f"{parts[1]!r:.40}, so llama.cpp would split text differently; use a checkpoint with a SentencePiece tokenizer."
            )


def _write_frame(writer: gguf.GGUFWriter, files: TokenizerFiles, adds_bos: bool) -> None:
    """Write whether the tokenizer puts a BOS token before a text and an EOS token after it."""
    first, last = _frame(files.tokenizer.get("post_processor"))
    bos = adds_bos if first is None else first and first == text_of(files.settings.get("bos_token"))
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
