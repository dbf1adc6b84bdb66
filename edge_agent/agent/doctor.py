"""Checks an installation and says how to fix what is wrong.

Owns the checks; asks no question. Invariant: a check changes nothing, except that it creates a missing database, and shows no
secret: for the key it says only whether there is one.
"""

from __future__ import annotations

import os
import pathlib
import platform
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edge_agent import __version__
from edge_agent.agent import assembly
from edge_agent.core import network
from edge_agent.core.checks import FOREVER
from edge_agent.core.errors import BadSetting, EdgeAgentError, StorageError
from edge_agent.core.settings import Settings
from edge_agent.model import catalog, gguf
from edge_agent.store.disk import free_bytes


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `exit_code` 0 means fine."""

    name: str
    exit_code: int
    detail: str


def examine(settings: Settings, wrong: Sequence[BadSetting] = (), free_bytes: Callable[[pathlib.Path], int] = free_bytes) -> list[Check]:
    """All checks, in the best order to look for a problem.

    `wrong` are the settings that could not be used; `free_bytes` says how much of a folder's disk is free.
    """
    checks: dict[str, Callable[[Settings], str]] = {
        "version": _version, "settings": partial(_settings, wrong), "build": _build, "model": _model, "database": _database,
        "disk": lambda settings: _disk(settings, free_bytes(settings.data_folder)), "cloud": _cloud,
    }  # fmt: skip
    return [_check(name, check, settings) for name, check in checks.items()]


def _check(name: str, check: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, 0, check(settings))
    except EdgeAgentError as error:
        return Check(name, error.exit_code, str(error))
    except (ImportError, OSError, RuntimeError) as error:  # a library that does not load is a finding, not a bug
        return Check(name, 1, f"{error} (install edge-agent again)")


def _version(_: Settings) -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    return f"edge-agent {__version__}, Python {python}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"


def _settings(wrong: Sequence[BadSetting], settings: Settings) -> str:
    problems = [str(error) for error in wrong]
    try:
        assembly.rules(settings)
    except BadSetting as error:
        problems.append(str(error))
    if problems:
        raise BadSetting(" ".join(problems))
    tau = "the model's" if settings.tau is None else settings.tau
    found = "" if settings.config_file.exists() else " (no such file)"
    kept = settings.keep_days if settings.keep_days == FOREVER else f"{float(settings.keep_days):g} days"
    return f"policy {settings.policy}, tau {tau}, questions kept {kept}, config {settings.config_file}{found}"


def _build(_: Settings) -> str:
    from edge_agent.engine import llama

    features = llama.cpu_features()
    try:
        cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        cpuinfo = ""
    text = f"llama.cpp with {', '.join(features) or 'no CPU extensions'}"
    if unused := unused_features(cpuinfo, features):
        text += (
            f"; a slow build: it does not use this processor's {', '.join(unused)}. Compile it here: "
            "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
        )
    return text


# Feature in /proc/cpuinfo (Linux) -> llama.cpp's name for kernels that use it; only those that change the speed.
_FEATURES = {
    "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "avx512f": "AVX512", "avx512_vnni": "AVX512_VNNI", "avx512_bf16": "AVX512_BF16",
    "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "asimdhp": "FP16_VA",
}  # fmt: skip


def unused_features(cpuinfo: str, features: Sequence[str]) -> list[str]:
    """The extensions that /proc/cpuinfo names and the build does not use."""
    words = {word for line in cpuinfo.splitlines() if line.startswith(("flags", "Features")) for word in line.split()}
    return [name for flag, name in _FEATURES.items() if flag in words and name not in features]


def _model(settings: Settings) -> str:
    path = catalog.resolve(settings.model, settings.models_folder)
    facts = catalog.identify(path)
    text = f"{facts.name} ({facts.architecture}, {facts.quantization}, {path.stat().st_size / 1e6:.1f} MB), sha256 {facts.sha256[:12]}"
    if settings.adapter:
        adapter = catalog.resolve_adapter(settings.adapter, settings.models_folder)
        gguf.read_adapter(adapter, gguf.read_header(path))
        text += f", with {adapter.name} ({adapter.stat().st_size / 1e6:.1f} MB), sha256 {catalog.sha256_of(adapter)[:12]}"
    return text


def _database(settings: Settings) -> str:
    from edge_agent.cloud.queue import Outbox
    from edge_agent.store.store import Store

    with Store(settings.database) as store:
        store.database.check_writable()
        n_decisions = store.count_decisions()
        outbox = Outbox(store)
        n_waiting, n_dead = outbox.count("ready", "sending"), outbox.count("dead")
        journal = store.database.journal_mode
    text = f"{store.path}: {n_decisions} decisions, {n_waiting} waiting, {n_dead} dead; SQLite {sqlite3.sqlite_version}, journal {journal}"
    if aside := sorted(path.name for path in store.path.parent.glob(f"{store.path.name}.damaged-*")):
        text += f"; damaged ones set aside: {', '.join(aside)}"
    return text


def _disk(settings: Settings, free: int) -> str:
    text = f"{free >> 20} MiB free at {settings.data_folder}"
    if free >> 20 < settings.queue_min_free_mib:
        raise StorageError(f"{text}: nothing new is remembered or queued below {settings.queue_min_free_mib} MiB; free some space.")
    if free >> 20 < settings.cache_min_free_mib:
        raise StorageError(f"{text}: only what waits for the cloud is stored below {settings.cache_min_free_mib} MiB; free some space.")
    return text


def _cloud(settings: Settings) -> str:
    if not settings.cloud_url:
        return "none set up; unsure answers stay provisional (set EDGE_AGENT_CLOUD_URL to change that)"
    cloud = assembly.cloud(settings)
    assert cloud is not None
    text = f"{cloud.endpoint}, model {settings.cloud_model}, {'with' if settings.cloud_key else 'without'} a key (not contacted)"
    unused = [name for name in network.PROXIES if network.variable(os.environ, name)]
    if unused and not settings.cloud_proxy:
        text += f"; {' and '.join(unused)} set, but not used for the cloud: only cloud_proxy counts"
    return text
