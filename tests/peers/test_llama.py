"""Llama checkpoints, whose RoPE llama.cpp orders differently: the same logits in transformers and llama.cpp, there and back again."""

import json
import pathlib
import shutil

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from convert.adapter import export_adapter
from convert.checkpoint import read_tensors
from convert.dequantize import dequantize
from convert.export import Conversion, Reports, export
from edge_agent.core.errors import ConvertError
from edge_agent.engine.llama import Llama, Options
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import LETTER, OPTION, default_profile, from_metadata
from tests.support.paths import ROOT
from tests.support.texts import TEXTS

DEMO_BASE = ROOT / "models" / "demo" / "base"
OPTIONS = Options(n_ctx=64, n_batch=64, n_threads=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A random Llama with 4 heads, 2 of them for keys, and the demo model's tokenizer."""
    out = tmp_path_factory.mktemp("llama") / "base"
    torch.manual_seed(0)
    tok = AutoTokenizer.from_pretrained(DEMO_BASE)
    shape = LlamaConfig(
        vocab_size=len(tok), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, tie_word_embeddings=True, initializer_range=0.3, rope_theta=5000.0, bos_token_id=None,
        eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(out)
    tok.save_pretrained(out)
    return out


def logits(path: pathlib.Path, tokens: list[int], adapter: pathlib.Path | None = None) -> np.ndarray:
    model = Llama(path, OPTIONS, adapter)
    try:
        return np.array(model.logits(tokens))
    finally:
        model.close()


def of_transformers(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1].numpy()


def test_logits_equal_those_of_transformers_with_and_without_an_adapter(checkpoint: pathlib.Path, tmp_path: pathlib.Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokens = AutoTokenizer.from_pretrained(checkpoint)("What is 12 + 7?\nA. 18\nB. 19")["input_ids"]
    assert len(tokens) > 12  # RoPE does nothing to the first token
    plain = export(Conversion(checkpoint, [], ["F32"], "plain"), tmp_path)[0].path
    np.testing.assert_allclose(logits(plain, tokens), of_transformers(base, tokens), atol=2e-2)
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"))
    adapted.eval().save_pretrained(tmp_path / "adapter")
    expected = of_transformers(adapted, tokens)
    assert np.abs(expected - logits(plain, tokens)).max() > 0.5
    merged = export(Conversion(checkpoint, [tmp_path / "adapter"], ["F32"], "merged"), tmp_path)[0].path
    np.testing.assert_allclose(logits(merged, tokens), expected, atol=2e-2)
    beside = export_adapter(checkpoint, [tmp_path / "adapter"], tmp_path).path
    np.testing.assert_allclose(logits(plain, tokens, beside), expected, atol=1e-1)


@pytest.mark.parametrize("quantization", ["F32", "Q8_0"])
def test_checkpoint_comes_back_with_a_tokenizer_made_from_the_file(
    checkpoint: pathlib.Path, tmp_path: pathlib.Path, quantization: str
) -> None:
    there = export(Conversion(checkpoint, [], [quantization], "there"), tmp_path)[0].path
    dequantize(there, None, tmp_path / "back")
    if quantization == "F32":
        source = read_tensors(checkpoint)
        for name, tensor in read_tensors(tmp_path / "back").items():
            np.testing.assert_array_equal(tensor.load(), source[name].load(), err_msg=name)
    made, given = AutoTokenizer.from_pretrained(tmp_path / "back"), AutoTokenizer.from_pretrained(checkpoint)
    for text in [*TEXTS, "<|im_start|>user\nhi<|im_end|>\n<think>"]:
        assert made(text)["input_ids"] == given(text, add_special_tokens=False)["input_ids"], text
    assert (made.eos_token, made.pad_token) == (given.eos_token, given.pad_token)
    again = export(Conversion(tmp_path / "back", [], [quantization], "again"), tmp_path)[0].path
    np.testing.assert_array_equal(logits(again, [5, 6, 7, 8, 9]), logits(there, [5, 6, 7, 8, 9]))


def test_base_alone_is_a_plain_model(checkpoint: pathlib.Path, tmp_path: pathlib.Path) -> None:
    said: list[str] = []
    path = export(Conversion(checkpoint, [], ["F32"], "there"), tmp_path, Reports(said.append))[0].path
    metadata = read_header(path).metadata
    assert not [key for key in metadata if key.startswith("foggen.")] and from_metadata(metadata).is_plain
    assert any("plain model" in line for line in said)
    letters = export(Conversion(checkpoint, [], ["F32"], "letters", LETTER), tmp_path)[0].path
    assert from_metadata(read_header(letters).metadata) == default_profile("llama", LETTER)


def test_answer_kind_is_written_and_read(checkpoint: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = export(Conversion(checkpoint, [], ["F32"], "there", OPTION), tmp_path)[0].path
    metadata = read_header(path).metadata
    assert metadata["foggen.answer_kind"] == "option" and from_metadata(metadata) == default_profile("llama", OPTION)


@pytest.mark.parametrize(
    "change", [{"mlp_bias": True}, {"rope_interleaved": True}, {"attention_bias": True}, {"rope_parameters": {"rope_type": "llama3"}}]
)
def test_what_llama_cpp_would_ignore_is_refused(checkpoint: pathlib.Path, tmp_path: pathlib.Path, change: dict[str, object]) -> None:
    shutil.copytree(checkpoint, tmp_path / "odd")
    file = tmp_path / "odd" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConvertError, match="not supported"):
        export(Conversion(tmp_path / "odd"), tmp_path / "out")
