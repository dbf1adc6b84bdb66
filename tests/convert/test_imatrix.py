"""The importance matrix: what is collected, its file, and what quantizing with it gives."""

import json
import pathlib
import shutil
import subprocess
import sys

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from convert import imatrix
from convert.checkpoint import read_tensors
from convert.export import Conversion, export
from convert.quantize import FILE_TYPES
from edge_agent.core.errors import ConvertError
from edge_agent.core.question import Question
from edge_agent.engine.local_model import LocalModel
from edge_agent.model.gguf import read_header
from models.recipe.bank import draw_many
from tests.support.checkpoints import ADAPTER, BASE, tensors, write_safetensors
from tests.support.paths import DEMO, ROOT

QUESTIONS = [Question(item.stem, item.options) for item in draw_many(11, 12, "train")]
LEVELS = ("Q2_K", "Q3_K_M", "Q4_K_M", "IQ2_XS", "IQ3_XXS", "Q8_0")

QUANTIZE = """
import ctypes, os, sys, llama_cpp
from convert import imatrix
import pathlib
source, matrix, out, *levels = sys.argv[1:]
found = imatrix.load(pathlib.Path(matrix))
array = (llama_cpp.llama_model_imatrix_data * (len(found) + 1))()
for entry, (name, data) in zip(array, found.items()):
    entry.name, entry.size = name.encode(), data.size
    entry.data = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
for level in levels:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.imatrix = int(level), 1, array
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(f"{out}/{level}.gguf"), ctypes.byref(params)):
        sys.exit(1)
"""


@pytest.fixture(scope="module")
def collector() -> imatrix.Collector:
    return imatrix.collect(DEMO, QUESTIONS)


@pytest.fixture(scope="module")
def matrix(collector: imatrix.Collector, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("matrix") / "matrix.gguf"
    imatrix.save(collector, path, "questions.jsonl")
    return path


def test_declared_layout_of_tensors_is_that_of_llama_cpp() -> None:
    imatrix.check_layout()


def test_every_matrix_of_every_block_is_collected_for_every_token(collector: imatrix.Collector) -> None:
    linear = {name for name, (kind, _) in tensors(DEMO).items() if name.startswith("blk.") and kind == int(gguf.GGMLQuantizationType.Q8_0)}
    assert collector.sums.keys() == linear and len(linear) == 5 * 7
    with LocalModel(DEMO) as model:
        readings = [model.read(question) for question in QUESTIONS]
        least = sum(r.timings.n_prompt_tokens - r.timings.n_cached_tokens for r in readings)
    assert collector.counts["blk.0.attn_q.weight"] == collector.counts["blk.3.ffn_down.weight"] >= least
    assert 0 < collector.counts["blk.4.ffn_down.weight"] < least  # behind the last attention only what is read is computed


def test_input_of_the_first_projections_is_the_normed_embedding(tmp_path: pathlib.Path) -> None:
    """What is collected in the first block can be computed by hand: the squares of RMSNorm(embedding) * weight."""
    path = export(Conversion(BASE, [], ["F32"], "plain"), tmp_path)[0].path
    found = imatrix.collect(path, QUESTIONS[:1])
    data = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    with LocalModel(path) as model:
        reading = model.read(QUESTIONS[0])
        tokens = model.prompt_tokens(QUESTIONS[0]) + model.answer_tokens(QUESTIONS[0], reading)[:-1]
    rows = data["token_embd.weight"][tokens].astype(np.float64)
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6) * data["blk.0.attn_norm.weight"]
    extra = found.counts["blk.0.attn_q.weight"] - len(tokens)
    assert 0 <= extra < 20  # branches of the tree that were not taken
    mean = found.sums["blk.0.attn_q.weight"] / found.counts["blk.0.attn_q.weight"]
    expected = (normed**2).mean(axis=0)
    assert np.corrcoef(mean, expected)[0, 1] > 0.99
    assert np.array_equal(found.sums["blk.0.attn_q.weight"], found.sums["blk.0.attn_v.weight"])


def test_file_holds_the_collected_matrix(collector: imatrix.Collector, matrix: pathlib.Path) -> None:
    found = imatrix.load(matrix)
    assert read_header(matrix).metadata["general.type"] == "imatrix"
    for name, sums in collector.sums.items():
        np.testing.assert_allclose(found[name], sums / collector.counts[name], rtol=1e-6)


