"""A calibration of the demo model, and its file."""

import hashlib
import pathlib
from functools import cache
from typing import Any

from edge_agent.model import catalog, gguf
from edge_agent.model.calibration import Calibration, save
from edge_agent.model.profile import from_metadata
from tests.support.paths import DEMO


@cache
def bound_to(model: pathlib.Path = DEMO) -> dict[str, str]:
    """The model, the adapter (none) and the profile that a calibration of this file names."""
    profile = from_metadata(gguf.read_model(model).metadata)
    return {"model_sha256": catalog.sha256_of(model), "adapter_sha256": "", "profile_sha256": profile.sha256}


def calibrated(model: pathlib.Path = DEMO, **fields: Any) -> Calibration:
    """A calibration of a model; `fields` differ from the usual ones."""
    usual = {
        "readout": "confidence", "weights": (), "tau": 0.75, "tie_share": 0.0, "salt": "s", "curve": ((0.0, 0.2), (1.0, 0.9)),
        "goal": "max_local_error", "value": 0.15, "delta": 0.05, "deferral_rate": 0.25, "local_error": 0.1, "questions": (100, 200, 300),
        "data": "questions.jsonl", "data_sha256": hashlib.sha256(b"data").hexdigest(), "created_at": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return Calibration(**{**usual, **bound_to(model), **fields})


def stored(home: pathlib.Path, model: pathlib.Path = DEMO, **fields: Any) -> Calibration:
    """The same, saved where an agent in this home finds it."""
    made = calibrated(model, **fields)
    save(home / "calibrations", made)
    return made
