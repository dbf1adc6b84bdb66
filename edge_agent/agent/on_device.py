"""The model of an agent: what is known of its file, and the open model itself.

Owns when the model is opened and closed, and what becomes of the version before it. Knows no questions. Invariant: the facts are those
of the file that is open, or will be.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edge_agent.agent import assembly
from edge_agent.core.errors import ModelMissing, ModelRefused
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
        self.has_answered = False  # a question, in the format that it was trained to print
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
                with self._with_way_back():
                    self._model = self._open_model(self._files, self.facts)
            return self._model

    def close(self) -> None:
        """Answer all waiting callers, then free the memory."""
        if self._model:
            self._model.close()
            self._model = None

    def unproven(self) -> str | None:
        """A sentence if the model replaced another one here and has not answered since."""
        if not (self._files.path.parent / "previous").is_dir():
            return None
        from edge_agent.model import previous

        kept = previous.before(self._files.path.parent, self._files.path.name)
        if kept is None or kept.has_answered:
            return None
        path = self._files.path
        return f"The model {path.stem} has replaced another version and has not answered yet. {previous.way_back(path)}"

    def tidy(self, keep_longer: Callable[[], bool]) -> None:
        """If the model has answered, let go of the version before it, some days later or at once; call it when no person waits."""
        if not self.has_answered or not (self._files.path.parent / "previous").is_dir():
            return
        from edge_agent.model import previous

        files = {self._files.path: self.facts.sha256}
        if self._files.adapter:
            files[self._files.adapter] = self.facts.adapter_sha256
        previous.note_answer(files, self._store.clock.now_s(), *(() if keep_longer() else (0.0,)))

    def _identify(self) -> None:
        with self._with_way_back():
            self.facts = assembly.identify(self._store, self._files)
            self.profile = Profile.from_json(self.facts.profile)

    @contextlib.contextmanager
    def _with_way_back(self) -> Iterator[None]:
        """Says with the reason why the model cannot be used that the version before it is here, if it is."""
        try:
            yield
        except (ModelMissing, ModelRefused) as error:
            from edge_agent.model import previous

            hints = (previous.way_back(path) for path in (self._files.path, self._files.adapter) if path)
            if not (hint := next(filter(None, hints), "")):
                raise
            raise type(error)(f"{error} {hint}") from error
