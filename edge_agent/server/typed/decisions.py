"""`POST /v1/decisions`: a list of questions over one input, in the shape of OpenAI's Decisions API.

Owns the request and the reply of this API; `conversation.py` owns its input. Invariant: a choice's value comes back as it came, so
that true and "true" stay two values.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from edge_agent.core import typed
from edge_agent.core.typed import MAX_LEVELS, MAX_OPTIONS, TypedQuestion
from edge_agent.server.model_names import pick
from edge_agent.server.service import Service
from edge_agent.server.typed import rounds
from edge_agent.server.typed.conversation import Content, Input, State, spoken, state_of
from edge_agent.server.typed.extension import Tokens, XEdgeAgent, headers, x_edge_agent
from edge_agent.server.typed.rounds import Answered

router = APIRouter(tags=["typed decisions"])
MOST_QUESTIONS = 400
EXAMPLE: dict[str, Any] = {
    "model": "edge-auto",
    "input": "I was charged twice. Please refund me.",
    "questions": [{"type": "choice", "name": "urgent", "instructions": "Is it urgent?", "choices": [{"value": True}, {"value": False}]}],
}

Value = StrictStr | StrictBool


class PredicateQuestion(BaseModel):
    """How probable it is that a statement about the input is true."""

    type: Literal["predicate"]
    instructions: Content
    name: str | None = None

    def asked(self, state: State) -> TypedQuestion:
        """The question in words."""
        return TypedQuestion.yes_no(state, spoken(self.instructions))

    def names(self) -> list[Any]:
        """The options, in their order."""
        return [True, False]

    def answer(self, answered: Answered) -> dict[str, Any]:
        """The answer's fields of this API."""
        return {"probability": answered.probabilities[0]}


class ValueOption(BaseModel):
    """One value to choose, a text or a boolean."""

    value: Value
    description: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_object(cls, given: object) -> object:
        if isinstance(given, (str, bool)):
            raise PydanticCustomError("option_type", 'must be an object, such as {"value": "18"}')
        return given

    @property
    def text(self) -> str:
        """The value as the model reads it."""
        return self.value if isinstance(self.value, str) else str(self.value).lower()


class ValueQuestion(BaseModel):
    """One of 2 to 255 values."""

    type: Literal["choice"]
    instructions: Content
    choices: list[ValueOption] = Field(min_length=2, max_length=MAX_OPTIONS, json_schema_extra={"uniqueItems": True})
    name: str | None = None

    @field_validator("choices")
    @classmethod
    def _all_different(cls, choices: list[ValueOption]) -> list[ValueOption]:
        if len({one.value for one in choices}) < len(choices):
            raise PydanticCustomError("same_value", "has two choices with the same value; give each value once")
        return choices

    def asked(self, state: State) -> TypedQuestion:
        """The question in words."""
        return TypedQuestion.choice(state, spoken(self.instructions), [(one.text, one.description) for one in self.choices])

    def names(self) -> list[Any]:
        """The options, in their order."""
        return [one.value for one in self.choices]

    def answer(self, answered: Answered) -> dict[str, Any]:
        """The answer's fields of this API."""
        values = self.names()
        return {
            "choice": values[answered.winner],
            "confidence": typed.confidence(answered.probabilities),
            "probabilities": [{"value": value, "probability": p} for value, p in zip(values, answered.probabilities, strict=True)],
        }


class LabelLevel(BaseModel):
    """One level of a score."""

    label: str
    description: str | None = None


class LabelQuestion(BaseModel):
    """2 to 10 levels, from the lowest to the highest."""

    type: Literal["score"]
    instructions: Content
    levels: list[LabelLevel] = Field(min_length=2, max_length=MAX_LEVELS)
    name: str | None = None

    def asked(self, state: State) -> TypedQuestion:
        """The question in words."""
        texts = [f"{one.label}: {one.description}" if one.description else one.label for one in self.levels]
        return TypedQuestion.score(state, spoken(self.instructions), texts)

    def names(self) -> list[Any]:
        """The options, in their order."""
        return [one.label for one in self.levels]

    def answer(self, answered: Answered) -> dict[str, Any]:
        """The answer's fields of this API."""
        levels = enumerate(zip(self.names(), answered.probabilities, strict=True))
        return {
            "score": typed.expected_score(answered.probabilities),
            "confidence": typed.score_confidence(answered.probabilities),
            "probabilities": [{"value": value, "label": label, "probability": p} for value, (label, p) in levels],
        }


