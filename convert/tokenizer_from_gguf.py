"""Makes the files of a tokenizer from what a GGUF says about it, for a model whose own `tokenizer.json` is not at hand.

Owns the way from llama.cpp's vocabulary to the library `tokenizers`: byte-level BPE (merges are in the file), and SentencePiece
(merges follow from the scores: two pieces merge if their text is a piece, the highest score first). Invariant: whoever writes these
files compares them with the GGUF again, as any other tokenizer; rules for splitting text that are not known by name are refused.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import gguf
import numpy as np
from gguf import TokenType

from convert.pretokenizer import SPACE, rules_named
from convert.vocab import is_placeholder
from edge_agent.core.errors import ConvertError
from edge_agent.model.gguf import Header, read_texts

_KEYS = gguf.Keys.Tokenizer
_ROLES = {"bos": _KEYS.BOS_ID, "eos": _KEYS.EOS_ID, "unk": _KEYS.UNK_ID, "pad": _KEYS.PAD_ID}
_ADDED_KINDS = (TokenType.CONTROL, TokenType.USER_DEFINED)


def write_tokenizer(path: pathlib.Path, header: Header, out: pathlib.Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` of the GGUF at `path` into the folder `out`. Raises `ConvertError`."""
    try:
        texts = [text.decode() for text in read_texts(path, header, _KEYS.LIST)]
        kinds = numbers(path, header, _KEYS.TOKEN_TYPE)
        model = header.metadata.get(_KEYS.MODEL)
        if model == "gpt2":
            tokenizer = _byte_level(path, header, texts)
        elif model == "llama":
            texts = [text.replace(" ", SPACE) for text in texts]  # an added token needs the text that the vocabulary has
            tokenizer = _sentencepiece(path, header, texts, kinds)
        else:
            raise ConvertError(f"'{path}' has a tokenizer of the kind {model!r:.40}; give --tokenizer a folder with this model's files.")
        added = [_added(i, text, kinds[i]) for i, text in enumerate(texts) if kinds[i] in _ADDED_KINDS]
        roles = {role: texts[header.metadata[key]] for role, key in _ROLES.items() if isinstance(header.metadata.get(key), int)}
    except (LookupError, UnicodeDecodeError, TypeError) as error:
        raise ConvertError(f"The tokenizer in '{path}' is damaged ({error!r:.80}); fetch the file again.") from error
    adds_bos = bool(header.metadata.get(_KEYS.ADD_BOS, model == "llama"))
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **tokenizer}
    whole["post_processor"] = _frame(roles, header) if adds_bos and "bos" in roles else None
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {f"{role}_token": text for role, text in roles.items()}
    settings |= {"add_bos_token": adds_bos, "add_eos_token": bool(header.metadata.get(_KEYS.ADD_EOS, False))}
    if isinstance(template := header.metadata.get(_KEYS.CHAT_TEMPLATE), str):
        settings["chat_template"] = template
    for name, data in (("tokenizer.json", whole), ("tokenizer_config.json", settings)):
        (out / name).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def numbers(path: pathlib.Path, header: Header, key: str) -> list[Any]:
    """The numbers of an array of 32 bits in the metadata. Raises KeyError if there is none."""
    place = header.arrays[key]
    kind = {4: "<u4", 5: "<i4", 6: "<f4"}.get(place.item)
    if kind is None:
        raise KeyError(key)
    found: list[Any] = np.fromfile(path, dtype=kind, count=place.n_items, offset=place.offset).tolist()
    return found


def _byte_level(path: pathlib.Path, header: Header, texts: Sequence[str]) -> dict[str, Any]:
    name = header.metadata.get(_KEYS.PRE, "default")
    *splits, last = rules_named(str(name), path)
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False} for split in splits
    ]
    if last is not None:
        steps.append({"type": "Split", "pattern": {"Regex": last}, "behavior": "Isolated", "invert": False})
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": last is None})
    merges = [text.decode().split(" ") for text in read_texts(path, header, _KEYS.MERGES)]
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(texts, merges, byte_fallback=False),
    }


def _sentencepiece(path: pathlib.Path, header: Header, pieces: Sequence[str], kinds: Sequence[int]) -> dict[str, Any]:
    if header.metadata.get(_KEYS.ADD_PREFIX, True):
        raise ConvertError(f"The tokenizer in '{path}' adds a space before a text, which is not supported; give --tokenizer a folder.")
    model = _bpe(pieces, _merges(pieces, numbers(path, header, _KEYS.SCORES), kinds), byte_fallback=True)
    unknown = next((pieces[i] for i, kind in enumerate(kinds) if kind == TokenType.UNKNOWN), None)
    if unknown is None and isinstance(i := header.metadata.get(_KEYS.UNK_ID), int):
        unknown = pieces[i]
    backwards = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    return {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "decoder": {"type": "Sequence", "decoders": backwards},
        "model": {**model, "unk_token": unknown, "fuse_unk": True},
    }


def _merges(pieces: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[list[str]]:
    """Each way to make a piece from two others, the best pieces first.

    A user-defined token is found before any merge, so its merges come first, the longest of them before the others.
    """
    ids = {piece: i for i, piece in enumerate(pieces)}
    made = [i for i, kind in enumerate(kinds) if kind in (TokenType.NORMAL, TokenType.USER_DEFINED) and len(pieces[i]) > 1]
    made.sort(key=lambda i: (kinds[i] != TokenType.USER_DEFINED, -len(pieces[i]) if kinds[i] == TokenType.USER_DEFINED else -scores[i]))
    merges = []
    for i in made:
        cuts = ((pieces[i][:cut], pieces[i][cut:]) for cut in range(1, len(pieces[i])))
        pairs = [(left, right) for left, right in cuts if left in ids and right in ids]
        merges += [list(pair) for pair in sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    return merges


def _bpe(texts: Sequence[str], merges: list[list[str]], byte_fallback: bool) -> dict[str, Any]:
    off = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False}
    vocab = {text: i for i, text in enumerate(texts) if not is_placeholder(text.encode())}
    return {"type": "BPE", **off, "byte_fallback": byte_fallback, "ignore_merges": False, "vocab": vocab, "merges": merges}


def _added(i: int, text: str, kind: int) -> dict[str, Any]:
    kept = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": i, "content": text, **kept, "special": kind == TokenType.CONTROL}


def _frame(roles: dict[str, str], header: Header) -> dict[str, Any]:
    """The rule that puts the BOS token before each text."""
    bos = roles["bos"]
    first, text = {"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second, other = {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}
    ids = {bos: {"id": bos, "ids": [header.metadata[_KEYS.BOS_ID]], "tokens": [bos]}}
    return {"type": "TemplateProcessing", "single": [first, text], "pair": [first, text, second, other], "special_tokens": ids}
