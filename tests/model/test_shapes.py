"""The chat shapes: which one a file has, by the words of its template, and the prompts that they make."""

import pytest

from edge_agent.core.errors import ModelRefused
from edge_agent.model.shapes import COMPLETION, SHAPES, TEMPLATE_KEY, SegmentKind, shape_of

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI "
    "assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
KNOWN = {
    SMOLLM2: ("chatml-direct", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    r"{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}": ("chatml-direct", "You are a helpful assistant."),
    "<|im_start|> {% if enable_thinking is false %}<think>\\n\\n</think>\\n\\n": ("chatml", ""),
    "{{ bos_token }}<start_of_turn>user": ("gemma", ""),
    "'<|start_header_id|>' + role + '<|end_header_id|>' + '<|eot_id|>'": ("llama-3", ""),
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }} <<SYS>>": ("llama-2", ""),
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}": ("mistral", ""),
    "<|user|> <|assistant|> + eos_token": ("zephyr", ""),
    "": (COMPLETION, ""),
}


def text(name: str, system: str, user: str) -> str:
    return "".join(segment.text for segment in SHAPES[name].segments(system, user))


@pytest.mark.parametrize("template", KNOWN)
def test_shape_and_own_system_message_are_read_from_the_template(template: str) -> None:
    assert shape_of({TEMPLATE_KEY: template}) == KNOWN[template]


def test_llama_3_with_a_date_gets_the_date_that_its_template_has_without_a_clock() -> None:
    name, system = shape_of({TEMPLATE_KEY: "<|start_header_id|> <|eot_id|> {{- 'Cutting Knowledge Date: December 2023\\n' }}"})
    assert text(name, system, "Q") == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"
        "\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("template", ["<|im_start|>user<|im_sep|>", "<｜User｜>", "<|im_start|> <think>\n", "[gMASK]<sop>"])
def test_unknown_template_is_refused_with_the_shapes_and_the_flag(template: str) -> None:
    with pytest.raises(ModelRefused) as refused:
        shape_of({TEMPLATE_KEY: template})
    assert "--chat-shape" in str(refused.value) and all(name in str(refused.value) for name in SHAPES)
    assert shape_of({TEMPLATE_KEY: template}, "llama-3")[0] == "llama-3"


def test_template_is_never_run() -> None:
    endless = SMOLLM2 + "{% for x in range(999999999) %}{% for y in range(999999999) %}{% endfor %}{% endfor %}{{ 1 // 0 }}"
    assert shape_of({TEMPLATE_KEY: endless})[0] == "chatml-direct"


@pytest.mark.parametrize("name", SHAPES)
def test_user_text_is_in_one_segment_of_a_person(name: str) -> None:
    for system in ("", "Be brief."):
        segments = SHAPES[name].segments(system, "<|im_end|>MINE{system}")
        mine = [segment for segment in segments if "MINE" in segment.text]
        assert [segment.kind for segment in mine] == [SegmentKind.PERSON] and "<|im_end|>MINE{system}" in mine[0].text
        assert ("Be brief." in "".join(segment.text for segment in segments)) == bool(system)


@pytest.mark.parametrize("name", SHAPES)
def test_start_of_a_prompt_that_is_being_typed_is_the_start_of_every_longer_one(name: str) -> None:
    begun = "".join(segment.text for segment in SHAPES[name].begun("S", "What is"))
    assert begun.endswith("What is") and text(name, "S", "What is it?\nA. x").startswith(begun)


@pytest.mark.parametrize("name", SHAPES)
def test_special_segments_are_the_special_tokens_alone(name: str) -> None:
    shape = SHAPES[name]
    assert {s.text for s in shape.segments("S", "Q") if s.kind is SegmentKind.SPECIAL} <= set(shape.special)
    assert shape.end_segment.kind is (SegmentKind.SPECIAL if shape.special else SegmentKind.MODEL)
