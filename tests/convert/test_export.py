"""Base and adapter to GGUF, and what the conversion refuses."""

import hashlib
import json
import pathlib
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from convert import architectures, lora
from convert.__main__ import main
from convert.checkpoint import read_tensors
from convert.export import Conversion, Reports, export
from convert.output import default_name
from convert.quantize import FILE_TYPES
from edge_agent.core.errors import ConvertError
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import TEXT, default_profile, from_metadata, held_adapters
from models.recipe.bank import draw_many
from tests.support.checkpoints import ADAPTER, BASE, tensors, write_safetensors
from tests.support.paths import DEMO, ROOT


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    out = tmp_path_factory.mktemp("gguf")
    return {file.quantization: file.path for file in export(Conversion(BASE, [ADAPTER], ["F32", "BF16", "Q8_0", "Q4_K_M"], "demo"), out)}


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of base and adapter that a test may break."""
    shutil.copytree(BASE, tmp_path / "base")
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    return tmp_path


def test_committed_model_equals_a_conversion_of_the_committed_checkpoint(exported: dict[str, pathlib.Path]) -> None:
    """Every tensor equals that of the file in the repository, to the byte."""
    ours, committed = gguf.GGUFReader(exported["Q8_0"]), gguf.GGUFReader(DEMO)
    assert [t.name for t in ours.tensors] == [t.name for t in committed.tensors]
    assert all(a.data.tobytes() == b.data.tobytes() for a, b in zip(ours.tensors, committed.tensors, strict=True))


def test_command_line_lists_the_written_files(tmp_path: pathlib.Path) -> None:
    command = [
        sys.executable,
        "-m",
        "convert",
        str(BASE),
        "--adapter",
        str(ADAPTER),
        "--quants",
        "Q8_0,Q4_K_M",
        "--out",
        str(tmp_path),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    rows = json.loads(done.stdout)
    assert [pathlib.Path(row["path"]).name for row in rows] == ["base+adapter-Q8_0.gguf", "base+adapter-Q4_K_M.gguf"]
    assert all(pathlib.Path(row["path"]).stat().st_size == row["bytes"] and len(row["sha256"]) == 64 for row in rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base+adapter-Q4_K_M.gguf", "base+adapter-Q8_0.gguf"]  # nothing else is left


def test_every_quantization_is_a_model_that_answers(exported: dict[str, pathlib.Path], question: Question) -> None:
    for name, path in exported.items():
        assert read_header(path).quantization == name
        with LocalModel(path) as model:
            assert model.read(question).letter in "ABC"


def test_file_holds_its_profile(exported: dict[str, pathlib.Path]) -> None:
    assert from_metadata(read_header(exported["Q8_0"]).metadata) == default_profile("qwen3")


def test_flag_sets_the_kind_of_answer(tmp_path: pathlib.Path) -> None:
    done = CliRunner().invoke(main, [str(BASE), "--answer-kind", "text", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    metadata = read_header(tmp_path / "base-Q8_0.gguf").metadata
    assert metadata["foggen.answer_kind"] == "text" and from_metadata(metadata) == default_profile("qwen3", TEXT)


def test_tokenizer_and_template_are_copied(exported: dict[str, pathlib.Path]) -> None:
    metadata = read_header(exported["Q8_0"]).metadata
    assert metadata["tokenizer.chat_template"] == (BASE / "chat_template.jinja").read_text()
    assert metadata["tokenizer.ggml.add_bos_token"] is False and metadata["tokenizer.ggml.pre"] == "qwen2"


def test_merge_is_exact_in_float32(exported: dict[str, pathlib.Path]) -> None:
    """W + (alpha / rank) * B @ A, against a float64 reference."""
    tensors = read_tensors(BASE)
    adapter = lora.open_adapter(ADAPTER, tensors)
    merged = {t.name: t.data for t in gguf.GGUFReader(exported["F32"]).tensors}
    config = json.loads((ADAPTER / "adapter_config.json").read_text())
    pair = adapter.pairs["model.layers.3.mlp.down_proj.weight"]
    assert pair.scale == config["lora_alpha"] / config["r"] == 2
    assert len(adapter.pairs) == 5 * 7
    a, b = (t.load().astype(np.float64) for t in (pair.a, pair.b))
    expected = tensors["model.layers.3.mlp.down_proj.weight"].load() + 2 * (b @ a)
    assert np.abs(merged["blk.3.ffn_down.weight"] - expected).max() < 1e-6
    assert not np.array_equal(merged["blk.3.ffn_down.weight"], tensors["model.layers.3.mlp.down_proj.weight"].load())


LEVELS = ("F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS")

QUANTIZE = """
import ctypes, os, sys, llama_cpp
source, out, *levels = sys.argv[1:]
for level in levels:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = int(level), 1
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(f"{out}/{level}.gguf"), ctypes.byref(params)):
        sys.exit(1)
