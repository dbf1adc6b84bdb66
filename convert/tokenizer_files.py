"""Reads the files of a tokenizer in one folder, and checks that they do not contradict each other.

Owns `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `vocab.json`, `merges.txt` and
`chat_template.jinja`. The folder of an adapter may hold only some of them; the base's stand for the others. Invariant: an id has
one text and one kind in all files, or the folder is refused.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from convert.checkpoint import read_json
from edge_agent.core.errors import ConvertError

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja",
)  # fmt: skip
ROLES = ("bos", "eos", "unk", "sep", "pad", "mask")


class Added(NamedTuple):
    """A token that was added to the learned ones. `needs_word_ends`: transformers only finds it between two word boundaries."""

    text: str
    id: int
    is_special: bool
    eats_spaces: bool = False
    needs_word_ends: bool = False

    @property
    def is_control(self) -> bool:
        """Whether llama.cpp's converter makes it a control token, which it does for some texts that the model calls ordinary."""
        framed = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
        looks_special = any(self.text.startswith(a) and self.text.endswith(b) for a, b in framed)
        return self.is_special or looks_special or self.text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")


class TokenizerFiles(NamedTuple):
    """The contents of the files in `folder`. `tokenizer` is empty if there is only a SentencePiece model, `pieces`; `model` is
    config.json, and `added` the added tokens of all files.
    """

    folder: pathlib.Path
    tokenizer: dict[str, Any]
    settings: dict[str, Any]
    model: dict[str, Any]
    pieces: pathlib.Path | None
    added: list[Added]
    template: str | None


def has_tokenizer(folder: pathlib.Path) -> bool:
    """Whether the folder of an adapter holds any file of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def read_files(folder: pathlib.Path, config: dict[str, Any], reads_pieces: bool, below: TokenizerFiles | None = None) -> TokenizerFiles:
    """Read the files in `folder`; those of `below` stand for what an adapter's folder lacks. `reads_pieces`: a `tokenizer.model`
    counts. Raises `ConvertError`, and the exceptions of a wrong structure.
    """
    own, model_file = folder / "tokenizer.json", folder / "tokenizer.model"
    pieces = model_file if reads_pieces and model_file.is_file() else None
    uses_below = below is not None and not own.is_file() and pieces is None
    if below is not None and uses_below:
        tokenizer, pieces = below.tokenizer, below.pieces
    else:
        tokenizer = {} if pieces and not own.is_file() else read_json(own)
    settings = _settings(folder, below)
    _check_old_forms(folder, tokenizer)
    added = _added(folder, tokenizer, settings, below.added if below is not None and uses_below else [])
    template = _chat_template(folder, settings) or (below.template if below else None)
    return TokenizerFiles(folder, tokenizer, settings, config, pieces, added, template)


def text_of(token: Any) -> Any:
    """The text of a token that is given as a text or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _settings(folder: pathlib.Path, below: TokenizerFiles | None) -> dict[str, Any]:
    """`tokenizer_config.json`, with the roles that only `special_tokens_map.json` names."""
    roles_file, own = folder / "special_tokens_map.json", folder / "tokenizer_config.json"
    roles = read_json(roles_file) if roles_file.is_file() else {}
    if below is None or own.is_file():
        return {**roles, **read_json(own)}
    inherited = {key: value for key, value in below.settings.items() if key not in ("added_tokens_decoder", "chat_template")}
    return {**inherited, **roles}


