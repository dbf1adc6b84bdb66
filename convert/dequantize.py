"""The way back: a GGUF becomes a transformers checkpoint again, with float32 weights in safetensors.

    python -m convert.dequantize FILE.gguf --out FOLDER [--tokenizer FOLDER]

For a model of which only a quantized GGUF is at hand: to train an adapter on it, or to quantize it again. What quantization
took away stays lost. Owns `config.json` from metadata and the streaming of tensors; the tokenizer's files are copied from a folder,
or made from the GGUF, which does not hold all that such files can say. Invariants: no tensor is ever in memory as a whole; a setting
of the GGUF that `config.json` cannot hold is refused, so converting the result gives the same model, with the same `foggen.*`
metadata; the folder gets its name when it is complete.
"""

from __future__ import annotations

import json
import math
import pathlib
import shutil
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from types import FrameType
from typing import Any, NamedTuple

import click
import gguf
import numpy as np
from gguf import GGMLQuantizationType, TokenType

from convert import architectures, vocab
from convert.architectures import HEAD, Architecture, Config, Shapes
from convert.checkpoint import Array, slabs
from convert.export import STATED
from convert.output import Output
from convert.pretokenizer import SPACE, is_same
from convert.quantize import n_bytes
from convert.tokenizer_files import TOKENIZER_FILES
from convert.tokenizer_from_gguf import numbers, write_tokenizer
from edge_agent.core.errors import ConvertError, EdgeAgentError
from edge_agent.core.files import sync_folder, temporary_folder
from edge_agent.core.terminal import plain
from edge_agent.model.catalog import adapters_in
from edge_agent.model.gguf import Header, TensorPlace, read_header, read_texts
from edge_agent.model.profile import ADAPTERS_KEY

_REDUNDANT = ("rope.dimension_count", "vocab_size")  # keys that some converters write and llama.cpp computes


class Dequantized(NamedTuple):
    """A checkpoint that was written: its folder, the number of its tensors and weights, and the size of the weights' file."""

    folder: pathlib.Path
    n_tensors: int
    n_weights: int
    bytes: int


class _Source(NamedTuple):
    """A GGUF that was checked against the configuration that was made from it."""

    path: pathlib.Path
    header: Header
    architecture: Architecture
    config: Config
    names: dict[str, str]  # the checkpoint's name of each tensor -> the GGUF's

    def rows(self, name: str) -> Iterator[Array]:
        """The weights of a tensor of the checkpoint, in slabs of rows."""
        place = self.header.tensors[self.names[name]]
        kind, shape = GGMLQuantizationType(place.kind), place.shape[::-1]
        matrix = shape if len(shape) > 1 else (1, *shape)
        data = np.memmap(self.path, np.uint8, "r", place.offset, (matrix[0], n_bytes(matrix[1:], kind)))
        shift = np.float32(architectures.shift(self.architecture, self.names[name]))
        order = architectures.row_order(self.architecture, self.config, self.names[name])

        def read(start: int, stop: int) -> Array:
            weights: Array = gguf.dequantize(np.array(data[start:stop]), kind).astype(np.float32, copy=False)
            return weights - shift if shift else weights

        in_order = architectures.reordered(read, None if order is None else np.argsort(order))
        for start, stop in slabs(matrix):
            yield in_order(start, stop)


def dequantize(path: pathlib.Path, tokenizer: pathlib.Path | None, out: pathlib.Path) -> Dequantized:
    """Write the GGUF at `path` to the new folder `out` as a checkpoint, with the tokenizer in the folder `tokenizer`, or without one
    with a tokenizer made from the GGUF.

    Raises `ConvertError`, and `ModelMissing` or `ModelRefused` for a file that cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConvertError(f"'{out}' is not an empty folder; give another --out.")
    source = _open(path)
    if tokenizer is not None:
        _check_tokenizer(source, tokenizer)
    head = _head(source)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out) as temporary:
            if tokenizer is None:
                tokenizer = temporary / "tokenizer"
                tokenizer.mkdir()
                write_tokenizer(path, source.header, tokenizer)
                _check_tokenizer(source, tokenizer)
            made = temporary / "checkpoint"
            made.mkdir()
            n_bytes_written = _write(source, tokenizer, head, made)
            made.replace(out.resolve())
            sync_folder(out.resolve().parent)
    except OSError as error:
        raise ConvertError(f"Cannot write to '{out}' ({error.strerror or error}); check the folder and its free space.") from error
    n_weights = sum(math.prod(source.header.tensors[name].shape) for name in source.names.values())
    return Dequantized(out, len(source.names), n_weights, n_bytes_written)


def _write(source: _Source, tokenizer: pathlib.Path, head: bytes, folder: pathlib.Path) -> int:
    """Write all files of the checkpoint into `folder`. Returns the size of the weights' file."""
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    (folder / "config.json").write_text(json.dumps(source.config, indent=2) + "\n", encoding="utf-8")
    with Output(folder / "model.safetensors", head) as output:
        for name in source.names:
            for weights in source.rows(name):
                output.write(np.ascontiguousarray(weights, dtype="<f4").data)
        output.finish()
    return output.n_bytes