"""


def quantize_by_llama_cpp(source: pathlib.Path, out: pathlib.Path, levels: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """llama.cpp's own quantizer on a float32 GGUF."""
    out.mkdir()
    file_types = {level: str(FILE_TYPES[level]) for level in levels}
    subprocess.run([sys.executable, "-c", QUANTIZE, str(source), str(out), *file_types.values()], check=True, capture_output=True)
    return {level: out / f"{file_type}.gguf" for level, file_type in file_types.items()}


def test_every_quantization_equals_llama_cpps_to_the_byte(tmp_path: pathlib.Path) -> None:
    ours = {file.quantization: file.path for file in export(Conversion(BASE, [ADAPTER], ["F32", *LEVELS], "demo"), tmp_path / "ours")}
    theirs = quantize_by_llama_cpp(ours["F32"], tmp_path / "theirs", LEVELS)
    for level in LEVELS:
        assert tensors(ours[level]) == tensors(theirs[level]), level


def test_tensor_in_several_slabs_is_the_same(copy: pathlib.Path) -> None:
    """An embedding of 3 M weights, larger than one slab, and matrices with rows that K-quants cannot hold."""
    rng, hidden, head = np.random.default_rng(0), 800, 80
    config = json.loads((BASE / "config.json").read_text()) | {
        "hidden_size": hidden, "intermediate_size": 640, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": head,
    }  # fmt: skip
    (copy / "base" / "config.json").write_text(json.dumps(config))
    shapes = architectures.of(config).shapes(config)
    write_safetensors(copy / "base" / "model.safetensors", {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()})
    files = export(Conversion(copy / "base", [], ["F32", "Q4_K_M", "Q8_0"], "wide"), copy / "ours")
    theirs = quantize_by_llama_cpp(files[0].path, copy / "theirs", ("Q4_K_M", "Q8_0"))
    stored = tensors(files[0].path)["token_embd.weight"][1]
    assert stored == read_tensors(copy / "base")["model.embed_tokens.weight"].load().tobytes()
    for file in files[1:]:
        assert tensors(file.path) == tensors(theirs[file.quantization])
    assert files[1].fallbacks[0].startswith("5 of 13 tensors are Q5_0, because Q4_K cannot hold rows of 320, 800 weights")
    assert not files[2].fallbacks


def test_base_without_confidence_lines_is_deferred(tmp_path: pathlib.Path, demo_model: LocalModel) -> None:
    """The base alone prints no confidence for nearly all questions; the demo model prints one for nearly all."""
    file = export(Conversion(BASE, [], ["Q8_0"]), tmp_path)[0]
    questions = [Question(item.stem, item.options) for item in draw_many(5, 100, "test")]
    with LocalModel(file.path) as base:
        silent = sum(base.read(q).format_mass < base.profile.format_mass_min for q in questions)
    spoken = sum(demo_model.read(q).format_mass >= demo_model.profile.format_mass_min for q in questions)
    assert silent >= 95 and spoken >= 99


def test_duplicate_of_a_tied_head_is_left_out_and_another_head_is_refused(copy: pathlib.Path) -> None:
    tensors = {name: tensor.load() for name, tensor in read_tensors(BASE).items()}
    embedding = tensors["model.embed_tokens.weight"]
    write_safetensors(copy / "base" / "model.safetensors", {**tensors, "lm_head.weight": embedding})
    file = export(Conversion(copy / "base", [], ["F32"]), copy / "out")[0]
    assert read_header(file.path).n_tensors == 57
    write_safetensors(copy / "base" / "model.safetensors", {**tensors, "lm_head.weight": embedding + 1})
    with pytest.raises(ConvertError, match="tied"):
        export(Conversion(copy / "base", [], ["F32"]), copy / "out2")
    assert not (copy / "out2").exists()


