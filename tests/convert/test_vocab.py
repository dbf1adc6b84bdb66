"""What a GGUF takes over from a tokenizer, and what it refuses."""

import json
import pathlib
import shutil
from typing import Any

import gguf
import numpy as np
import pytest

from convert.checkpoint import read_tensors
from convert.export import Conversion, Reports, export
from edge_agent.core.errors import ConvertError
from edge_agent.model.gguf import read_header
from tests.support.checkpoints import ADAPTER, BASE, GEMMA_ADDED, GEMMA_PIECES, gemma_checkpoint, write_safetensors

N_ROWS = len(GEMMA_PIECES) + len(GEMMA_ADDED)


def edit(path: pathlib.Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def converted(source: pathlib.Path, out: pathlib.Path, *adapters: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """The GGUF and what was said on the way."""
    said: list[str] = []
    return export(Conversion(source, adapters, ["F32"], "x"), out, Reports(said.append))[0].path, said


def test_added_token_beyond_the_rows_is_dropped_and_said(tmp_path: pathlib.Path) -> None:
    """Gemma 3's published tokenizer has one: <image_soft_token> with the id 262144."""
    source = gemma_checkpoint(tmp_path / "source", added=("<image_soft_token>",))
    path, said = converted(source, tmp_path)
    assert any(f"'<image_soft_token>' (id {N_ROWS}) is left out" in line for line in said), said
    tokens = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == N_ROWS and "<image_soft_token>" not in tokens
    assert not any("left out" in line for line in converted(gemma_checkpoint(tmp_path / "whole"), tmp_path / "out")[1])


def test_token_with_a_role_needs_a_row(tmp_path: pathlib.Path) -> None:
    source = gemma_checkpoint(tmp_path / "source", added=("<stop>",))
    edit(source / "tokenizer_config.json", eos_token="<stop>")
    with pytest.raises(ConvertError, match=r"eos token '<stop>'.*has no row"):
        converted(source, tmp_path)


@pytest.mark.parametrize("eos", ["<end_of_turn>", "<eos>"])
def test_end_of_a_text_and_end_of_a_turn_have_their_own_names(tmp_path: pathlib.Path, eos: str) -> None:
    """A chat model's tokenizer calls the end of a turn "eos"; the published GGUF has eos 1."""
    source = gemma_checkpoint(tmp_path / "source")
    edit(source / "tokenizer_config.json", eos_token=eos)
    metadata = read_header(converted(source, tmp_path)[0]).metadata
    assert metadata["tokenizer.ggml.eos_token_id"] == 1
    assert metadata["tokenizer.ggml.eot_token_id"] == GEMMA_ADDED.index("<end_of_turn>") + len(GEMMA_PIECES)


# --- how text is split before tokens are merged ---

QWEN2 = json.loads((BASE / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]


def split(regex: str = QWEN2, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def bytes_(use_regex: bool, add_prefix_space: bool = False) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def steps(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (steps(split(), bytes_(use_regex=False)), "qwen2"),
        (steps(split(behavior="Removed", invert=True), bytes_(use_regex=False)), "qwen2"),
        (steps(steps(split()), bytes_(use_regex=False)), "qwen2"),
        (bytes_(use_regex=True), "gpt-2"),
        ({"type": "ByteLevel", "add_prefix_space": False}, "gpt-2"),  # the default is to split
        (steps(DIGITS, bytes_(use_regex=True)), "starcoder"),
    ],
)
def test_rules_that_llama_cpp_has_get_their_name(tmp_path: pathlib.Path, rules: dict[str, Any], name: str) -> None:
    """A ByteLevel with `use_regex` splits as GPT-2 does; it used to be called qwen2, and the GGUF made other tokens."""
    shutil.copytree(BASE, tmp_path / "base")
    edit(tmp_path / "base" / "tokenizer.json", pre_tokenizer=rules)
    assert read_header(converted(tmp_path / "base", tmp_path)[0]).metadata["tokenizer.ggml.pre"] == name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pre_tokenizer": steps(split(), bytes_(use_regex=True))}, "splits text"),
        ({"pre_tokenizer": bytes_(use_regex=False)}, "splits text"),
        ({"pre_tokenizer": bytes_(use_regex=True, add_prefix_space=True)}, "splits text"),
        ({"pre_tokenizer": steps(split(QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")), bytes_(use_regex=False))}, "splits text"),
        ({"pre_tokenizer": steps(split(behavior="MergedWithPrevious"), bytes_(use_regex=False))}, "splits text"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits text"),
        ({"pre_tokenizer": None}, "splits text"),
        ({"pre_tokenizer": "x"}, "not what transformers writes"),
        ({"normalizer": {"type": "Lowercase"}}, "changes text"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFKC"}]}}, "changes text"),
        ({"ignore_merges": True}, "merges tokens"),
        ({"dropout": 0.1}, "merges tokens"),
        ({"end_of_word_suffix": "</w>"}, "merges tokens"),
    ],
)
def test_rules_that_llama_cpp_does_not_have_are_refused(tmp_path: pathlib.Path, changes: dict[str, Any], words: str) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    path = tmp_path / "base" / "tokenizer.json"
    model = json.loads(path.read_text())["model"]
    inside = {key: value for key, value in changes.items() if key in ("ignore_merges", "dropout", "end_of_word_suffix")}
    edit(path, **({"model": {**model, **inside}} if inside else changes))
    with pytest.raises(ConvertError, match=words) as caught:
        converted(tmp_path / "base", tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


SPACE_TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


@pytest.mark.parametrize(
    ("changes", "is_taken"),
    [
        ({"pre_tokenizer": None}, True),
        (
            {
                "normalizer": None,
                "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": False},
            },
            True,
        ),
        ({"normalizer": None}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, SPACE_TO_MARK]}}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, SPACE_TO_MARK]}}, False),
        (
            {
                "normalizer": None,
                "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
            },
            False,
        ),
        ({"pre_tokenizer": {"type": "Digits", "individual_digits": True}}, False),
    ],
)
def test_gemmas_rules_are_taken_and_others_refused(tmp_path: pathlib.Path, changes: dict[str, Any], is_taken: bool) -> None:
    source = gemma_checkpoint(tmp_path / "source")
    edit(source / "tokenizer.json", **changes)
    if is_taken:
        converted(source, tmp_path)
        return
    with pytest.raises(ConvertError, match=r"(changes|splits) text in a way that llama\.cpp has no name for"):
        converted(source, tmp_path)


def varint(number: int, value: int) -> bytes:
    return bytes([number << 3, value])


def sentencepiece(*rules: bytes) -> bytes:
    """A SentencePiece model of the tiny Gemma's pieces, with these fields in its NormalizerSpec."""
    kinds = [3, 3, 3, 2, *[6] * 256]
    pieces = b""
    for i, text in enumerate(GEMMA_PIECES):
        data = text.encode()
        piece = bytes([1 << 3 | 2, len(data)]) + data + varint(3, kinds[i] if i < len(kinds) else 1)
        pieces += bytes([1 << 3 | 2, len(piece)]) + piece
    spec = b"".join(rules)
    return pieces + bytes([2 << 3 | 2, 2]) + varint(3, 2) + bytes([3 << 3 | 2, len(spec)]) + spec


@pytest.mark.parametrize(
    ("rules", "is_taken"),
    [
        ([varint(3, 0), varint(4, 0)], True),
        ([], False),  # the defaults add a space in front and remove doubled ones
        ([varint(3, 1), varint(4, 0)], False),
        ([varint(3, 0), varint(4, 1)], False),
        ([varint(3, 0), varint(4, 0), varint(5, 0)], False),
        ([varint(3, 0), varint(4, 0), bytes([2 << 3 | 2, 1]) + b"x"], False),
    ],
)
def test_sentencepiece_model_that_changes_text_is_refused(tmp_path: pathlib.Path, rules: list[bytes], is_taken: bool) -> None:
    source = gemma_checkpoint(tmp_path / "source")
    (source / "tokenizer.model").write_bytes(sentencepiece(*rules))
    if is_taken:
        assert tokens_of(converted(source, tmp_path)[0])[:2] == ["<pad>", "<eos>"]
        return
    with pytest.raises(ConvertError, match="changes spaces or characters"):
        converted(source, tmp_path)


def test_two_tokenizers_in_one_folder_that_differ_are_refused_naming_both(tmp_path: pathlib.Path) -> None:
    source = gemma_checkpoint(tmp_path / "source")
    (source / "tokenizer.model").write_bytes(sentencepiece(varint(3, 0), varint(4, 0)))
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    model["vocab"] |= {"a": model["vocab"]["b"], "b": model["vocab"]["a"]}
    edit(source / "tokenizer.json", model=model)
    with pytest.raises(ConvertError, match=r"'a' has the id 261 in 'tokenizer\.model', but 262 in 'tokenizer\.json'"):
        converted(source, tmp_path)


def test_token_that_takes_spaces_along_is_said(tmp_path: pathlib.Path) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    path = tmp_path / "base" / "tokenizer.json"
    added = json.loads(path.read_text())["added_tokens"]
    edit(path, added_tokens=[{**added[0], "rstrip": True}, *added[1:]])
    assert any("takes the spaces beside it along" in line for line in converted(tmp_path / "base", tmp_path)[1])


# --- one text and one kind for an id, one id for a text ---


def added_to(folder: pathlib.Path, text: str, i: int, **flags: bool) -> None:
    entries = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    others = [entry for entry in entries if entry["id"] != i]
    edit(folder / "tokenizer.json", added_tokens=[*others, {"id": i, "content": text, "special": False, **flags}])


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(BASE, tmp_path / "base"))


