"""What a request may say to this server alone, on every API: `never_send` and `refresh`, in the object `edge_agent`.

Owns these fields. Invariant: a wish that is not understood, or that stands in the wrong place, is refused; a question that must not leave
the device is never sent because of a typing mistake.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from edge_agent.core.routing import PolicyName
from edge_agent.server.faults import Refusal

_WISHES = {"neversend": "never_send", "edgeagent": "edge_agent", "xedgeagent": "x_edge_agent"}


class OwnOptions(BaseModel):
    """Our own wishes: `never_send` keeps the question on this device, `refresh` ignores what is remembered."""

    model_config = ConfigDict(extra="forbid")
    never_send: StrictBool = False
    refresh: StrictBool = False

    def check(self, policy: str | None) -> None:
        """Raise `Refusal` if the question may not leave the device and the cloud alone may answer."""
        if self.never_send and policy == PolicyName.ONLY_CLOUD:
            message = "The question may not leave this device, and edge-cloud asks the cloud alone; choose edge-local or edge-auto."
            raise Refusal(400, "invalid_request", message, "edge_agent.never_send")


class NoOwnFields(BaseModel):
    """A part of a request in which our own fields have no place, such as one of several questions."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_misplaced(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            wish = _WISHES.get(re.sub(r"[\W_]", "", key[:80]).casefold())
            if wish and key not in cls.model_fields:
                raise PydanticCustomError(
                    "misplaced", f"has '{key:.80}', which does nothing here; send edge_agent: {{never_send: true}} beside the field 'model'"
                )
        return data


class WithOwnFields(NoOwnFields):
    """A request with our own fields. `x_edge_agent` is a second name, for clients that send extensions under `x_`."""

    edge_agent: OwnOptions | None = Field(None, description="Our own wishes for this request.")
    x_edge_agent: OwnOptions | None = Field(None, description="The same as `edge_agent`.")

    @property
    def own(self) -> OwnOptions:
        """The wishes under both names together."""
        sent = [one for one in (self.edge_agent, self.x_edge_agent) if one]
        return OwnOptions(never_send=any(one.never_send for one in sent), refresh=any(one.refresh for one in sent))
