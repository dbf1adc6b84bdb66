"""Bad checkpoints, killed processes and full disks: a conversion ends with one clear sentence and leaves nothing behind."""

import fcntl
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from convert.checkpoint import read_tensors
from convert.export import Conversion, export, metadata, open_model
from convert.lora import open_adapter
from convert.output import Output
from convert.sentencepiece import read_pieces
from edge_agent.core.errors import ConvertError
from edge_agent.model.gguf import read_header
from edge_agent.model.profile import LETTER
from tests.support.checkpoints import write_safetensors
from tests.support.paths import ROOT

BASE, ADAPTER = ROOT / "models" / "demo" / "base", ROOT / "models" / "demo" / "adapter"
N_TRUNCATIONS, N_FLIPS = 64, 1000


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    shutil.copytree(BASE, tmp_path / "base")
    shutil.copytree(ADAPTER, tmp_path / "adapter")
    return tmp_path


def header_bytes(path: pathlib.Path) -> int:
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def test_checkpoint_that_was_cut_off_anywhere_is_refused(copy: pathlib.Path) -> None:
    path = copy / "base" / "model.safetensors"
    size = path.stat().st_size
    for cut in range(N_TRUNCATIONS, 0, -1):
        os.truncate(path, (cut - 1) * size // N_TRUNCATIONS + cut % 9)
        with pytest.raises(ConvertError) as caught:
            export(Conversion(copy / "base", [], ["Q8_0"]), copy / "out")
        assert "\n" not in str(caught.value) and not (copy / "out").exists()


def test_flipped_bytes_are_harmless_or_refused_in_one_sentence(copy: pathlib.Path) -> None:
    """In headers, configurations and the tokenizer: never a traceback, and never slow."""
    rng = random.Random(0)
    files = {
        path: header_bytes(path) if path.suffix == ".safetensors" else path.stat().st_size
        for path in (*(copy / "base").iterdir(), *(copy / "adapter").iterdir())
        if path.suffix in (".safetensors", ".json", ".jinja")
    }
    refused = 0
    for _ in range(N_FLIPS):
        path = rng.choice(sorted(files))
        at, bit, started = rng.randrange(files[path]), 1 << rng.randrange(8), time.monotonic()
        with path.open("rb+") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ bit]))
        try:
            model = open_model(copy / "base", [copy / "adapter"])
            if path.parent.name == "base" and path.suffix != ".safetensors":
                metadata(model, "name", LETTER)
        except ConvertError as error:
            refused += 1
            assert str(error).isprintable(), (path, at, bit)
        assert time.monotonic() - started < 10
        with path.open("rb+") as file:
            file.seek(at)
            file.write(bytes([byte]))
    assert refused > N_FLIPS // 10
    open_model(copy / "base", [copy / "adapter"])


HEADERS = {
    "count that overflows": b'{"x": {"dtype": "F32", "shape": [9223372036854775807, 9223372036854775807], "data_offsets": [0, 4]}}',
    "negative offset": b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    "offset beyond the end": b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [999999999996, 1000000000000]}}',
    "offsets the wrong way": b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
    "fractional shape": b'{"x": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}',
    "list for a header": b"[1, 2]",
    "name with a terminal's control code": b'{"\\u001b[2Jx": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    "deep nesting": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("head", HEADERS.values(), ids=HEADERS)
def test_false_header_is_refused(tmp_path: pathlib.Path, head: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(16))
    with pytest.raises(ConvertError, match="intact"):
        read_tensors(tmp_path)