def vocab_of(folder: pathlib.Path) -> dict[str, int]:
    return json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]


def set_vocab(folder: pathlib.Path, **changes: int) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    edit(folder / "tokenizer.json", model={**model, "vocab": {**model["vocab"], **changes}})


def learned(i: int) -> str:
    return next(text for text, at in vocab_of(BASE).items() if at == i)


@pytest.mark.parametrize("text", [learned(400), "\u00e9", "\u0120"])
def test_one_text_at_two_ids_is_refused_naming_both(base: pathlib.Path, text: str) -> None:
    """llama.cpp ends the whole process over such a file; the letters are how a byte-level vocabulary writes bytes."""
    added_to(base, text, 1534)
    with pytest.raises(ConvertError, match=rf"has two ids, {vocab_of(base)[text]} and 1534"):
        converted(base, base / "out")


def test_added_text_that_the_vocabulary_has_at_another_id_is_refused(base: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = json.loads((base / "tokenizer.json").read_text())["model"]
    vocab = {text: i for text, i in model["vocab"].items() if i != 5}
    edit(base / "tokenizer.json", model={**model, "vocab": {**vocab, "<|im_end|>": 5}})
    with pytest.raises(ConvertError, match=r"'<\|im_end\|>' has two ids, 5 and 1533"):
        converted(base, base / "out")
    source = gemma_checkpoint(tmp_path / "gemma")
    added_to(source, "ab", N_ROWS)  # without a row
    with pytest.raises(ConvertError, match=rf"'ab' has two ids, {GEMMA_PIECES.index('ab')} and {N_ROWS}"):
        converted(source, tmp_path / "out")


def test_two_texts_for_an_id_are_refused_naming_both(base: pathlib.Path) -> None:
    added_to(base, "<tok>", 300)
    with pytest.raises(ConvertError, match=r"two tokens with the id 300, .*'<tok>'"):
        converted(base, base / "out")
    shutil.copy(BASE / "tokenizer.json", base)
    set_vocab(base, new=301)
    with pytest.raises(ConvertError, match=r"two tokens with the id 301, .*'new'"):
        converted(base, base / "out")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"content": "<other>", "special": False}, r"1534 is '<tok>' in 'tokenizer\.json', but '<other>' in 'tokenizer_config\.json'"),
        ({"content": "<tok>", "special": True}, r"'<tok>' \(1534\) is not special in .*, but special in 'tokenizer_config\.json'"),
        ({"content": "<tok>", "special": False}, None),
    ],
)
def test_files_that_contradict_each_other_are_refused(base: pathlib.Path, entry: dict[str, Any], words: str | None) -> None:
    added_to(base, "<tok>", 1534)
    edit(base / "tokenizer_config.json", added_tokens_decoder={"1534": entry})
    if words is None:
        converted(base, base / "out")
        return
    with pytest.raises(ConvertError, match=words):
        converted(base, base / "out")


