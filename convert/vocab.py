"""Copies a tokenizer into a GGUF: tokens, their kinds, merges or scores, special ids and the chat template.

Owns the reading of `tokenizer.json` (byte-level BPE as in Qwen, or a SentencePiece model that transformers saved as BPE, as
in Gemma), of `tokenizer.model` and of the files next to them. Invariant: ids do not change; an embedding row without a
token gets an unused placeholder, and a token without a row is refused.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import gguf
from gguf import TokenType

from convert.architectures import Architecture
from convert.checkpoint import read_json
from convert.sentencepiece import read_pieces
from edge_agent.core.errors import ConvertError

_SPACE = "\u2581"  # how SentencePiece writes a space
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

    @classmethod
    def checked(cls, text: Any, i: Any, is_special: bool) -> _Added:
        if not isinstance(text, str) or not text:
            raise ValueError(f"an added token {text!r:.40}")
        return cls(text, i, is_special)


class _Tokens:
    """Texts, kinds and scores by id, for the `n_rows` rows of the embedding."""

    def __init__(self, n_rows: int) -> None:
        self.texts = [f"[PAD{i}]".encode() for i in range(n_rows)]
        self.kinds = [int(TokenType.UNUSED)] * n_rows
        self.scores = [_UNUSED_SCORE] * n_rows

    def put(self, i: Any, text: str | bytes, kind: int, score: float = 0.0) -> None:
        if type(i) is not int or not 0 <= i < len(self.texts):
            raise ConvertError(
                f"The token {text!r:.40} has the id {i!r:.20}, but the embedding has {len(self.texts)} rows; was the vocabulary resized?"
            )
        self.texts[i] = text if isinstance(text, bytes) else text.encode()
        self.kinds[i], self.scores[i] = int(kind), score

    def put_added(self, added: _Added) -> None:
        if added.is_special or _looks_special(added.text):
            self.put(added.id, added.text, TokenType.CONTROL, _ADDED_SCORE)
        else:
            self.put(added.id, added.text.replace(_SPACE, " "), TokenType.USER_DEFINED, _ADDED_SCORE)


def write(writer: gguf.GGUFWriter, folder: pathlib.Path, n_rows: int, architecture: Architecture, config: dict[str, Any]) -> None:
    """Write the tokenizer in `folder` for an embedding of `n_rows` rows. `config` is config.json. Raises `ConvertError`."""
    is_sentencepiece = architecture.vocabulary == "llama"
    model_file, tokenizer_file = folder / "tokenizer.model", folder / "tokenizer.json"
    has_pieces = is_sentencepiece and model_file.is_file()
    tokenizer = {} if has_pieces and not tokenizer_file.is_file() else read_json(tokenizer_file)
    files = _TokenizerFiles(folder, tokenizer, read_json(folder / "tokenizer_config.json"), config)
    tokens = _Tokens(n_rows)
    try:
        if has_pieces:
            for i, piece in enumerate(read_pieces(model_file)):
                tokens.put(i, piece.text, piece.kind, piece.score)
        elif is_sentencepiece:
            _put_merged(tokens, files)
        else:
            _put_byte_level(tokens, files)
        added = list(_added(files))
        for entry in added:
            tokens.put_added(entry)
        template = _chat_template(files)
        writer.add_tokenizer_model(architecture.vocabulary)
        writer.add_tokenizer_pre(architecture.pre)
        writer.add_token_list(tokens.texts)
        if is_sentencepiece:
            writer.add_token_scores(tokens.scores)
            writer.add_add_space_prefix(False)
        writer.add_token_types(tokens.kinds)
        if not is_sentencepiece:
            writer.add_token_merges(_merges(tokenizer))
        _write_special_ids(writer, n_rows, files, added)
        _write_frame(writer, files, architecture.adds_bos)
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ConvertError(f"The tokenizer in '{folder}' is not what transformers writes ({error!r:.80}); download it again.") from error
    if template:
        writer.add_chat_template(template)


def _merges(tokenizer: dict[str, Any]) -> list[bytes]:
    merges = [(merge if isinstance(merge, str) else " ".join(merge)).encode() for merge in tokenizer["model"]["merges"]]
    if not merges:
        raise ValueError("no merges")
    return merges


def _put_byte_level(tokens: _Tokens, files: _TokenizerFiles) -> None:
    model = files.tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("byte_fallback"):
        raise ConvertError(f"The tokenizer in '{files.folder}' is not byte-level BPE, which this architecture needs.")
    for text, i in model["vocab"].items():
        tokens.put(i, text, TokenType.NORMAL)


def _put_merged(tokens: _Tokens, files: _TokenizerFiles) -> None:
    """A SentencePiece model that transformers saved as BPE: the score of a piece is the rank of its first merge.

    Such a file lists a merge for every way to split a piece in two. A tokenizer that was trained as BPE lists only one of
    them, and llama.cpp's SentencePiece would merge tokens that it does not.
    """
    model = files.tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ConvertError(f"The tokenizer in '{files.folder}' is not SentencePiece with byte fallback, which this architecture needs.")
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
        yield _Added.checked(entry["content"], entry["id"], bool(entry.get("special")))
    for i, entry in (files.settings.get("added_tokens_decoder") or {}).items():
        yield _Added.checked(entry["content"], int(i), bool(entry.get("special")))


def _looks_special(text: str) -> bool:
    """Whether llama.cpp's converter treats this token as a control token, even if the model calls it ordinary."""
    framed = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(text.startswith(a) and text.endswith(b) for a, b in framed)


def _write_special_ids(writer: gguf.GGUFWriter, n_rows: int, files: _TokenizerFiles, added: list[_Added]) -> None:
    """Write the ids of the special tokens: from the tokenizer if it names them, otherwise from config.json."""
    ids = {entry.text: entry.id for entry in reversed(added)}
    for role in _SPECIAL:
        i = ids.get(_text(files.settings.get(f"{role}_token")), files.model.get(f"{role}_token_id"))
        if type(i) is int and 0 <= i < n_rows:
            getattr(writer, f"add_{role}_token_id")(i)


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
