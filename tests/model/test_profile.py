"""What a model file says about itself, and the prompt that follows from it."""

import json

import pytest

from edge_agent.core.errors import ModelRefused
from edge_agent.model.profile import LEVELS, SYSTEM_MESSAGE, Profile, SegmentKind, default_profile, from_metadata, gguf_keys


def test_prompt_is_chatml_with_thinking_off() -> None:
    segments = default_profile("qwen3").segments("Q\nA. a\nB. b")
    assert "".join(s.text for s in segments) == (
        f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n<|im_start|>user\nQ\nA. a\nB. b<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_text_of_a_person_is_never_a_special_segment() -> None:
    for architecture in ("qwen3", "gemma3"):
        segments = default_profile(architecture).segments("MINE")
        assert [s.kind for s in segments if "MINE" in s.text] == [SegmentKind.PERSON]


def test_gemma_has_no_system_turn_and_no_think_line() -> None:
    text = "".join(s.text for s in default_profile("gemma3").segments("Q"))
    assert text.startswith("<bos><start_of_turn>user\nYou are a self-aware") and "think" not in text


def test_keys_of_a_file_are_read_back() -> None:
    profile = default_profile("qwen3")
    assert from_metadata({"general.architecture": "qwen3", **gguf_keys(profile)}) == profile
    assert Profile.from_json(profile.to_json()) == profile


def test_file_without_keys_gets_its_architectures_profile() -> None:
    assert from_metadata({"general.architecture": "gemma3"}) == default_profile("gemma3")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", "llama"),
        ("foggen.version", 2),
        ("foggen.tau", 7.0),
        ("foggen.tau", float("nan")),
        ("foggen.tau", "high"),
        ("foggen.answer_kind", "essay"),
        ("foggen.system_message", "x" * 10_000),
        ("foggen.levels", "0.5"),
        ("foggen.levels", json.dumps(["1.0", "0.0"])),
        ("foggen.levels", json.dumps(["0.0", "nan"])),
        ("foggen.levels", json.dumps([0.0, 1.0])),
        ("foggen.levels", json.dumps(["0.0", "2.0"])),
        ("foggen.levels", json.dumps(["0.5"])),
        ("foggen.levels", "[" * 1000),
        ("foggen.levels", json.dumps(["0.1", "0.2\n"])),
    ],
)
def test_wrong_value_in_a_strangers_file_is_refused(key: str, value: object) -> None:
    metadata = {"general.architecture": "qwen3", **gguf_keys(default_profile("qwen3")), key: value}
    with pytest.raises(ModelRefused):
        from_metadata(metadata)


def test_identity_follows_what_the_model_reads() -> None:
    profile = default_profile("qwen3")
    assert profile.levels == LEVELS
    assert profile.sha256 != default_profile("gemma3").sha256


def test_model_that_answers_in_its_own_words_is_asked_open_questions() -> None:
    profile = from_metadata({"general.architecture": "qwen3", **gguf_keys(default_profile("qwen3", "text"))})
    assert profile.question_kind == "open" and "multiple-choice" not in profile.system_message
    assert profile.sha256 != default_profile("qwen3").sha256