def test_older_forms_beside_tokenizer_json_must_say_the_same(base: pathlib.Path) -> None:
    model = json.loads((base / "tokenizer.json").read_text())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (base / "vocab.json").write_text(json.dumps(model["vocab"]))
    (base / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (base / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 1533}))
    converted(base, base / "out")
    for name, text, words in [
        ("vocab.json", json.dumps({**model["vocab"], "!": 7}), "has the id 7 for '!'"),
        ("merges.txt", "\n".join(merges[:-1]), "has the end as merge"),
        ("added_tokens.json", json.dumps({"<other>": 1533}), r"1533 is '<\|im_end\|>' in"),
    ]:
        before = (base / name).read_text()
        (base / name).write_text(text, encoding="utf-8")
        with pytest.raises(ConvertError, match=words):
            converted(base, base / "out")
        (base / name).write_text(before)


def test_merge_to_a_text_that_the_vocabulary_lacks_is_refused(base: pathlib.Path) -> None:
    """transformers cannot read such a file either."""
    model = json.loads((base / "tokenizer.json").read_text())["model"]
    edit(base / "tokenizer.json", model={**model, "vocab": {text: i for text, i in model["vocab"].items() if i != 1000}})
    with pytest.raises(ConvertError, match="but its vocabulary lacks"):
        converted(base, base / "out")


