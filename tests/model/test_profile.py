"""What a model file says about itself, and the prompt that follows from it."""

import json
from dataclasses import replace

import pytest

from edge_agent.core.errors import ModelRefused
from edge_agent.core.question import Question
from edge_agent.model.profile import (
    AS_IT_SAYS,
    LETTER,
    LEVELS,
    SYSTEM_MESSAGE,
    TEXT,
    Profile,
    Way,
    default_profile,
    from_metadata,
    gguf_keys,
)
from edge_agent.model.shapes import TEMPLATE_KEY, SegmentKind


def test_prompt_is_chatml_with_thinking_off() -> None:
    segments = default_profile("qwen3").segments("Q\nA. a\nB. b")
    assert "".join(s.text for s in segments) == (
        f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n<|im_start|>user\nQ\nA. a\nB. b<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_user_text_is_never_a_special_segment() -> None:
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
        ("general.architecture", "mamba"),
        ("foggen.version", 2),
        ("foggen.tau", 7.0),
        ("foggen.tau", float("nan")),
        ("foggen.tau", "high"),
        ("foggen.tau", True),
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
def test_wrong_value_in_an_untrusted_file_is_refused(key: str, value: object) -> None:
    metadata = {"general.architecture": "qwen3", **gguf_keys(default_profile("qwen3")), key: value}
    with pytest.raises(ModelRefused):
        from_metadata(metadata)


SHA256 = {
    ("qwen3", LETTER): "5c26e97256f402764985203a6db8aa00642eb16410afc0c14fba59f1c81e1c09",
    ("qwen3", TEXT): "46683390d13f94d8b0370f778be4cbc3f2ce93d078045666570dcf401fd983c8",
    ("gemma3", LETTER): "4ead6866503fa7ab88e6c20e8f8f523d757e9779eb0c37e7104ad037fe162b88",
    ("gemma3", TEXT): "49e7e7ad479f3cf91a824d33d756c665bbe15d246999307ff8c2e65475af81b3",
}


@pytest.mark.parametrize(("architecture", "kind"), SHA256)
def test_sha256_of_a_profile_is_the_same_in_every_version(architecture: str, kind: str) -> None:
    """Databases hold readings under these hashes."""
    profile = default_profile(architecture, kind)
    assert profile.sha256 == SHA256[architecture, kind]
    assert replace(profile, tau=0.9, likely_level="0.5", format_mass_min=0.1).sha256 == profile.sha256
    assert replace(profile, levels=LEVELS[1:]).sha256 != profile.sha256


def test_profile_in_an_older_database_is_read() -> None:
    stored = {
        "answer_kind": "text", "format_mass_min": 0.5, "levels": ["0.0", "1.0"], "likely_level": None, "prompt": "gemma",
        "system_message": "Answer.", "tau": 0.25,
    }  # fmt: skip
    profile = Profile("gemma", "Answer.", ("0.0", "1.0"), TEXT, 0.25)
    assert Profile.from_json(json.dumps(stored)) == profile and json.loads(profile.to_json()) == stored


def test_model_that_answers_in_its_own_words_is_asked_open_questions() -> None:
    profile = from_metadata({"general.architecture": "qwen3", **gguf_keys(default_profile("qwen3", TEXT))})
    assert profile.question_kind == "open" and "multiple-choice" not in profile.system_message
    assert profile.sha256 != default_profile("qwen3").sha256


LLAMA = {"general.architecture": "llama"}


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_llama_and_qwen2_are_plain_unless_their_file_says_foggen(architecture: str) -> None:
    bare = {"general.architecture": architecture}
    assert from_metadata(bare).is_plain and from_metadata(bare).levels == ()
    assert from_metadata({**bare, **gguf_keys(default_profile(architecture))}) == default_profile(architecture)
    assert not from_metadata(bare, Way("foggen")).is_plain


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_qwen3_and_gemma3_are_foggen_unless_a_person_says_plain(architecture: str) -> None:
    bare = {"general.architecture": architecture}
    assert from_metadata(bare) == default_profile(architecture)
    keys = {**bare, **gguf_keys(default_profile(architecture))}
    assert from_metadata(bare, Way("plain")).is_plain and from_metadata(keys, Way("plain")).is_plain


def test_plain_profiles_have_hashes_of_their_own() -> None:
    found = [from_metadata(LLAMA, way) for way in (AS_IT_SAYS, Way(answers="option"), Way(chat_shape="llama-3"))]
    found += [replace(found[0], instruction="Hm."), replace(found[1], normalise="prior"), replace(found[1], lists_options=True)]
    assert len({profile.sha256 for profile in found}) == len(found)
    assert replace(found[0], normalise="prior", tau=0.9).sha256 == found[0].sha256  # a letter has no length
    assert [Profile.from_json(profile.to_json()) for profile in found] == found


def test_foggen_model_says_itself_how_it_answers() -> None:
    for way in (Way(answers="option"), Way(chat_shape="llama-3"), Way("foggen", "letter")):
        with pytest.raises(ModelRefused, match="--profile plain"):
            from_metadata({"general.architecture": "qwen3"}, way)


def test_plain_model_is_asked_with_options_for_a_letter_and_without_for_a_text() -> None:
    question = Question("What is 2 + 2?", ("3", "4"))
    letter, option = (from_metadata({**LLAMA, TEMPLATE_KEY: "<|im_start|>"}, Way(answers=kind)) for kind in ("letter", "option"))
    assert letter.user_message(question) == "What is 2 + 2?\nA. 3\nB. 4\nAnswer with the letter of the right option only."
    assert "3" not in option.user_message(question)
    against = from_metadata({**LLAMA, TEMPLATE_KEY: "<|im_start|>"}, Way(answers="option-prior"))
    assert against == replace(option, normalise="prior") and against.sha256 != option.sha256
    base = from_metadata(LLAMA)
    assert "".join(s.text for s in base.segments(base.user_message(question))) == "Question: What is 2 + 2?\nA. 3\nB. 4\nAnswer:"
    for profile in (letter, base):
        typed = "".join(s.text for s in profile.begun("What is 2", complete=False))
        whole = "".join(s.text for s in profile.segments(profile.user_message(question)))
        assert whole.startswith(typed) and profile.begun(question.user_message, complete=True) == profile.segments(
            profile.user_message(question)
        )
