"""The routes behind the operator's page: how the device is doing, its history, one decision in full, and what another tau would do.

Owns what these replies hold. Invariants: a GET changes nothing; each route needs the operator's token (`door/callers.py`); what reads many
rows runs in `Surveys`, and ends when its client goes away.
"""

from __future__ import annotations

import time
import zoneinfo
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from edge_agent import __version__
from edge_agent.core.errors import BadQuestion
from edge_agent.core.records import option_text
from edge_agent.core.times import iso
from edge_agent.server.edge.asking import disconnected, is_id
from edge_agent.server.faults import Refusal
from edge_agent.server.service import Service
from edge_agent.store import history, live, overview
from edge_agent.store.export import calibration as calibration_of
from edge_agent.store.export import cloud_confidence, parsed, plain

router = APIRouter(tags=["operator"])
MOST_REPLAYED, REPLAYED = 100_000, 5000
_AT_ONCE = 200  # decisions read at a time: their facts are long texts
_STEPS = {"hour": (3600, 24 * 14), "day": (86_400, 366)}
_OPERATOR: dict[int | str, dict[str, Any]] = {401: {"description": "The operator's token is missing or wrong."}}
_LONG: dict[int | str, dict[str, Any]] = {**_OPERATOR, 503: {"description": "Too many long looks wait; Retry-After says when."}}
_ONE: dict[int | str, dict[str, Any]] = {**_OPERATOR, 404: {"description": "There is no such decision."}}


@router.get("/edge/overview", responses=_OPERATOR)
async def device(request: Request) -> JSONResponse:
    """How the device is doing: its model, the rules in force, the queue, the storage, and how long readings and cloud calls took."""
    service: Service = request.app.state.service
    return JSONResponse(await service.aside(lambda: _device(service)))


def _device(service: Service) -> dict[str, Any]:
    agent = service.agent
    store, model, policy = agent.store, agent.model, agent.policy
    found, waiting, state = overview.storage(store), overview.queue(store), service.following.state()
    retention = agent.limits.retention
    return {
        "version": __version__,
        "uptime_s": round(time.monotonic() - service.started, 1),
        "now": iso(time.time()),
        "connection": state.connection,
        "model": {"name": model.name, "sha256": model.sha256, "quantization": model.quantization, "architecture": model.architecture},
        "policy": _policy(policy),
        "profile_tau": agent.profile.tau,
        "levels": list(agent.profile.levels),
        "audit_share": agent.limits.audit_share,
        "queue": {**waiting._asdict(), "states": overview.queue_states(store)},
        "storage": {**found._asdict(), "oldest_at": iso(found.oldest_at), "path": str(store.path)},
        "retention": {"keep_s": retention.keep_s, "answers_max_rows": retention.answers_max_rows, "disk": agent.limits.disk._asdict()},
        "reading_times": history.reading_times(store)._asdict(),
        "cloud_times": history.cloud_times(store)._asdict(),
    }


def _policy(policy: Any) -> dict[str, Any]:
    return {"name": policy.name.value, "tau": policy.tau, "readout": policy.readout, "tie_share": policy.tie_share}


@router.get("/edge/history", responses=_LONG)
async def past(
    request: Request,
    per: Annotated[Literal["hour", "day"], Query(description="How long a period is.")] = "day",
    count: Annotated[int, Query(ge=1, le=366, description="How many periods, up to now; at most 336 hours.")] = 30,
    offset_min: Annotated[int, Query(ge=-1439, le=1439, description="How many minutes your zone is ahead of UTC.")] = 0,
    zone: Annotated[str, Query(max_length=64, description="Your time zone, such as Asia/Almaty; an unknown one does not count.")] = "",
) -> JSONResponse:
    """The decisions of each hour or day, how many were deferred, and how often the cloud agreed; and agreement by the printed confidence.

    At most the newest 100,000 decisions are counted; `complete` is false if there were more.
    """
    service: Service = request.app.state.service
    step_s, most = _STEPS[per]
    window = history.Window(step_s, min(count, most), offset_min * 60, time.time(), _zone(zone))
    found = await service.surveys.run(lambda check: history.history(service.agent.store, window, check), disconnected(request))
    return JSONResponse({"per": per, **found.to_dict()})


def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    """The zone of a name; None if it is unknown here: a small system may have no time zones at all."""
    try:
        return zoneinfo.ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError):  # unknown, or no name of a zone
        return None