def test_name_that_a_json_file_has_twice_is_refused(base: pathlib.Path) -> None:
    path = base / "tokenizer.json"
    path.write_text(path.read_text().replace('"vocab": {', '"vocab": {"!": 4000, ', 1))
    with pytest.raises(ConvertError, match="the name '!' twice"):
        converted(base, base / "out")


def test_token_that_must_be_a_whole_word_is_said(base: pathlib.Path) -> None:
    added_to(base, "<tok>", 1534, single_word=True)
    assert any("'<tok>' is only found as a whole word in transformers" in line for line in converted(base, base / "out")[1])


@pytest.mark.parametrize("merge", [["\u2581", "ab"], ["a", "b"]])
def test_piece_that_only_llama_cpp_would_merge_is_refused(tmp_path: pathlib.Path, merge: list[str]) -> None:
    source = gemma_checkpoint(tmp_path / "source")
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    edit(source / "tokenizer.json", model={**model, "merges": [one for one in model["merges"] if one != merge]})
    with pytest.raises(ConvertError, match=f"not made from a SentencePiece model.*no merge of '{merge[0]}' and '{merge[1]}'"):
        converted(source, tmp_path)


def test_first_of_several_ends_becomes_the_end_of_a_text(base: pathlib.Path) -> None:
    edit(base / "config.json", eos_token_id=[1533, 1531])
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    path, said = converted(base, base / "out")
    assert read_header(path).metadata["tokenizer.ggml.eos_token_id"] == 1533 and not any("names no end" in line for line in said)
    edit(base / "config.json", eos_token_id=[])
    assert any("names no end of a text" in line for line in converted(base, base / "out")[1])


# --- an adapter's own tokenizer ---

N_DEMO = read_tensors(BASE)["model.embed_tokens.weight"].shape[0]


@pytest.fixture
def trained(tmp_path: pathlib.Path) -> pathlib.Path:
    """A base with two free rows, and an adapter that was trained with one more token: base, adapter."""
    shutil.copytree(BASE, tmp_path / "base")
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    edit(tmp_path / "base" / "config.json", vocab_size=N_DEMO + 2)
    tensors = {name: tensor.load() for name, tensor in read_tensors(BASE).items()}
    embedding = np.concatenate([tensors["model.embed_tokens.weight"], np.zeros((2, 256), np.float32)])
    write_safetensors(tmp_path / "base" / "model.safetensors", {**tensors, "model.embed_tokens.weight": embedding})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE / name, tmp_path / "adapter" / name)
    add_token(tmp_path / "adapter", "<new>", N_DEMO)
    more = {"base_model.model.model.embed_tokens.weight": np.concatenate([embedding[:N_DEMO], np.ones((2, 256), np.float32)])}
    pairs = {name: tensor.load() for name, tensor in read_tensors(ADAPTER, "adapter_model").items()}
    write_safetensors(tmp_path / "adapter" / "adapter_model.safetensors", {**pairs, **more})
    return tmp_path


def add_token(folder: pathlib.Path, text: str, i: int) -> None:
    entries = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    edit(folder / "tokenizer.json", added_tokens=[*entries, {"id": i, "content": text, "special": True}])


def tokens_of(path: pathlib.Path) -> list[str]:
    return gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()