def _open(path: pathlib.Path) -> _Source:
    header = read_header(path)
    if header.metadata.get("general.type", "model") != "model" or header.metadata.get("split.count", 0) > 1:
        raise ConvertError(f"'{path}' is not a whole model in one file; give the GGUF of a model.")
    class_name, architecture = architectures.by_gguf_name(header.architecture)
    config = _config(header, class_name, tied="output.weight" not in header.tensors)
    if adapters := adapters_in(path, header.metadata):
        config[STATED] = {**config.get(STATED, {}), ADAPTERS_KEY.removeprefix("foggen."): json.dumps(sorted(adapters))}
    _check_settings(header, architecture, config)
    shapes = architecture.shapes(config)
    if "output.weight" in header.tensors:
        shapes[HEAD] = shapes[architectures.EMBEDDING]
    names = architectures.tensor_names(architecture, config, shapes)
    _check_tensors(path, header, {names[name]: shape for name, shape in shapes.items()})
    return _Source(path, header, architecture, config, names)


def _config(header: Header, class_name: str, tied: bool) -> Config:
    """The `config.json` of the GGUF's metadata."""

    def said(key: str, default: Any = None) -> Any:
        value = header.metadata.get(f"{header.architecture}.{key}", default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConvertError(f"The GGUF has no number for '{header.architecture}.{key}'; fetch it again.")
        return float(str(np.float32(value))) if isinstance(value, float) else value  # the shortest decimal of the same float32

    embedding = header.tensors.get("token_embd.weight", TensorPlace(0, (0, 0), 0))
    heads = said("attention.head_count")
    config: Config = {
        "architectures": [class_name],
        "model_type": {"gemma3": "gemma3_text"}.get(header.architecture, header.architecture),
        "vocab_size": embedding.shape[-1],
        "hidden_size": said("embedding_length"),
        "intermediate_size": said("feed_forward_length"),
        "num_hidden_layers": said("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": said("attention.head_count_kv", heads),
        "head_dim": said("attention.key_length", said("embedding_length") // max(heads, 1)),
        "max_position_embeddings": said("context_length"),
        "rms_norm_eps": said("attention.layer_norm_rms_epsilon"),
        "rope_theta": said("rope.freq_base", 10_000.0),
        "attention_bias": False,
        "tie_word_embeddings": tied,
        "dtype": "float32",
    }
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        if isinstance(i := header.metadata.get(f"tokenizer.ggml.{key}_token_id"), int):
            config[f"{role}_token_id"] = i
    if stated := {key.removeprefix("foggen."): value for key, value in header.metadata.items() if key.startswith("foggen.")}:
        config[STATED] = stated
    if header.architecture == "gemma3":
        config |= {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": config["head_dim"],
            "sliding_window": said("attention.sliding_window"),
            "sliding_window_pattern": 6,
            "rope_local_base_freq": said("rope.freq_base_swa", 10_000.0),
            "attn_logit_softcapping": None,
        }
        if f"{header.architecture}.final_logit_softcapping" in header.metadata:
            config["final_logit_softcapping"] = said("final_logit_softcapping")
    else:
        config["hidden_act"] = "silu"
    return config


def _check_settings(header: Header, architecture: Architecture, config: Config) -> None:
    """Refuse a GGUF with a setting that a conversion of `config` would not write again."""
    writer = gguf.GGUFWriter(None, architecture.name)
    architecture.hyper_parameters(writer, config)
    written, own = {key: value.value for key, value in writer.kv_data[0].items()}, f"{architecture.name}."
    for key, value in header.metadata.items():
        is_same = isinstance(value, int | float) and np.float32(written.get(key, np.nan)) == np.float32(value)
        if key.startswith(own) and not is_same and key.removeprefix(own) not in _REDUNDANT:
            raise ConvertError(f"The GGUF has '{key}' = {value!r:.60}, which a checkpoint of {architecture.name} cannot hold here.")
    if (turned := header.metadata.get(f"{own}rope.dimension_count", config["head_dim"])) != config["head_dim"]:
        raise ConvertError(f"The GGUF turns {turned!r:.20} of {config['head_dim']} dimensions of a head, which is not supported.")
    if arrays := [key for key in header.arrays if key.startswith(own)]:
        raise ConvertError(f"The GGUF has a list for '{arrays[0]}', which a checkpoint of {architecture.name} cannot hold here.")


def _check_tensors(path: pathlib.Path, header: Header, shapes: Shapes) -> None:
    for name, shape in shapes.items():
        place = header.tensors.get(name)
        if place is None or place.shape[::-1] != shape:
            found = "is missing" if place is None else f"is {list(place.shape[::-1])}"
            raise ConvertError(f"The tensor '{name}' of '{path}' {found}, but its metadata needs {list(shape)}; fetch it again.")
        try:
            gguf.dequantize(
                np.zeros((1, n_bytes(shape[-1:], GGMLQuantizationType(place.kind))), np.uint8), GGMLQuantizationType(place.kind)
            )
        except (NotImplementedError, ValueError) as error:
            raise ConvertError(
                f"The tensor '{name}' has the type {place.kind}, which cannot be dequantized here; use another file."
            ) from error
    if more := sorted(set(header.tensors) - set(shapes)):
        raise ConvertError(f"The tensor '{more[0]:.100}' of '{path}' has no place in a checkpoint of {header.architecture}.")


def _check_tokenizer(source: _Source, folder: pathlib.Path) -> None:
    """Refuse a tokenizer that is not the GGUF's: other texts, kinds, merges, order of merging, splitting rules or special ids."""
    mine = vocab.read(folder, source.config["vocab_size"], source.architecture, source.config)
    fields, keys, metadata = mine.fields(), gguf.Keys.Tokenizer, source.header.metadata
    try:
        texts, kinds = list(read_texts(source.path, source.header, keys.LIST)), numbers(source.path, source.header, keys.TOKEN_TYPE)
    except KeyError as error:
        raise ConvertError(f"'{source.path}' has no tokens; give a GGUF with its tokenizer.") from error
    space = SPACE.encode()
    for i, (theirs, text, kind, mine_kind) in enumerate(zip(texts, mine.tokens.texts, kinds, mine.tokens.kinds, strict=False)):
        if vocab.is_placeholder(theirs):
            continue
        if theirs.replace(space, b" ") != text.replace(space, b" "):
            raise _another(source, folder, f"the token {i}", repr(theirs.decode(errors="replace")), repr(text.decode(errors="replace")))
        if not _is_same_kind(kind, mine_kind, is_exact="foggen.version" in metadata):
            raise _another(source, folder, f"the kind of the token {i}", TokenType(kind).name, TokenType(mine_kind).name)
    if keys.MERGES in fields:
        _check_merges(source, folder, fields[keys.MERGES].value, mine.pre)
    elif any(
        one < other for one, other in pairwise(map(numbers(source.path, source.header, keys.SCORES).__getitem__, mine.tokens.order()))
    ):
        raise _another(source, folder, "the order of merging", "that of its scores", "another one")
    roles = (keys.BOS_ID, keys.EOS_ID, keys.EOT_ID, keys.ADD_BOS, keys.ADD_EOS)
    for key in roles:
        if key in metadata and key in fields and metadata[key] != fields[key].value:
            raise _another(source, folder, f"'{key}'", repr(metadata[key]), repr(fields[key].value))


def _is_same_kind(one: int, other: int, is_exact: bool) -> bool:
    """Whether two kinds of a token are the same. Unless `is_exact`, an added token may be a control token or an ordinary one, because
    other converters decide that by other rules.
    """
    added = (TokenType.CONTROL, TokenType.USER_DEFINED)
    return one == other or TokenType.UNUSED in (one, other) or (not is_exact and one in added and other in added)


def _check_merges(source: _Source, folder: pathlib.Path, mine: list[bytes], pre: str) -> None:
    header, keys = source.header, gguf.Keys.Tokenizer
    theirs = read_texts(source.path, header, keys.MERGES) if keys.MERGES in header.arrays else iter(())
    for at, (one, other) in enumerate(zip_longest(theirs, mine, fillvalue=b"")):
        if one != other:
            raise _another(source, folder, f"the merge {at + 1}", repr(one.decode(errors="replace")), repr(other.decode(errors="replace")))
    if not is_same(found := str(header.metadata.get(keys.PRE, "default")), pre):
        raise _another(source, folder, "the name of the rules that split text", repr(found), repr(pre))


def _another(source: _Source, folder: pathlib.Path, what: str, theirs: str, mine: str) -> ConvertError:
    return ConvertError(
        f"{what[0].upper()}{what[1:]} is {theirs:.60} in '{source.path}', but {mine:.60} in the tokenizer of '{folder}'; give the "
        "tokenizer of this model."
    )


def _head(source: _Source) -> bytes:
    """The start of the safetensors file: the length of the JSON, then where each tensor lies."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, in_file in source.names.items():
        shape = source.header.tensors[in_file].shape[::-1]
        end = at + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(entries, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head


@click.command()
@click.argument("file", type=click.Path(path_type=pathlib.Path, dir_okay=False))
@click.option(
    "--tokenizer", type=click.Path(path_type=pathlib.Path, exists=True, file_okay=False),
    help="A folder with the model's tokenizer.json (or tokenizer.model) and tokenizer_config.json, to copy. Default: made from the GGUF.",
)  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=pathlib.Path, file_okay=False), help="The folder to make.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(file: pathlib.Path, tokenizer: pathlib.Path | None, out: pathlib.Path, as_json: bool) -> None:
    """Write the model FILE.gguf as a transformers checkpoint with float32 weights: four bytes for each weight."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        restored = dequantize(file, tokenizer, out)
    except EdgeAgentError as error:
        click.echo(f"dequantize: {plain(str(error))}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("dequantize: interrupted; no unfinished folder is left", err=True)
        sys.exit(130)
    facts = {**restored._asdict(), "folder": str(restored.folder)}
    said = f"{out}  {restored.n_tensors} tensors, {restored.n_weights:,} weights, {restored.bytes:,} bytes"
    click.echo(json.dumps(facts) if as_json else said)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="python -m convert.dequantize")