@pytest.fixture
def one_layer(tmp_path: pathlib.Path, collector: imatrix.Collector) -> tuple[pathlib.Path, pathlib.Path]:
    """The first block of the demo base and its matrix. One block is enough, because the coarsest types are slow."""
    shutil.copytree(BASE, tmp_path / "base")
    config = json.loads((BASE / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1, "layer_types": None}))
    kept = {n: t.load() for n, t in read_tensors(BASE).items() if "layers." not in n or "layers.0." in n}
    write_safetensors(tmp_path / "base" / "model.safetensors", kept)
    first = imatrix.Collector()
    first.sums = {name: sums for name, sums in collector.sums.items() if name.startswith("blk.0.")}
    first.counts = collector.counts
    imatrix.save(first, tmp_path / "matrix.gguf", "questions.jsonl")
    return tmp_path / "base", tmp_path / "matrix.gguf"


def test_every_quantization_with_a_matrix_equals_llama_cpps_to_the_byte(
    tmp_path: pathlib.Path, one_layer: tuple[pathlib.Path, pathlib.Path]
) -> None:
    base, matrix = one_layer
    ours = {f.quantization: f.path for f in export(Conversion(base, [], ["F32", *LEVELS], "demo", matrix=matrix), tmp_path / "ours")}
    (tmp_path / "theirs").mkdir()
    codes = {level: str(FILE_TYPES[level]) for level in LEVELS}
    command = [sys.executable, "-c", QUANTIZE, str(ours["F32"]), str(matrix), str(tmp_path / "theirs"), *codes.values()]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    for level, code in codes.items():
        assert tensors(ours[level]) == tensors(tmp_path / "theirs" / f"{code}.gguf"), level
    assert read_header(ours["Q2_K"]).metadata["quantize.imatrix.entries_count"] == 7


def test_matrix_brings_the_coarsest_quantization_closer_to_the_original(tmp_path: pathlib.Path, matrix: pathlib.Path) -> None:
    """The mean squared error of the outputs, for inputs with the sizes in the matrix."""
    plain = {t.name: t for t in gguf.GGUFReader(export(Conversion(BASE, [ADAPTER], ["F32"], "demo"), tmp_path)[0].path).tensors}
    importance, errors = imatrix.load(matrix), []
    for used in (None, matrix):
        path = export(Conversion(BASE, [ADAPTER], ["Q2_K"], "demo", matrix=used), tmp_path / str(bool(used)))[0].path
        error = 0.0
        for tensor in gguf.GGUFReader(path).tensors:
            if tensor.name in importance:
                restored = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(plain[tensor.name].data.shape)
                error += float(((restored - plain[tensor.name].data) ** 2 @ importance[tensor.name]).sum())
        errors.append(error)
    assert errors[1] < 0.9 * errors[0]


def test_quantization_that_needs_a_matrix_is_refused_without_one(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConvertError, match=r"IQ2_XS.*--imatrix"):
        export(Conversion(BASE, [], ["Q8_0", "IQ2_XS"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_matrix_of_another_model_is_refused(tmp_path: pathlib.Path, collector: imatrix.Collector) -> None:
    other = imatrix.Collector()
    other.sums, other.counts = {**collector.sums, "blk.9.attn_q.weight": np.ones(256)}, {**collector.counts, "blk.9.attn_q.weight": 5}
    imatrix.save(other, tmp_path / "other.gguf", "x")
    with pytest.raises(ConvertError, match=r"another model.*blk\.9\.attn_q\.weight"):
        export(Conversion(BASE, [], ["Q4_0"], matrix=tmp_path / "other.gguf"), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"\x03\x00\x00\x00old format"])
def test_file_that_is_not_a_matrix_is_refused(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ConvertError):
        imatrix.load(tmp_path / "x.gguf")
    with pytest.raises(ConvertError, match="not an importance matrix"):
        imatrix.load(DEMO)


def test_command_collects_from_a_file_of_questions(tmp_path: pathlib.Path) -> None:
    rows = [{"question": q.stem, "options": q.options, "answer": "A"} for q in QUESTIONS[:3]]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        sys.executable,
        "-m",
        "convert.imatrix",
        str(DEMO),
        str(tmp_path / "questions.jsonl"),
        "--out",
        str(tmp_path / "m.gguf"),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout)["questions"] == 3 and len(imatrix.load(tmp_path / "m.gguf")) == 35


def test_matrix_is_not_written_over_its_inputs(tmp_path: pathlib.Path) -> None:
    model, questions = tmp_path / "m.gguf", tmp_path / "q.jsonl"
    model.write_bytes(DEMO.read_bytes())
    questions.write_text('{"question": "q", "options": ["a", "b"], "answer": "A"}\n')
    before = model.read_bytes(), questions.read_bytes()
    for out in (model, questions):
        done = CliRunner().invoke(imatrix.main, [str(model), str(questions), "--out", str(out)])
        assert done.exit_code == 65 and "another file" in done.output
    assert (model.read_bytes(), questions.read_bytes()) == before
