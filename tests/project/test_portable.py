"""The parts of `make wheelhouse ARCH=...` that need no compiler: what is downloaded, and what the wheel of llama.cpp holds."""

import hashlib
import pathlib
import re
import zipfile
from base64 import urlsafe_b64encode

import llama_cpp
import pytest
from packaging.utils import parse_wheel_filename

from requirements import for_device, portable
from tests.support.paths import ROOT

DEVICE = (ROOT / "requirements" / "device.txt").read_text()
LIBRARIES = sorted(pathlib.Path(llama_cpp.__file__).with_name("lib").glob("lib*.so"))


def pins(locked: str) -> set[str]:
    return set(re.findall(r"^[\w.-]+==\S+(?: ; [^\\]+)?", locked, re.MULTILINE))


def test_device_has_the_tested_versions_and_nothing_heavy() -> None:
    assert pins(DEVICE) <= pins((ROOT / "requirements" / "runtime.txt").read_text())
    assert not re.search(r"^(scipy|matplotlib|pillow|gguf|torch)==", DEVICE, re.MULTILINE)


@pytest.mark.parametrize(("python", "numpy"), [("3.11", "2.4.6"), ("3.13", "2.5.5")])
def test_markers_are_those_of_the_device(python: str, numpy: str) -> None:
    assert f"numpy=={numpy}" in DEVICE
    lines = for_device.for_device(DEVICE, "aarch64", python).splitlines()
    (chosen,) = [line for line in lines if line.startswith("numpy==")]
    assert chosen.startswith(f"numpy=={numpy} --hash=sha256:") and ";" not in chosen
    names = [line.split("==")[0] for line in lines]
    assert "hf-xet" in names and "colorama" not in names and "llama-cpp-python" not in names
    assert all("--hash=sha256:" in line for line in lines)


def test_other_variants_are_not_compiled(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "CMakeLists.txt"
    path.write_text(
        "if (ARM)\n    ggml_add_cpu_backend_variant(armv8.0_1)\n    ggml_add_cpu_backend_variant(armv9.2_1    DOTPROD SME)\nendif()\n"
    )
    portable.keep_variants(path, portable.VARIANTS["aarch64"])
    assert path.read_text() == "if (ARM)\n    ggml_add_cpu_backend_variant(armv8.0_1)\nendif()\n"
    changed = path.stat().st_mtime_ns
    portable.keep_variants(path, portable.VARIANTS["aarch64"])
    assert path.stat().st_mtime_ns == changed


def test_wheel_names_the_oldest_glibc_and_lists_its_files(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "llama_cpp_python-1.2.3"
    (source / "llama_cpp" / "lib").mkdir(parents=True)
    for name in ("llama_cpp/__init__.py", "llama_cpp/py.typed", "llama_cpp/lib/old.so", "PKG-INFO", "LICENSE.md"):
        (source / name).write_text(name)
    wheel = portable.write_wheel("x86_64", source, LIBRARIES, tmp_path)
    _, version, _, (tag,) = parse_wheel_filename(wheel.name)
    assert (str(version), tag.interpreter, tag.abi) == ("1.2.3", "py3", "none")
    major, minor = map(int, re.fullmatch(r"manylinux_(\d+)_(\d+)_x86_64", tag.platform).groups())  # type: ignore[union-attr]
    assert (major, minor) >= (2, 17) and not any(f"GLIBC_{major}.{minor + 1}\0".encode() in path.read_bytes() for path in LIBRARIES)
    with zipfile.ZipFile(wheel) as archive:
        rows = [row.split(",") for row in archive.read("llama_cpp_python-1.2.3.dist-info/RECORD").decode().splitlines()]
        assert [name for name, *_ in rows] == archive.namelist()
        for name, digest, size in rows[:-1]:
            data = archive.read(name)
            assert (digest, int(size)) == ("sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode(), len(data))
        assert "llama_cpp/lib/libllama.so" in archive.namelist() and "llama_cpp/lib/old.so" not in archive.namelist()
    again = wheel.read_bytes()
    assert portable.write_wheel("x86_64", source, LIBRARIES, tmp_path).read_bytes() == again