def _added(folder: pathlib.Path, tokenizer: dict[str, Any], settings: dict[str, Any], below: list[Added]) -> list[Added]:
    """The added tokens of all files, one for each id."""
    places: dict[int, tuple[str, bool, Added]] = {added.id: ("the base", True, added) for added in below}
    for name, knows_kind, added in _listed(folder, {} if below else tokenizer, settings):
        first_name, first_knows, first = places.setdefault(added.id, (name, knows_kind, added))
        if first.text != added.text:
            raise ConvertError(
                f"The token {added.id!r:.20} is {first.text!r:.40} in {first_name}, but {added.text!r:.40} in {name} of '{folder}'; "
                "remove the file that does not belong to the weights."
            )
        if first_knows and knows_kind and first.is_control != added.is_control:
            raise ConvertError(
                f"The token {added.text!r:.40} ({added.id!r:.20}) is {_kind(first)} in {first_name}, but {_kind(added)} in {name} of "
                f"'{folder}'; remove the file that does not belong to the weights."
            )
        either = Added(
            first.text, first.id, first.is_special, first.eats_spaces or added.eats_spaces, first.needs_word_ends or added.needs_word_ends
        )
        places[added.id] = (first_name, first_knows, either)
    return [added for _, _, added in places.values()]


def _kind(added: Added) -> str:
    return "special" if added.is_control else "not special"


def _listed(folder: pathlib.Path, tokenizer: dict[str, Any], settings: dict[str, Any]) -> Iterator[tuple[str, bool, Added]]:
    """Each entry for an added token: its file, whether the file says what kind of token it is, and the token."""
    for entry in tokenizer.get("added_tokens") or []:
        yield "'tokenizer.json'", True, _of(entry["id"], entry)
    for i, entry in (settings.get("added_tokens_decoder") or {}).items():
        yield "'tokenizer_config.json'", True, _of(int(i), entry)
    if (file := folder / "added_tokens.json").is_file():
        more = settings.get("additional_special_tokens") or []
        special = {text_of(token) for token in [*(settings.get(f"{role}_token") for role in ROLES), *more]}
        for text, i in read_json(file).items():
            yield "'added_tokens.json'", False, _checked(text, i, text in special)


def _of(i: Any, entry: dict[str, Any]) -> Added:
    """The token of an entry as `tokenizer.json` and `tokenizer_config.json` have them."""
    eats_spaces, needs_word_ends = bool(entry.get("lstrip") or entry.get("rstrip")), bool(entry.get("single_word"))
    return _checked(entry["content"], i, bool(entry.get("special")), eats_spaces, needs_word_ends)


def _checked(text: Any, i: Any, is_special: bool, eats_spaces: bool = False, needs_word_ends: bool = False) -> Added:
    if not isinstance(text, str) or not text:
        raise ValueError(f"an added token {text!r:.40}")
    return Added(text, i, is_special, eats_spaces, needs_word_ends)


def _check_old_forms(folder: pathlib.Path, tokenizer: dict[str, Any]) -> None:
    """Refuse a `vocab.json` or `merges.txt` that is not what `tokenizer.json` says; transformers once wrote them beside it."""
    if not tokenizer:
        return
    model = tokenizer["model"]
    if (file := folder / "vocab.json").is_file():
        vocab = read_json(file)
        added = {entry["content"] for entry in tokenizer.get("added_tokens") or []}
        for text in {**vocab, **model["vocab"]}:
            if text not in added and vocab.get(text) != (i := model["vocab"].get(text)):
                raise _contradiction(folder, "vocab.json", f"the id {vocab.get(text)!r:.20} for {text!r:.40}", f"{i!r:.20}")
    if (file := folder / "merges.txt").is_file():
        lines = file.read_text(encoding="utf-8").split("\n")
        theirs = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
        mine = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        if theirs != mine:
            at = next((n for n, (a, b) in enumerate(zip(theirs, mine, strict=False)) if a != b), min(len(theirs), len(mine)))
            one, other = (repr(merges[at]) if at < len(merges) else "the end" for merges in (theirs, mine))
            raise _contradiction(folder, "merges.txt", f"{one:.40} as merge {at + 1}", f"{other:.40}")


def _contradiction(folder: pathlib.Path, name: str, one: str, other: str) -> ConvertError:
    return ConvertError(
        f"'{name}' of '{folder}' has {one}, but the 'tokenizer.json' that it belongs to has {other}; remove the file that does not belong "
        "to the weights."
    )


def _chat_template(folder: pathlib.Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
    if not isinstance(template, str):
        return None
    template.encode()  # raises for a lone surrogate
    return template
