"""A headless Chromium for the tests of the pages; without Playwright or Chromium they skip and say what is missing."""

import hashlib
import os
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.paths import ROOT
from tests.support.visitor_page import MISSING, SIZES, TIMEOUT_MS, Installation, Visitor, chromium, flags, installation

AXE = "axe-core-4.14.1.tgz"
AXE_SHA512 = (
    "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5"
)
AXE_URL = f"{os.environ.get('NPM_CONFIG_REGISTRY', 'https://registry.npmjs.org').rstrip('/')}/axe-core/-/{AXE}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser that all tests share; each has its own context."""
    if chromium() is None:
        pytest.skip("Chromium is missing: install Debian's package chromium, or set EDGE_AGENT_TEST_CHROMIUM to its path")
    playwright = pytest.importorskip("playwright.sync_api", reason=MISSING)
    playwright.expect.set_options(timeout=TIMEOUT_MS)
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium(), args=flags())
        yield running
        running.close()


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server with its cloud, shared by the tests of a file."""
    with installation(tmp_path_factory.mktemp("kiosk")) as running:
        yield running


@pytest.fixture
def visitor(browser: Any, kiosk: Installation) -> Iterator[Visitor]:
    """Somebody in front of the official touch screen; nothing in the page may go wrong, and nothing may leave the device."""
    kiosk.restore()
    context = browser.new_context(viewport=dict(zip(("width", "height"), SIZES["touch"], strict=True)), has_touch=True)
    somebody = Visitor(context.new_page(), kiosk.server.url)
    somebody.come()
    yield somebody
    context.close()
    assert somebody.hosts == {kiosk.server.url.removeprefix("http://")}
    assert [text for text in somebody.wrong if "Failed to load resource" not in text and "WebSocket" not in text] == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, fetched once from the npm registry and checked by its hash."""
    path = pathlib.Path(os.environ.get("EDGE_AGENT_TEST_AXE") or ROOT / "build" / AXE)
    if not path.exists():
        try:
            content = httpx.get(AXE_URL, timeout=60, follow_redirects=True).raise_for_status().content
        except httpx.HTTPError as error:
            pytest.skip(f"axe-core cannot be fetched ({error}); put {AXE} into build/, or set EDGE_AGENT_TEST_AXE to its path")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert hashlib.sha512(path.read_bytes()).hexdigest() == AXE_SHA512
    with tarfile.open(path) as package:
        found = package.extractfile("package/axe.min.js")
        assert found is not None
        return found.read().decode()
