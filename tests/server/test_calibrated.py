"""A calibrated server: what a client sees of it, and that a tau in the model's name switches it off."""

import pathlib

import pytest

from edge_agent.model import catalog, gguf
from edge_agent.model.profile import Way, from_metadata
from tests.support.calibrations import stored
from tests.support.event_stream import NO_CLOUD
from tests.support.paths import DEMO
from tests.support.serving import serving

QUESTION = {"question": "What is 4 + 5?", "options": ["8", "9"]}


def test_client_sees_the_calibration_and_a_tau_in_the_models_name_switches_it_off(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "served"
    made = stored(home, readout="answer_prob", tau=0.125)
    with serving(home, environment=NO_CLOUD) as server, server.client() as client:
        chat = {"messages": [{"role": "user", "content": "What is 4 + 5?\nA. 8\nB. 9"}]}
        for name, readout, tau, calibration in (
            ("edge-auto", "answer_prob", 0.125, made.sha256),
            ("edge-local", "answer_prob", 0.125, made.sha256),
            ("edge-auto-0.75", "confidence", 0.75, None),
            ("edge-auto", "answer_prob", 0.125, made.sha256),
        ):
            reply = client.post("/v1/chat/completions", json={**chat, "model": name})
            own = reply.json()["edge_agent"]
            assert (own["readout"], own["tau"], own["calibration"]) == (readout, tau, calibration), name
            assert reply.headers["x-edge-readout"] == readout and float(reply.headers["x-edge-tau"]) == tau
            assert float(reply.headers["x-edge-score"]) == own["score"]
            assert reply.headers.get("x-edge-calibration") == calibration
            asked = client.post("/edge/ask", json={**QUESTION, "model": name}).json()
            assert (asked["readout"], asked["tau"], asked["calibration"]) == (readout, tau, calibration), name
            typed = {"model": name, "state": "4 + 5 is", "questions": {"sum": {"type": "choice", "criteria": {"8": None, "9": None}}}}
            (answer,) = client.post("/v1/systemone", json=typed).json()["answers"].values()
            assert (answer["x_edge_agent"]["readout"], answer["x_edge_agent"]["calibration"]) == (readout, calibration)
        assert client.post("/edge/ask", json={**QUESTION, "tau": 0.5}).json()["calibration"] is None
        assert client.post("/edge/ask", json={**QUESTION, "policy": "only_local"}).json()["calibration"] == made.sha256
    assert server.stop() == 0


TYPED = {"model": "edge-auto", "state": "4 + 5 is", "questions": {"sum": {"type": "choice", "criteria": {"8": None, "9": None}}}}


def test_plain_model_has_calibrated_probabilities_and_no_confidence(tmp_path: pathlib.Path) -> None:
    home, profile = tmp_path / "served", from_metadata(gguf.read_header(DEMO).metadata, Way("plain"))
    made = stored(home, readout="answer_prob", tau=0.0, curve=((0.0, 0.83), (1.0, 0.83)), profile_sha256=profile.sha256)
    assert made.model_sha256 == catalog.sha256_of(DEMO)
    plain = {**NO_CLOUD, "EDGE_AGENT_PROFILE": "plain"}
    with serving(home, environment=plain) as server, server.client() as client:
        (answer,) = client.post("/v1/systemone", json=TYPED).json()["answers"].values()
        assert max(answer["probabilities"].values()) == pytest.approx(0.83, abs=1e-6)
        assert answer["x_edge_agent"]["confidence"] is None and answer["x_edge_agent"]["calibration"] == made.sha256
        chat = {"model": "edge-auto", "messages": [{"role": "user", "content": "What is 4 + 5?\nA. 8\nB. 9"}]}
        reply = client.post("/v1/chat/completions", json=chat)
        assert reply.status_code == 200 and "x-edge-confidence" not in reply.headers
        assert reply.json()["edge_agent"]["reason"] == "confident"
        needs = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "type": "object", "required": ["answer", "confidence"], "additionalProperties": False,
            "properties": {"answer": {"type": "string"}, "confidence": {"type": "number"}},
        }}}  # fmt: skip
        refused = client.post("/v1/chat/completions", json={**chat, "response_format": needs})
        assert refused.status_code == 400 and "plain model" in refused.text
    assert server.stop() == 0


def test_plain_model_without_a_calibration_defers_everything(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "served", environment={**NO_CLOUD, "EDGE_AGENT_PROFILE": "plain"}) as server, server.client() as client:
        (answer,) = client.post("/v1/systemone", json=TYPED).json()["answers"].values()
        assert answer["x_edge_agent"]["cause"] == "no_confidence" and answer["x_edge_agent"]["provisional"]
        asked = client.post("/edge/ask", json={**QUESTION, "tau": 0.0}).json()
        assert asked["cause"] == "no_confidence" and asked["score"] is None
    assert server.stop() == 0
