"""How a call to the cloud can end.

Owns the kinds and the record of one call. Knows nothing about HTTP or queues. Invariant: every call has exactly one kind,
and it has an answer only if that kind is ANSWERED.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge_agent.core.records import CloudAnswer


class CloudKind(StrEnum):
    """How a call to the cloud ended."""

    ANSWERED = "answered"
    OFFLINE = "offline"  # no connection was made: nothing was sent
    TLS = "tls"  # connected, but not to the cloud: a portal, or a wrong clock
    TIMEOUT = "timeout"  # sent, perhaps answered and billed; no reply came in time
    PORTAL = "portal"  # a page or a redirect instead of a reply: something else answers for the cloud
    REFUSED = "refused"  # the key was not accepted (401, 403)
    MISCONFIGURED = "misconfigured"  # no such address or model there, or a part of every request is not accepted (404, 405, some 400)
    LIMITED = "limited"  # too many calls for now (429)
    NO_CREDIT = "no_credit"  # the account has no credit left (402, 429)
    FAILED = "failed"  # a temporary fault of the cloud (5xx, 408, 409, 425)
    REJECTED = "rejected"  # this request will not be accepted (other 4xx)
    UNUSABLE = "unusable"  # a reply without an answer in it
    PROVISIONAL = "provisional"  # an answer of another edge, which itself still waits for a cloud
    DEVICE = "device"  # this device could not make the call: a wrong setting, no file handles; nothing was sent
    PAUSED = "paused"  # not called: it failed too often, or asked for a pause


@dataclass(frozen=True, slots=True)
class CloudOutcome:
    """How one call ended: `answer` if ANSWERED, otherwise `error`, a sentence for people that holds no secret.

    `retry_after_s` is how long the cloud asked us to wait, if it did. `doubtful` means that the reply does not say whether it is
    about this question alone or about every question. `over_budget` means that the budget ended the call. `was_hurried` means that
    most of the time for the call passed before it could start, so it says nothing about the cloud. `no_api` means that the cloud
    does not offer the API at all by which it was asked, whatever the question. `bad_form` means that this API cannot answer this
    question, though another may: it does not accept the request's form, or contradicts itself in its reply.
    """

    kind: CloudKind
    answer: CloudAnswer | None = None
    error: str | None = None
    retry_after_s: float | None = None
    doubtful: bool = False
    over_budget: bool = False
    was_hurried: bool = False
    no_api: bool = False
    bad_form: bool = False

    @property
    def has_answered(self) -> bool:
        """Whether the cloud answered, be it provisionally: so it can be reached, and its settings are right."""
        return self.kind in (CloudKind.ANSWERED, CloudKind.PROVISIONAL)

    @property
    def was_sent(self) -> bool:
        """Whether the cloud may have seen the question, and bill it."""
        return self.kind not in (CloudKind.OFFLINE, CloudKind.TLS, CloudKind.DEVICE)
