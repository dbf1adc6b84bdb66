"""The adapter-only update: a base GGUF and a LoRA as a GGUF adapter decide as the merged model does."""

import json
import pathlib
import shutil

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from convert.__main__ import main
from convert.adapter import export_adapter
from convert.checkpoint import read_tensors
from convert.export import Conversion, export
from edge_agent.agent.agent import Agent
from edge_agent.core.errors import ConvertError, ModelMissing, ModelRefused
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from models.recipe.bank import draw_many
from tests.support.checkpoints import ADAPTER, BASE, write_safetensors
from tests.support.command_line import run
from tests.support.paths import DEMO

QUESTIONS = [Question(item.stem, item.options) for item in draw_many(21, 60, "test")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """base-BF16.gguf, merged-BF16.gguf and demo-adapter.gguf."""
    out = tmp_path_factory.mktemp("adapter")
    export(Conversion(BASE, [], ["BF16"], "base"), out)
    export(Conversion(BASE, [ADAPTER], ["BF16"], "merged"), out)
    export_adapter(BASE, [ADAPTER], out, "demo")
    return out


def test_base_with_adapter_answers_like_the_merged_model(folder: pathlib.Path) -> None:
    with (
        LocalModel(folder / "base-BF16.gguf", adapter=folder / "demo-adapter.gguf") as adapted,
        LocalModel(folder / "merged-BF16.gguf") as merged,
        LocalModel(folder / "base-BF16.gguf") as base,
    ):
        pairs = [(adapted.read(question), merged.read(question)) for question in QUESTIONS]
        silent = sum(base.read(question).format_mass < 0.5 for question in QUESTIONS[:10])
    same = sum(one.level == other.level and one.letter == other.letter for one, other in pairs)
    assert silent == 10 and same >= len(pairs) - 1  # a near tie may fall the other way: the merge is rounded to bfloat16
    # Of the weights, merged or not, bfloat16 keeps eight bits; the probabilities agree accordingly.
    assert max(abs(a - b) for one, other in pairs for a, b in zip(one.level_probs, other.level_probs, strict=True)) < 0.06


def test_adapter_is_small_and_has_its_metadata(folder: pathlib.Path) -> None:
    path = folder / "demo-adapter.gguf"
    assert path.stat().st_size < (folder / "merged-BF16.gguf").stat().st_size / 8
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.type"].contents() == "adapter" and len(reader.tensors) == 2 * 5 * 7


def test_several_adapters_become_one_of_a_higher_rank(tmp_path: pathlib.Path) -> None:
    both = (ADAPTER, ADAPTER.with_name("adapter-open"))
    path = export_adapter(BASE, both, tmp_path, "both").path
    halves = {t.name: t.data.astype(np.float64) for t in gguf.GGUFReader(path).tensors}
    a, b = halves["blk.2.attn_q.weight.lora_a"], halves["blk.2.attn_q.weight.lora_b"]
    total, stem = np.zeros((256, 256)), "base_model.model.model.layers.2.self_attn.q_proj.lora_"
    for folder in both:
        tensors = read_tensors(folder, "adapter_model")
        total += 2 * tensors[f"{stem}B.weight"].load().astype(np.float64) @ tensors[f"{stem}A.weight"].load()
    assert a.shape[0] == 32 and np.abs(b @ a - total).max() < 2e-3 * np.abs(total).max()


def test_reading_is_remembered_for_the_model_with_this_adapter(folder: pathlib.Path) -> None:
    """The same base with and without its adapter are two models; the same pair is recalled."""
    model, adapter = str(folder / "base-BF16.gguf"), str(folder / "demo-adapter.gguf")
    recalled = []
    for settings in ({}, {"adapter": adapter}, {"adapter": adapter}, {}):
        with Agent.open(model=model, policy="only_local", **settings) as agent:
            decision = agent.ask(QUESTIONS[0])
        recalled.append(decision.recalled)
        assert ("adapter_sha256" in decision.to_dict()["model"]) == bool(settings)
    assert recalled == [False, False, True, True]


def test_flag_and_environment_name_the_adapter(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, adapter = str(folder / "base-BF16.gguf"), str(folder / "demo-adapter.gguf")
    said = json.loads(
        run("ask", "What is 12 + 7?", "--option", "18", "--option", "19", "--model", model, "--adapter", adapter, "--json").stdout
    )
    monkeypatch.setenv("EDGE_AGENT_ADAPTER", adapter)
    again = json.loads(run("ask", "What is 12 + 7?", "--option", "18", "--option", "19", "--model", model, "--json").stdout)
    assert again["recalled"] and again["model"] == said["model"] and said["model"]["adapter_sha256"]


def test_adapter_from_the_config_file_is_named_beside_the_model(folder: pathlib.Path, home: pathlib.Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(f'adapter = "{folder / "demo-adapter.gguf"}"\n')
    questions = home / "questions.jsonl"
    questions.write_text(json.dumps({"question": "1 + 1?", "options": ["1", "2"], "answer": "B"}))
    model = ("--model", str(folder / "base-BF16.gguf"))
    asked = run("ask", "What is 12 + 7?", "--option", "18", "--option", "19", *model).stdout
    assert ", with the adapter demo-adapter.gguf\n" in next(line + "\n" for line in asked.splitlines() if line.startswith("   model"))
    assert "with the adapter demo-adapter.gguf (sha256 " in run("eval", str(questions), *model).stdout.splitlines()[0]
    assert "with demo-adapter.gguf" in run("doctor", *model).stdout
    (home / "config.toml").unlink()
    assert "adapter" not in run("ask", "What is 12 + 7?", "--option", "18", "--option", "19", *model).stdout


def test_file_that_is_not_an_adapter_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ModelRefused, match="is not an adapter"):
        LocalModel(DEMO, adapter=DEMO)
    with pytest.raises(ModelMissing):
        LocalModel(DEMO, adapter=tmp_path / "nothing.gguf")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes((folder / "demo-adapter.gguf").read_bytes()[:-1000])
    with pytest.raises(ModelRefused, match="truncated"):
        LocalModel(DEMO, adapter=damaged)


def test_adapter_on_a_model_that_holds_it_already_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """It would count twice. The base takes it, and so does a model that holds another adapter."""
    merged, adapter = folder / "merged-BF16.gguf", folder / "demo-adapter.gguf"
    with pytest.raises(ModelRefused, match=r"already holds the adapter .*demo-adapter\.gguf"):
        LocalModel(merged, adapter=adapter)
    done = run("ask", "What is 12 + 7?", "--option", "18", "--option", "19", "--model", str(merged), "--adapter", str(adapter))
    assert done.returncode == 66 and "already holds" in done.stderr and "Traceback" not in done.stderr
    done = run("verify", str(merged), "--adapter", str(adapter))
    assert done.returncode == 65 and "BAD  adapter" in done.stdout and "already holds" in done.stdout
    both = export_adapter(BASE, [ADAPTER.with_name("adapter-open"), ADAPTER], tmp_path).path  # it is one of two
    with pytest.raises(ModelRefused, match="already holds"):
        LocalModel(merged, adapter=both)
    other = export_adapter(BASE, [ADAPTER.with_name("adapter-open")], tmp_path).path
    LocalModel(merged, adapter=other).close()


def test_adapter_of_a_wider_model_is_refused(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    reader = gguf.GGUFReader(folder / "demo-adapter.gguf")
    writer = gguf.GGUFWriter(tmp_path / "wide.gguf", "qwen3")
    for key, value in (("general.type", "adapter"), ("adapter.type", "lora")):
        writer.add_string(key, value)
    for tensor in reader.tensors:
        data = tensor.data if not tensor.name.endswith("lora_a") else np.concatenate([tensor.data, tensor.data], axis=1)
        writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelRefused, match="give the one made for it"):
        LocalModel(DEMO, adapter=tmp_path / "wide.gguf")


def test_adapter_that_does_more_than_add_is_refused(tmp_path: pathlib.Path) -> None:
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    tensors = {name: tensor.load() for name, tensor in read_tensors(ADAPTER, "adapter_model").items()}
    tensors["base_model.model.model.norm.weight"] = read_tensors(BASE)["model.norm.weight"].load()
    write_safetensors(tmp_path / "adapter" / "adapter_model.safetensors", tensors)
    with pytest.raises(ConvertError, match=r"output_norm\.weight.*merge it"):
        export_adapter(BASE, [tmp_path / "adapter"], tmp_path / "out")
    with pytest.raises(ConvertError, match="No adapter"):
        export_adapter(BASE, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_writes_only_the_adapter(tmp_path: pathlib.Path) -> None:
    done = CliRunner().invoke(
        main, [str(BASE), "--adapter", str(ADAPTER), "--adapter-gguf", "--out", str(tmp_path), "--name", "x", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x-adapter.gguf"]


def test_verify_compares_base_with_adapter_and_merged_file(folder: pathlib.Path) -> None:
    base, adapter, merged = folder / "base-BF16.gguf", folder / "demo-adapter.gguf", folder / "merged-BF16.gguf"
    pair = (str(base), "--adapter", str(adapter))
    done = run("verify", *pair, "--against", str(merged), "--limit", "8", "--max-changed", "0.2", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert [check["name"] for check in told["checks"]] == ["bounds", "profile", "sha256", "adapter", "load", "format", "routes"]
    assert (told["path"], told["adapter"], told["comparison"]["reference_adapter"]) == (str(base), str(adapter), None)
    assert told["comparison"]["size_bytes"] == base.stat().st_size + adapter.stat().st_size
    assert told["comparison"]["level_kl"]["mean"] < 0.01
    again = run("verify", str(merged), "--against", str(base), "--against-adapter", str(adapter), "--limit", "4")
    assert again.returncode == 0 and f"Against {base} with {adapter}" in again.stdout
    alone = run("verify", str(base), "--limit", "4", EDGE_AGENT_ADAPTER=str(adapter))
    assert alone.returncode == 65 and "BAD  format" in alone.stdout  # the configured adapter is not used to check a file


def test_verify_names_the_adapter_that_does_not_fit(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes((folder / "demo-adapter.gguf").read_bytes()[:-1000])
    for adapter, words in ((damaged, "truncated"), (DEMO, "is not an adapter")):
        done = run("verify", str(DEMO), "--adapter", str(adapter))
        assert done.returncode == 65 and "BAD  adapter" in done.stdout and words in done.stdout
    assert run("verify", str(DEMO), "--adapter", str(tmp_path / "none.gguf")).returncode == 66
    assert run("verify", str(DEMO), "--against-adapter", str(damaged)).returncode == 2


def test_bench_measures_base_with_adapter_and_merged_file(folder: pathlib.Path) -> None:
    base, adapter, merged = folder / "base-BF16.gguf", folder / "demo-adapter.gguf", folder / "merged-BF16.gguf"
    short = ("--repeats", "1", "--limit", "4", "--threads", "1")
    done = run("bench", str(base), "--adapter", str(adapter), "--against", str(merged), *short, "--json")
    assert done.returncode == 0, done.stderr
    adapted, reference = json.loads(done.stdout)["files"]
    assert (adapted["path"], adapted["adapter"], reference["path"], reference["adapter"]) == (str(base), str(adapter), str(merged), None)
    assert adapted["size_bytes"] == base.stat().st_size + adapter.stat().st_size
    assert reference["differing"] is None and adapted["differing"] <= 0.5  # of two decisions, one near tie
    configured = run("bench", *short, EDGE_AGENT_MODEL=str(base), EDGE_AGENT_ADAPTER=str(adapter))
    assert configured.returncode == 0 and "BF16 + adapter" in configured.stdout
    wrong = run("bench", str(base), "--adapter", str(DEMO), *short)
    assert wrong.returncode == 66 and "is not an adapter" in wrong.stderr and "Traceback" not in wrong.stderr


def test_adapter_is_pulled_packed_and_used_by_its_name(folder: pathlib.Path, home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for file in ("base-BF16.gguf", "demo-adapter.gguf"):
        done = run("pull", str(folder / file))
        assert done.returncode == 0, done.stderr
    question = ("ask", "What is 12 + 7?", "--option", "18", "--option", "19", "--option", "24", "--json")
    asked = run(*question, "--model", "base-BF16", "--adapter", "demo-adapter")
    assert asked.returncode == 0 and json.loads(asked.stdout)["answer"] == "B", asked.stderr
    packed = tmp_path / "kiosk.bundle"
    done = run("bundle", "base-BF16", "--adapter", "demo-adapter", "--out", str(packed), "--tau", "0.75")
    assert done.returncode == 0 and "the adapter demo-adapter" in done.stderr, done.stderr
    device = {"EDGE_AGENT_HOME": str(tmp_path / "device")}
    done = run("pull", str(packed), **device)
    assert done.returncode == 0 and not json.loads(run("pull", str(packed), "--json", **device).stdout)["is_new"], done.stderr
    there = json.loads(run(*question, **device).stdout)
    assert there["answer"] == "B" and there["tau"] == 0.75 and there["confidence"] == json.loads(asked.stdout)["confidence"]
    assert "--in-use" in run("models", "rm", "demo-adapter", "--yes", **device).stderr
    assert run("models", "rm", "demo-adapter", "--yes").returncode == 0
    missing = run(*question, "--model", "base-BF16", "--adapter", "demo-adapter")
    assert missing.returncode == 66 and "There is no adapter 'demo-adapter'" in missing.stderr


def test_adapter_that_does_not_fit_its_model_is_not_packed(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = str(tmp_path / "x.bundle")
    for adapter, words in ((DEMO, "is not an adapter"), (tmp_path / "none.gguf", "There is no adapter file")):
        done = run("bundle", str(folder / "base-BF16.gguf"), "--adapter", str(adapter), "--out", out)
        assert done.returncode == 66 and words in done.stderr, done.stderr
    shutil.copyfile(folder / "demo-adapter.gguf", tmp_path / "base-BF16.gguf")
    done = run("bundle", str(folder / "base-BF16.gguf"), "--adapter", str(tmp_path / "base-BF16.gguf"), "--out", out)
    assert done.returncode == 66 and "both called" in done.stderr
