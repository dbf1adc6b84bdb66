"""From a GGUF back to a checkpoint, and forward again: the same model, bit for bit."""

import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from convert.adapter import export_adapter
from convert.checkpoint import read_tensors
from convert.dequantize import dequantize, main
from convert.export import Conversion, Reports, export
from edge_agent.core.errors import ConvertError, EdgeAgentError, ModelMissing, ModelRefused
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import LETTER, TEXT, default_profile, from_metadata, held_adapters
from tests.support.checkpoints import ADAPTER, BASE, gemma_checkpoint, write_safetensors
from tests.support.gguf_bytes import header_bytes, with_value
from tests.support.paths import DEMO, ROOT

KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K", "IQ4_XS"]


def weights(path: pathlib.Path) -> dict[str, bytes]:
    """Every tensor of a GGUF as float32."""
    return {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32).tobytes() for t in gguf.GGUFReader(path).tensors}


def settings(path: pathlib.Path) -> dict[str, object]:
    """What a GGUF says about its architecture and its tokenizer."""
    return {k: v for k, v in read_header(path).metadata.items() if k.startswith(("qwen3.", "gemma3.", "tokenizer."))}


def check_round_trip(path: pathlib.Path, tokenizer: pathlib.Path, out: pathlib.Path) -> None:
    dequantize(path, tokenizer, out / path.stem)
    again = export(Conversion(out / path.stem, [], ["F32"]), out)[0].path
    assert weights(again) == weights(path)
    assert settings(again) == settings(path)


@pytest.mark.parametrize("quantization", KINDS)
def test_qwen3_comes_back_bit_for_bit(tmp_path: pathlib.Path, quantization: str) -> None:
    check_round_trip(export(Conversion(BASE, [ADAPTER], [quantization], "there"), tmp_path)[0].path, BASE, tmp_path)


@pytest.mark.parametrize("quantization", ["F32", "BF16", "Q8_0", "Q4_K_M"])
def test_gemma3_comes_back_bit_for_bit(tmp_path: pathlib.Path, quantization: str) -> None:
    """Its norms are stored with 1 added, and its head is the embedding."""
    source = gemma_checkpoint(tmp_path / "source", final_logit_softcapping=30.0, rope_theta=1e6)
    check_round_trip(export(Conversion(source, [], [quantization], "there"), tmp_path)[0].path, source, tmp_path)
    restored = {name: tensor.load() for name, tensor in read_tensors(tmp_path / f"there-{quantization}").items()}
    for name, tensor in read_tensors(source).items():
        if name.endswith("norm.weight"):
            np.testing.assert_allclose(restored[name], tensor.load(), atol=1e-6)
    assert "lm_head.weight" not in restored


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_tokenizer_made_from_the_file_gives_the_same_file(tmp_path: pathlib.Path, architecture: str) -> None:
    """Tokens, kinds, merges or their order, special ids and the chat template."""
    source = BASE if architecture == "qwen3" else gemma_checkpoint(tmp_path / "source")
    path = export(Conversion(source, [], ["Q8_0"], "there"), tmp_path)[0].path
    dequantize(path, None, tmp_path / "back")
    again = export(Conversion(tmp_path / "back", [], ["Q8_0"], "again"), tmp_path)[0].path
    assert settings(again) == settings(path)
    one, other = (gguf.GGUFReader(file).fields for file in (path, again))
    for key in ("tokens", "token_type", *(["merges"] if architecture == "qwen3" else [])):
        assert one[f"tokenizer.ggml.{key}"].contents() == other[f"tokenizer.ggml.{key}"].contents(), key


