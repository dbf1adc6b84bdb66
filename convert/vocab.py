"""Carries a tokenizer over: tokens, their kinds, merges, special ids and the chat template.

Owns the reading of `tokenizer.json` (byte-level BPE). Invariant: ids stay what they are; a row of the embedding
without a token gets an unused placeholder, and a token without a row is refused.
"""

from __future__ import annotations

import pathlib
from typing import Any

import gguf

from convert.checkpoint import read_json
from edge_agent.errors import ConvertError


def write(writer: gguf.GGUFWriter, folder: pathlib.Path, n_rows: int, pre: str) -> None:
    """Write the tokenizer of `folder` for an embedding of `n_rows` rows; `pre` is llama.cpp's pre-tokenizer name."""
    data = read_json(folder / "tokenizer.json")
    config = read_json(folder / "tokenizer_config.json")
    model = data.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        raise ConvertError(f"The tokenizer in '{folder}' is no BPE; only byte-level BPE is carried over here.")
    try:
        tokens, kinds = _tokens(model["vocab"], data.get("added_tokens", []), n_rows)
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        ids = {token: i for i, token in enumerate(tokens)}
        eos, pad = (ids.get(_text(config.get(key))) for key in ("eos_token", "pad_token"))
        template = folder / "chat_template.jinja"
        chat_template = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ConvertError(f"The tokenizer in '{folder}' is not as transformers writes it ({error!r:.80}); download it again.") from error
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    if eos is not None:
        writer.add_eos_token_id(eos)
    if pad is not None:
        writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)  # ChatML has none, and llama.cpp would add one by default
    if isinstance(chat_template, str):
        writer.add_chat_template(chat_template)


def _tokens(vocab: dict[str, int], added: list[dict[str, Any]], n_rows: int) -> tuple[list[str], list[int]]:
    """Token texts and llama.cpp's kinds (`gguf.TokenType`), by id."""
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    kinds = [int(gguf.TokenType.UNUSED)] * n_rows
    control, user = int(gguf.TokenType.CONTROL), int(gguf.TokenType.USER_DEFINED)
    entries = [(text, i, int(gguf.TokenType.NORMAL)) for text, i in vocab.items()]
    entries += [(entry["content"], entry["id"], control if entry["special"] else user) for entry in added]
    for text, i, kind in entries:
        if not 0 <= i < n_rows:
            raise ConvertError(f"The token '{text}' has the id {i}, and the embedding has {n_rows} rows; resized vocabulary?")
        tokens[i], kinds[i] = text, kind
    return tokens, kinds


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
