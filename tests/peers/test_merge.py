"""The merge against peft's own, for every option of its LoRA that can be merged exactly."""

import json
import pathlib
from typing import Any

import gguf
import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3ForCausalLM

from convert.export import Conversion, export
from edge_agent.core.errors import ConvertError
from tests.support.paths import ROOT

DEMO = ROOT / "models" / "demo"
EPSILON = np.finfo(np.float32).eps
NAMES = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 32)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Model has.*tie.*:UserWarning"),
]


def checkpoint(folder: pathlib.Path, tied: bool = False, dtype: torch.dtype = torch.float32) -> pathlib.Path:
    """A tiny random Qwen3 with the demo's tokenizer."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=4096, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, tie_word_embeddings=tied,
    )  # fmt: skip
    Qwen3ForCausalLM(config).to(dtype).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((DEMO / "base" / name).read_bytes())
    return folder


def adapter(base: pathlib.Path, folder: pathlib.Path, seed: int = 1, dtype: torch.dtype = torch.float32, **options: Any) -> pathlib.Path:
    """A LoRA with random matrices, saved by peft."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", **options}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
            elif "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.to(dtype).save_pretrained(folder)
    return folder


def merged_by_peft(base: pathlib.Path, adapters: list[pathlib.Path], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=dtype)
    for folder in adapters:
        model = peft.PeftModel.from_pretrained(model, folder, torch_dtype=dtype).merge_and_unload()
    return model.state_dict()


def merged_here(base: pathlib.Path, adapters: list[pathlib.Path], out: pathlib.Path) -> dict[str, np.ndarray]:
    return {t.name: t.data for t in gguf.GGUFReader(export(Conversion(base, adapters, ["F32"]), out)[0].path).tensors}


def compare(base: pathlib.Path, adapters: list[pathlib.Path], out: pathlib.Path) -> None:
    theirs, ours = merged_by_peft(base, adapters), merged_here(base, adapters, out)
    original = {t.name: t.data for t in gguf.GGUFReader(export(Conversion(base, [], ["F32"], "base"), out)[0].path).tensors}
    names = {NAMES.get_name(name, try_suffixes=(".weight",)): name for name in theirs}
    assert {names[name] for name in names.keys() - ours.keys()} <= {"lm_head.weight"}  # a tied head is left out
    assert ours.keys() <= names.keys()
    for name, here in ours.items():
        there = theirs[names[name]].float().numpy()
        # Both add in float32, in another order: a few units in the last place of the largest term.
        assert np.abs(there - here).max() <= 4 * EPSILON * max(1.0, float(np.abs(there).max())), name
    assert any(not np.array_equal(here, original[name]) for name, here in ours.items())


def test_merged_demo_tensors_equal_pefts(tmp_path: pathlib.Path) -> None:
    compare(DEMO / "base", [DEMO / "adapter"], tmp_path)