@pytest.mark.parametrize(
    ("key", "before", "after", "said"),
    [
        ("tokenizer.ggml.pre", b"qwen2", b"qwenX", "splits text by the rules 'qwenX', .*--tokenizer"),
        ("tokenizer.ggml.model", b"gpt2", b"bert", "a tokenizer of the kind 'bert'; give --tokenizer"),
    ],
)
def test_tokenizer_that_cannot_be_made_is_refused(tmp_path: pathlib.Path, key: str, before: bytes, after: bytes, said: str) -> None:
    data = DEMO.read_bytes()
    at = data.index(before, data.index(key.encode()))
    (tmp_path / "odd.gguf").write_bytes(data[:at] + after + data[at + len(after) :])
    with pytest.raises(ConvertError, match=said):
        dequantize(tmp_path / "odd.gguf", None, tmp_path / "x")
    (tmp_path / "far.gguf").write_bytes(with_value("tokenizer.ggml.eos_token_id", 10**6))
    with pytest.raises(EdgeAgentError):
        dequantize(tmp_path / "far.gguf", None, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_untied_head_comes_back(tmp_path: pathlib.Path) -> None:
    source = gemma_checkpoint(tmp_path / "source", tie_word_embeddings=False)
    tensors = {name: tensor.load() for name, tensor in read_tensors(source).items()}
    write_safetensors(source / "model.safetensors", {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"] * 2})
    path = export(Conversion(source, [], ["F16"], "there"), tmp_path)[0].path
    check_round_trip(path, source, tmp_path)
    assert json.loads((tmp_path / "there-F16" / "config.json").read_text())["tie_word_embeddings"] is False


def test_restored_demo_model_answers_the_same(tmp_path: pathlib.Path, question: Question) -> None:
    dequantize(DEMO, BASE, tmp_path / "back")
    with LocalModel(export(Conversion(tmp_path / "back", [], ["Q8_0"]), tmp_path)[0].path) as model, LocalModel(DEMO) as demo:
        assert model.read(question).answer_probs == demo.read(question).answer_probs


def test_command_line(tmp_path: pathlib.Path) -> None:
    command = [str(DEMO), "--tokenizer", str(BASE), "--out", str(tmp_path / "x")]
    done = CliRunner().invoke(main, [*command, "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["n_tensors"] == 57
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 65 and "not an empty folder" in again.output


def test_tokenizer_of_another_model_is_refused(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(BASE, other)
    text = (other / "tokenizer.json").read_text()
    swapped = json.loads(text)
    vocab = swapped["model"]["vocab"]
    first, second = (next(t for t, i in vocab.items() if i == n) for n in (400, 401))
    vocab[first], vocab[second] = 401, 400
    (other / "tokenizer.json").write_text(json.dumps(swapped))
    with pytest.raises(ConvertError, match=r"The token 400 is .*give the tokenizer of this model"):
        dequantize(DEMO, other, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_restored_checkpoint_still_says_what_it_holds(tmp_path: pathlib.Path) -> None:
    """Its adapter would count twice; the file that is made of it has the same answer kind and settings."""
    path = export(Conversion(BASE, [ADAPTER], ["Q8_0"], "there", TEXT), tmp_path)[0].path
    dequantize(path, BASE, tmp_path / "back")
    again = export(Conversion(tmp_path / "back", [], ["Q8_0"], "again"), tmp_path)[0].path
    there, back = (read_header(one).metadata for one in (path, again))
    assert {k: v for k, v in there.items() if k.startswith("foggen.")} == {k: v for k, v in back.items() if k.startswith("foggen.")}
    assert from_metadata(back) == from_metadata(there) and held_adapters(back) == held_adapters(there) != set()
    with pytest.raises(ConvertError, match=r"already holds the adapter '.*adapter'"):
        export(Conversion(tmp_path / "back", [ADAPTER]), tmp_path)
    said: list[str] = []
    letters = export(Conversion(tmp_path / "back", [], ["Q8_0"], "letters", LETTER), tmp_path, Reports(said.append))[0].path
    assert from_metadata(read_header(letters).metadata) == default_profile("qwen3")
    assert any("the answer kind is letter" in line for line in said)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    (tmp_path / "back" / "config.json").write_text(json.dumps({**config, "foggen": {**config["foggen"], "tau": 7}}))
    with pytest.raises(ConvertError, match=r"'foggen' in the config\.json of '.*back' is wrong.*foggen\.tau"):
        export(Conversion(tmp_path / "back"), tmp_path)


def test_demo_is_known_to_hold_its_adapter(tmp_path: pathlib.Path) -> None:
    """Its files are older than the metadata for it, so the catalogue says so, whatever the file is called."""
    adapter = export_adapter(BASE, [ADAPTER], tmp_path, "mine").path
    for path in DEMO.parent.glob("*.gguf"):
        copy = shutil.copy(path, tmp_path / "other-name.gguf")
        with pytest.raises(ModelRefused, match=r"already holds the adapter '.*mine-adapter\.gguf'"):
            LocalModel(copy, adapter=adapter)
    LocalModel(export(Conversion(BASE, name="FogGen-demo"), tmp_path)[0].path, adapter=adapter).close()
    dequantize(DEMO, BASE, tmp_path / "back")
    with pytest.raises(ConvertError, match=r"already holds the adapter"):
        export(Conversion(tmp_path / "back", [ADAPTER]), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["model"].update(merges=t["model"]["merges"][::-1]), "The merge 1 is "),
        (lambda t: t["model"].update(merges=t["model"]["merges"][:-1]), r"The merge \d+ is .* but ''"),
        (lambda t: t.update(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False}), "rules .* is 'qwen2'.*but 'gpt-2'"),
        (lambda t: t["added_tokens"][3].update(special=True), "The kind of the token 1534 is USER_DEFINED"),
    ],
)  # fmt: skip
def test_tokenizer_that_makes_other_tokens_is_refused(tmp_path: pathlib.Path, change: Callable[[Any], object], words: str) -> None:
    shutil.copytree(BASE, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    change(tokenizer)
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ConvertError, match=rf"{words}.*give the tokenizer of this model"):
        dequantize(DEMO, tmp_path / "other", tmp_path / "x")


def test_tokenizer_with_another_end_or_another_order_is_refused(tmp_path: pathlib.Path) -> None:
    shutil.copytree(BASE, tmp_path / "other")
    settings = json.loads((BASE / "tokenizer_config.json").read_text())
    (tmp_path / "other" / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    with pytest.raises(ConvertError, match=r"eos_token_id' is 1533 .*but 1531"):
        dequantize(DEMO, tmp_path / "other", tmp_path / "x")
    source = gemma_checkpoint(tmp_path / "source")
    path = export(Conversion(source, [], ["F32"], "there"), tmp_path)[0].path
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].reverse()
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConvertError, match="order of merging"):
        dequantize(path, source, tmp_path / "x")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_run_leaves_no_folder(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    """The next one is not refused, and sweeps what a killed one left."""
    path = export(Conversion(BASE, [], ["Q2_K"], "there"), tmp_path)[0].path
    command = [sys.executable, "-m", "convert.dequantize", str(path), "--tokenizer", str(BASE), "--out", str(tmp_path / "in" / "x")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not ((tmp_path / "in").is_dir() and any((tmp_path / "in").rglob("tokenizer.json"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    if number != signal.SIGKILL:
        assert process.returncode == 130 and "interrupted" in said and list((tmp_path / "in").iterdir()) == []
    assert not (tmp_path / "in" / "x").exists()
    dequantize(path, BASE, tmp_path / "in" / "x")
    assert [one.name for one in (tmp_path / "in").iterdir()] == ["x"]


def test_file_that_a_checkpoint_cannot_hold_is_refused(tmp_path: pathlib.Path) -> None:
    adapter = export_adapter(BASE, [ADAPTER], tmp_path, "demo").path
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(with_value("qwen3.block_count", 4))
    for path, error, words in [
        (adapter, ConvertError, "not a whole model"), (wrong, ConvertError, "no place in a checkpoint"),
        (ROOT / "README.md", ModelRefused, "not a GGUF"), (tmp_path / "none.gguf", ModelMissing, "no model file"),
    ]:  # fmt: skip
        with pytest.raises(error, match=words):
            dequantize(path, BASE, tmp_path / "x")
    writer = gguf.GGUFWriter(tmp_path / "scaled.gguf", "qwen3")
    for key, value in read_header(DEMO).metadata.items():
        if key.startswith("qwen3."):
            (writer.add_uint32 if isinstance(value, int) else writer.add_float32)(key, value)
    writer.add_float32("qwen3.rope.scaling.factor", 4.0)
    for tensor in gguf.GGUFReader(DEMO).tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ConvertError, match=r"'qwen3\.rope\.scaling\.factor' = 4\.0"):
        dequantize(tmp_path / "scaled.gguf", BASE, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_flipped_bytes_are_harmless_or_refused_in_one_sentence(tmp_path: pathlib.Path) -> None:
    """In the hyper-parameters and the list of tensors of the header."""
    path, rng, whole, refused = tmp_path / "x.gguf", random.Random(0), bytearray(DEMO.read_bytes()), 0
    tokenizer_at, last_name_at = header_bytes()
    first_name_at = whole.rindex(b"output_norm.weight")
    for number in range(60):
        data = bytearray(whole)
        at = rng.randrange(24, tokenizer_at) if number % 2 else rng.randrange(first_name_at, last_name_at)
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            dequantize(path, BASE, tmp_path / f"out-{number}")
        except EdgeAgentError as error:
            refused += 1
            assert str(error).isprintable() and not (tmp_path / f"out-{number}").exists()
    assert refused > 20
