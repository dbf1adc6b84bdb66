"""MAPIE's risk control as a second opinion on the same cuts of the same test part."""

import numpy as np
import pytest

from edge_agent.measure.calibrate import ltt
from edge_agent.measure.calibrate.fit import fit
from edge_agent.measure.calibrate.goals import Goal
from edge_agent.measure.calibrate.split import WITH_TEST, split
from tests.support.guarantee import synthetic

mapie = pytest.importorskip("mapie.risk_control")
POOL = synthetic(3000, seed=2)


@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires:UserWarning")  # it needs a fixed order, not a monotone error
@pytest.mark.parametrize("limit", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("number", range(4))
def test_fixed_sequence_rejects_the_same_taus(limit: float, number: int) -> None:
    """Its p-value is the binomial one, too, but it counts an error more where its arithmetic rounds up, so it may stop a step earlier."""
    data_sha256 = f"{number:064x}"
    made = fit(POOL, Goal("max_local_error", limit, 0.05), data="", data_sha256=data_sha256, created_at="", readout="expected_confidence")
    assert made.tests and made.tested and not made.tests.cuts.ties.any()
    at = split(POOL.fingerprints, data_sha256, WITH_TEST).test
    scores = np.where(POOL.no_confidence, -1.0, POOL.scores["expected_confidence"])[at]
    controller = mapie.BinaryClassificationController(
        predict_function=lambda x: np.column_stack([1 - x, x]),
        risk="precision", target_level=1 - limit, confidence_level=0.95,
        list_predict_params=made.tests.cuts.taus, fwer_method="fixed_sequence",
    )  # fmt: skip
    controller.calibrate(scores, POOL.edge_correct[at].astype(int))
    valid = np.asarray(controller.valid_predict_params).ravel()
    theirs = int(np.isin(made.tests.cuts.taus, valid).sum())
    rounded_up = ltt.p_value(made.tested.errors + 1, made.tested.kept, limit)
    at_least = int(np.argmin(np.r_[rounded_up <= 0.05, False]))
    assert at_least <= theirs <= made.tested.n_rejected
