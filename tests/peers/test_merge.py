"""The merge against peft's own."""

import pathlib

import gguf
import numpy as np
import peft
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from convert.export import export
from edge_agent.errors import ConvertError
from tests.conftest import ROOT

DEMO = ROOT / "models" / "demo"


def merged_by_peft(base: pathlib.Path, adapter: pathlib.Path) -> dict[str, torch.Tensor]:
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


def compare(base: pathlib.Path, adapter: pathlib.Path, out: pathlib.Path) -> None:
    theirs = merged_by_peft(base, adapter)
    ours = {t.name: t.data for t in gguf.GGUFReader(export(base, [adapter], ["F32"], out)[0].path).tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, 32)
    checked = 0
    for name, tensor in theirs.items():
        if name == "lm_head.weight":  # tied
            continue
        there, here = tensor.numpy(), ours[names.get_name(name, try_suffixes=(".weight",))]
        # Both add in float32, in another order: a few units in the last place of the largest term.
        assert np.abs(there - here).max() <= 4 * np.finfo(np.float32).eps * max(1.0, float(np.abs(there).max())), name
        checked += 1
    assert checked == len(ours)


def test_merged_demo_tensors_equal_pefts(tmp_path: pathlib.Path) -> None:
    compare(DEMO / "base", DEMO / "adapter", tmp_path)


@pytest.mark.parametrize("rslora", [False, True])
def test_merged_tensors_of_a_random_adapter_equal_pefts(tmp_path: pathlib.Path, rslora: bool) -> None:
    torch.manual_seed(0)
    base = Qwen3ForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32)
    config = peft.LoraConfig(r=8, lora_alpha=12, use_rslora=rslora, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(tmp_path / "adapter")
    compare(DEMO / "base", tmp_path / "adapter", tmp_path / "out")


def test_untied_head_is_kept(tmp_path: pathlib.Path) -> None:
    base = Qwen3ForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32)
    config = Qwen3Config.from_pretrained(DEMO / "base", tie_word_embeddings=False)
    untied = Qwen3ForCausalLM(config)
    untied.load_state_dict(base.state_dict(), strict=False)
    untied.save_pretrained(tmp_path / "untied")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "untied" / name).write_bytes((DEMO / "base" / name).read_bytes())
    file = export(tmp_path / "untied", [], ["F32"], tmp_path / "out")[0]
    assert "output.weight" in {t.name for t in gguf.GGUFReader(file.path).tensors}


def test_dora_as_peft_saves_it_is_refused(tmp_path: pathlib.Path) -> None:
    base = Qwen3ForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32)
    config = peft.LoraConfig(r=4, use_dora=True, target_modules=["q_proj"], task_type="CAUSAL_LM")
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConvertError, match="use_dora"):
        export(DEMO / "base", [tmp_path / "adapter"], ["F32"], tmp_path / "out")
