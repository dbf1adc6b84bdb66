"""Real weights from a GGUF as a base for training: transformers reads what llama.cpp reads, and it converts back bit for bit."""

import hashlib
import pathlib
from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from convert.export import Conversion, export
from edge_agent.engine.llama import Llama, Options
from edge_agent.model.gguf import read_header
from models.recipe import gguf_base
from models.recipe.bank import draw_many
from tests.support.real_models import real_model
from tests.support.texts import TEXTS

PROMPTS = [
    "The capital of France is",
    "What is 12 + 7?\nA. 18\nB. 19\nC. 24",
    "Which factor will most likely cause a person to develop a fever? Answer: a bacterial",
    "def f(x):\n    return",
]
NOISE = {"smollm2": 0.2, "gemma3": 0.35}
"""The root mean square of the difference of two logits: llama.cpp rounds what it multiplies to 8 bits. Logits spread by 3 to 5."""


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, pathlib.Path, pathlib.Path]]:
    """A real GGUF, and the checkpoint that the recipe makes of it."""
    path = real_model(request.param)
    out = tmp_path_factory.mktemp("base") / "base"
    gguf_base.opened(str(path), out)
    yield request.param, path, out
    (out / "model.safetensors").unlink()


def test_tokens_equal_those_of_llama_cpp(base: tuple[str, pathlib.Path, pathlib.Path]) -> None:
    _, path, out = base
    tok, theirs = AutoTokenizer.from_pretrained(out), Llama(path, Options(n_ctx=64, n_batch=64, n_threads=1))
    turns = ["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<start_of_turn>user\nhi<end_of_turn>\n", "\n\n\n\n    x  \t\t y"]
    asked = [f"{item.stem}\n{' '.join(item.options)}" for item in draw_many(3, 400, "test")]
    try:
        for text in [*TEXTS, *PROMPTS, *turns, *asked]:
            assert tok(text, add_special_tokens=False)["input_ids"] == theirs.tokenize(text, parse_special=True), text
    finally:
        theirs.close()


def test_logits_equal_those_of_llama_cpp(base: tuple[str, pathlib.Path, pathlib.Path]) -> None:
    name, path, out = base
    tok, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    theirs = Llama(path, Options(n_ctx=64, n_batch=64, n_threads=1))
    try:
        for prompt in PROMPTS:
            ids = tok(prompt)["input_ids"]
            with torch.no_grad():
                mine = model(torch.tensor([ids])).logits[0, -1].numpy()
            other = np.array(theirs.logits(ids))
            difference = mine - mine.mean() - other + other.mean()
            assert np.sqrt(np.square(difference).mean()) < NOISE[name] and mine.argmax() == other.argmax(), prompt
    finally:
        theirs.close()


def test_weights_come_back_bit_for_bit(tmp_path: pathlib.Path) -> None:
    """SmolLM2's; those of Gemma are tested beside its published tokenizer."""
    path = real_model("smollm2")
    gguf_base.opened(str(path), tmp_path / "base")
    made = export(Conversion(tmp_path / "base", [], ["F32"], "again"), tmp_path)[0].path
    one, other = (
        {t.name: hashlib.sha256(gguf.dequantize(t.data, t.tensor_type).astype(np.float32).tobytes()).hexdigest() for t in reader.tensors}
        for reader in (gguf.GGUFReader(path), gguf.GGUFReader(made))
    )
    assert one == other
    theirs, mine = (read_header(file).metadata for file in (path, made))
    computed = ("llama.vocab_size", "llama.rope.dimension_count", "tokenizer.ggml.pre", "tokenizer.ggml.add_space_prefix")
    wanted = {k: v for k, v in theirs.items() if k.startswith(("llama.", "tokenizer.")) and k not in computed}
    assert {k: mine.get(k) for k in wanted} == wanted
