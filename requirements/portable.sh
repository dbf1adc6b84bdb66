#!/bin/sh
# Builds everything that a device needs into a folder: for every processor of an architecture, and for several Pythons.
# Usage: portable.sh ARCH PYTHON FOLDER; ARCH is aarch64 or x86_64. PYTHON must have requirements/build.txt installed.
# Run it with `make wheelhouse ARCH=aarch64`. Compiled files stay in build/portable-ARCH, so that the next run is short.
set -eu
arch=$1 python=$2 folder=$3
pythons='3.11 3.13' # Raspberry Pi OS Bookworm and Trixie
cd "$(dirname "$0")/.."
for program in "$arch-linux-gnu-gcc" "$arch-linux-gnu-g++"; do
    command -v "$program" >/dev/null && continue
    echo "'$program' is missing; on Debian or Ubuntu: apt-get install g++-$(echo "$arch" | tr _ -)-linux-gnu" >&2
    exit 69
done
PATH="$(dirname "$python"):$PATH"
export PATH
pip() { "$python" -m pip --disable-pip-version-check --quiet "$@"; }
build=build/portable-$arch
rm -rf "$folder"
mkdir -p "$folder" "$build/source"

echo "  1/3 llama.cpp, compiled for every $arch processor"
sed -n '/^llama-cpp-python==/,/# via/p' requirements/runtime.txt >"$build/llama-cpp-python.txt"
pip download --require-hashes --no-deps --no-binary :all: --no-build-isolation -r "$build/llama-cpp-python.txt" -d "$build/source"
"$python" requirements/portable.py "$arch" "$(ls -t "$build"/source/*.tar.gz | head -n 1)" "$build" "$folder" >/dev/null

echo "  2/3 the other libraries, for Python $pythons"
for version in $pythons; do
    "$python" requirements/for_device.py requirements/device.txt "$arch" "$version" >"$build/python$version.txt"
    pip download --require-hashes --no-deps --only-binary :all: --implementation cp --python-version "$version" \
        --platform "manylinux_2_34_$arch" --platform "manylinux_2_28_$arch" --platform "manylinux2014_$arch" \
        -r "$build/python$version.txt" -d "$folder"
done

echo '  3/3 edge-agent'
"$python" -m hatchling build -t wheel -d "$folder" >/dev/null
glibc=$(ls "$folder"/llama_cpp_python-* | sed 's/.*manylinux_\([0-9]*\)_\([0-9]*\)_.*/\1.\2/')
cat >"$folder/INSTALL.txt" <<END
edge-agent and all its libraries, for Linux on every $arch processor, with Python $(echo "$pythons" | sed 's/ / or /').
The system needs glibc $glibc or later (Raspberry Pi OS Bookworm, Debian 12, Ubuntu 22.04) and the package python3-venv.
On each device, without a network and without a compiler:

    python3 -m venv .venv
    .venv/bin/python -m pip install --no-index --find-links $(basename "$folder") 'foggen-edge-agent[serve]'
    .venv/bin/edge-agent doctor

doctor says which variant of llama.cpp this processor uses.
END
echo "$(ls "$folder" | grep -c whl) wheels in $folder ($(du -sm "$folder" | cut -f1) MB); INSTALL.txt says how to install them."
