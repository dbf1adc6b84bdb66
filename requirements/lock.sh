#!/bin/sh
# Rewrites requirements/*.txt with the given uv: for all platforms, with hashes, without addresses. Run it with `make lock`.
set -eu
uv=$1
cd "$(dirname "$0")/.."
UV_CUSTOM_COMPILE_COMMAND="make lock"
export UV_CUSTOM_COMPILE_COMMAND
lock() { "$uv" pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 "$@"; }
without_torch=$(mktemp)
trap 'rm -f "$without_torch"' EXIT
echo 'torch ; python_version < "0"' >"$without_torch"
lock requirements/build.in -o requirements/build.txt
lock pyproject.toml --extra convert --extra serve --extra calibrate --extra report -o requirements/runtime.txt
lock pyproject.toml --extra serve -c requirements/runtime.txt -o requirements/device.txt
lock requirements/dev.in -o requirements/dev.txt
lock requirements/browser.in -o requirements/browser.txt
lock requirements/peers.in --override "$without_torch" -o requirements/peers.txt
