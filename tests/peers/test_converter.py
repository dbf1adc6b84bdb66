"""Conversion against llama.cpp's own converter and transformers' tokenizers, on small random checkpoints.

llama.cpp's converter is no package; `make test-peers` unpacks it from the source of llama-cpp-python into .venv/llama.cpp.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, Qwen3Config, Qwen3ForCausalLM

from convert.export import Conversion, export
from edge_agent.core.errors import ConvertError
from edge_agent.engine.llama import Llama, Options
from edge_agent.engine.local_model import LocalModel
from models.recipe.bank import draw_many
from tests.support.paths import ROOT, SHARED
from tests.support.texts import TEXTS

LLAMA_CPP = pathlib.Path(os.environ.get("EDGE_AGENT_TEST_LLAMA_CPP", ROOT / ".venv" / "llama.cpp"))
QWEN, GEMMA = SHARED / "qwen3-0.6b", SHARED / "gemma-3-1b-it"

needs_converter = pytest.mark.skipif(
    not (LLAMA_CPP / "convert_hf_to_gguf.py").is_file(), reason="llama.cpp's converter is not there: make .venv/llama.cpp"
)
needs_qwen = pytest.mark.skipif(not QWEN.is_dir(), reason="Qwen's real tokenizer is not here")

CONVERTER = """
import json, os, runpy, sys
os.environ["HF_HUB_OFFLINE"] = "1"
folder, jobs = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, folder)
for source, kind, out in jobs:
    sys.argv = ["convert_hf_to_gguf.py", source, "--outtype", kind, "--outfile", out]
    runpy.run_path(folder + "/convert_hf_to_gguf.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Case:
    """A checkpoint and the quantization to convert it to."""

    name: str
    folder: pathlib.Path
    quantization: str


def convert_by_llama_cpp(cases: list[Case], out: pathlib.Path) -> dict[str, pathlib.Path]:
    jobs = [[str(case.folder), case.quantization.lower(), str(out / f"{case.name}.gguf")] for case in cases]
    done = subprocess.run(
        [sys.executable, "-c", CONVERTER, str(LLAMA_CPP), json.dumps(jobs)], capture_output=True, text=True, check=False, cwd=out
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {case.name: pathlib.Path(job[2]) for case, job in zip(cases, jobs, strict=True)}


def fields(reader: gguf.GGUFReader) -> dict[str, Any]:
    wanted = ("tokenizer.", "qwen3.", "gemma3.", "general.architecture", "general.file_type", "general.quantization_version")
    return {name: field.contents() for name, field in reader.fields.items() if name.startswith(wanted)}


def tensors(reader: gguf.GGUFReader) -> dict[str, tuple[int, list[int], bytes]]:
    return {t.name: (int(t.tensor_type), list(map(int, t.shape)), t.data.tobytes()) for t in reader.tensors}


# What llama.cpp assumes where nothing is said of it, two ids that its converter looks for in tokenizer.json alone, and the end of a turn.
ONLY_OURS = {"add_bos_token", "add_eos_token", "eos_token_id", "eot_token_id", "unknown_token_id"}


def check_parity(ours: pathlib.Path, theirs: pathlib.Path, left_out: set[str] = frozenset()) -> None:
    """The same tensors to the byte and the same fields."""
    here, there = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    expected = {name: tensor for name, tensor in tensors(there).items() if name not in left_out}
    found = tensors(here)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    said, wanted = fields(here), fields(there)
    assert {name: said.get(name) for name in wanted} == wanted
    assert {name.removeprefix("tokenizer.ggml.") for name in said.keys() - wanted.keys()} <= ONLY_OURS


# --- Qwen3 ---


def qwen_checkpoint(folder: pathlib.Path, dtype: torch.dtype, tied: bool, duplicate: bool = False, shards: bool = False) -> pathlib.Path:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151_936, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, tie_word_embeddings=tied, eos_token_id=151_645, bos_token_id=151_643, max_position_embeddings=40_960,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.to(dtype).save_pretrained(folder, max_shard_size="8MB" if shards else "1GB")
    if duplicate:
        weights = load_file(folder / "model.safetensors")
        save_file(
            {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, folder / "model.safetensors", {"format": "pt"}
        )
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copy(QWEN / name, folder / name)
    return folder


@needs_converter
@needs_qwen
def test_qwen3_equals_llama_cpps_conversion(tmp_path: pathlib.Path) -> None:
    cases = [
        Case("tied", qwen_checkpoint(tmp_path / "a", torch.bfloat16, tied=True), "BF16"),
        Case("untied", qwen_checkpoint(tmp_path / "b", torch.float16, tied=False), "F16"),
        Case("duplicate", qwen_checkpoint(tmp_path / "c", torch.float32, tied=True, duplicate=True), "BF16"),
        Case("sharded", qwen_checkpoint(tmp_path / "d", torch.bfloat16, tied=False, shards=True), "F16"),
    ]
    assert len(list((tmp_path / "d").glob("*.safetensors"))) > 1
    theirs = convert_by_llama_cpp(cases, tmp_path)
    for case in cases:
        ours = export(Conversion(case.folder, [], [case.quantization], case.name), tmp_path / "ours")[0].path
        check_parity(ours, theirs[case.name], {"output.weight"} if case.name == "duplicate" else set())


@needs_qwen
def test_qwen3_tokens_equal_those_of_transformers(tmp_path: pathlib.Path) -> None:
    folder = qwen_checkpoint(tmp_path / "a", torch.float16, tied=True)
    check_tokens(folder, tmp_path, ["<|im_start|>user\n", "<think>\n\n</think>", "a<|endoftext|>b", "<tool_call>{}</tool_call>"])


def check_tokens(folder: pathlib.Path, out: pathlib.Path, special: list[str]) -> None:
    """Token ids equal those of transformers, for many kinds of text, with and without special tokens."""
    path = export(Conversion(folder, [], ["F16"], "tokens"), out / "ours")[0].path
    tokenizer, model = AutoTokenizer.from_pretrained(folder), Llama(path, Options(n_ctx=64, n_batch=64, n_threads=1))
    asked = [f"{item.stem} {' '.join(item.options)}" for item in draw_many(3, 100, "test")]
    try:
        for text in [*TEXTS, *asked, *special]:
            assert model.tokenize(text, parse_special=True) == tokenizer.encode(text, add_special_tokens=False), text
    finally:
        model.close()


# --- Gemma 3 ---

TURNS = ["<start_of_turn>", "<end_of_turn>"]
PLAIN = ["\n", "\n\n", *("\u2581" * n for n in range(2, 17)), "<b>", "</b>"]
WHOLE = {"normalized": False, "lstrip": False, "rstrip": False, "single_word": False}


@pytest.fixture(scope="module")
def gemma_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A SentencePiece model of Gemma's kind, trained here, in a folder as transformers 4 saved Gemma's."""
    folder = tmp_path_factory.mktemp("gemma")
    corpus = [f"{item.stem}\n{' '.join(item.options)}" for item in draw_many(1, 3000, "train")] + [
        text for text in TEXTS if text.strip("\x00\x01\ufeff")
    ]
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(line for text in corpus for line in text.split("\n")), model_prefix=str(folder / "tokenizer"),
        vocab_size=1024, model_type="bpe", byte_fallback=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>",
        bos_piece="<bos>", unk_piece="<unk>", user_defined_symbols=["<mask>", *TURNS, *PLAIN],
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False, character_coverage=0.98,
        split_digits=True, allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    special = {*roles.values(), "<mask>", *TURNS}
    added = {
        str(model.piece_to_id(text)): {"content": text, "special": text in special, **WHOLE}
        for text in [*sorted(special), *PLAIN]
    }  # fmt: skip
    settings = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False, **roles, "added_tokens_decoder": added}
    if GEMMA.is_dir():
        settings["chat_template"] = (GEMMA / "chat_template.jinja").read_text()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def gemma_checkpoint(folder: pathlib.Path, tokenizer: pathlib.Path, dtype: torch.dtype, n_layers: int = 7) -> pathlib.Path:
    """Tiny, with every part of the real one: norms, two kinds of attention, and rows that no K-quant can hold."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=1024, hidden_size=96, intermediate_size=128, num_hidden_layers=n_layers, num_attention_heads=4, num_key_value_heads=1,
        head_dim=32, query_pre_attn_scalar=32, sliding_window=16, max_position_embeddings=512, eos_token_id=[1, 6],
        bos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = Gemma3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.to(dtype).save_pretrained(folder)
    for name in ("tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).is_file():
            shutil.copy(tokenizer / name, folder / name)
    return folder


def as_transformers_4(folder: pathlib.Path) -> None:
    """config.json in the words of transformers 4, as the published Gemma has it."""
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    del config["layer_types"], config["tie_word_embeddings"]
    config |= {"rope_theta": rope["full_attention"]["rope_theta"], "rope_local_base_freq": rope["sliding_attention"]["rope_theta"]}
    config |= {"rope_scaling": None, "sliding_window_pattern": 6, "torch_dtype": config.pop("dtype")}
    (folder / "config.json").write_text(json.dumps(config))


@needs_converter
def test_gemma3_equals_llama_cpps_conversion(tmp_path: pathlib.Path, gemma_tokenizer: pathlib.Path) -> None:
    cases = [
        Case("five", gemma_checkpoint(tmp_path / "a", gemma_tokenizer, torch.bfloat16), "BF16"),
        Case("four", gemma_checkpoint(tmp_path / "b", gemma_tokenizer, torch.float32), "F16"),
    ]
    as_transformers_4(tmp_path / "b")
    theirs = convert_by_llama_cpp(cases, tmp_path)
    for case in cases:
        check_parity(export(Conversion(case.folder, [], [case.quantization], case.name), tmp_path / "ours")[0].path, theirs[case.name])


def test_gemma3_tokens_equal_those_of_transformers(tmp_path: pathlib.Path, gemma_tokenizer: pathlib.Path) -> None:
    special = ["<start_of_turn>user\nhi<end_of_turn>\n", "<b>x</b>", "a<eos>b"]
    check_tokens(gemma_checkpoint(tmp_path / "a", gemma_tokenizer, torch.float16, 1), tmp_path, special)


def saved_by_transformers(gemma_tokenizer: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The tokenizer as transformers 5 saves it: tokenizer.json alone."""
    AutoTokenizer.from_pretrained(gemma_tokenizer).save_pretrained(folder)
    (folder / "tokenizer.model").unlink(missing_ok=True)
    return folder


def test_gemma3_with_only_a_tokenizer_json_has_the_same_tokens(tmp_path: pathlib.Path, gemma_tokenizer: pathlib.Path) -> None:
    special = ["<start_of_turn>user\nhi<end_of_turn>\n", "<b>x</b>", "a<eos>b"]
    saved = saved_by_transformers(gemma_tokenizer, tmp_path / "saved")
    check_tokens(gemma_checkpoint(tmp_path / "a", saved, torch.float16, 1), tmp_path, special)


def test_tokenizer_that_was_never_sentencepiece_is_refused(tmp_path: pathlib.Path, gemma_tokenizer: pathlib.Path) -> None:
    folder = gemma_checkpoint(tmp_path / "a", saved_by_transformers(gemma_tokenizer, tmp_path / "saved"), torch.float16, 1)
    data = json.loads((folder / "tokenizer.json").read_text())
    first = {"".join(merge): merge for merge in reversed(data["model"]["merges"])}
    data["model"]["merges"] = list(first.values())[::2]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ConvertError, match="not made from a SentencePiece model"):
        export(Conversion(folder, [], ["F16"]), tmp_path / "out")


def test_gemma3_computes_the_same_as_transformers(tmp_path: pathlib.Path, gemma_tokenizer: pathlib.Path) -> None:
    """Logits after 40 tokens, more than the sliding window holds."""
    folder = gemma_checkpoint(tmp_path / "a", gemma_tokenizer, torch.float32)
    path = export(Conversion(folder, [], ["F32"]), tmp_path / "ours")[0].path
    tokens = list(range(20, 60))
    with torch.no_grad():
        expected = Gemma3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(torch.tensor([tokens])).logits[0, -1].numpy()
    model = Llama(path, Options(n_ctx=256, n_batch=64, n_threads=1, flash_attention=False))
    try:
        np.testing.assert_allclose(model.logits(tokens), expected, atol=2e-3)
    finally:
        model.close()


def test_gemma3_is_asked_and_answers(tmp_path: pathlib.Path, gemma_tokenizer: pathlib.Path) -> None:
    path = export(Conversion(gemma_checkpoint(tmp_path / "a", gemma_tokenizer, torch.float16), [], ["Q8_0"]), tmp_path / "ours")[0].path
    with LocalModel(path, options=Options(n_ctx=1024, n_threads=1)) as model:
        assert model.profile.prompt == "gemma"
