"""Prompts and answers against transformers: the same tokens go in, the same answer comes out."""

import json
import pathlib

import jinja2.sandbox
import peft
import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from convert.export import Conversion, export
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.profile import default_profile
from models.recipe.bank import draw_many
from tests.support.paths import ROOT, SHARED

DEMO = ROOT / "models" / "demo"
TEXTS = (
    "What is 2 + 2?",
    "Қазақстанның астанасы қай қала?",
    "def f(x):\n    return x ** 2  # квадрат",
    "🙂 naïve — “quotes”\t\ttabs",
    "1234567890",
)


def messages(model: LocalModel, question: Question) -> list[dict[str, str]]:
    return [{"role": "system", "content": model.profile.system_message}, {"role": "user", "content": question.user_message}]


def test_prompt_tokens_of_the_demo_model_equal_transformers(demo_model: LocalModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "base")
    questions = [Question(item.stem, item.options) for item in draw_many(2, 200, "test")] + [Question(t, (t[:9], "b")) for t in TEXTS]
    for question in questions:
        theirs = tokenizer.apply_chat_template(messages(demo_model, question), add_generation_prompt=True, enable_thinking=False)
        assert demo_model.prompt_tokens(question) == list(theirs["input_ids"])


@pytest.mark.skipif(not (SHARED / "qwen3-0.6b").exists(), reason="Qwen's real tokenizer is not part of the repository")
def test_prompt_tokens_with_qwens_real_tokenizer_equal_transformers(tmp_path: pathlib.Path) -> None:
    source = SHARED / "qwen3-0.6b"
    config = Qwen3Config.from_pretrained(source, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1)
    config.num_key_value_heads, config.head_dim, config.layer_types = 1, 32, ["full_attention"]
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "tiny")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (tmp_path / "tiny" / name).write_bytes((source / name).read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    with LocalModel(export(Conversion(tmp_path / "tiny", [], ["F32"]), tmp_path / "out")[0].path) as model:
        for text in TEXTS:
            question = Question(text, (text[:9], "b"))
            theirs = tokenizer.apply_chat_template(messages(model, question), add_generation_prompt=True, enable_thinking=False)
            assert model.prompt_tokens(question) == list(theirs["input_ids"])
            reading = model.read(question)
            assert reading.timings.n_forward == (1 if reading.level == "1.0" else 2)


@pytest.mark.parametrize(("folder", "architecture"), [("qwen3-0.6b", "qwen3"), ("gemma-3-1b-it", "gemma3")])
def test_prompt_text_equals_the_real_chat_template(folder: str, architecture: str) -> None:
    source = SHARED / folder
    if not source.exists():
        pytest.skip("the real chat templates are not part of the repository")
    file = source / "chat_template.jinja"
    template = file.read_text() if file.exists() else json.loads((source / "tokenizer_config.json").read_text())["chat_template"]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    profile = default_profile(architecture)
    turns = [{"role": "system", "content": profile.system_message}, {"role": "user", "content": "Q\nA. x\nB. y"}]
    theirs = environment.from_string(template).render(messages=turns, add_generation_prompt=True, enable_thinking=False, bos_token="<bos>")
    assert "".join(segment.text for segment in profile.segments("Q\nA. x\nB. y")) == theirs


def test_float_model_answers_like_transformers(tmp_path: pathlib.Path) -> None:
    """Greedy text of base + adapter, token by token, without any constraint: nearly always the same."""
    model = peft.PeftModel.from_pretrained(Qwen3ForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32), DEMO / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "base")
    file = export(Conversion(DEMO / "base", [DEMO / "adapter"], ["F32"]), tmp_path)[0]
    questions = [Question(item.stem, item.options) for item in draw_many(7, 60, "test")]
    same = 0
    with LocalModel(file.path) as ours:
        for question in questions:
            ids = torch.tensor([ours.prompt_tokens(question)])
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False, eos_token_id=tokenizer.eos_token_id
            )
            theirs = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            same += theirs == ours.generate(question)
    assert same >= 59  # one near tie may fall the other way
