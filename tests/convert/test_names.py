"""Which files of a folder count, and which weight a name means: one reading, or a refusal that names both."""

import json
import pathlib
import shutil
import struct
from collections.abc import Callable

import numpy as np
import pytest

from convert import lora
from convert.checkpoint import read_tensors
from convert.export import Conversion, export
from edge_agent.core.errors import ConvertError
from tests.support.checkpoints import ADAPTER, BASE, tensors, write_safetensors


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of base and adapter that a test may change."""
    shutil.copytree(BASE, tmp_path / "base")
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    return tmp_path


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return export(Conversion(BASE, [ADAPTER], ["Q8_0"], "demo"), tmp_path_factory.mktemp("gguf"))[0].path


# --- which files count ---


def split(folder: pathlib.Path, *, index: bool, stem: str = "model", total: int = 2) -> dict[str, dict[str, np.ndarray]]:
    """Replace the one file of a folder by shards; returns what each holds."""
    tensors = {name: tensor.load() for name, tensor in read_tensors(folder, stem).items()}
    (folder / f"{stem}.safetensors").unlink()
    names = list(tensors)
    held = {f"{stem}-{n + 1:05d}-of-{total:05d}.safetensors": {k: tensors[k] for k in names[n::total]} for n in range(total)}
    for shard, part in held.items():
        write_safetensors(folder / shard, part)
    if index:
        places = {name: shard for shard, part in held.items() for name in part}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return held


def loaded(folder: pathlib.Path, stem: str = "model") -> dict[str, bytes]:
    return {name: tensor.load().tobytes() for name, tensor in read_tensors(folder, stem).items()}


@pytest.mark.parametrize(("part", "stem"), [("base", "model"), ("adapter", "adapter_model")])
@pytest.mark.parametrize("index", [True, False])
def test_shards_with_and_without_an_index_are_read(copy: pathlib.Path, part: str, stem: str, index: bool) -> None:
    whole = loaded(copy / part, stem)
    split(copy / part, index=index, stem=stem, total=3)
    assert loaded(copy / part, stem) == whole


@pytest.mark.parametrize("index", [True, False])
def test_newer_file_beside_old_shards_is_refused_naming_both(copy: pathlib.Path, index: bool) -> None:
    tensors = {name: tensor.load() for name, tensor in read_tensors(copy / "base").items()}
    split(copy / "base", index=index)
    write_safetensors(copy / "base" / "model.safetensors", tensors)
    with pytest.raises(ConvertError, match=r"both 'model\.safetensors' and 'model-00001-of-00002\.safetensors'.*older"):
        read_tensors(copy / "base")


@pytest.mark.parametrize("newest", [2, 3])
def test_two_whole_sets_are_refused_whichever_the_index_lists(copy: pathlib.Path, newest: int) -> None:
    """The one in the index used to win, without a word."""
    whole = {name: tensor.load() for name, tensor in read_tensors(copy / "base").items()}
    for total in (5 - newest, newest):
        write_safetensors(copy / "base" / "model.safetensors", whole)
        index = copy / "base" / "model.safetensors.index.json"
        index.unlink(missing_ok=True)
        for shard in (copy / "base").glob("model-*-of-*"):
            shard.rename(shard.with_suffix(".aside"))
        split(copy / "base", index=total == newest, total=total)
        for shard in (copy / "base").glob("*.aside"):
            shard.rename(shard.with_suffix(".safetensors"))
    with pytest.raises(ConvertError, match=rf"both 'model-00001-of-0000{5 - newest}\S* and 'model-00001-of-0000{newest}.*older"):
        read_tensors(copy / "base")


def test_index_of_one_file_beside_whole_shards_is_refused(copy: pathlib.Path) -> None:
    whole = {name: tensor.load() for name, tensor in read_tensors(copy / "base").items()}
    split(copy / "base", index=False)
    write_safetensors(copy / "base" / "model.safetensors", whole)
    index = copy / "base" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(whole, "model.safetensors")}))
    with pytest.raises(ConvertError, match=r"both 'model-00001-of-00002\.safetensors' and 'model\.safetensors'.*older"):
        read_tensors(copy / "base")


def test_old_index_without_its_shards_does_not_count(copy: pathlib.Path) -> None:
    whole, tensors = loaded(copy / "base"), {name: tensor.load() for name, tensor in read_tensors(copy / "base").items()}
    held = split(copy / "base", index=True)
    for shard in held:
        (copy / "base" / shard).unlink()
    with pytest.raises(ConvertError, match=r"lists the shard 'model-00001-of-00002\.safetensors', which is not there"):
        read_tensors(copy / "base")
    write_safetensors(copy / "base" / "model.safetensors", tensors)
    assert loaded(copy / "base") == whole
    split(copy / "base", index=False, total=3)  # newer shards beside the old index
    assert loaded(copy / "base") == whole


def test_missing_shard_is_named(copy: pathlib.Path) -> None:
    split(copy / "base", index=False, total=3)
    (copy / "base" / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ConvertError, match=r"shard '.*model-00002-of-00003\.safetensors' is not there"):
        read_tensors(copy / "base")


def test_shards_of_two_sets_are_refused_naming_both(copy: pathlib.Path) -> None:
    held = split(copy / "base", index=False, total=3)
    write_safetensors(copy / "base" / "model-00001-of-00002.safetensors", next(iter(held.values())))
    with pytest.raises(ConvertError, match=r"both 'model-00001-of-00002.*' and 'model-00001-of-00003"):
        read_tensors(copy / "base")


@pytest.mark.parametrize("index", [True, False])
def test_tensor_in_two_shards_is_refused_naming_both(copy: pathlib.Path, index: bool) -> None:
    (first, one), (second, two) = split(copy / "base", index=index).items()
    name = next(iter(one))
    write_safetensors(copy / "base" / second, {**two, name: one[name] + 1})
    with pytest.raises(ConvertError, match=rf"'{name}' is in both '{first}' and '{second}'"):
        read_tensors(copy / "base")


def test_tensor_twice_in_one_header_is_refused(copy: pathlib.Path) -> None:
    entry = b'"x": {"dtype": "F32", "shape": [1], "data_offsets": [%d, %d]}'
    head = b"{" + entry % (0, 4) + b", " + entry % (4, 8) + b"}"
    (copy / "base" / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(8))
    with pytest.raises(ConvertError, match="intact"):
        read_tensors(copy / "base")


# --- how tensors may be called ---


def renamed_base(copy: pathlib.Path, new: Callable[[str], str]) -> None:
    tensors = {new(name): tensor.load() for name, tensor in read_tensors(BASE).items()}
    write_safetensors(copy / "base" / "model.safetensors", tensors)


@pytest.mark.parametrize(
    "new",
    [
        lambda name: name.removeprefix("model."),  # saved without its head
        lambda name: f"_orig_mod.{name}",  # compiled
        lambda name: name.replace("layers.", "layers._orig_mod.", 1),
        lambda name: f"module.{name}",  # DataParallel
        lambda name: name.replace(".self_attn", "._fsdp_wrapped_module.self_attn"),
        lambda name: f"language_model.{name}",  # cut out of a model that can see, as transformers 4 names it
        lambda name: name.replace("model.", "model.language_model.", 1),  # and transformers 5
    ],
)
def test_base_may_have_other_prefixes(copy: pathlib.Path, merged: pathlib.Path, new: Callable[[str], str]) -> None:
    renamed_base(copy, new)
    assert tensors(export(Conversion(copy / "base", [ADAPTER], ["Q8_0"], "x"), copy)[0].path) == tensors(merged)


def test_weight_under_two_spellings_in_the_base_is_refused_naming_both(copy: pathlib.Path) -> None:
    held = {name: tensor.load() for name, tensor in read_tensors(BASE).items()}
    write_safetensors(copy / "base" / "model.safetensors", {**held, "_orig_mod.model.norm.weight": np.ones(256)})
    with pytest.raises(ConvertError, match=r"both '(_orig_mod\.)?model\.norm\.weight' and '(_orig_mod\.)?model\.norm\.weight'"):
        export(Conversion(copy / "base", [], ["Q8_0"]), copy / "out")


def change_adapter(copy: pathlib.Path, new: Callable[[str], str] = lambda name: name, **add: np.ndarray) -> dict[str, np.ndarray]:
    tensors = {new(name): tensor.load() for name, tensor in read_tensors(ADAPTER, "adapter_model").items()} | add
    write_safetensors(copy / "adapter" / "adapter_model.safetensors", tensors)
    return tensors


STEM = "base_model.model.model.layers.2.self_attn.q_proj"


@pytest.mark.parametrize(
    "new",
    [
        lambda name: name.replace(".weight", ".my_adapter.weight"),  # as it is in memory
        lambda name: name.replace(".weight", ".default.weight"),
        lambda name: f"_orig_mod.{name}",
        lambda name: name.replace("base_model.model.", "base_model.model._orig_mod."),
        lambda name: name.replace(".self_attn", "._orig_mod.self_attn"),
        lambda name: f"module.{name}",
    ],
)
def test_adapter_may_have_other_names(copy: pathlib.Path, merged: pathlib.Path, new: Callable[[str], str]) -> None:
    change_adapter(copy, new)
    assert tensors(export(Conversion(BASE, [copy / "adapter"], ["Q8_0"], "x"), copy)[0].path) == tensors(merged)


@pytest.mark.parametrize("other", [f"{STEM}.lora_A.default.weight", f"{STEM.removeprefix('base_model.model.')}.lora_A.weight"])
def test_lora_matrix_under_two_spellings_is_refused_naming_both(copy: pathlib.Path, other: str) -> None:
    change_adapter(copy, **{other: np.ones((16, 256))})
    with pytest.raises(ConvertError, match=r"has both '.*' and '.*', which are the same weight") as caught:
        lora.open_adapter(copy / "adapter", read_tensors(BASE))
    assert f"'{other}'" in str(caught.value) and f"'{STEM}.lora_A.weight'" in str(caught.value)


def test_two_adapters_in_one_file_are_refused_naming_both(copy: pathlib.Path) -> None:
    change_adapter(copy, lambda name: name.replace(".weight", ".one.weight" if ".layers.2." in name else ".two.weight"))
    with pytest.raises(ConvertError, match=r"several adapters: '.*\.(one|two)\.weight' and '.*\.(one|two)\.weight'"):
        lora.open_adapter(copy / "adapter", read_tensors(BASE))


def test_trained_biases_are_refused_only_where_there_are_some(copy: pathlib.Path) -> None:
    path = copy / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bias": "all"}))
    lora.open_adapter(copy / "adapter", read_tensors(BASE))
    for bias in (f"{STEM}.bias", f"{STEM}.lora_B.bias"):
        change_adapter(copy, **{bias: np.ones(256)})
        with pytest.raises(ConvertError, match=r"trains a bias"):
            lora.open_adapter(copy / "adapter", read_tensors(BASE))


def test_half_a_pair_is_refused_by_the_missing_half(copy: pathlib.Path) -> None:
    tensors = change_adapter(copy)
    del tensors[f"{STEM}.lora_B.weight"]
    write_safetensors(copy / "adapter" / "adapter_model.safetensors", tensors)
    with pytest.raises(ConvertError, match=r"no lora_B for 'model\.layers\.2\.self_attn\.q_proj'"):
        lora.open_adapter(copy / "adapter", read_tensors(BASE))


def test_folder_of_adapters_names_them(copy: pathlib.Path) -> None:
    shutil.copytree(ADAPTER, copy / "saved" / "my_adapter")
    with pytest.raises(ConvertError, match=r"give one of the folders in it: my_adapter"):
        lora.open_adapter(copy / "saved", read_tensors(BASE))


# --- what the configuration of an adapter lists ---


def configured(folder: pathlib.Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("kept", [["lm_head"], ["model.norm"], ["mlp"]])
def test_adapter_without_a_whole_weight_that_it_lists_is_refused(copy: pathlib.Path, kept: list[str]) -> None:
    configured(copy / "adapter", modules_to_save=kept)
    with pytest.raises(ConvertError, match=rf"no weights for '.*{kept[0]}.*', which its modules_to_save lists"):
        lora.open_adapter(copy / "adapter", with_head(copy / "base"))


@pytest.mark.parametrize("lost", ["q_proj", "layers.2.self_attn.q_proj"])
def test_adapter_without_the_pairs_of_a_module_that_it_lists_is_refused(copy: pathlib.Path, lost: str) -> None:
    pairs = {name: tensor.load() for name, tensor in read_tensors(ADAPTER, "adapter_model").items() if lost not in name}
    write_safetensors(copy / "adapter" / "adapter_model.safetensors", pairs)
    with pytest.raises(ConvertError, match=rf"no weights for '.*{lost}', which its target_modules lists"):
        lora.open_adapter(copy / "adapter", with_head(copy / "base"))
    configured(copy / "adapter", exclude_modules=[lost])
    lora.open_adapter(copy / "adapter", with_head(copy / "base"))


@pytest.mark.parametrize(("key", "value"), [("use_new_trick", True), ("kasa_config", {"beta": 0.1}), ("target_parameters", ["x"])])
def test_switch_that_is_not_known_is_refused(copy: pathlib.Path, key: str, value: object) -> None:
    configured(copy / "adapter", **{key: value})
    with pytest.raises(ConvertError, match=f"uses '{key}', which cannot be merged here"):
        lora.open_adapter(copy / "adapter", with_head(copy / "base"))
    configured(copy / "adapter", **{key: None})
    lora.open_adapter(copy / "adapter", with_head(copy / "base"))


def with_head(folder: pathlib.Path) -> dict[str, object]:
    """The tensors of a base with a tied head, as the converter sees them."""
    tensors = read_tensors(folder)
    return {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}
