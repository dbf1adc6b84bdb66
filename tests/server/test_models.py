"""The list of models satisfies two APIs at once."""

import pathlib
import re

import pytest

from edge_agent.server.faults import Refusal
from edge_agent.server.model_names import chosen
from tests.support.serving import serving


def test_models_are_listed_for_both_apis(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "home") as server, server.client() as client:
        for path in ("/v1/models", "/models"):
            found = client.get(path, headers={"Authorization": "Bearer"}).json()
            assert (found["object"], [one["id"] for one in found["data"]]) == ("list", ["edge-auto", "edge-local", "edge-cloud"])
            assert all(one["object"] == "model" and isinstance(one["created"], int) and one["owned_by"] for one in found["data"])
            assert [one["name"] for one in found["models"]] == ["edge-auto", "edge-local", "edge-cloud", "jev-latest"]
            assert all(one["description"] and re.fullmatch(r"\d{4}-\d\d-\d\d", one["release_date"]) for one in found["models"])
            assert client.head(path).status_code == 200 and client.head(path).content == b""
            assert client.options(path).status_code == 405 and "GET" in client.options(path).headers["Allow"]
            for name in ("edge-auto", "edge-auto-0.75", "jev-latest"):
                assert client.get(f"{path}/{name}").json()["id"] == name
            missing = client.get(f"{path}/gpt-4o")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("edge-auto", (None, None)),
        ("jev-latest", (None, None)),
        ("edge-local", ("only_local", None)),
        ("edge-cloud", ("only_cloud", None)),
        ("edge-auto-0.75", ("prefer_local", 0.75)),
        ("edge-auto-1", ("prefer_local", 1.0)),
    ],
)
def test_name_says_policy_and_tau(name: str, meaning: tuple) -> None:
    assert chosen(name) == meaning


@pytest.mark.parametrize("name", ["edge-auto-1.1", "edge-auto-٠", "Edge-auto"])
def test_other_name_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match=r"does not exist; (ask edge-auto, edge-local, edge-cloud|after edge-auto- write a tau)"):
        chosen(name)
