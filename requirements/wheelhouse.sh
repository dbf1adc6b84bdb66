#!/bin/sh
# Builds the wheels of edge-agent and all its libraries into a folder, for machines with this processor and this Python.
# Usage: wheelhouse.sh PYTHON FOLDER. PYTHON must have requirements/build.txt installed. Run it with `make wheelhouse`.
set -eu
python=$1 folder=$2
cd "$(dirname "$0")/.."
rm -rf "$folder"
mkdir -p "$folder"
export CMAKE_ARGS="${CMAKE_ARGS:-$(cat requirements/llama.cpp-flags.txt)}"
PATH="$(dirname "$python"):$PATH" "$python" -m pip --disable-pip-version-check --quiet wheel \
    --require-hashes --no-build-isolation --wheel-dir "$folder" -r requirements/runtime.txt
"$python" -m hatchling build -t wheel -d "$folder" >/dev/null
"$python" - "$folder" <<'END'
import pathlib, platform, sys

from edge_agent.engine.llama import cpu_features

pathlib.Path(sys.argv[1], "INSTALL.txt").write_text(f"""\
edge-agent and all its libraries, compiled for {platform.system()} {platform.machine()} with Python {sys.version_info[0]}.{sys.version_info[1]}.
llama.cpp was built with {', '.join(cpu_features())}:
on a processor without one of these extensions it stops with "illegal instruction".
On each machine, without a network:

    python{sys.version_info[0]}.{sys.version_info[1]} -m venv .venv
    .venv/bin/python -m pip install --no-index --find-links {pathlib.Path(sys.argv[1]).name} foggen-edge-agent
    .venv/bin/edge-agent doctor
""")
END
echo "$(ls "$folder" | grep -c whl) wheels in $folder; INSTALL.txt says what machine they need and how to install them."
