"""The model of an agent: what is known of its file, and the open model itself.

Owns when the model is opened and closed. Knows no questions. Invariant: the facts are those of the file that is open, or will be.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.agent import assembly
from edge_agent.core.records import ModelFacts
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Profile
from edge_agent.store.store import Store

if TYPE_CHECKING:  # heavy: llama.cpp is loaded only when a model is needed
    from edge_agent.engine.local_model import LocalModel


class OnDevice:
    """A model that is opened with the first question that needs it, and stays open. Raises `ModelMissing` or `ModelRefused`."""

    def __init__(self, store: Store, files: ModelFiles, open_model: Callable[[ModelFiles, ModelFacts], LocalModel]) -> None:
        self._store, self._files, self._open_model = store, files, open_model
        self._model: LocalModel | None = None
        self._opening = threading.Lock()
        self._identify()

    @property
    def is_open(self) -> bool:
        """Whether the model is open."""
        return self._model is not None

    @property
    def n_waiting(self) -> int:
        """How many callers wait for their turn at the model."""
        return self._model.n_waiting if self._model else 0

    def opened(self) -> LocalModel:
        """The model, opened if it is not. That may be hours after the agent was made, so the file is identified again."""
        with self._opening:
            if self._model is None:
                self._identify()
                self._model = self._open_model(self._files, self.facts)
            return self._model

    def close(self) -> None:
        """Answer all waiting callers, then free the memory."""
        if self._model:
            self._model.close()
            self._model = None

    def _identify(self) -> None:
        self.facts = assembly.identify(self._store, self._files)
        self.profile = Profile.from_json(self.facts.profile)
