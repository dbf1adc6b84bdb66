"""Makes the parts of an agent from settings.

Owns which setting goes into which part. Heavy libraries are loaded only when a part that needs them is made. Invariant: a
wrong setting is refused here, before a database is opened or a model is read.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from edge_agent.cloud.privacy import Rules
from edge_agent.core.config.checks import NONE
from edge_agent.core.config.settings import Settings
from edge_agent.core.errors import BadSetting, ModelError, ModelMissing, StorageError
from edge_agent.core.records import ModelFacts
from edge_agent.model import catalog, tuning
from edge_agent.model.catalog import ModelFiles
from edge_agent.model.profile import Profile
from edge_agent.store.store import Store

if TYPE_CHECKING:
    from edge_agent.cloud.wire.client import CloudModel
    from edge_agent.engine.local_model import LocalModel


def problems(settings: Settings, environment: Mapping[str, str] | None = None) -> list[BadSetting]:
    """What would stop an agent with these settings, although each value has the right form."""
    found = []
    for make in (lambda: rules(settings), lambda: cloud(settings, environment)):
        try:
            make()
        except BadSetting as error:
            found.append(error)
    return found


def cloud(settings: Settings, environment: Mapping[str, str] | None = None) -> CloudModel | None:
    """The cloud, if one is set up; without `environment`, the process's own counts. Raises `BadSetting`."""
    if not settings.cloud_url:
        return None
    from edge_agent.cloud.wire.client import CloudModel
    from edge_agent.cloud.wire.request import MAX_COMPLETION_TOKENS, RAISED_TOKENS, Shape

    wanted = Shape(
        settings.cloud_max_tokens or MAX_COMPLETION_TOKENS,
        temperature=None if settings.cloud_temperature == NONE else float(settings.cloud_temperature),
        raised_tokens=settings.cloud_max_tokens or RAISED_TOKENS,  # who names a limit means it
        extra=settings.cloud_extra_body or {},
    )
    return CloudModel(
        settings.cloud_url, settings.cloud_model, settings.cloud_key, settings.cloud_deadline_s,
        ca_file=settings.cloud_ca_file, proxy=settings.cloud_proxy, wanted=wanted, headers=settings.cloud_extra_headers,
        environment=environment, api=settings.cloud_api,
    )  # fmt: skip


def rules(settings: Settings) -> Rules:
    """What must not leave the device. Raises `BadSetting`."""
    return Rules.of(settings.never_send, settings.redact, settings.redact_built_in)


def opener(settings: Settings, keep_open: bool = True) -> Callable[[ModelFiles, ModelFacts], LocalModel]:
    """Returns a function that opens a model with the fastest options saved for it on this device.

    Without `keep_open`, for one question, the weights are used as the file stores them (no repacking).
    """

    def open_model(files: ModelFiles, facts: ModelFacts) -> LocalModel:
        from edge_agent.engine.spare_cpus import SpareCpus

        spare_cpus = SpareCpus()  # counts from now on: while llama.cpp is imported and the model is opened
        try:
            from edge_agent.engine.llama import Options, build
            from edge_agent.engine.local_model import LocalModel
        except (ImportError, OSError, RuntimeError) as error:
            raise ModelError(f"llama.cpp cannot be loaded ({error}); install llama-cpp-python again.") from error
        tuned = tuning.load(settings.data_folder, facts.sha256, build())
        options = Options(**{field.name: tuned[field.name] for field in fields(Options) if field.name in tuned})
        options = options if keep_open else replace(options, repack=False)
        sha256 = facts.sha256 + facts.adapter_sha256
        return LocalModel(
            files.path, Profile.from_json(facts.profile), options, settings.cache_folder, sha256, files.adapter, spare_cpus=spare_cpus
        )

    return open_model


def identify(store: Store, files: ModelFiles) -> ModelFacts:
    """The facts of a model file, with the profile by which it is read, and of the adapter on it. Raises `ModelMissing`, `ModelRefused`."""
    facts = _identified(store, files.path)
    facts = catalog.ways_for(files).facts(files.path, facts)
    return replace(facts, adapter_sha256=_identified(store, files.adapter).sha256) if files.adapter else facts


def _identified(store: Store, path: pathlib.Path) -> ModelFacts:
    """A file's facts, remembered by path, size, time and inode, because a Pi takes seconds to hash a file."""
    try:
        with contextlib.suppress(StorageError, ValueError, TypeError, KeyError, AttributeError):  # no facts, or damaged ones
            facts = store.model_facts(path)
            if facts and (not facts.profile or Profile.from_json(facts.profile)):
                return facts
        facts = catalog.identify(path)
        with contextlib.suppress(StorageError):  # a full disk costs the next start a hash, not this one its answer
            with store.transaction():
                store.put_model_facts(path, facts)
    except OSError as error:
        raise ModelMissing(f"The model file '{path}' cannot be read ({error.strerror}); check the path.") from error
    return facts
