"""The route of a question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.outcome import CloudKind
from edge_agent.core.records import Reading, Timings
from edge_agent.core.routing import Circumstances, Policy, PolicyName, Settlement, Step, plan, settle
from edge_agent.model.profile import LEVELS

WITH_CLOUD, WITHOUT_CLOUD = Circumstances(cloud_configured=True), Circumstances(cloud_configured=False)


def reading(level: str = "0.75", mass: float = 0.99) -> Reading:
    probs = (0.1, 0.1, 0.1, 0.6, 0.1)
    return Reading(
        levels=LEVELS,
        level_probs=probs,
        level=level,
        format_mass=mass,
        letters="AB",
        answer_probs=(0.4, 0.6),
        letter="B",
        timings=Timings(),
    )


@pytest.mark.parametrize(
    ("level", "mass", "policy", "cloud", "route", "reason", "cause", "provisional"),
    [
        ("0.75", 0.99, "prefer_local", True, "local", "confident", None, False),
        ("0.5", 0.99, "prefer_local", True, "local", "confident", None, False),
        ("0.25", 0.99, "prefer_local", True, "cloud", "unsure", "unsure", False),
        ("0.25", 0.99, "prefer_local", False, "local", "no_cloud", "unsure", True),
        ("1.0", 0.01, "prefer_local", True, "cloud", "no_confidence", "no_confidence", False),
        ("0.0", 0.01, "only_local", True, "local", "only_local", None, False),
        ("1.0", 0.99, "prefer_cloud", True, "cloud", "prefer_cloud", "prefer_cloud", False),
        ("1.0", 0.99, "prefer_cloud", False, "local", "no_cloud", "prefer_cloud", True),
        ("1.0", 0.99, "only_cloud", True, "cloud", "only_cloud", "only_cloud", False),
    ],
)
def test_route_of_a_question(
    level: str, mass: float, policy: str, cloud: bool, route: str, reason: str, cause: str | None, provisional: bool
) -> None:
    planned = plan(reading(level, mass), Policy(PolicyName(policy)), WITH_CLOUD if cloud else WITHOUT_CLOUD)
    settled = settle(planned, CloudKind.ANSWERED if planned.step is Step.ASK_CLOUD else None)
    assert settled == Settlement(route, reason, provisional, queue=provisional)
    assert planned.cause == cause


@pytest.mark.parametrize(
    ("kind", "reason"), [(k, "offline" if k is CloudKind.OFFLINE else "cloud_error") for k in CloudKind if k is not CloudKind.ANSWERED]
)
def test_failing_cloud_leaves_a_provisional_answer_in_the_queue(kind: CloudKind, reason: str) -> None:
    planned = plan(reading("0.0"), Policy(), WITH_CLOUD)
    assert settle(planned, kind) == Settlement("local", reason, provisional=True, queue=True)


@pytest.mark.parametrize("kind", [None, *(k for k in CloudKind if k is not CloudKind.ANSWERED)])
def test_only_cloud_has_no_answer_without_the_cloud(kind: CloudKind | None) -> None:
    """Even if there is a reading."""
    assert settle(plan(reading("1.0"), Policy(PolicyName.ONLY_CLOUD), WITHOUT_CLOUD), kind) is None


@given(st.sampled_from(PolicyName), st.booleans())
def test_without_a_reading_the_model_runs_unless_the_policy_is_only_cloud(policy: PolicyName, cloud: bool) -> None:
    step = plan(None, Policy(policy), Circumstances(cloud)).step
    assert step is (Step.ASK_CLOUD if policy is PolicyName.ONLY_CLOUD else Step.READ)


@given(st.sampled_from(["0.0", "0.25", "0.5", "0.75", "1.0"]), st.floats(0, 1), st.floats(0, 1))
def test_higher_tau_never_keeps_more_answers(level: str, a: float, b: float) -> None:
    kept = [plan(reading(level), Policy(tau=tau), WITH_CLOUD).step is Step.DONE for tau in sorted((a, b))]
    assert kept[0] or not kept[1]
