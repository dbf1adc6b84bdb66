"""Tiny random bases as GGUF files, one with the demo's tokenizer and one with SentencePiece, for tests of the recipe and its peers."""

import pathlib

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from convert.export import Conversion, export
from tests.support.checkpoints import gemma_checkpoint
from tests.support.paths import ROOT

DEMO_BASE = ROOT / "models" / "demo" / "base"


def llama_base(out: pathlib.Path, quantization: str = "F16", answer_kind: str = "") -> pathlib.Path:
    """A Llama that is sure enough of its tokens that a wrong mask shows. Writes into the folder `out`."""
    torch.manual_seed(0)
    tok = AutoTokenizer.from_pretrained(DEMO_BASE)
    shape = LlamaConfig(
        vocab_size=len(tok), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, tie_word_embeddings=True, initializer_range=0.25, bos_token_id=None, eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(out / "base")
    tok.save_pretrained(out / "base")
    return export(Conversion(out / "base", [], [quantization], "tiny", answer_kind), out)[0].path


def gemma_base(out: pathlib.Path, quantization: str = "F32", answer_kind: str = "") -> pathlib.Path:
    """A Gemma 3 without a chat template, as the published base is. Writes into the folder `out`."""
    base = gemma_checkpoint(out / "base", max_position_embeddings=8192)
    return export(Conversion(base, [], [quantization], "tiny", answer_kind), out)[0].path
