"""The token files and the address: what does not start, with which exit code and which words."""

import os
import pathlib
import subprocess
import sys

import pytest

from edge_agent.core.config.loading import CREDENTIALS, load
from edge_agent.core.errors import BadSetting
from edge_agent.server.access import Access, is_loopback
from tests.support.paths import ROOT

GOOD = "0123456789abcdef"


def token_file(tmp_path: pathlib.Path, text: bytes = GOOD.encode(), mode: int = 0o600) -> pathlib.Path:
    path = tmp_path / "token"
    path.write_bytes(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "flags", [("--host", "0.0.0.0"), ("--host", "::"), ("--host", "192.0.2.1"), ("--host", "example.org"), ("--host", "127.1")]
)
def test_open_address_without_a_token_does_not_start(tmp_path: pathlib.Path, flags: tuple[str, ...]) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "edge_agent", "serve", "--port", "0", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "EDGE_AGENT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 78 and "without a token" in found.stderr and found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (GOOD.encode(), 0o644, "chmod 600"),
        (GOOD.encode(), 0o640, "chmod 600"),
        (b"", 0o600, "one line"),
        (b"\n", 0o600, "one line"),
        (GOOD.encode() + b"\n" + GOOD.encode(), 0o600, "one line"),
        (GOOD[:-1].encode(), 0o600, "too short"),
        (b"0123456789 abcdef", 0o600, "space"),
        (b"0123456789\tabcdef", 0o600, "space"),
        (b"0123456789\x00abcdef", 0o600, "space"),
        ("токен-токен-токен".encode(), 0o600, "one line"),
        (b"\xff" * 20, 0o600, "one line"),
    ],
)
def test_bad_token_file_is_refused_in_a_sentence(tmp_path: pathlib.Path, text: bytes, mode: int, words: str) -> None:
    path = token_file(tmp_path, text, mode)
    for setting in ("serve_token_file", "operator_token_file"):
        with pytest.raises(BadSetting, match=words) as raised:
            Access.of(load({setting: str(path)}), {})
        assert GOOD not in str(raised.value)


def test_token_file_must_exist_and_a_link_counts_as_its_target(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "link"
    with pytest.raises(BadSetting, match="cannot be read"):
        Access.of(load({"serve_token_file": str(link)}), {})
    link.symlink_to(token_file(tmp_path))
    assert Access.of(load({"serve_token_file": str(link)}), {}).token == GOOD
    token_file(tmp_path, mode=0o644)
    with pytest.raises(BadSetting, match="chmod 600"):
        Access.of(load({"serve_token_file": str(link)}), {})
    with pytest.raises(BadSetting, match="cannot be read"):
        Access.of(load({"serve_token_file": str(tmp_path)}), {})


def test_one_token_cannot_be_both(tmp_path: pathlib.Path) -> None:
    path = str(token_file(tmp_path))
    with pytest.raises(BadSetting, match="the same"):
        Access.of(load({"serve_token_file": path, "operator_token_file": path}), {})


def test_tokens_come_from_systemds_credentials(tmp_path: pathlib.Path) -> None:
    (tmp_path / "edge-agent-serve-token").write_text(GOOD)
    (tmp_path / "edge-agent-operator-token").write_text(GOOD.upper())
    access = Access.of(load({"serve_host": "0.0.0.0"}), {CREDENTIALS: str(tmp_path)})
    assert (access.token, access.operator_token) == (GOOD, GOOD.upper())
    assert access.is_client(f"Bearer {GOOD}") and not access.is_operator(f"Bearer {GOOD}") and access.is_client(f"Bearer {GOOD.upper()}")
    nothing = Access.of(load({}), {CREDENTIALS: str(tmp_path / "empty")})
    assert (nothing.token, nothing.operator_token) == (None, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "0", "127.1", "192.168.0.1", "localhost.example", "::ffff:192.168.0.1", "fe80::1"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