@router.get("/edge/decisions/{decision_id}/facts", responses=_ONE)
async def facts(request: Request, decision_id: str) -> JSONResponse:
    """One decision in full: its question, what the model and the cloud said, the rules, its ending and its audit."""
    service: Service = request.app.state.service
    if not is_id(decision_id):
        raise Refusal(404, "no_such_decision", "There is no such decision.")
    try:
        row = await service.aside(lambda: overview.decision(service.agent.store, decision_id))
    except BadQuestion as error:
        raise Refusal(404, "no_such_decision", "There is no such decision; it may have been deleted.") from error
    return JSONResponse(plain(_in_full(plain(row))))


def _in_full(row: dict[str, Any]) -> dict[str, Any]:
    row = {**row, "options": parsed(row["options"])}
    as_they_are = ("decision_id", "answer", "final_answer", "route", "reason", "cause", "score", "ending", "queue_id", "cloud_kind")
    audited = row["audit_agrees"] is not None
    return {
        **{name: row[name] for name in as_they_are},
        **{name: bool(row[name]) for name in ("deferred", "recalled", "provisional")},
        **{name: iso(row[name]) for name in ("created_at", "ended_at")},
        "question": row["stem"],
        "options": row["options"],
        "answer_text": option_text(row, row["answer"]),
        "final_answer_text": option_text(row, row["final_answer"]) or None,
        "policy": parsed(row["policy"]),
        "circumstances": parsed(row["circumstances"]),
        "calibration": calibration_of(row),
        "reading": parsed(row["reading"]),
        "cloud_answer": parsed(row["cloud_answer"]),
        "cloud_confidence": cloud_confidence(row),
        "audit": {"answer": row["audit_answer"], "agrees": bool(row["audit_agrees"])} if audited else None,
    }


@router.get("/edge/calibration", responses=_LONG)
async def calibrated(request: Request) -> JSONResponse:
    """The calibration in force, what it promises, and what the device's own decisions say about it since. Null if there is none."""
    service: Service = request.app.state.service

    def look(check: Callable[[], None]) -> dict[str, Any]:
        agent = service.agent
        found = agent.calibration
        policy = _policy(agent.policy)
        if found is None:
            newest = live.newest(agent.store)
            return {
                "policy": policy,
                "calibration": None,
                "audits": live.as_dict(newest) | {"sentence": newest.sentence} if newest else None,
            }
        report = live.report(agent.store, found.to_json(), check)
        shown = asdict(found) | {"sha256": found.sha256, "in_words": found.in_words()}
        audits = live.as_dict(report.audits) | {"sentence": report.audits.sentence}
        return {"policy": policy, "calibration": shown, "live": report.to_dict() | {"lines": report.lines()}, "audits": audits}

    return JSONResponse(await service.surveys.run(look, disconnected(request)))


def _audits(found: live.Agreement | None) -> dict[str, Any] | None:
    return live.as_dict(found) | {"sentence": found.sentence} if found else None


@router.get("/edge/preview", responses=_LONG)
async def preview(
    request: Request,
    tau: Annotated[float, Query(ge=0, le=1, allow_inf_nan=False, description="The threshold to try, of the printed confidence.")],
    newest: Annotated[int, Query(ge=1, le=MOST_REPLAYED, description="How many of the newest decisions are tried.")] = REPLAYED,
) -> JSONResponse:
    """What another tau would have done with the newest decisions, from their stored facts; no model runs and no cloud is asked.

    `log` is what their own rules want and `other` what this tau wants, both as if the cloud could be reached: how many decisions are
    `kept` and `deferred`, for how many the final answer would be another (`changed`), and for how many no stored fact gives it (`unknown`).
    """
    service: Service = request.app.state.service

    def look(check: Callable[[], None]) -> dict[str, Any]:
        from edge_agent.measure.replay import compare

        def rows() -> Iterator[dict[str, Any]]:
            after = overview.number_after(service.agent.store, newest)
            for place, row in enumerate(service.agent.store.decisions(_AT_ONCE, after)):
                if not place % _AT_ONCE:
                    check()
                if place >= newest:  # what was decided meanwhile
                    return
                yield row

        log, other = compare(rows(), tau)
        return {"tau": tau, "log": asdict(log), "other": asdict(other)}

    return JSONResponse(await service.surveys.run(look, disconnected(request)))