OPTIONS: dict[str, dict[str, Any]] = {
    "some modules": {"target_modules": ["q_proj", "v_proj", "down_proj"]},
    "rslora": {"target_modules": LINEAR, "use_rslora": True},
    "all-linear": {"target_modules": "all-linear"},
    "a regular expression": {"target_modules": r".*layers\.1\.(self_attn|mlp)\.[qg].*_proj"},
    "patterns": {
        "target_modules": LINEAR, "rank_pattern": {"q_proj": 2, r".*layers\.1\.self_attn\.k_proj": 3, "layers.1.mlp.up_proj": 7},
        "alpha_pattern": {r"layers\.0\.self_attn\.(k|v)_proj": 11, "down_proj": 1},
    },
    "patterns with rslora": {"target_modules": LINEAR, "rank_pattern": {"o_proj": 9}, "use_rslora": True},
    "fan_in_fan_out": {"target_modules": LINEAR, "fan_in_fan_out": True},
    "modules_to_save": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj", "lm_head"]},
    "saved embeddings": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "DoRA": {"target_modules": LINEAR, "use_dora": True},
    "biases, of which there are none": {"target_modules": LINEAR, "bias": "all"},
    "biases of the modules": {"target_modules": LINEAR, "bias": "lora_only"},
    "DoRA on the embedding": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    "DoRA with rslora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True, "use_rslora": True},
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_is_merged_like_peft_does(tmp_path: pathlib.Path, options: dict[str, Any]) -> None:
    base = checkpoint(tmp_path / "base")
    compare(base, [adapter(base, tmp_path / "adapter", **options)], tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapter_may_be_stored_in_half_precision(tmp_path: pathlib.Path, dtype: torch.dtype) -> None:
    base = checkpoint(tmp_path / "base")
    compare(base, [adapter(base, tmp_path / "adapter", dtype=dtype, target_modules=LINEAR)], tmp_path / "out")


def test_several_adapters_are_merged_in_order(tmp_path: pathlib.Path) -> None:
    """First a replaced head, then pairs on top of it, then DoRA, whose norm depends on the earlier steps."""
    base = checkpoint(tmp_path / "base")
    adapters = [
        adapter(base, tmp_path / "one", 1, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        adapter(base, tmp_path / "two", 2, target_modules=["q_proj", "lm_head"]),
        adapter(base, tmp_path / "three", 3, target_modules=["q_proj"], use_dora=True),
    ]
    # Beside a pair, peft keeps the weight that it was trained on; in a chain that is what the adapter before it made.
    tensors = load_file(tmp_path / "two" / "adapter_model.safetensors")
    del tensors["base_model.model.lm_head.base_layer.weight"]
    save_file(tensors, tmp_path / "two" / "adapter_model.safetensors")
    compare(base, adapters, tmp_path / "out")
    compare(base, adapters[::-1], tmp_path / "reversed")


def renamed(folder: pathlib.Path, old: str, new: str) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name.replace(old, new): tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base_model.model.", ""),  # as transformers' own save_pretrained wrote it
        ("base_model.model.model.", "base_model.model."),  # of a model without its head
        ("model.model.layers", "model.model.language_model.layers"),  # of a model that can see, too
        ("lora_A.weight", "lora_A.default.weight"),  # a state dict as it is in memory
        (".weight", ".my_adapter.weight"),  # with an adapter that has a name
        ("base_model.model.", "base_model.model._orig_mod."),  # of a compiled model
        ("base_model.", "_orig_mod.base_model."),
    ],
)
def test_keys_may_have_other_prefixes(tmp_path: pathlib.Path, old: str, new: str) -> None:
    base = checkpoint(tmp_path / "base")
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR)
    expected = merged_here(base, [folder], tmp_path / "one")
    renamed(folder, old, new)
    found = merged_here(base, [folder], tmp_path / "two")
    assert all(np.array_equal(found[name], data) for name, data in expected.items())


def test_adapter_with_a_name_is_found_in_its_folder(tmp_path: pathlib.Path) -> None:
    """peft saves each adapter that is not called "default" in a folder of its own."""
    base = checkpoint(tmp_path / "base")
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    named = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=LINEAR, init_lora_weights=False), adapter_name="mine")
    named.save_pretrained(tmp_path / "saved")
    with pytest.raises(ConvertError, match="give one of the folders in it: mine"):
        merged_here(base, [tmp_path / "saved"], tmp_path / "out")
    compare(base, [tmp_path / "saved" / "mine"], tmp_path / "out")


def test_state_dict_as_it_is_in_memory_is_merged_like_the_saved_adapter(tmp_path: pathlib.Path) -> None:
    """With the name of the adapter in every key, and the untrained copy beside a module that was trained as a whole."""
    base = checkpoint(tmp_path / "base")
    options = {"target_modules": ["q_proj", "embed_tokens"], "modules_to_save": ["lm_head"], "use_dora": True}
    folder = adapter(base, tmp_path / "adapter", **options)
    expected = merged_here(base, [folder], tmp_path / "one")
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(model, folder, adapter_name="mine")
    trained = {name: tensor.contiguous() for name, tensor in loaded.state_dict().items() if "lora_" in name or ".lm_head." in name}
    assert any(name.endswith(".original_module.weight") for name in trained) and any(".mine" in name for name in trained)
    save_file(trained, folder / "adapter_model.safetensors")
    found = merged_here(base, [folder], tmp_path / "two")
    assert all(np.array_equal(found[name], data) for name, data in expected.items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, when torch.compile is imported
def test_compiled_base_and_base_without_its_head_are_merged_alike(tmp_path: pathlib.Path) -> None:
    base = checkpoint(tmp_path / "base", tied=True)
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR)
    expected = merged_here(base, [folder], tmp_path / "one")
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    compiled = torch.compile(model).state_dict()
    for number, state in enumerate((compiled, model.model.state_dict())):
        state.pop("_orig_mod.lm_head.weight", None)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, base / "model.safetensors", {"format": "pt"})
        found = merged_here(base, [folder], tmp_path / f"again-{number}")
        assert all(np.array_equal(found[name], data) for name, data in expected.items())


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["embedding", "head", "saved embedding", "saved head"],
)
def test_tied_weight_that_is_adapted_on_one_side_becomes_two(tmp_path: pathlib.Path, options: dict[str, Any]) -> None:
    """peft's merge would change both sides; the result here equals the model with its adapter on, which was trained."""
    base = checkpoint(tmp_path / "base", tied=True)
    folder = adapter(base, tmp_path / "adapter", **options)
    adapted = peft.PeftModel.from_pretrained(Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32), folder).eval()
    ours = merged_here(base, [folder], tmp_path / "out")
    untied = Qwen3ForCausalLM(Qwen3Config.from_pretrained(base, tie_word_embeddings=False)).eval()
    state = {name: torch.from_numpy(ours[NAMES.get_name(name, try_suffixes=(".weight",))].copy()) for name in untied.state_dict()}
    untied.load_state_dict(state)
    tokens = torch.arange(0, 4000, 97)[None]
    with torch.no_grad():
        torch.testing.assert_close(untied(tokens).logits, adapted(tokens).logits, rtol=1e-4, atol=1e-5)


