"""Builds the wheel of llama-cpp-python that runs on every processor of an architecture: `portable.py ARCH SDIST BUILD WHEELS`.

Owns how llama.cpp is compiled with several CPU backends side by side, and what the wheel holds. llama.cpp chooses the best of
them when `edge_agent/engine/llama.py` asks it to. Does not download anything: SDIST is the archive of llama-cpp-python that
requirements/runtime.txt pins. BUILD is kept, so that a second run compiles nothing. Invariant: the wheel's tag is the oldest
glibc that every file in it runs on.
"""

from __future__ import annotations

import base64
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator

# The backends of llama.cpp's own list that are built, from the oldest processors to the newest. Left out are those that no
# board or laptop needs, and those that g++ 12 cannot compile (SME).
VARIANTS = {
    "aarch64": (
        "armv8.0_1",  # Cortex-A53, A72: Raspberry Pi 3, Zero 2 W and 4
        "armv8.2_1",  # with dot products
        "armv8.2_2",  # and arithmetic in 16 bits. Cortex-A76, A78: Raspberry Pi 5, RK3588, Jetson Orin
        "armv8.6_1",  # and SVE and products of 8-bit matrices. Neoverse V1
        "armv8.6_2",  # and SVE2. Cortex-A710, A720 and later
    ),
    "x86_64": ("x64", "sse42", "sandybridge", "haswell", "alderlake", "skylakex", "icelake", "zen4"),
}
COMPILERS = {"aarch64": "aarch64-linux-gnu-", "x86_64": "x86_64-linux-gnu-"}  # what Debian's cross compilers are called
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "LLAMA_BUILD_COMMON": "OFF",
    # A wheel cannot hold links. With versions in the names each library would be there three times, and a library loaded
    # under two of its names is there twice in memory, with a list of backends of its own.
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "CMAKE_SHARED_LINKER_FLAGS": "-s",
    "CMAKE_MODULE_LINKER_FLAGS": "-s",
}


def compile_libraries(arch: str, source: pathlib.Path, build: pathlib.Path) -> list[pathlib.Path]:
    """Compile llama.cpp with all variants of `arch`; the libraries, with that of OpenMP, which a small system may lack."""
    keep_variants(source / "ggml/src/CMakeLists.txt", VARIANTS[arch])
    options = OPTIONS | {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": arch,
        "CMAKE_C_COMPILER": f"{COMPILERS[arch]}gcc",
        "CMAKE_CXX_COMPILER": f"{COMPILERS[arch]}g++",
    }
    run("cmake", "-G", "Ninja", "-S", source, "-B", build, *(f"-D{name}={value}" for name, value in options.items()))
    run("cmake", "--build", build, "--target", "llama")
    openmp = build / "bin/libgomp.so.1"
    shutil.copyfile(run(f"{COMPILERS[arch]}g++", "-print-file-name=libgomp.so.1").strip(), openmp)
    libraries = sorted((build / "bin").glob("lib*.so*"))
    built = {path.stem.removeprefix("libggml-cpu-") for path in libraries if path.name.startswith("libggml-cpu-")}
    if built != set(VARIANTS[arch]):
        sys.exit(f"llama.cpp was built with {sorted(built)}, not with {sorted(VARIANTS[arch])}; empty {build} and try again.")
    return libraries


def keep_variants(cmake_lists: pathlib.Path, variants: Iterable[str]) -> None:
    """Remove the other variants from llama.cpp's list."""
    old = cmake_lists.read_text()
    new = re.sub(r"^ *ggml_add_cpu_backend_variant\(([\w.]+).*\n", lambda line: line[0] * (line[1] in variants), old, flags=re.MULTILINE)
    if new != old:  # a new time of change would compile everything again
        cmake_lists.write_text(new)


def oldest_glibc(libraries: Iterable[pathlib.Path]) -> tuple[int, int]:
    """The oldest glibc that has every symbol that `libraries` need, such as (2, 34)."""
    versions = {version for path in libraries for version in re.findall(rb"\0GLIBC_(\d+)\.(\d+)", path.read_bytes())}
    return max((int(major), int(minor)) for major, minor in versions)


def write_wheel(arch: str, unpacked: pathlib.Path, libraries: list[pathlib.Path], folder: pathlib.Path) -> pathlib.Path:
    """Write the wheel of the unpacked source `llama_cpp_python-VERSION` and the libraries. It serves every Python."""
    name = unpacked.name
    major, minor = oldest_glibc(libraries)
    tag = f"py3-none-manylinux_{major}_{minor}_{arch}"
    info = f"{name}.dist-info"
    files = {
        f"llama_cpp/{path.relative_to(unpacked / 'llama_cpp')}": path
        for path in sorted((unpacked / "llama_cpp").rglob("*"))
        if is_source(path)
    }
    files |= {f"llama_cpp/lib/{path.name}": path for path in libraries}
    files |= {f"{info}/METADATA": unpacked / "PKG-INFO", f"{info}/licenses/LICENSE.md": unpacked / "LICENSE.md"}
    wheel = folder / f"{name}-{tag}.whl"
    record = []
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for target, data in [
            *contents(files),
            (f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: edge-agent\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()),
        ]:
            archive.writestr(zipfile.ZipInfo(target), data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{target},sha256={digest},{len(data)}")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join([*record, f"{info}/RECORD,,", ""]), zipfile.ZIP_DEFLATED)
    return wheel


def is_source(path: pathlib.Path) -> bool:
    """Whether this file of the source's package belongs in a wheel."""
    return path.is_file() and path.suffix in (".py", ".typed") and "lib" not in path.parts


def contents(files: dict[str, pathlib.Path]) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of `files`."""
    for target, path in files.items():
        yield target, path.read_bytes()


def run(*command: str | pathlib.Path) -> str:
    """The output of a command. If it fails, its last lines are printed and we end."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{done.stdout[-4000:]}\n'{' '.join(map(str, command[:4]))} ...' failed (exit code {done.returncode}).")
    return done.stdout


def main(arch: str, sdist: pathlib.Path, build: pathlib.Path, folder: pathlib.Path) -> None:
    """Build the wheel and print its path."""
    build.mkdir(parents=True, exist_ok=True)
    unpacked = build / sdist.name.removesuffix(".tar.gz")
    if not unpacked.exists():
        with tarfile.open(sdist) as archive:
            archive.extractall(build, filter="data")
    libraries = compile_libraries(arch, unpacked / "vendor/llama.cpp", build / "cmake")
    print(write_wheel(arch, unpacked, libraries, folder))


if __name__ == "__main__":
    main(sys.argv[1], *map(pathlib.Path, sys.argv[2:5]))
