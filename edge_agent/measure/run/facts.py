"""What a run is of: the model, the questions, the cloud and the options.

Owns the comparison of two runs. Opens no file and no model. Invariant: rows of two runs may be put together only where
`RunFacts.differing` finds nothing.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from edge_agent import __version__
from edge_agent.core.records import ModelFacts
from edge_agent.measure.results import CloudSource
from edge_agent.measure.run.answered import RunOptions
from edge_agent.model.profile import Profile


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The facts of a run.

    `data_sha256` is that of the questions asked, with their gold answers, whatever file they came in; `notes` are what the loader had to
    say about them. `size_bytes` is the size of the model's files. `cloud_identity` tells clouds of one name apart: an endpoint, or the
    sha256 of a recorded file.
    """

    model: ModelFacts
    data: str
    form: str
    data_sha256: str
    n_questions: int
    cloud: CloudSource
    options: RunOptions
    notes: tuple[str, ...] = ()
    size_bytes: int = 0
    cloud_identity: str = ""
    edge_agent: str = __version__
    llama_cpp: str = ""
    machine: str = ""

    @property
    def profile(self) -> Profile:
        """The profile of the model."""
        return Profile.from_json(self.model.profile)

    @property
    def profile_sha256(self) -> str:
        """The hash of what the profile makes the model read."""
        return self.profile.sha256

    def differing(self, other: RunFacts) -> str:
        """What makes these two runs different ones, for a person; "" if nothing does.

        Prices and the machine do not: the rows stay right.
        """
        pairs = {
            "the model": (self.model.sha256[:12], other.model.sha256[:12]),
            "the adapter": (self.model.adapter_sha256[:12] or "none", other.model.adapter_sha256[:12] or "none"),
            "the profile": (self.profile_sha256[:12], other.profile_sha256[:12]),
            "the questions": (f"{self.n_questions}, {self.data_sha256[:12]}", f"{other.n_questions}, {other.data_sha256[:12]}"),
            "the cloud": (self._cloud, other._cloud),
            "the options": (repr(self.options), repr(other.options)),
        }
        return "; ".join(f"{name}: {mine} there, {theirs} now" for name, (mine, theirs) in pairs.items() if mine != theirs)

    @property
    def _cloud(self) -> str:
        about = [part for part in (self.cloud.name, self.cloud_identity[:80]) if part and part not in self.cloud.words]
        return self.cloud.words + (f" ({', '.join(about)})" if about else "")


def this_machine() -> str:
    """The machine in a few words: its processor family and its system."""
    return f"{platform.machine()}, {platform.system()} {platform.release()}"
