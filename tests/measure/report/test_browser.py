"""The page in a real browser: nothing in its console, no sideways scrolling on a telephone, and paper without cut charts."""

import html
import pathlib
import re
import shutil
import subprocess

import pytest

from edge_agent.measure.report import page
from tests.support.report_models import measured, results

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


def browse(path: pathlib.Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}"]
    return subprocess.run([*command, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)


def report() -> str:
    names = ("a domain with a long name " * 5, "x" * 200, "math", "коды и право")
    models = [measured(results(300, domains=names, quantization=name, seed=seed)) for seed, name in enumerate(("Q8_0", "Q4_0"))]
    return page.html(models)


def test_console_is_empty(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report(), encoding="utf-8")
    seen = browse(path, "--enable-logging=stderr", "--dump-dom")
    assert "CONSOLE" not in seen.stderr
    assert "</html>" in seen.stdout


@pytest.mark.parametrize("width", [320, 420, 1280])
def test_page_does_not_scroll_sideways(width: int, tmp_path: pathlib.Path) -> None:
    """The page is put into a frame of that width, because a window has a least width."""
    text = report().replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    text = text.replace("</body>", "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script></body>")
    outer = tmp_path / "outer.html"
    script = "<script>onmessage = event => { document.title = 'wide ' + event.data }</script>"
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(text)}"></iframe>'
    outer.write_text(f"<!DOCTYPE html><meta charset=utf-8>{script}{frame}", encoding="utf-8")
    found = re.search(r"<title>wide (\d+)</title>", browse(outer, "--dump-dom", "--virtual-time-budget=4000").stdout)
    assert found is not None and int(found[1]) <= width


def test_page_prints(tmp_path: pathlib.Path) -> None:
    path, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    path.write_text(report(), encoding="utf-8")
    browse(path, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    n_sheets = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 3 <= n_sheets <= 8
