"""The input of OpenAI's Decisions API: a text, or messages, tool calls and what they returned, as one state.

Owns its shape and how it reads as a state. Pure. Invariant: what this server cannot read (an image) is refused, not left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

State = str | dict[str, Any] | list[Any]


class InputText(BaseModel):
    """A text."""

    type: Literal["input_text", "output_text"]
    text: str


class InputRefusal(BaseModel):
    """What the assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


class InputJson(BaseModel):
    """An object, or a list of objects."""

    type: Literal["input_json"]
    data: dict[str, Any] | list[dict[str, Any]]


def _part_kind(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return {"input_text": "text", "output_text": "text", "refusal": "refusal", "input_json": "json"}.get(str(kind))


Part = Annotated[
    Annotated[InputText, Tag("text")] | Annotated[InputRefusal, Tag("refusal")] | Annotated[InputJson, Tag("json")],
    Discriminator(_part_kind, "part_type", "must be a part with text or JSON; images cannot be read here"),
]


def _text_or_list(value: object) -> str | None:
    return "text" if isinstance(value, str) else "list" if isinstance(value, list) else None


_EITHER = Discriminator(_text_or_list, "text_or_list", "must be a text or a list")
Content = Annotated[Annotated[str, Tag("text")] | Annotated[list[Part], Tag("list")], _EITHER]


class InputMessage(BaseModel):
    """What somebody said."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class InputFunctionCall(BaseModel):
    """A call of a function."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class InputToolCall(BaseModel):
    """A call of a tool that takes a text."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str


class InputCallOutput(BaseModel):
    """What a call returned."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str
    output: Content


def _kind(item: Any) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "message")
    return "output" if isinstance(kind, str) and kind.endswith("_call_output") else str(kind)


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputFunctionCall, Tag("function_call")]
    | Annotated[InputToolCall, Tag("custom_tool_call")]
    | Annotated[InputCallOutput, Tag("output")],
    Discriminator(_kind, "item_type", "must be a message, a call or the output of a call"),
]


def _calls_are_known(items: list[Item]) -> list[Item]:
    """Each output needs its call before it; nobody could tell what it belongs to."""
    known: set[str] = set()
    for item in items:
        if isinstance(item, InputCallOutput):
            if item.call_id not in known:
                raise PydanticCustomError("no_call", "has an output before its call, or without one; check each call_id")
        elif not isinstance(item, InputMessage):
            known.add(item.call_id)
    return items


_Items = Annotated[list[Item], Field(min_length=1), AfterValidator(_calls_are_known)]
Input = Annotated[Annotated[str, Tag("text")] | Annotated[_Items, Tag("list")], _EITHER]


def state_of(given: str | list[Item]) -> State:
    """The state: a text as it is, a single message of a user as its content, and a conversation as who said what."""
    if isinstance(given, str):
        return given
    if len(given) == 1 and isinstance(given[0], InputMessage) and given[0].role == "user":
        return spoken(given[0].content)
    names: dict[str, str] = {}
    said: list[Any] = []
    for item in given:
        if isinstance(item, InputMessage):
            said.append({item.role: spoken(item.content)})
        elif isinstance(item, InputCallOutput):
            said.append({f"result of {names[item.call_id]}": spoken(item.output)})
        else:
            names[item.call_id] = item.name
            said.append({f"call of {item.name}": item.arguments if isinstance(item, InputFunctionCall) else item.input})
    return said


def spoken(content: Content) -> State:
    """The content of a message: its texts as one, or a list where there is JSON between them."""
    if isinstance(content, str):
        return content
    parts: list[Any] = [_said(part) for part in content]
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts)
    return parts[0] if len(parts) == 1 else parts


def _said(part: Any) -> State:
    if isinstance(part, InputText):
        return part.text
    found: State = part.data if isinstance(part, InputJson) else part.refusal
    return found
