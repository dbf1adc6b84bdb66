"""Which file of a repository a person means, whether it can run here, and what to do where no file is published.

Owns the words that `--file` may be, and the check of the architecture. Fetches nothing. Invariant: one file is chosen, or the
person is told what there is.
"""

from __future__ import annotations

import re

from edge_agent.core.errors import ModelMissing, ModelRefused
from edge_agent.fetch import bundle
from edge_agent.fetch.hub import HubFile, Repo
from edge_agent.model.catalog import Entry
from edge_agent.model.gguf import Header, read_start
from edge_agent.model.profile import ARCHITECTURES
from edge_agent.model.pulled import INSIDE

MODEL_SUFFIX = ".gguf"
SUFFIXES = (MODEL_SUFFIX, bundle.SUFFIX)

_QUANTIZATION = re.compile(r"(ud-)?(i?q|t?q|f|bf|mxfp)\d[\w]*")
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf")


class MustBeMade(ModelMissing):
    """Only safetensors are published under this name; `commands` create the file, once, on any computer with a checkout.

    `unasked` says why the Hub could not be asked whether it has a file by now.
    """

    def __init__(self, name: str, repo: str, commands: tuple[str, ...], unasked: str = "") -> None:
        self.commands = commands
        known = f"'{name}' is published only as safetensors ({repo})"
        if unasked:
            known = f"'{name}' was published only as safetensors ({repo}), and the Hub could not be asked again ({unasked.rstrip('.')})"
        super().__init__(
            f"{known}; create its file once, in a checkout of edge-agent on any computer, with the commands on stdout, "
            "then pull the bundle on every device."
        )


def commands(entry: Entry) -> tuple[str, ...]:
    """The commands that create the file of a model which is published as safetensors."""
    kind = "" if entry.answer_kind == "letter" else f" --answer-kind {entry.answer_kind}"
    made = f"{entry.file_name}-{entry.quantization}"
    return (
        f"python -m convert {entry.repo} --quants {entry.quantization} --name {entry.file_name}{kind} --out .",
        f"edge-agent bundle {made}.gguf --out {made}.bundle",
    )


def choose(repo: Repo, file: str | None, entry: Entry | None, endpoint: str) -> HubFile:
    """The one file that `file` and `entry` mean.

    Raises `ModelMissing` if there is none, or several; `MustBeMade`; `ModelRefused` for what cannot run here.
    """
    models = [one for one in repo.files if one.path.endswith(SUFFIXES)]
    if not models and any(one.path.endswith(".safetensors") for one in repo.files):
        if entry is None and repo.model_type and repo.model_type.removesuffix("_text") not in ARCHITECTURES:
            raise ModelRefused(
                f"'{repo.name}' is a checkpoint of the kind '{repo.model_type}', and edge-agent runs only {_known()}; nothing was fetched."
            )
        made = entry or Entry(repo.name, "", "", "", repo.name, file_name=repo.name.rpartition("/")[2], quantization="Q4_K_M")
        raise MustBeMade(made.name, repo.name, commands(made))
    found = [one for one in models if file is None or means(one.path, file)]
    exact = [one for one in found if file in (one.path, _file_name(one.path))]
    found = exact or found
    if len(found) == 1:
        if part := _PART.search(found[0].path):
            raise ModelRefused(
                f"'{found[0].path}' is one of {int(part[1])} parts of a model, and edge-agent needs it in one file: join them with "
                "llama.cpp's `llama-gguf-split --merge`, then pull that file."
            )
        return found[0]
    names = ", ".join(one.path for one in (found or models)[:20])
    if not models:
        raise ModelMissing(f"'{repo.name}' has no .gguf file and no bundle on the Hub; see {endpoint}/{repo.name}.")
    if not found:
        raise ModelMissing(f"'{repo.name}' has no file '{file}'; it has {names}.")
    foreign = repo.architecture and repo.architecture not in ARCHITECTURES
    hint = f" (The Hub says that they are of the architecture '{repo.architecture}'; edge-agent runs only {_known()}.)" if foreign else ""
    raise ModelMissing(f"'{repo.name}' has several files; choose one with --file, by name or quantization: {names}.{hint}")


def means(path: str, file: str) -> bool:
    """Whether `file` means this path of a repository: the path, the file name, or the quantization, in any case."""
    path, file = path.partition(INSIDE)[0].lower(), file.lower()
    name = _file_name(path)
    stem = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
    if file in (path, name, stem):
        return True
    if not _QUANTIZATION.fullmatch(file):
        return False
    return (
        re.search(rf"(^|[-._]){re.escape(file)}$", _PART.sub("", name).removesuffix(MODEL_SUFFIX) if _PART.search(name) else stem)
        is not None
    )


def check_start(name: str, data: bytes, done: str) -> None:
    """Raises `ModelRefused` if the first bytes of a file say that it cannot run here; `done` says what became of it."""
    header = read_start(bundle.model_start(data))
    if "general.architecture" in header.metadata and not runs(header):
        raise ModelRefused(
            f"'{name}' has the architecture '{header.architecture:.40}', and edge-agent runs only {_known()}; {done}. To keep it "
            "all the same, for another program, give --any-architecture."
        )


def runs(header: Header) -> bool:
    """Whether edge-agent knows how to ask a model of this architecture."""
    return header.architecture in ARCHITECTURES


def _known() -> str:
    return " and ".join([", ".join(ARCHITECTURES[:-1]), ARCHITECTURES[-1]])


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def check_name(name: str, suffix: str) -> None:
    """Raises `ModelRefused` unless the name, which comes from outside, is plain and has the suffix."""
    if not name.endswith(suffix) or not bundle.NAME.fullmatch(name.removesuffix(suffix)):
        what = f"'{name:.160}'" if name else "What this address ends with"
        raise ModelRefused(f"{what} is not a plain name of a .gguf file or a bundle; name it like FogGen-0.6B-Q4_K_M.gguf.")
