"""`edge-agent replay`: derives past decisions again from stored facts."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import click

from edge_agent.cli.app import EXIT_CODES, fraction, main, with_settings
from edge_agent.cli.show import ID_SHOWN, NO_DECISIONS, echo, print_json, print_rows, print_table
from edge_agent.core.config import checks, settings
from edge_agent.core.errors import BadData
from edge_agent.core.records import option_text
from edge_agent.core.terminal import plain
from edge_agent.core.times import iso, local

if TYPE_CHECKING:
    from edge_agent.measure.replay import Replayed
    from edge_agent.store.store import Store

_SHOWN = 20


@main.command(epilog=EXIT_CODES)
@click.option("--assert", "prove", is_flag=True, help="Fail (65) unless every decision follows from its stored facts.")
@click.option("--tau", callback=fraction, metavar="NUMBER", help="Show what another tau would have cost and answered.")
@click.option("--policy", type=click.Choice(checks.POLICIES), help="Show what another policy would have cost and answered.")
@click.option("-n", "--limit", type=click.IntRange(1, 1_000_000), metavar="N", default=_SHOWN, show_default=True, help="Show the last N.")
@with_settings()
def replay(config: settings.Settings, prove: bool, tau: float | None, policy: str | None, limit: int, as_json: bool) -> None:
    """Derive past decisions again from stored facts. No model runs and no cloud is asked.

    With --tau or --policy, decide the whole log again with other rules. An answer that is not stored is unknown.
    """
    from edge_agent.store.store import Store

    with Store(config.database) as store:
        if tau is not None or policy is not None:
            _compare(store, tau, policy, as_json)
        elif prove:
            _prove(store, limit, as_json)
        else:
            _answer(store, limit, as_json)


def _compare(store: Store, tau: float | None, policy: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from edge_agent.core.routing import PolicyName
    from edge_agent.measure.replay import compare

    ours, theirs = compare(store.decisions(), tau, PolicyName(policy) if policy else None)
    if as_json:
        print_json({"as_decided": asdict(ours), "as_tried": asdict(theirs), "tau": tau, "policy": policy})
        return
    tried = " ".join(text for text in (f"tau {tau:g}" if tau is not None else "", policy or "") if text)
    rows = [
        {"": name.replace("_", " "), "as decided": _number(mine), tried: _number(asdict(theirs)[name])}
        for name, mine in asdict(ours).items()
    ]
    print_table(rows, ("", "as decided", tried))


def _prove(store: Store, limit: int, as_json: bool) -> None:
    from edge_agent.measure.replay import replay

    n_decisions, n_unknown, wrong = 0, 0, []
    for row in store.decisions():
        n_decisions += 1
        replayed = replay(row)
        if replayed.differences:
            wrong.append({"decision_id": row["decision_id"], "differences": list(replayed.differences)})
        elif replayed.unknown:
            n_unknown += 1
    n_proved = n_decisions - len(wrong) - n_unknown
    if as_json:
        print_json({"decisions": n_decisions, "proved": n_proved, "unknown": n_unknown, "wrong": wrong[-limit:]})
    else:
        for entry in wrong[-limit:]:
            echo(plain(f"{entry['decision_id']}: {'; '.join(entry['differences'])}"))
        echo(f"{n_proved} of {n_decisions} decisions follow from their stored facts.")
        if n_unknown:
            echo(f"{n_unknown} cannot be checked, because the cloud's answer was deleted to free space; nothing contradicts them.")
    if wrong:
        raise BadData(f"{len(wrong)} of {n_decisions} decisions do not follow from their stored facts; the log is damaged or was changed.")


def _answer(store: Store, limit: int, as_json: bool) -> None:
    from edge_agent.measure.replay import replay
    from edge_agent.store.export import parsed

    rows = [{**row, "replayed": replay(row), "options": parsed(row["options"])} for row in deque(store.decisions(), maxlen=limit)]
    columns = ("id", "asked", "answer", "in the end", "sure", "route", "reason", "question")
    print_rows(rows, as_json, _for_programs, _for_people, columns, NO_DECISIONS)


def _for_programs(row: dict[str, Any]) -> dict[str, Any]:
    replayed: Replayed = row["replayed"]
    return {
        "decision_id": row["decision_id"],
        "created_at": iso(row["created_at"]),
        "question": row["stem"],
        "answer": replayed.answer,
        "route": replayed.route,
        "reason": replayed.reason,
        "cause": replayed.cause,
        "score": replayed.score,
        "provisional": replayed.provisional,
        "ending": row["ending"],
        "final_answer": row["final_answer"],
        "ended_at": iso(row["ended_at"]),
        "unknown": replayed.unknown,
        "differences": list(replayed.differences),
    }


def _for_people(row: dict[str, Any]) -> dict[str, Any]:
    replayed: Replayed = row["replayed"]
    final = option_text(row, row["final_answer"])
    return {
        "id": row["decision_id"][:ID_SHOWN],
        "asked": local(row["created_at"]),
        "answer": "unknown" if replayed.answer is None else option_text(row, replayed.answer),
        "in the end": f"{final} (unknown)" if replayed.unknown and final else final,
        "sure": "" if replayed.score is None else f"{replayed.score:.0%}",
        "route": replayed.route,
        "reason": replayed.reason,
        "question": row["stem"],
    }


def _number(value: float) -> str:
    return f"{value:.1%}" if isinstance(value, float) else str(value)