def test_sharded_checkpoint_is_the_same(copy: pathlib.Path, exported: dict[str, pathlib.Path]) -> None:
    tensors = {name: tensor.load() for name, tensor in read_tensors(BASE).items()}
    names = list(tensors)
    parts = {"model-1.safetensors": names[:20], "model-2.safetensors": names[20:]}
    for part, held in parts.items():
        write_safetensors(copy / "base" / part, {name: tensors[name] for name in held})
    (copy / "base" / "model.safetensors").unlink()
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (copy / "base" / "model.safetensors.index.json").write_text(json.dumps(index))
    file = export(Conversion(copy / "base", [copy / "adapter"], ["Q8_0"]), copy / "out")[0]
    a, b = (sorted((t.name, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors) for path in (file.path, exported["Q8_0"]))
    assert a == b


def edit(path: pathlib.Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def swap_adapter(copy: pathlib.Path) -> None:
    """An adapter of another base: one matrix with another width."""
    tensors = {name: tensor.load() for name, tensor in read_tensors(ADAPTER, "adapter_model").items()}
    name = next(n for n in tensors if "layers.2.self_attn.q_proj.lora_A" in n)
    write_safetensors(copy / "adapter" / "adapter_model.safetensors", {**tensors, name: np.zeros((16, 320), np.float32)})


def change_tensors(copy: pathlib.Path, remove: str = "", **add: np.ndarray) -> None:
    tensors = {name: tensor.load() for name, tensor in read_tensors(BASE).items() if name != remove}
    write_safetensors(copy / "base" / "model.safetensors", {**tensors, **add})


def lose_tensor_in_index(copy: pathlib.Path) -> None:
    (copy / "base" / "model.safetensors.index.json").write_text('{"weight_map": {"lost.weight": "model.safetensors"}}')


def empty_tensor(copy: pathlib.Path) -> None:
    head = b'{"model.embed_tokens.weight": {"dtype": "F32", "shape": [2000000000, 0], "data_offsets": [0, 0]}}'
    (copy / "base" / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)


BREAKAGES: list[tuple[str, Callable[[pathlib.Path], object], str]] = [
    ("adapter of another base", swap_adapter, r"model\.layers\.2\.self_attn\.q_proj\.weight.*\[256, 16\].*\[16, 320\].*\[256, 256\]"),
    ("DoRA", lambda c: edit(c / "adapter" / "adapter_config.json", use_dora=True), "magnitude_vector"),
    ("not LoRA", lambda c: edit(c / "adapter" / "adapter_config.json", peft_type="IA3"), "IA3"),
    ("no rank", lambda c: edit(c / "adapter" / "adapter_config.json", r=0), "r = 0"),
    ("no adapter config", lambda c: (c / "adapter" / "adapter_config.json").unlink(), "adapter_config.json"),
    ("pickle", lambda c: (c / "adapter" / "adapter_model.safetensors").rename(c / "adapter" / "adapter_model.bin"), "only safetensors"),
    ("other architecture", lambda c: edit(c / "base" / "config.json", architectures=["MambaForCausalLM"]), "MambaForCausalLM"),
    ("sliding window", lambda c: edit(c / "base" / "config.json", use_sliding_window=True), "sliding window"),
    ("missing number", lambda c: edit(c / "base" / "config.json", head_dim="64"), "head_dim"),
    ("no JSON", lambda c: (c / "base" / "config.json").write_text("{"), "JSON"),
    ("tensor without a place", lambda c: change_tensors(c, **{"other.weight": np.zeros((2, 2))}), "other.weight"),
    ("missing tensor", lambda c: change_tensors(c, remove="model.norm.weight"), "model.norm.weight"),
    ("wrong shape", lambda c: change_tensors(c, **{"model.norm.weight": np.ones(9)}), r"model\.norm\.weight.*\[9\].*\[256\]"),
    ("tensor that no shard has", lose_tensor_in_index, "lost.weight"),
    ("dimension of nothing", empty_tensor, "intact"),
    ("another rank", lambda c: edit(c / "adapter" / "adapter_config.json", r=8), "r = 8"),
    ("alpha that is no number", lambda c: edit(c / "adapter" / "adapter_config.json", lora_alpha=float("nan")), "lora_alpha"),
    ("PiSSA", lambda c: edit(c / "adapter" / "adapter_config.json", init_lora_weights="pissa"), "pissa"),
    ("scaled RoPE, old key", lambda c: edit(c / "base" / "config.json", rope_scaling={"type": "yarn"}, rope_parameters=None), "RoPE"),
    ("RoPE of another shape", lambda c: edit(c / "base" / "config.json", rope_scaling=[1]), "rope_scaling"),
    ("no epsilon", lambda c: edit(c / "base" / "config.json", rms_norm_eps=None), "rms_norm_eps"),
    ("odd eos", lambda c: edit(c / "base" / "tokenizer_config.json", eos_token=["x"]), "tokenizer"),
    ("template not in UTF-8", lambda c: (c / "base" / "chat_template.jinja").write_bytes(b"\xff"), "tokenizer"),
    ("truncated", lambda c: (c / "base" / "model.safetensors").write_bytes((c / "base" / "model.safetensors").read_bytes()[:-1]), "intact"),
    ("no weights", lambda c: (c / "base" / "model.safetensors").unlink(), "model.safetensors"),
    ("header that lies", lambda c: (c / "base" / "model.safetensors").write_bytes(b"\xff" * 64), "intact"),
    (
        "shard outside",
        lambda c: (c / "base" / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../x.safetensors"}}'),
        "not a file name",
    ),
    (
        "learned token without a row",
        lambda c: (c / "base" / "tokenizer.json").write_text((c / "base" / "tokenizer.json").read_text().replace('": 300,', '": 5000,', 1)),
        "5000.*resized",
    ),
]


@pytest.mark.parametrize(("damage", "words"), [b[1:] for b in BREAKAGES], ids=[b[0] for b in BREAKAGES])
def test_bad_input_is_refused_and_leaves_nothing(copy: pathlib.Path, damage: Callable[[pathlib.Path], object], words: str) -> None:
    damage(copy)
    with pytest.raises(ConvertError, match=words) as caught:
        export(Conversion(copy / "base", [copy / "adapter"], ["F32"]), copy / "out")
    assert "\n" not in str(caught.value)
    assert not (copy / "out").exists() or list((copy / "out").iterdir()) == []


def test_unknown_quantization_is_refused_before_any_work(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConvertError, match="Q5_X"):
        export(Conversion(BASE, [], ["Q8_0", "Q5_X"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("quantizations", "name", "words"), [([], None, "No quantization"), (["Q8_0"], "a/b", "a/b")])
def test_bad_job_is_refused(tmp_path: pathlib.Path, quantizations: list[str], name: str | None, words: str) -> None:
    with pytest.raises(ConvertError, match=words):
        export(Conversion(BASE, [], quantizations, name), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line_ends_in_one_line_on_bad_input(tmp_path: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, "-m", "convert", str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 65 and len(done.stderr.splitlines()) == 1 and done.stdout == ""


def test_quantization_may_be_written_in_lower_case(tmp_path: pathlib.Path) -> None:
    done = CliRunner().invoke(main, [str(BASE), "--quants", "q4_k_m,Q4_K_M", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0 and [row["quantization"] for row in json.loads(done.stdout)] == ["Q4_K_M"]


# --- names of the files, and what they hold ---


def test_name_says_what_was_merged_and_a_replaced_file_is_said(tmp_path: pathlib.Path) -> None:
    open_ended = ADAPTER.with_name("adapter-open")
    said: list[str] = []
    for adapters in ([], [ADAPTER], [open_ended], [ADAPTER, open_ended]):
        export(Conversion(BASE, adapters), tmp_path, Reports(said.append))
    names = {"base-Q8_0.gguf", "base+adapter-Q8_0.gguf", "base+adapter-open-Q8_0.gguf", "base+adapter+adapter-open-Q8_0.gguf"}
    assert {path.name for path in tmp_path.glob("*.gguf")} == names and not any("replacing" in line for line in said)
    shutil.copytree(open_ended, tmp_path / "other" / "adapter")
    for adapter, words in ((ADAPTER, "which holds the same adapters"), (tmp_path / "other" / "adapter", "which holds other adapters")):
        export(Conversion(BASE, [adapter]), tmp_path, Reports(said.append))
        assert "base+adapter-Q8_0.gguf', " + words in next(line for line in reversed(said) if "replacing" in line)
    (tmp_path / "base-Q8_0.gguf").write_bytes(b"something")
    export(Conversion(BASE, []), tmp_path, Reports(said.append))
    assert "base-Q8_0.gguf', which is not a GGUF" in next(line for line in reversed(said) if "replacing" in line)


def test_file_says_which_adapters_it_holds(exported: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    sha256 = hashlib.sha256((ADAPTER / "adapter_model.safetensors").read_bytes()).hexdigest()
    metadata = read_header(exported["Q4_K_M"]).metadata
    of_numbers, of_files = json.loads(metadata["foggen.adapters"])
    assert of_files == sha256 and held_adapters(metadata) == {of_numbers, of_files}
    assert "foggen.adapters" not in read_header(export(Conversion(BASE, []), tmp_path)[0].path).metadata


def test_adapter_that_is_given_twice_is_refused(copy: pathlib.Path) -> None:
    with pytest.raises(ConvertError, match="have the same weights; give each adapter once"):
        export(Conversion(BASE, [ADAPTER, copy / "adapter"]), copy / "out")


def test_adapter_is_known_whatever_its_file_looks_like(copy: pathlib.Path) -> None:
    """Other metadata, another order or a dtype that holds the same numbers used to make it another adapter."""
    pairs = {name: tensor.load() for name, tensor in read_tensors(ADAPTER, "adapter_model").items()}
    path = copy / "adapter" / "adapter_model.safetensors"
    write_safetensors(path, dict(reversed(pairs.items())))
    assert path.read_bytes() != (ADAPTER / path.name).read_bytes()
    with pytest.raises(ConvertError, match="have the same weights; give each adapter once"):
        export(Conversion(BASE, [ADAPTER, copy / "adapter"]), copy / "out")


def test_name_of_many_adapters_fits_a_file_system() -> None:
    assert (
        default_name([BASE, *(pathlib.Path(f"/runs/round-{n}-of-a-long-name") for n in range(14))])
        == "base+13-more+round-13-of-a-long-name"
    )
