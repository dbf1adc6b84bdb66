"""Checks an installation and says how to fix what is wrong.

Owns the checks. Asks no question, except that the cloud gets a test question where the caller wants that. Invariant: a check
changes nothing, except that it creates a missing database, counts a call to the cloud and remembers how it ended, and shows no
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
from functools import cache, partial
from typing import TYPE_CHECKING

from edge_agent import __version__
from edge_agent.agent import assembly, doctor_device
from edge_agent.agent.doctor_device import Finding
from edge_agent.agent.rules_in_force import Calibrations, none_applies, without_calibration
from edge_agent.core.config import network
from edge_agent.core.config.checks import FOREVER, NONE
from edge_agent.core.config.settings import Settings
from edge_agent.core.errors import BadData, BadSetting, CloudUnavailable, EdgeAgentError, ModelError, StorageError
from edge_agent.core.outcome import CloudKind
from edge_agent.core.records import ModelFacts
from edge_agent.core.times import local
from edge_agent.model import catalog, gguf
from edge_agent.model.profile import TAU_IS_USELESS, Profile, described
from edge_agent.store.device_time import read_moment
from edge_agent.store.disk import free_bytes

if TYPE_CHECKING:
    from edge_agent.cloud.gate import Gate
    from edge_agent.store.store import Store


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; `exit_code` 0 means that it works. `warnings` are what may harm it one day, each a sentence."""

    name: str
    exit_code: int
    detail: str
    warnings: tuple[str, ...] = ()


def examine(
    settings: Settings,
    wrong: Sequence[BadSetting] = (),
    free_bytes: Callable[[pathlib.Path], int] = free_bytes,
    call_cloud: bool = False,
    root: pathlib.Path = doctor_device.ROOT,
) -> list[Check]:
    """All checks, in the best order to look for a problem.

    `wrong` are the settings that could not be used; `free_bytes` says how much of a folder's disk is free. With `call_cloud`, the
    cloud is asked a test question: one call, or up to three to find out which API it offers, which the budget counts and the cloud
    may bill. `root` holds the files of the system that tell of the device.
    """
    facts = cache(partial(_facts, settings))  # hashing a model takes seconds on a Pi
    checks: dict[str, Callable[[Settings], str | Finding]] = {
        "version": _version, "settings": partial(_settings, wrong), "build": partial(_build, root), "model": partial(_model, facts),
        "calibration": partial(_calibration, facts), "database": _database,
        "disk": lambda settings: _disk(settings, free_bytes(settings.data_folder)),
        "storage": lambda settings: doctor_device.storage(pathlib.Path(os.path.realpath(settings.data_folder)), root),
        "clock": lambda settings: doctor_device.clock(read_moment().trusted, pathlib.Path(__file__).stat().st_mtime, root=root),
        "power": lambda settings: doctor_device.power(root), "processor": lambda settings: doctor_device.processor(root),
    }  # fmt: skip
    if settings.audit_share:
        checks["audits"] = _audits
    checks["cloud"] = partial(_cloud, call_cloud)
    return [_check(name, check, settings) for name, check in checks.items()]


def _check(name: str, check: Callable[[Settings], str | Finding], settings: Settings) -> Check:
    try:
        found = check(settings)
        return Check(name, 0, found.text, found.warnings) if isinstance(found, Finding) else Check(name, 0, found)
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
    tau = "not given" if settings.tau is None else settings.tau
    found = "" if settings.config_file.exists() else " (no such file)"
    kept = settings.kept_days if settings.kept_days == FOREVER else f"{float(settings.kept_days):g} days"
    return f"policy {settings.policy}, tau {tau}, questions kept {kept}, config {settings.config_file}{found}"


def _build(root: pathlib.Path, _: Settings) -> Finding:
    from edge_agent.engine import llama

    features = llama.cpu_features()
    try:
        cpuinfo = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        cpuinfo = ""
    text = f"llama.cpp with {', '.join(features) or 'no CPU extensions'}"
    if variant := llama.variant():
        text = f"variant {variant} of {text}"
    if not (unused := unused_features(cpuinfo, features, platform.machine())):
        return Finding(text)
    return Finding(text, (
        f"It is a slow {'variant' if variant else 'build'}, which does not use this processor's {', '.join(unused)}; compile it here: "
        "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python",
    ))  # fmt: skip


