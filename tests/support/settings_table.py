"""The table in docs/settings.md, made from the declarations in `core/config/settings.py`."""

from typing import Any

from edge_agent.core.config.settings import DECLARED


def settings_table() -> str:
    """One row for each setting: name, meaning, unit, default, environment variable."""
    rows = ["| setting | meaning | unit | default | environment |", "|---|---|---|---|---|"]
    for one in DECLARED:
        variable = f"`{one.environment}`" if one.environment else ""
        rows.append(f"| `{one.name}` | {one.meaning} | {one.unit} | {_shown(one.default)} | {variable} |")
    return "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else f'{value:g}' if isinstance(value, float) else value}`"
