"""What chat clients send: the fields of a chat completion and of a response, their types and their ranges.

Owns these two shapes; `wanted.py` finds the question in them. Invariants: a number out of range or of another type is refused here; a
field that does nothing is accepted, and `ignored` names it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema, model_validator

from edge_agent.server.model_names import DEFAULT
from edge_agent.server.own_fields import WithOwnFields

_MOST = 2**31 - 1
_OWN = frozenset(WithOwnFields.model_fields)
_SHOWN = 64  # fields that `ignored` names, and characters of each
_EXAMPLE = "What is 12 + 7?\nA. 18\nB. 19\nC. 24"

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
TopP = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
TokenLimit = Annotated[
    Annotated[int, Field(strict=True, ge=1, le=_MOST)] | None,
    BeforeValidator(lambda value: None if value == -1 and isinstance(value, int) else value),  # how LM Studio says: no limit
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": _MOST}, {"const": -1}, {"type": "null"}]}),
]
Temperature = Annotated[float, Field(strict=True, ge=0, le=2, allow_inf_nan=False)]
Penalty = Annotated[float, Field(strict=True, ge=-2, le=2, allow_inf_nan=False)]
Seed = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
TopLogprobs = Annotated[int, Field(strict=True, ge=0, le=20)]
Bias = Annotated[float, Field(strict=True, ge=-100, le=100, allow_inf_nan=False)]


class ContentPart(BaseModel):
    """A part of a message: `text` and `input_text` are read; an image or a file is refused."""

    model_config = ConfigDict(extra="allow")
    type: Annotated[str, Field(max_length=64)]
    text: str | None = None


class ChatMessage(BaseModel):
    """One turn. The last one of the user is the question."""

    model_config = ConfigDict(extra="allow")
    role: Role
    content: str | list[ContentPart] | None = None


class InputItem(BaseModel):
    """One item of a response's input: a turn, or something else, which is not read."""

    model_config = ConfigDict(extra="allow")
    type: Annotated[str, Field(max_length=64)] = "message"
    role: Role | None = None
    content: str | list[ContentPart] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_turns_are_read(cls, data: Any) -> Any:
        """Of a call of a tool, its output and all else only the type: their fields may hold anything."""
        kind = data.get("type", "message") if isinstance(data, dict) else "message"
        return {"type": kind} if isinstance(kind, str) and kind != "message" else data


class StreamOptions(BaseModel):
    """What a stream has beside the answer."""

    model_config = ConfigDict(extra="allow")
    include_usage: StrictBool | None = None


class CommonFields(WithOwnFields):
    """The fields of both requests. `model` says who may answer: see /v1/models."""

    model_config = ConfigDict(extra="allow")
    used: ClassVar[frozenset[str]] = frozenset()
    model: Annotated[str, Field(max_length=200)] = DEFAULT
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: StrictBool | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: TopLogprobs | None = None
    metadata: dict[str, Any] | None = None
    store: StrictBool | None = None
    user: str | None = None

    def ignored(self) -> list[str]:
        """The fields that were sent and do nothing here."""
        sent = {**{name: getattr(self, name) for name in self.model_fields_set}, **(self.model_extra or {})}
        names = sorted(name[:_SHOWN] for name, value in sent.items() if value is not None and name not in self.used | _OWN)
        return names[:_SHOWN]


class ChatRequest(CommonFields):
    """A chat completion. What is not listed here is accepted and does nothing."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"model": DEFAULT, "messages": [{"role": "user", "content": _EXAMPLE}]}]}
    )
    used: ClassVar[frozenset[str]] = frozenset(
        {"model", "messages", "stream", "stream_options", "response_format", "n", "tool_choice", "logprobs", "top_logprobs"}
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    response_format: dict[str, Any] | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=_MOST)] | None = None
    logprobs: StrictBool | None = None
    max_tokens: TokenLimit = None
    max_completion_tokens: TokenLimit = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    modalities: list[str] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None


class TextOptions(BaseModel):
    """The form of a response's text."""

    model_config = ConfigDict(extra="allow")
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponsesRequest(CommonFields):
    """A response. What is not listed here is accepted and does nothing."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"model": DEFAULT, "input": _EXAMPLE}]})
    used: ClassVar[frozenset[str]] = frozenset(
        {"model", "input", "stream", "stream_options", "text", "tool_choice", "include", "top_logprobs", "background"}
    )
    input: str | Annotated[list[InputItem], Field(min_length=1)]
    instructions: str | list[InputItem] | None = None
    text: TextOptions | None = None
    max_output_tokens: TokenLimit = None
    include: list[str] | None = None
    background: StrictBool | None = None
    previous_response_id: str | None = None