# Feature in /proc/cpuinfo (Linux) -> llama.cpp's name for kernels that use it; only those that change the speed.
_FEATURES = {
    "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "avx512f": "AVX512", "avx512_vnni": "AVX512_VNNI", "avx512_bf16": "AVX512_BF16",
    "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "asimdhp": "FP16_VA",
}  # fmt: skip


def unused_features(cpuinfo: str, features: Sequence[str], architecture: str) -> list[str]:
    """The extensions that /proc/cpuinfo names for this `platform.machine()` and the build does not use."""
    key = "Features" if architecture == "aarch64" else "flags"  # an emulator shows the file of the machine that it runs on
    words = {word for line in cpuinfo.splitlines() if line.startswith(key) for word in line.split()}
    return [name for flag, name in _FEATURES.items() if flag in words and name not in features]


def _facts(settings: Settings) -> ModelFacts:
    """The facts of the model and its adapter, hashed anew."""
    return catalog.identified(catalog.files_of(settings))


def _model(known: Callable[[], ModelFacts], settings: Settings) -> str:
    path, facts = catalog.resolve(settings.model, settings.models_folder), known()
    header = gguf.read_header(path)
    text = f"{facts.name} ({facts.architecture}, {facts.quantization}, {path.stat().st_size / 1e6:.1f} MB), sha256 {facts.sha256[:12]}"
    if settings.adapter:
        adapter = catalog.resolve_adapter(settings.adapter, settings.models_folder)
        gguf.read_adapter(adapter, header, catalog.adapters_in(path, header.metadata))
        text += f", with {adapter.name} ({adapter.stat().st_size / 1e6:.1f} MB), sha256 {facts.adapter_sha256[:12]}"
    return f"{text}; {described(Profile.from_json(facts.profile), header.metadata)}"


_TAU_COUNTS = "none, because a tau is given: {:g}; it compares with the printed confidence"


def _is_plain(known: Callable[[], ModelFacts]) -> bool:
    """Whether the model can be used and is a plain one."""
    try:
        return Profile.from_json(known().profile).is_plain
    except ModelError:
        return False


def _calibration(known: Callable[[], ModelFacts], settings: Settings) -> str:
    """Which calibration applies, or why none does. Raises `BadData` for files that cannot be used."""
    if settings.tau is not None:
        useless = _is_plain(known) and settings.policy == "prefer_local"
        return TAU_IS_USELESS.format(settings.tau) if useless else _TAU_COUNTS.format(settings.tau)
    try:
        facts = known()
    except ModelError:
        return "none, because the model cannot be used"
    profile = Profile.from_json(facts.profile)
    applied = Calibrations(settings.calibrations_folder, settings.calibration).of(facts, profile)
    if applied is None:
        return f"none; {without_calibration(profile)} (`edge-agent calibrate` makes one)"
    if settings.calibration == NONE:
        return f"none, as set (calibration {NONE}); {without_calibration(profile)}"
    text = applied.calibration.in_words() if applied.calibration else none_applies(applied, profile)
    if applied.problems:
        raise BadData(" ".join((*applied.problems, text)))
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


def _audits(settings: Settings) -> str:
    """How often the cloud agrees with the answers that are kept here. A fall of that is worth a look, and no fault."""
    from edge_agent.cloud.audits import Audits
    from edge_agent.store import live
    from edge_agent.store.store import Store

    if not settings.cloud_url or settings.policy == "only_local":
        return (
            f"none: audit_share is {settings.audit_share:g}, but {'no cloud is set up' if not settings.cloud_url else 'only_local holds'}"
        )
    with Store(settings.database) as store:
        found, n_waiting = live.newest(store), Audits(store).n_waiting()
    said = found.sentence if found else "no results yet"
    return f"{settings.audit_share:.3g} of the kept answers are compared with the cloud's, {n_waiting} wait; {said}"