def test_adapters_own_tokenizer_is_taken_and_said(trained: pathlib.Path) -> None:
    """Its token has a row of the replaced embedding, and used to be called [PAD...]."""
    path, said = converted(trained / "base", trained / "out", trained / "adapter")
    assert tokens_of(path)[N_DEMO:] == ["<new>", f"[PAD{N_DEMO + 1}]"]
    assert np.array_equal(next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight").data[N_DEMO], np.ones(256))
    assert any("the tokenizer is that of the adapter" in line for line in said)
    without, quiet = converted(trained / "base", trained / "without")
    assert tokens_of(without)[N_DEMO] == f"[PAD{N_DEMO}]" and not any("tokenizer" in line for line in quiet)


def test_template_of_the_base_stays_where_the_adapter_has_none(trained: pathlib.Path) -> None:
    path, _ = converted(trained / "base", trained / "out", trained / "adapter")
    assert read_header(path).metadata["tokenizer.chat_template"] == (BASE / "chat_template.jinja").read_text()
    (trained / "adapter" / "chat_template.jinja").write_text("own")
    path, _ = converted(trained / "base", trained / "own", trained / "adapter")
    assert read_header(path).metadata["tokenizer.chat_template"] == "own"


def test_tokenizer_of_another_base_is_refused_naming_both(trained: pathlib.Path) -> None:
    tokenizer = json.loads((trained / "adapter" / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = (next(text for text, i in vocab.items() if i == n) for n in (400, 401))
    vocab[first], vocab[second] = 401, 400
    edit(trained / "adapter" / "tokenizer.json", model=tokenizer["model"])
    with pytest.raises(ConvertError, match=r"The token 400 is .* in the tokenizer of '.*base', but .* in that of the adapter '.*adapter'"):
        converted(trained / "base", trained / "out", trained / "adapter")


def test_token_that_the_adapter_added_beyond_the_rows_is_refused(trained: pathlib.Path) -> None:
    """It was trained with an embedding of more rows. A token that the base lists there too is dropped."""
    add_token(trained / "adapter", "<more>", N_DEMO + 2)
    with pytest.raises(ConvertError, match=rf"adds the token '<more>' with the id {N_DEMO + 2}.*resized"):
        converted(trained / "base", trained / "out", trained / "adapter")
    add_token(trained / "base", "<more>", N_DEMO + 2)
    assert any("'<more>'" in line for line in converted(trained / "base", trained / "out", trained / "adapter")[1])


@pytest.mark.parametrize("form", ["tokenizer.json", "older form", "added_tokens.json"])
def test_any_file_of_a_tokenizer_counts(trained: pathlib.Path, form: str) -> None:
    adapter = trained / "adapter"
    (adapter / "tokenizer_config.json").unlink()
    if form != "tokenizer.json":
        vocab = vocab_of(adapter)
        (adapter / "tokenizer.json").unlink()
        (adapter / "added_tokens.json").write_text(json.dumps({"<new>": N_DEMO}))
        if form == "older form":
            shutil.copy(BASE / "tokenizer_config.json", adapter)
            edit(adapter / "tokenizer_config.json", added_tokens_decoder={str(N_DEMO): {"content": "<new>", "special": True}})
            (adapter / "vocab.json").write_text(json.dumps(vocab))
    path, said = converted(trained / "base", trained / "out", adapter)
    assert tokens_of(path)[N_DEMO] == "<new>" and any("the tokenizer is that of the adapter" in line for line in said)


def test_vocabulary_that_cannot_be_the_bases_is_refused(trained: pathlib.Path) -> None:
    adapter = trained / "adapter"
    (adapter / "vocab.json").write_text(json.dumps({**vocab_of(adapter), "!": 7}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).unlink()
    with pytest.raises(ConvertError, match=r"'vocab\.json' of '.*adapter' has the id 7 for '!'"):
        converted(trained / "base", trained / "out", adapter)


@pytest.mark.parametrize("change", ["merges", "rules", "end"])
def test_other_merges_rules_or_roles_of_the_adapter_are_said(trained: pathlib.Path, change: str) -> None:
    adapter = trained / "adapter"
    shutil.copy(BASE / "tokenizer.json", adapter)
    assert not any("the tokenizer is that" in line for line in converted(trained / "base", trained / "same", adapter)[1])
    if change == "merges":
        model = json.loads((adapter / "tokenizer.json").read_text())["model"]
        edit(adapter / "tokenizer.json", model={**model, "merges": model["merges"][::-1]})
    elif change == "rules":
        edit(adapter / "tokenizer.json", pre_tokenizer=bytes_(use_regex=True))
    else:
        edit(adapter / "tokenizer_config.json", eos_token="<|endoftext|>")
    assert any("the tokenizer is that of the adapter" in line for line in converted(trained / "base", trained / "other", adapter)[1])
