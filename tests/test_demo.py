"""What the bundled model can be relied on for."""

from tests.conftest import ROOT

DEMO = ROOT / "models" / "demo"


def test_demo_is_as_small_as_promised() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60_000_000
    assert (DEMO / "FogGen-demo-Q8_0.gguf").stat().st_size <= 12_000_000
