"""Where the checkout, the demo model and the real evaluation sets are."""

import os
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo" / "FogGen-demo-Q8_0.gguf"
SHARED = pathlib.Path(os.environ.get("EDGE_AGENT_TEST_DATA", ROOT.parent / "shared" / "data"))  # real evaluation sets, if present