class DecisionsRequest(BaseModel):
    """Questions over one input. Unknown fields are ignored, and so are the fields for caching and for the safety of users."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    model: str = Field(description="`edge-auto`, `edge-auto-0.75` (with another tau), `edge-local` or `edge-cloud`.")
    input: Input
    questions: list[Annotated[PredicateQuestion | ValueQuestion | LabelQuestion, Field(discriminator="type")]] = Field(
        min_length=1, max_length=MOST_QUESTIONS
    )


class PredicateAnswer(BaseModel):
    """The probability that the statement is true."""

    type: Literal["predicate"]
    name: str | None
    probability: float = Field(ge=0, le=1)
    x_edge_agent: XEdgeAgent


class ValueProbability(BaseModel):
    """One value of a choice."""

    value: Value
    probability: float = Field(ge=0, le=1)


class ValueAnswer(BaseModel):
    """The most probable value; `confidence` is (n p - 1) / (n - 1)."""

    type: Literal["choice"]
    name: str | None
    choice: Value
    confidence: float = Field(ge=0, le=1)
    probabilities: list[ValueProbability]
    x_edge_agent: XEdgeAgent


class LabelProbability(BaseModel):
    """One level of a score."""

    value: int = Field(ge=0)
    label: str
    probability: float = Field(ge=0, le=1)


class LabelAnswer(BaseModel):
    """The expected level; `confidence` is 1 for one certain level, and falls with the distance of the others."""

    type: Literal["score"]
    name: str | None
    score: float
    confidence: float = Field(ge=0, le=1)
    probabilities: list[LabelProbability]
    x_edge_agent: XEdgeAgent


class TokensRead(BaseModel):
    """Of the tokens that were read: those that the device had read before."""

    cached_tokens: int = Field(ge=0)
    cache_write_tokens: int = Field(ge=0)


class TokensWritten(BaseModel):
    """Of the tokens that were written."""

    reasoning_tokens: int = Field(ge=0)


class DecisionsUsage(BaseModel):
    """The tokens that the device and the cloud read and wrote; none for what was known already."""

    input_tokens: int = Field(ge=0)
    input_tokens_details: TokensRead
    output_tokens: int = Field(ge=0)
    output_tokens_details: TokensWritten
    total_tokens: int = Field(ge=0)


class DecisionsReply(BaseModel):
    """One answer for each question, in their order; `model` is the FogGen model on this device."""

    model: str
    answers: list[Annotated[PredicateAnswer | ValueAnswer | LabelAnswer, Field(discriminator="type")]]
    usage: DecisionsUsage


@router.post("/v1/decisions", response_model=DecisionsReply)
@router.post("/decisions", include_in_schema=False)
async def decisions(request: Request, body: DecisionsRequest) -> JSONResponse:
    """Decide questions over one input, each with probabilities."""
    service: Service = request.app.state.service
    chosen = pick(body.model)
    state = state_of(body.input)
    answers = await service.run(lambda: rounds.ask(service.agent, [one.asked(state) for one in body.questions], chosen))
    service.decided(*(decision for answer in answers for decision in answer.decisions))
    reply = {
        "model": service.agent.model.name,
        "answers": [
            {"type": one.type, "name": one.name, **one.answer(answer), "x_edge_agent": x_edge_agent(answer, one.names())}
            for one, answer in zip(body.questions, answers, strict=True)
        ],
        "usage": _usage(Tokens(answers)),
    }
    return JSONResponse(reply, headers=headers(answers))


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens.input + tokens.output,
    }
