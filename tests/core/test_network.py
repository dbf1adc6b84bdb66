"""What the environment may do to connections: each wrong value ends in one sentence that names its variable."""

import os
import pathlib
import ssl

import certifi
import pytest

from edge_agent.core.config.network import Certificates, certificates, environment_proxy, proxy_address, tls_context
from edge_agent.core.errors import BadSetting


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("proxy:3128", "http://proxy:3128"), ("http://proxy", "http://proxy"), ("https://user:pw@proxy:8443/", "https://user:pw@proxy:8443/"),
        ("[::1]:3128", "http://[::1]:3128"), (" 10.0.0.1:8080 ", "http://10.0.0.1:8080"), ("HTTP://Proxy_1.local:80", "HTTP://Proxy_1.local:80"),
    ],
)  # fmt: skip
def test_proxy_is_an_http_address(value: str, address: str) -> None:
    assert proxy_address(value, "X") == address


@pytest.mark.parametrize(
    "value",
    [
        "socks5://127.0.0.1:1080", "socks5h://p", "socks://127.0.0.1:1080/", "ftp://p", "http://", "://", "http:///x", "http://p:99999",
        "http://p:0", "http://p:port", "http://[::1", "http://::1", "http://999.1.1.1:80", "http://p q:1", "http://p\n:1", "http://пр:1",
        "http://-p:1", "http://user:hunter2@:3128", "socks5://user:hunter2@p:1080",
    ],
)  # fmt: skip
def test_other_proxies_are_refused_without_showing_a_password(value: str) -> None:
    with pytest.raises(BadSetting, match=r"^HTTPS_PROXY is a proxy .*unset HTTPS_PROXY\.$") as caught:
        environment_proxy({"https_proxy": value}, "https")
    assert "hunter2" not in str(caught.value) and "\n" not in str(caught.value)


def test_proxy_of_the_scheme_goes_before_the_one_for_all() -> None:
    environment = {"HTTPS_PROXY": "a:1", "ALL_PROXY": "socks5://b:1"}
    assert environment_proxy(environment, "https") == "http://a:1"
    with pytest.raises(BadSetting, match="ALL_PROXY is a proxy of the kind 'socks5'"):
        environment_proxy(environment, "http")
    assert environment_proxy({}, "http") is None


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "blank.pem").write_text(" \n")
    (tmp_path / "text.pem").write_text("no certificate")
    (tmp_path / "half.pem").write_text("-----BEGIN CERTIFICATE-----\nnot base64")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("variable", "name", "words"),
    [
        ("SSL_CERT_FILE", "none.pem", "does not exist"), ("SSL_CERT_FILE", "empty.pem", "is empty"),
        ("SSL_CERT_FILE", "text.pem", "no readable certificates"), ("SSL_CERT_FILE", "half.pem", "no readable certificates"),
        ("SSL_CERT_FILE", "folder", "is not a file"), ("SSL_CERT_FILE", "pipe", "is not a file"),
        ("SSL_CERT_FILE", "a\0b", "cannot be read"), ("SSL_CERT_FILE", "blank.pem", "is empty"),
        ("SSL_CERT_FILE", "text.pem/x", "cannot be read"), ("SSL_CERT_FILE", "x" * 300, "cannot be read"),
        ("SSL_CERT_DIR", "none", "does not exist"), ("SSL_CERT_DIR", "folder", "is empty"), ("SSL_CERT_DIR", "text.pem", "cannot be read"),
        ("SSL_CERT_DIR", ".:none", "does not exist"), ("SSL_CERT_DIR", "a\0b", "cannot be read"),
    ],
)  # fmt: skip
def test_unusable_certificates_are_refused_in_a_sentence(folder: pathlib.Path, variable: str, name: str, words: str) -> None:
    path = ":".join(str(folder / part) for part in name.split(":"))
    with pytest.raises(BadSetting, match=rf"(?s)^{variable} .*{words}.*{variable}\.$"):
        tls_context(certificates({variable: path}))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_certificates_that_may_not_be_read_are_refused(folder: pathlib.Path) -> None:
    (folder / "text.pem").chmod(0)
    with pytest.raises(BadSetting, match=r"cannot be read \(Permission denied\)"):
        certificates({"SSL_CERT_FILE": str(folder / "text.pem")})


def test_usable_certificates_are_trusted_and_no_others(tmp_path: pathlib.Path) -> None:
    one = tmp_path / "one.pem"
    text = pathlib.Path(certifi.where()).read_text()
    end = "-----END CERTIFICATE-----\n"
    one.write_text(text.partition(end)[0] + end)
    context = tls_context(certificates({"ssl_cert_file": str(one)}))
    assert len(context.get_ca_certs()) == 1 and context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    assert len(tls_context(certificates({})).get_ca_certs()) > 50
    assert certificates({"SSL_CERT_DIR": f"{tmp_path}:{tmp_path}"}) == Certificates("", f"{tmp_path}:{tmp_path}", "SSL_CERT_DIR")


def test_environment_cannot_have_the_keys_of_a_connection_written_down(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's usual context obeys SSLKEYLOGFILE, and raises FileNotFoundError for a wrong one."""
    for name in ("keys", "none/keys"):
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / name))
        assert tls_context(certificates({})).keylog_filename is None
    assert not (tmp_path / "keys").exists()