def test_tied_weight_that_is_saved_on_both_sides_stays_one(tmp_path: pathlib.Path) -> None:
    base = checkpoint(tmp_path / "base", tied=True)
    folder = adapter(base, tmp_path / "adapter", target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    ours = merged_here(base, [folder], tmp_path / "out")
    assert "output.weight" not in ours
    compare(base, [folder], tmp_path / "again")


def test_chain_is_closer_to_the_exact_sum_than_one_merged_in_bfloat16(tmp_path: pathlib.Path) -> None:
    """Rounded to bf16 once, at the end, while peft rounds after every round."""
    base = checkpoint(tmp_path / "base", dtype=torch.bfloat16)
    chain = [adapter(base, tmp_path / f"round-{n}", n, target_modules=["q_proj"]) for n in range(4)]
    theirs = merged_by_peft(base, chain, torch.bfloat16)
    file = export(Conversion(base, chain, ["BF16"]), tmp_path / "out")[0]
    ours = {t.name: t.data.view(np.uint16).astype(np.uint32) << 16 for t in gguf.GGUFReader(file.path).tensors}
    weights, pairs = load_file(base / "model.safetensors"), [load_file(folder / "adapter_model.safetensors") for folder in chain]
    for layer in range(2):
        module = f"model.layers.{layer}.self_attn.q_proj"
        shares = [[pair[f"base_model.model.{module}.lora_{part}.weight"].double() for part in "BA"] for pair in pairs]
        exact = (weights[f"{module}.weight"].double() + sum(1.5 * b @ a for b, a in shares)).numpy()
        here = np.abs(ours[f"blk.{layer}.attn_q.weight"].view(np.float32) - exact).mean()
        there = np.abs(theirs[f"{module}.weight"].double().numpy() - exact).mean()
        assert here < 0.8 * there


def test_patterns_that_peft_saved_in_another_order_are_resolved_by_the_matrices_or_refused(tmp_path: pathlib.Path) -> None:
    base = checkpoint(tmp_path / "base")
    folder = adapter(base, tmp_path / "adapter", target_modules=LINEAR, rank_pattern={"q_proj": 2})
    expected = merged_here(base, [folder], tmp_path / "one")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["rank_pattern"] = {".*_proj": 4, **config["rank_pattern"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    found = merged_here(base, [folder], tmp_path / "two")
    assert all(np.array_equal(found[name], data) for name, data in expected.items())
    config["alpha_pattern"] = {".*_proj": 4, "q_proj": 2}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ConvertError, match="several alpha_patterns"):
        merged_here(base, [folder], tmp_path / "three")


def test_untied_head_is_kept(tmp_path: pathlib.Path) -> None:
    assert "output.weight" in merged_here(checkpoint(tmp_path / "untied"), [], tmp_path / "out")
    assert "output.weight" not in merged_here(checkpoint(tmp_path / "tied", tied=True), [], tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_modules": ["q_proj"], "lora_bias": True}, "lora_bias"),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}, "trainable_token_indices"),
        ({"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "pissa"),
        ({"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]}, "target_parameters"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_merged_exactly_is_refused(tmp_path: pathlib.Path, options: dict[str, Any], words: str) -> None:
    base = checkpoint(tmp_path / "base")
    folder = adapter(base, tmp_path / "adapter", **options)
    with pytest.raises(ConvertError, match=words):
        export(Conversion(base, [folder], ["F32"]), tmp_path / "out")


def test_resized_vocabulary_is_refused(tmp_path: pathlib.Path) -> None:
    base = checkpoint(tmp_path / "base")
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(4100)
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConvertError, match=r"resized.*"):
        export(Conversion(base, [tmp_path / "adapter"], ["F32"]), tmp_path / "out")


def test_quantized_base_is_refused(tmp_path: pathlib.Path) -> None:
    base = checkpoint(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    with pytest.raises(ConvertError, match="bitsandbytes"):
        export(Conversion(base, [], ["F32"]), tmp_path / "out")
