"""Finds llama.cpp's name for the rules by which a tokenizer splits text before it merges anything.

Owns the reading of `normalizer`, `pre_tokenizer` and the options of `model` in `tokenizer.json`. A GGUF holds no such rules,
only the name of a set that llama.cpp has built in. Invariant: a name is returned only if llama.cpp's rules are the file's own;
anything else is refused, because the GGUF would silently split text differently.
"""

from __future__ import annotations

import pathlib
from typing import Any

from edge_agent.core.errors import ConvertError

SPACE = "\u2581"  # how SentencePiece writes a space

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # built into tokenizers' ByteLevel
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_EACH_DIGIT = r"\p{N}"

_BYTE_LEVEL = {(_QWEN2,): "qwen2", (_GPT2,): "gpt-2", (_EACH_DIGIT, _GPT2): "starcoder"}
"""llama.cpp's name for each known set of rules, in the order in which they split."""

_SAME_RULES = {"smollm": "starcoder"}
"""Other names of llama.cpp for rules in `_BYTE_LEVEL`."""

_CHANGES_MERGES = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")


def byte_level(tokenizer: dict[str, Any], folder: pathlib.Path) -> str:
    """llama.cpp's name for the rules of a byte-level tokenizer. Raises `ConvertError` for rules that it does not have.

    NFC is accepted although llama.cpp does not normalize text: Qwen's own files have it, and nearly all text is NFC already.
    """
    _check_merges(tokenizer, folder)
    if odd := [step for step in _steps(tokenizer.get("normalizer"), "normalizers") if step.get("type") != "NFC"]:
        raise _refused(folder, "changes text", odd[0])
    *splits, last = _steps(tokenizer.get("pre_tokenizer"), "pretokenizers") or [{}]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        raise _refused(folder, "splits text", last)
    rules = tuple(_regex(step, folder) for step in splits) + ((_GPT2,) if last.get("use_regex", True) else ())
    if rules not in _BYTE_LEVEL:
        raise _refused(folder, "splits text", {"rules": rules})
    return _BYTE_LEVEL[rules]


def rules_named(name: str, path: pathlib.Path) -> tuple[str | None, ...]:
    """The patterns of the rules with llama.cpp's `name`, in order; None at the end for those of `tokenizers`' ByteLevel.

    Raises `ConvertError` for a name that is not known here; `path` is the GGUF that has it.
    """
    for rules, known in _BYTE_LEVEL.items():
        if known == _SAME_RULES.get(name, name):
            return (*rules[:-1], None) if rules[-1] == _GPT2 else rules
    known_names = ", ".join(sorted([*_BYTE_LEVEL.values(), *_SAME_RULES]))
    raise ConvertError(
        f"'{path}' splits text by the rules {name!r:.40}, which are not known here (known: {known_names}); give --tokenizer a folder with "
        "this model's files."
    )


def is_same(name: str, other: str) -> bool:
    """Whether two of llama.cpp's names mean the same rules."""
    return _SAME_RULES.get(name, name) == _SAME_RULES.get(other, other)


def check_sentencepiece(tokenizer: dict[str, Any], folder: pathlib.Path) -> None:
    """Raise `ConvertError` unless the rules are Gemma's: a space becomes `SPACE`, and nothing else changes or splits text."""
    _check_merges(tokenizer, folder)
    spaces_replaced = False
    for step in _steps(tokenizer.get("normalizer"), "normalizers"):
        if step != {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}:
            raise _refused(folder, "changes text", step)
        spaces_replaced = True
    for step in _steps(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        at_space = step.get("type") == "Split" and step.get("pattern") == {"String": " "} and spaces_replaced  # there are none left
        whole = step.get("type") == "Metaspace" and step.get("replacement") == SPACE and not step.get("split", True)
        if not at_space and not (whole and step.get("prepend_scheme", "always") == "never"):
            raise _refused(folder, "splits text", step)
        spaces_replaced = True
    if not spaces_replaced:
        raise _refused(folder, "changes text", {"normalizer": tokenizer.get("normalizer")})


def _check_merges(tokenizer: dict[str, Any], folder: pathlib.Path) -> None:
    for option in _CHANGES_MERGES:
        if tokenizer["model"].get(option):
            raise _refused(folder, "merges tokens", {option: tokenizer["model"][option]})


def _steps(part: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, in order; a sequence is opened."""
    if part is None:
        return []
    if not isinstance(part, dict):
        raise ValueError(f"{key} of {part!r:.40}")
    return [inner for one in part[key] for inner in _steps(one, key)] if part.get("type") == "Sequence" else [part]


def _regex(step: dict[str, Any], folder: pathlib.Path) -> str:
    """The pattern of a step that cuts its matches out and keeps everything."""
    if step.get("type") == "Digits" and step.get("individual_digits"):
        return _EACH_DIGIT
    keeps = (step.get("behavior"), bool(step.get("invert"))) in (("Isolated", False), ("Removed", True))  # these patterns match all text
    pattern = step.get("pattern")
    if step.get("type") != "Split" or not keeps or not isinstance(pattern, dict) or not isinstance(pattern.get("Regex"), str):
        raise _refused(folder, "splits text", step)
    return str(pattern["Regex"])


def _refused(folder: pathlib.Path, does: str, how: Any) -> ConvertError:
    return ConvertError(
        f"The tokenizer in '{folder}' {does} in a way that llama.cpp has no name for ({how!r:.120}), so the GGUF would make other "
        "tokens; use a checkpoint with the tokenizer of Qwen3 or Gemma 3."
    )
