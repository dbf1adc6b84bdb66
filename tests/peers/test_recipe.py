"""The recipe on tiny random checkpoints of the published models' architectures, from its own command line."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import PeftModel
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from convert.export import Conversion, export
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.profile import LEVELS, default_profile
from models.recipe import config, generate, label, legal, rows
from models.recipe.bank import draw_many
from models.recipe.config import Labels, Weights
from models.recipe.dress import user_message
from tests.support.paths import ROOT, SHARED

DEMO_BASE = ROOT / "models" / "demo" / "base"
SMALL = [
    "chain.new_questions=4",
    "chain.replayed_questions=4",
    "chain.buffer_questions=7",
    "chain.measured_questions=7",
    "labels.samples=2",
]


def _tiny_qwen(out: pathlib.Path, template: str | None) -> pathlib.Path:
    """A random Qwen3 of one layer, with the demo model's vocabulary and, where it is at hand, the real chat template."""
    torch.manual_seed(0)
    tok = AutoTokenizer.from_pretrained(DEMO_BASE)
    tok.chat_template = template or tok.chat_template
    shape = Qwen3Config(
        vocab_size=len(tok), hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, tie_word_embeddings=True, dtype=torch.bfloat16, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(shape).to(torch.bfloat16).save_pretrained(out)
    tok.save_pretrained(out)
    return out


def _tiny_gemma(out: pathlib.Path, template: str) -> pathlib.Path:
    """A random Gemma 3 of two layers, with a small tokenizer that has Gemma's special tokens."""
    torch.manual_seed(0)
    built = Tokenizer(models.BPE(byte_fallback=False))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.train_from_iterator(
        [f"{user_message(item)} Confidence: 0.25\nFinal answer: {letter}" for item in draw_many(0, 200, "train") for letter in "ABCDE"],
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    built.add_special_tokens([AddedToken(t, special=True) for t in ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")])
    tok = PreTrainedTokenizerFast(tokenizer_object=built, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", chat_template=template)
    shape = Gemma3TextConfig(
        vocab_size=len(tok), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, sliding_window=512, dtype=torch.bfloat16, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
        bos_token_id=tok.bos_token_id,
    )  # fmt: skip
    Gemma3ForCausalLM(shape).to(torch.bfloat16).save_pretrained(out)
    tok.save_pretrained(out)
    return out


def _template(folder: str) -> str | None:
    settings, beside = SHARED / folder / "tokenizer_config.json", SHARED / folder / "chat_template.jinja"
    if beside.exists():
        return beside.read_text(encoding="utf-8")
    return json.loads(settings.read_text(encoding="utf-8"))["chat_template"] if settings.exists() else None


def _recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "models.recipe", *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def _chain(name: str, base: pathlib.Path, out: pathlib.Path, *more: str) -> None:
    changes = [part for change in SMALL for part in ("--set", change)]
    done = _recipe("--config", name, "--base", str(base), "--out", str(out), "--rounds", "2", *changes, *more)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_rounds_of_qwen_write_adapters_that_convert_merges(tmp_path: pathlib.Path) -> None:
    base, out = _tiny_qwen(tmp_path / "base", _template("qwen3-0.6b")), tmp_path / "out"
    _chain("qwen3-0.6b", base, out)
    for number in (0, 1, 2):
        measured = json.loads((out / "rounds" / f"R{number:02d}" / "measured.json").read_text())
        assert measured["round"] == number and measured["questions"] == 7
    adapters = [out / "rounds" / f"R{n:02d}" / "adapter" for n in (1, 2)]
    assert json.loads((adapters[0] / "adapter_config.json").read_text())["r"] == 16
    chained = export(Conversion(base, adapters, ["F16"], "chained"), tmp_path / "chained")[0]
    merged = export(Conversion(out / "merged" / "R02", [], ["F16"], "merged"), tmp_path / "merged")[0]
    with LocalModel(chained.path) as one, LocalModel(merged.path) as other:
        for item in draw_many(0, 5, "test"):
            a, b = (model.read(Question(item.stem, item.options)) for model in (one, other))
            assert a.level_probs == pytest.approx(b.level_probs, abs=0.01)  # merging rounds to bfloat16 after each round


@pytest.mark.parametrize("name", ["gemma3-1b", "gemma3-270m"])
def test_two_rounds_of_gemma_write_adapters_that_peft_merges(name: str, tmp_path: pathlib.Path) -> None:
    template = _template("gemma-3-1b-it")
    if template is None:
        pytest.skip("Gemma's real chat template is not at hand")
    base, out = _tiny_gemma(tmp_path / "base", template), tmp_path / "out"
    sibling = _tiny_gemma(tmp_path / "sibling", template)
    _chain(name, base, out, *(("--sibling", str(sibling)) if name == "gemma3-270m" else ()))
    before = out / "merged" / "R01"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(before), out / "rounds" / "R02" / "adapter")
    merged, kept = model.merge_and_unload().state_dict(), AutoModelForCausalLM.from_pretrained(out / "merged" / "R02").state_dict()
    assert merged.keys() == kept.keys()
    for key, tensor in merged.items():
        assert torch.allclose(tensor.float(), kept[key].float(), atol=2e-2), key


def test_a_stopped_chain_continues(tmp_path: pathlib.Path) -> None:
    base, out = _tiny_qwen(tmp_path / "base", None), tmp_path / "out"
    changes = [part for change in SMALL for part in ("--set", change)]
    started = ("--config", "qwen3-0.6b", "--base", str(base), "--out", str(out), *changes)
    assert _recipe(*started, "--rounds", "1").returncode == 0
    kept = (out / "rounds" / "R01" / "measured.json").stat().st_mtime_ns
    assert _recipe(*started, "--rounds", "2").returncode == 0
    assert (out / "rounds" / "R02" / "measured.json").exists()
    assert (out / "rounds" / "R01" / "measured.json").stat().st_mtime_ns == kept
    other = _recipe(*started, "--set", "lora.r=8", "--rounds", "2")
    assert other.returncode == 78 and "another configuration" in other.stderr and "Traceback" not in other.stderr


def test_demo_recipe_runs_whole(tmp_path: pathlib.Path) -> None:
    """Tokenizer, base, rounds, open-ended round, GGUFs, measurements, picture and card, each at a thousandth of its size."""
    few = [*SMALL, "pretrain.steps=10", "chain.rounds=2", "open_ended.questions=7", "card.questions_per_domain=3"]
    changes = [part for change in few for part in ("--set", change)]
    done = _recipe("--config", "demo", "--out", str(tmp_path), *changes)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "measured.json").read_text())
    assert [found["round"] for found in figures["rounds"]] == [0, 1, 2] and figures["evaluation"]["right"]["questions"] == 21
    assert {path.name for path in tmp_path.glob("*.gguf")} == {file["path"] for file in figures["files"]} and len(figures["files"]) == 4
    assert "What each round changes" in (tmp_path / "README.md").read_text() and (tmp_path / "rounds.svg").stat().st_size > 10_000
    few = ["--rounds", "1", "--floor-rounds", "1", "--floor-steps", "3"]
    compared = subprocess.run(
        [sys.executable, "-m", "models.recipe.compare", "--out", str(tmp_path), *few, *changes],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert compared.returncode == 0, compared.stderr[-3000:]
    variants = json.loads((tmp_path / "compared.json").read_text())["variants"]
    assert len(variants) == 10 and all(found["questions"] for found in variants.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("chain.round=2", "not a setting"),
        ("lora.r='x'", "must be a int"),
        ("labels.by='guess'", "must be 'generated'"),
        ("][", "as in TOML"),
    ],
)
def test_a_bad_setting_is_named(change: str, said: str, tmp_path: pathlib.Path) -> None:
    done = _recipe("--config", "demo", "--out", str(tmp_path), "--set", change)
    assert done.returncode == 78 and said in done.stderr and "Traceback" not in done.stderr


def _demo() -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase, rows.Prompts]:
    tok = AutoTokenizer.from_pretrained(DEMO_BASE)
    base = AutoModelForCausalLM.from_pretrained(DEMO_BASE, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, DEMO_BASE.parent / "adapter").merge_and_unload()
    return model, tok, rows.Prompts(tok, default_profile("qwen3"))


def test_scored_answers_are_what_the_model_generates() -> None:
    """In 400 texts sampled by transformers, each legal answer is as frequent as its score."""
    model, tok, prompts = _demo()
    item = next(iter(draw_many(5, 1, "test")))
    scores = legal.score(model, tok, [prompts.letter(item)], [0.7])[0, 0]
    texts = generate.by_transformers(model, tok, [prompts.letter(item)], 400, 0.7, seed=1)[0]
    legal_texts = {f"{lead} {letter}": scores[i, j] for i, lead in enumerate(legal.LEADS) for j, letter in enumerate("ABCDE")}
    for text, probability in legal_texts.items():
        spread = 4 * np.sqrt(probability * (1 - probability) / 400) + 0.01
        assert abs(texts.count(text) / 400 - probability) < spread, text


def test_scores_agree_with_the_runtime() -> None:
    """Level and letter probabilities equal those that the engine reads from the GGUF, up to its 8 bits."""
    model, tok, prompts = _demo()
    with LocalModel(DEMO_BASE.parent / "FogGen-demo-Q8_0.gguf") as runtime:
        for item in draw_many(6, 20, "test"):
            scores = legal.score(model, tok, [prompts.letter(item)], [1.0])[0, 0, 1:]
            reading = runtime.read(Question(item.stem, item.options))
            by_level = scores[:, : len(item.options)].sum(1)
            assert list(reading.level_probs) == pytest.approx(by_level / by_level.sum(), abs=0.06)  # bfloat16 against 8 bits


@pytest.mark.parametrize(
    ("n_right", "half_up", "half_even"),
    [
        (0, "0.0", "0.0"),
        (1, "0.25", "0.0"),
        (2, "0.25", "0.25"),
        (3, "0.5", "0.5"),
        (5, "0.75", "0.5"),
        (7, "1.0", "1.0"),
        (8, "1.0", "1.0"),
    ],
)
def test_share_right_becomes_a_level(n_right: int, half_up: str, half_even: str) -> None:
    assert (label.level(n_right / 8), label.level(n_right / 8, "half-even")) == (half_up, half_even)


def test_exact_labels_are_the_mean_of_sampled_ones() -> None:
    items = list(draw_many(0, 1, "train")) * 4000
    scores = np.zeros((4000, len(legal.LEADS), 5), dtype=np.float32)
    scores[:, 2, items[0].gold] = 0.5
    sampled = label.from_scores(scores, items, Labels("scored", 8, 0.7), np.random.default_rng(0))
    exact = label.from_scores(scores, items, Labels("scored", 8, 0.7, exact=True), np.random.default_rng(0))
    assert set(exact) == {"0.5"} and np.mean([float(level) for level in sampled]) == pytest.approx(0.5, abs=0.07)
    assert set(sampled) <= set(LEVELS)


def test_rows_have_the_weights_of_the_recipe() -> None:
    _, _, prompts = _demo()
    item = next(iter(draw_many(0, 1, "train")))
    row = rows.letter(prompts, item, "0.75", Weights(level=1.0, letter=4.0, rest=0.15))
    said = {row.text[start:end]: weight for start, end, weight in row.spans}
    assert said == {"Confidence: ": 0.15, "0.75": 1.0, "\nFinal answer: ": 0.15, item.letter: 4.0, "<|im_end|>": 0.15}
    assert row.text.startswith(prompts.letter(item)) and config.load("demo").lora.weights.letter == 4.0