# What a person can do about a test question that was not answered.
_ADVICE = {
    CloudKind.OFFLINE: "Check the network, the host in cloud_url, and cloud_proxy",
    CloudKind.DEVICE: "Correct that on this device",
    CloudKind.TLS: "Check the clock of this device, whether the network wants a login, and cloud_ca_file",
    CloudKind.TIMEOUT: "Try again; if the cloud is only slow, raise cloud_deadline_s",
    CloudKind.PORTAL: "If this network has a login page, open it in a browser; if not, correct cloud_url (it often ends in /v1)",
    CloudKind.REFUSED: "Check the key (EDGE_AGENT_CLOUD_KEY or cloud_key_file) and what it is allowed to do",
    CloudKind.MISCONFIGURED: "Check cloud_url (it often ends in /v1) and cloud_model",
    CloudKind.LIMITED: "Wait, or ask for a higher limit there",
    CloudKind.NO_CREDIT: "Add credit there",
    CloudKind.FAILED: "Try again later",
}

# The same where the outcome itself ends in "; check" and a setting.
_ADVICE_ON = {
    "cloud_url": "Check cloud_url (it often ends in /v1)",
    "cloud_model": "Check cloud_model",
    "cloud_api": "Correct cloud_api, or remove it",
    "cloud_proxy": "Check cloud_proxy, with the user and the password in it",
}


def _cloud(call: bool, settings: Settings) -> str:
    """Where the cloud is and how it did; with `call`, whether it answers now. Raises `CloudUnavailable` if it does not."""
    if not settings.cloud_url:
        return "none set up; unsure answers stay provisional (set EDGE_AGENT_CLOUD_URL, or choose --policy only_local)"
    cloud = assembly.cloud(settings)
    assert cloud is not None
    from edge_agent.cloud.gate import Gate
    from edge_agent.store.store import Store

    text = f"{cloud.endpoint}, model {settings.cloud_model}, {'with' if settings.cloud_key else 'without'} a key"
    with Store(settings.database) as store:
        gate = Gate(store, cloud, settings.limits.budget)
        found = _tested(gate) if call else _remembered(gate, store)
    unused = [name for name in network.PROXIES if network.variable(os.environ, name)]
    if unused and not settings.cloud_proxy:
        found += f"; {' and '.join(unused)} set, but not used for the cloud: only cloud_proxy counts"
    return f"{text}; {found}"


def _tested(gate: Gate) -> str:
    """How the cloud answers a test question."""
    outcome = gate.test(find_api=True)
    if outcome is None:
        raise CloudUnavailable("The budget for the cloud is used up for now, so it was not called; see budget_... in config.toml.")
    if outcome.kind is CloudKind.PROVISIONAL:
        return f"answers a test question, but {outcome.error}"
    if outcome.answer is None:
        key = "" if gate.cloud.key else " No key is set up." if outcome.kind is CloudKind.REFUSED else ""
        what, _, setting = (outcome.error or "").rpartition("; check ")
        said, advice = (
            (what, _ADVICE_ON[setting]) if setting in _ADVICE_ON else (outcome.error, _ADVICE.get(outcome.kind, "Try again later"))
        )
        raise CloudUnavailable(f"{gate.cloud.endpoint}: {said}. {advice}.{key}")
    api = outcome.answer.api
    by = "chat, without probabilities" if api == "chat" else f"{api}, with a probability for each option"
    return f"answers a test question in {outcome.answer.latency_ms:.0f} ms by {by}"


def _remembered(gate: Gate, store: Store) -> str:
    """What is known about the cloud without a call."""
    wait_s, answered_at, failed = gate.breaker.wait_s(), store.last_cloud_answer_at(gate.cloud.endpoint), gate.breaker.last_error
    return "; ".join((
        f"paused for {max(1, round(wait_s / 60))} more minutes" if wait_s else "not paused",
        f"last answer {local(answered_at)}" if answered_at else "no answer yet",
        f"last error {local(failed[0])}: {failed[1]}" if failed else "no error yet",
        "not called now (--cloud does)",
    ))  # fmt: skip
