"""edge-agent: small language models that say how sure they are, on the device, with a cloud for the rest.

from edge_agent import Agent

with Agent.open("demo") as agent:
    decision = agent.ask("What is 2 + 2?\\nA. 3\\nB. 4")
"""

from typing import Any

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentClosed",
    "BadQuestion",
    "BadSetting",
    "CloudUnavailable",
    "Decision",
    "EdgeAgentError",
    "ModelError",
    "ModelMissing",
    "ModelRefused",
    "Question",
    "Reading",
    "StorageError",
]

_MODULES = {"Agent": "agent.agent", "Question": "core.question", "Decision": "core.records", "Reading": "core.records"}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `edge-agent --help` does not load llama.cpp."""
    if name not in __all__:
        raise AttributeError(f"module 'edge_agent' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"edge_agent.{_MODULES.get(name, 'core.errors')}"), name)
