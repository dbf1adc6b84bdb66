"""`POST /v1/systemone`: named questions over one state, in the shape of the System One API.

Owns the request, the reply and the errors of this API. What is asked stands in `core/typed.py`, how in `rounds.py`. Invariant: extra
fields of a reply begin with `x_`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from edge_agent.core import typed
from edge_agent.core.typed import MAX_LEVELS, MAX_OPTIONS, TypedQuestion
from edge_agent.server.model_names import ALIAS, pick
from edge_agent.server.service import Service
from edge_agent.server.typed import rounds
from edge_agent.server.typed.extension import Tokens, XEdgeAgent, headers, x_edge_agent
from edge_agent.server.typed.rounds import Answered

router = APIRouter(tags=["typed decisions"])
MOST_QUESTIONS = 400
EXAMPLE: dict[str, Any] = {
    "model": ALIAS,
    "state": "I was charged twice. Please refund me.",
    "questions": {"team": {"type": "choice", "instructions": "Which team?", "criteria": {"Billing": "Payments", "Technical": "Bugs"}}},
}


def _is_text(value: object) -> object:
    if not isinstance(value, (str, dict, list)):
        raise PydanticCustomError("text_type", "must be a text, an object or a list")
    return value


Text = Annotated[str | dict[str, Any] | list[Any], BeforeValidator(_is_text)]
Name = Annotated[str, StringConstraints(min_length=1)]


def _is_empty(assets: dict[str, Any]) -> dict[str, Any]:
    if assets:
        raise PydanticCustomError("no_images", "has images, which cannot be read here; send text alone")
    return assets


Assets = Annotated[dict[str, Any], AfterValidator(_is_empty), WithJsonSchema({"type": "object", "maxProperties": 0})]


class NoulCriteria(BaseModel):
    """When the answer is yes, and when no."""

    true: Text | None = None
    false: Text | None = None


class NoulQuestion(BaseModel):
    """Yes or no."""

    type: Literal["noul"]
    instructions: Text | None = None
    criteria: NoulCriteria | None = None

    def asked(self, state: Text) -> TypedQuestion:
        """The question in words."""
        when = self.criteria or NoulCriteria()
        return TypedQuestion.yes_no(state, self.instructions, when.true, when.false)

    def names(self) -> list[str]:
        """The options, in their order."""
        return ["true", "false"]

    def answer(self, answered: Answered) -> dict[str, Any]:
        """The answer's fields of this API."""
        return {"noul": answered.probabilities[0]}


class ChoiceQuestion(BaseModel):
    """One of 2 to 255 named options, each with a description or null."""

    type: Literal["choice"]
    instructions: Text | None = None
    criteria: dict[str, Text | None] = Field(min_length=2, max_length=MAX_OPTIONS)

    def asked(self, state: Text) -> TypedQuestion:
        """The question in words."""
        return TypedQuestion.choice(state, self.instructions, self.criteria.items())

    def names(self) -> list[str]:
        """The options, in their order."""
        return list(self.criteria)

    def answer(self, answered: Answered) -> dict[str, Any]:
        """The answer's fields of this API."""
        names = self.names()
        return {
            "choice": names[answered.winner],
            "probabilities": dict(zip(names, answered.probabilities, strict=True)),
            "confidence": typed.confidence(answered.probabilities),
        }


class ScoreQuestion(BaseModel):
    """2 to 10 levels, from the lowest to the highest."""

    type: Literal["score"]
    instructions: Text | None = None
    criteria: list[Text] = Field(min_length=2, max_length=MAX_LEVELS)

    def asked(self, state: Text) -> TypedQuestion:
        """The question in words."""
        return TypedQuestion.score(state, self.instructions, self.criteria)

    def names(self) -> list[str]:
        """The options, in their order."""
        return [str(level) for level in range(len(self.criteria))]

    def answer(self, answered: Answered) -> dict[str, Any]:
        """The answer's fields of this API; the legend repeats the levels as they came."""
        return {
            "score": typed.expected_score(answered.probabilities),
            "legend": dict(zip(self.names(), self.criteria, strict=True)),
            "probabilities": dict(zip(self.names(), answered.probabilities, strict=True)),
            "confidence": typed.score_confidence(answered.probabilities),
        }


class SystemOneRequest(BaseModel):
    """Questions by name, over one state. Unknown fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    model: str = Field(description="`jev-latest` or `edge-auto`, `edge-auto-0.75` (with another tau), `edge-local`, `edge-cloud`.")
    state: Text
    questions: dict[Name, Annotated[NoulQuestion | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]] = Field(
        min_length=1, max_length=MOST_QUESTIONS
    )
    assets: Assets | None = Field(None, description="Images; this server reads text alone and refuses them.")


class NoulAnswer(BaseModel):
    """The probability of yes."""

    type: Literal["noul"]
    noul: float = Field(ge=0, le=1)
    x_edge_agent: XEdgeAgent


class ChoiceAnswer(BaseModel):
    """The most probable option; `confidence` is (n p - 1) / (n - 1)."""

    type: Literal["choice"]
    choice: str
    probabilities: dict[str, float]
    confidence: float = Field(ge=0, le=1)
    x_edge_agent: XEdgeAgent


class ScoreAnswer(BaseModel):
    """The expected level; `confidence` is 1 for one certain level, and falls with the distance of the others."""

    type: Literal["score"]
    score: float
    legend: dict[str, Text]
    probabilities: dict[str, float]
    confidence: float = Field(ge=0, le=1)
    x_edge_agent: XEdgeAgent


class SystemOneUsage(BaseModel):
    """The tokens that the device and the cloud read and wrote; none for what was known already."""

    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)


class SystemOneReply(BaseModel):
    """One answer for each question, by its name; `model` is the FogGen model on this device."""

    model: str
    answers: dict[str, Annotated[NoulAnswer | ChoiceAnswer | ScoreAnswer, Field(discriminator="type")]]
    usage: SystemOneUsage


@router.post("/v1/systemone", response_model=SystemOneReply)
@router.post("/systemone", include_in_schema=False)
async def system_one(request: Request, body: SystemOneRequest) -> JSONResponse:
    """Decide named questions over one state, each with probabilities."""
    service: Service = request.app.state.service
    names, questions = list(body.questions), list(body.questions.values())
    chosen = pick(body.model)
    answers = await service.run(lambda: rounds.ask(service.agent, [one.asked(body.state) for one in questions], chosen))
    service.decided(*(decision for answer in answers for decision in answer.decisions))
    tokens = Tokens(answers)
    reply = {
        "model": service.agent.model.name,
        "answers": {
            name: {"type": one.type, **one.answer(answer), "x_edge_agent": x_edge_agent(answer, one.names())}
            for name, one, answer in zip(names, questions, answers, strict=True)
        },
        "usage": {"input_tokens": tokens.input, "output_tokens": tokens.output},
    }
    return JSONResponse(reply, headers=headers(answers))
