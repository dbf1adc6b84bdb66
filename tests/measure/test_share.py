"""`edge-agent bench --share`: what a person with a board sends in, and what must never be in it."""

import getpass
import json
import pathlib
import platform
import re
import shutil
from typing import Any

import pytest

from edge_agent.measure.bench import machine, runs, share
from edge_agent.measure.bench.sample import Sample
from edge_agent.model.catalog import ModelFiles
from tests.support.command_line import run
from tests.support.paths import DEMO

PI_5 = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

"""
SERIAL = "10000000abcdef12"
KEYS = {
    "schema", "edge_agent", "llama_cpp_python", "variant", "board", "processor", "architecture", "max_mhz", "n_cpus", "n_threads",
    "memory_mb", "governor", "throttled", "system", "kernel", "files",
}  # fmt: skip
FILE_KEYS = {
    "model", "architecture", "quantization", "sha256", "adapter_sha256", "size_mb", "prefill_per_s", "decode_per_s", "decision_p50_ms",
    "decision_p95_ms", "busy_p50_ms", "n_decisions", "n_tokens", "n_forward", "load_ms", "cold_ms", "restored_ms", "anonymous_mb",
    "mapped_mb",
}  # fmt: skip


@pytest.fixture
def pi(tmp_path: pathlib.Path) -> pathlib.Path:
    """The files of a Raspberry Pi 5, with everything in them that names this one board and its owner."""
    files = {
        "proc/cpuinfo": PI_5 * 4 + f"Revision\t: d04170\nSerial\t\t: {SERIAL}\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/device-tree/serial-number": f"{SERIAL}\0",
        "proc/sys/kernel/osrelease": "6.12.25+rpt-rpi-2712-aidana\n",
        "proc/sys/kernel/hostname": "aidanas-pi\n",
        "etc/os-release": 'PRETTY_NAME="Kiosk of Aidana"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\nHOME_URL="https://aidana.example/"\n',
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
    }
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "root"


def shared(model: pathlib.Path, root: pathlib.Path) -> dict[str, Any]:
    sample = Sample(
        load_ms=10, cold_ms=200, decision_ms=[10.0, 12.0, 14.0], bare_ms=[10.0] * 3, decisions=["1.0 A"] * 3, n_forward=[2] * 3,
        n_tokens=[50] * 3, prefill_per_s=1000.0, decode_per_s=100.0, n_parameters=4_000_000,
    )  # fmt: skip
    files = [ModelFiles(model)]
    results = runs.results([runs.BenchRun(1, 1, files[0], sample)], files, 1)
    about = machine.Machine("Raspberry Pi 5", "aarch64", 4, 8_000_000_000, "ondemand", None, "armv8.2_2")
    return share.to_dict(results, files, about, 4, root)


def test_a_board_is_described_without_what_names_it_or_its_owner(pi: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = tmp_path / "aidana" / "aidanas secret-Q8_0.gguf"
    model.parent.mkdir()
    shutil.copy(DEMO, model)
    found = shared(model, pi)
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0" and found["processor"] == "4 x Cortex-A76" and found["max_mhz"] == 2400
    assert (found["system"], found["kernel"], found["variant"], found["memory_mb"]) == ("debian 12", "6.12.25", "armv8.2_2", 8000)
    assert found["throttled"] == "0x50000"  # the same words as in doctor
    (file,) = found["files"]
    assert (file["model"], file["quantization"], file["decision_p50_ms"], file["prefill_per_s"]) == ("FogGen-demo", "Q8_0", 12, 1000)
    assert re.fullmatch("[0-9a-f]{64}", file["sha256"]) and file["adapter_sha256"] is None
    text = json.dumps(found)
    for secret in ("aidana", "secret", SERIAL, "d04170", "example", "kiosk", str(tmp_path)):
        assert secret.lower() not in text.lower(), secret


def test_every_key_is_known_here_so_that_a_new_one_is_weighed_first(pi: pathlib.Path) -> None:
    found = shared(DEMO, pi)
    assert set(found) == KEYS and set(found["files"][0]) == FILE_KEYS and found["schema"] == 1


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["0xd05"] * 4 + ["0xd0b"] * 4, "4 x Cortex-A55, 4 x Cortex-A76"),  # RK3588
        (["0xd08"] * 4, "4 x Cortex-A72"),
        (["0xfff"], "1 x part 0xfff"),
        (["nonsense"], None),
        ([], None),
    ],
)
def test_cores_are_named_and_counted(tmp_path: pathlib.Path, parts: list[str], expected: str | None) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("".join(PI_5.replace("0xd0b", part) for part in parts))
    assert share.processor(tmp_path) == expected


def test_what_is_missing_or_makes_no_sense_is_null(tmp_path: pathlib.Path) -> None:
    found = shared(DEMO, tmp_path)
    assert [found[key] for key in ("board", "processor", "max_mhz", "throttled", "system", "kernel")] == [None] * 6
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text('ID="Aidana\'s own"\nVERSION_ID=12\nnonsense\n')
    assert share.system(tmp_path) == "12"


def test_a_real_run_prints_one_small_object_and_nothing_personal(tmp_path: pathlib.Path) -> None:
    model = tmp_path / "private-folder" / "private-file.gguf"
    model.parent.mkdir()
    shutil.copy(DEMO, model)
    done = run("bench", str(model), "--share", "--repeats", "1", "--threads", "1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (file,) = found["files"]
    assert set(found) == KEYS and found["n_threads"] == 1 and file["decision_p95_ms"] >= file["decision_p50_ms"] > 0
    assert len(done.stdout) < 2000  # it is pasted by hand
    assert "private" not in done.stdout and not re.search(r"/(home|root|tmp|usr)\b", done.stdout)
    words = set(re.findall(r"[a-z0-9_.-]+", done.stdout.lower()))
    assert platform.node().lower() not in words and getpass.getuser().lower() not in words


@pytest.mark.parametrize("option", [["--json"], ["--tune"], ["--limit", "3"], ["--questions", "q.jsonl"]])
def test_options_that_would_make_figures_incomparable_are_refused(option: list[str]) -> None:
    done = run("bench", str(DEMO), "--share", *option)
    assert done.returncode == 2 and "--share" in done.stderr and not done.stdout