def test_pickle_is_not_opened(copy: pathlib.Path) -> None:
    """The pickle would create a folder if anything loaded it."""
    (copy / "adapter" / "adapter_model.safetensors").unlink()
    evil = f"cos\nmkdir\n(S'{copy / 'executed'}'\ntR.".encode()
    for name in ("adapter_model.bin", "adapter_model.safetensors"):
        (copy / "adapter" / name).write_bytes(evil)
    with pytest.raises(ConvertError, match="intact"):
        export(Conversion(copy / "base", [copy / "adapter"], ["Q8_0"]), copy / "out")
    assert not (copy / "executed").exists() and not (copy / "out").exists()


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "..", ""])
def test_shard_outside_the_folder_is_refused(copy: pathlib.Path, shard: str) -> None:
    (copy / "base" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(ConvertError, match="not a file name"):
        export(Conversion(copy / "base", [], ["Q8_0"]), copy / "out")


def test_template_is_copied_and_never_run(copy: pathlib.Path) -> None:
    evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for x in range(10**9) %}{% endfor %}"
    (copy / "base" / "chat_template.jinja").write_text(evil)
    file = export(Conversion(copy / "base", [], ["Q8_0"]), copy / "out")[0]
    assert read_header(file.path).metadata["tokenizer.chat_template"] == evil


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*x", "a*b*c*d*e*", "[", "x" * 300, "(?i)q_proj"])
def test_pattern_that_could_take_very_long_is_refused(copy: pathlib.Path, pattern: str) -> None:
    path = copy / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rank_pattern": {pattern: 4}}))
    with pytest.raises(ConvertError, match="rank_pattern"):
        open_adapter(copy / "adapter", read_tensors(copy / "base"))


def changed(folder: pathlib.Path, stem: str, tensors: dict[str, list[float] | float | np.ndarray]) -> None:
    """Rewrite a checkpoint or an adapter with changed or additional tensors."""
    found = {name: tensor.load() for name, tensor in read_tensors(folder, stem).items()}
    found |= {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    write_safetensors(folder / f"{stem}.safetensors", found)


@pytest.mark.parametrize("value", [1.0, [1.0, 2.0], [[1.0]], [[[1.0]]]], ids=["scalar", "vector", "small", "cube"])
@pytest.mark.parametrize("part", ["A", "B"])
def test_lora_matrix_with_a_wrong_shape_is_refused(copy: pathlib.Path, part: str, value: object) -> None:
    changed(copy / "adapter", "adapter_model", {f"base_model.model.model.layers.2.self_attn.q_proj.lora_{part}.weight": value})
    with pytest.raises(ConvertError, match=r"layers\.2\.self_attn\.q_proj"):
        open_adapter(copy / "adapter", read_tensors(copy / "base"))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.5.mlp.up_proj.weight", "other"])
def test_unknown_tensor_is_refused_before_anything_is_written(copy: pathlib.Path, name: str) -> None:
    changed(copy / "base", "model", {name: [1.0]})
    with pytest.raises(ConvertError, match="does not belong"):
        export(Conversion(copy / "base", [], ["Q8_0"]), copy / "out")
    assert not (copy / "out").exists()


def test_head_of_another_vocabulary_is_refused(copy: pathlib.Path) -> None:
    path = copy / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    changed(copy / "base", "model", {"lm_head.weight": np.ones((5, 256))})
    with pytest.raises(ConvertError, match=r"lm_head\.weight' is \[5, 256\]"):
        export(Conversion(copy / "base", [], ["Q8_0"]), copy / "out")


@pytest.mark.parametrize(("field", "value"), [("num_hidden_layers", 1 << 20), ("vocab_size", 1 << 30), ("rms_norm_eps", 1e300)])
def test_extreme_hyper_parameter_is_refused(copy: pathlib.Path, field: str, value: float) -> None:
    path = copy / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ConvertError, match=field):
        export(Conversion(copy / "base", [], ["Q8_0"]), copy / "out")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
def test_weight_that_is_not_a_number_or_too_large_is_refused(copy: pathlib.Path, value: float) -> None:
    tensors = {name: tensor.load() for name, tensor in read_tensors(copy / "base").items()}
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = value
    write_safetensors(copy / "base" / "model.safetensors", tensors)
    with pytest.raises(ConvertError, match=r"blk\.0\.ffn_up\.weight"):
        export(Conversion(copy / "base", [], ["Q4_0"]), copy / "out")
    assert list((copy / "out").iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\xff" * 40, b"\x0a\x02\x18\x63", b"\x0b\x00"])
def test_damaged_sentencepiece_model_is_refused(tmp_path: pathlib.Path, data: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(ConvertError, match="SentencePiece"):
        read_pieces(tmp_path / "tokenizer.model")


MANY = "Q2_K,Q3_K_M,Q4_K_M,Q5_K_M,Q6_K,IQ4_XS"


def begin(out: pathlib.Path) -> subprocess.Popen[str]:
    """A conversion that has started to write."""
    command = [sys.executable, "-m", "convert", str(BASE), "--adapter", str(ADAPTER), "--quants", MANY, "--out", str(out), "--name", "x"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out.is_dir() and any(out.iterdir())):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_conversion_says_so_and_leaves_nothing(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    process = begin(tmp_path / "out")
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in said and list((tmp_path / "out").iterdir()) == []


def test_two_conversions_do_not_write_into_one_file(tmp_path: pathlib.Path) -> None:
    with Output(tmp_path / "x.gguf", b"head") as first:
        with pytest.raises(ConvertError, match="Another conversion"):
            Output(tmp_path / "x.gguf", b"head")
        first.write(b"data")
        first.finish()
    assert (tmp_path / "x.gguf").read_bytes() == b"headdata" and len(list(tmp_path.iterdir())) <= 2  # the other is the test's home


def test_conversion_that_ends_just_before_another_locks_its_file_stays_complete(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has opened the unfinished file, but when it locks the file, the file has its final name."""
    lock, first = fcntl.flock, Output(tmp_path / "x.gguf", b"first")

    def late(file: object, how: int) -> None:
        first.finish()
        lock(file, how)

    monkeypatch.setattr("edge_agent.core.files.fcntl.flock", late)
    with pytest.raises(ConvertError, match="Another conversion"):
        Output(tmp_path / "x.gguf", b"other")
    assert (tmp_path / "x.gguf").read_bytes() == b"first" and [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


def test_finished_conversion_does_not_touch_the_next_one(tmp_path: pathlib.Path) -> None:
    with Output(tmp_path / "x.gguf", b"first") as first:
        first.finish()
        second = Output(tmp_path / "x.gguf", b"second")
    second.finish()
    assert (tmp_path / "x.gguf").read_bytes() == b"second"


def test_killed_conversion_leaves_no_final_file_and_the_next_one_cleans_up(tmp_path: pathlib.Path) -> None:
    process = begin(tmp_path / "out")
    process.kill()
    process.communicate(timeout=60)
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left and all(name.startswith(".") and name.endswith(".part") for name in left)
    written = export(Conversion(BASE, [ADAPTER], MANY.split(","), "x"), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {file.path.name for file in written}


WITH_A_LIMIT = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("convert", run_name="__main__")
"""


def test_full_disk_is_reported_and_cleaned_up(copy: pathlib.Path) -> None:
    """A limit on the file size stands for a full disk: the system refuses further writes in the middle."""
    (copy / "base" / "chat_template.jinja").write_text("x" * 3_000_000)
    limit = 4 * sum(int(np.prod(tensor.shape)) for tensor in read_tensors(BASE).values()) + 1_000_000
    command = [sys.executable, "-c", WITH_A_LIMIT, str(limit), str(copy / "base"), "--quants", "Q8_0,F32", "--out", str(copy / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 65 and "check the folder and its free space" in done.stderr and "Traceback" not in done.stderr
    assert list((copy / "out").iterdir()) == []


def test_files_that_do_not_fit_are_refused_before_any_work(copy: pathlib.Path) -> None:
    """A sparse checkpoint: a few kilobytes on disk with a size of 800 GB."""
    wide = 1 << 28
    if shutil.disk_usage(copy).free > 3 * wide * 256:
        pytest.skip("the disk is too large for this test")
    config = json.loads((BASE / "config.json").read_text()) | {"intermediate_size": wide, "num_hidden_layers": 1}
    (copy / "base" / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, tensor in read_tensors(BASE).items():
        if "layers." not in name or "layers.0." in name:
            shape = list(tensor.shape)
            if "mlp" in name:
                shape[name.endswith("down_proj.weight")] = wide
            size = 4 * int(np.prod(shape, dtype=np.int64))
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
            at += size
    head = json.dumps(header).encode()
    (copy / "base" / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    try:
        os.truncate(copy / "base" / "model.safetensors", 8 + len(head) + at)
    except OSError:
        pytest.skip("this file system has no room for holes")
    with pytest.raises(ConvertError, match="MB free"):
        export(Conversion(copy / "base", [], ["F32"]), copy / "out")
