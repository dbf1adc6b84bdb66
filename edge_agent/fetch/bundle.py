"""One file with a model, its calibration and its settings, for a machine without a network.

Owns the format: a plain tar (USTAR, readable with `tar tf`) of `manifest.json`, `model.gguf` and perhaps `adapter.gguf` and
`calibration.json`, in this order and nothing else. The manifest names the model and the adapter and holds sizes, sha256s and
settings; with an adapter it has version 2, which older programs refuse. The same content makes the same bytes. Invariants: no
name inside a bundle is used as a path, so nothing can leave the folder; no key is packed; what is unpacked has the manifest's
hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from edge_agent.core.config.settings import checked
from edge_agent.core.errors import BadData, BadSetting, ModelMissing, ModelRefused
from edge_agent.core.files import not_written, put_in_place, temporary_folder
from edge_agent.model.calibration import Calibration, decoded
from edge_agent.model.calibration import read as read_calibration
from edge_agent.model.catalog import adapters_in, entries, sha256_of
from edge_agent.model.gguf import read_adapter, read_model
from edge_agent.model.profile import Way, from_metadata

SUFFIX = ".bundle"
FORMAT, VERSION, WITH_ADAPTER = "edge-agent bundle", 1, 2
MANIFEST, MODEL, ADAPTER, CALIBRATION = "manifest.json", "model.gguf", "adapter.gguf", "calibration.json"
CLOUD = ("cloud_url", "cloud_model")
WAY = ("profile", "answers", "chat_shape")
SETTINGS = ("tau", "policy", *CLOUD, *WAY)
MAX_MANIFEST_BYTES = 1 << 16
MAX_CALIBRATION_BYTES = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}")

_BLOCK = tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a bundle: where its bytes start, how many there are, and their sha256."""

    at: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest and layout were checked, and whose files were not read yet."""

    path: pathlib.Path
    name: str
    settings: dict[str, Any]
    parts: dict[str, Part]
    adapter: str | None = None


def pack(
    target: pathlib.Path,
    model: pathlib.Path,
    settings: Mapping[str, Any],
    calibration: pathlib.Path | None = None,
    adapter: pathlib.Path | None = None,
) -> Bundle:
    """Write `target` with the model file, `settings` (those of `SETTINGS` that are not None), a calibration and an adapter.

    A calibration must be for exactly this model and adapter. The file gets its name only when it is complete. Raises `ModelMissing`,
    `ModelRefused` or `StorageError`.
    """
    _check_packed(target, model, settings, calibration, adapter)
    sha256, n_bytes = sha256_of(model), model.stat().st_size
    extra = checked_calibration(calibration, model, adapter, way(settings)).to_json().encode() if calibration else None
    files: dict[str, dict[str, Any]] = {MODEL: {"bytes": n_bytes, "sha256": sha256}}
    if adapter:
        files[ADAPTER] = {"bytes": adapter.stat().st_size, "sha256": sha256_of(adapter)}
    if extra is not None:
        files[CALIBRATION] = {"bytes": len(extra), "sha256": hashlib.sha256(extra).hexdigest()}
    kept = {name: settings[name] for name in SETTINGS if settings.get(name) is not None}
    manifest = {"format": FORMAT, "version": WITH_ADAPTER if adapter else VERSION, "name": model.stem, "files": files, "settings": kept}
    if adapter:
        manifest["adapter"] = adapter.stem
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(beside=target) as folder:
            part = folder / target.name
            with part.open("wb") as out:
                _write(out, MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
                for name, path in ((MODEL, model), (ADAPTER, adapter)):
                    if path:
                        _write_file(out, name, path, **files[name])
                if extra is not None:
                    _write(out, CALIBRATION, extra)
                out.write(bytes(2 * _BLOCK))
            put_in_place(part, target)
    except OSError as error:
        raise not_written(target, error) from error
    return read(target)


def _check_packed(
    target: pathlib.Path, model: pathlib.Path, settings: Mapping[str, Any], calibration: pathlib.Path | None, adapter: pathlib.Path | None
) -> None:
    """Raises `ModelMissing` or `ModelRefused` for what cannot be packed together."""
    check_together(model, adapter, way(settings))
    for named in (model, adapter) if adapter else (model,):
        if not NAME.fullmatch(named.stem):
            raise ModelRefused(f"'{named.stem:.160}' is not a plain file name; name it like FogGen-0.6B-Q4_K_M.gguf.")
        check_free(named.stem)
    if adapter and adapter.stem == model.stem:
        raise ModelRefused(f"The model and the adapter are both called '{model.stem}'; give one of them another name.")
    for packed, what in ((model, "model"), (calibration, "calibration"), (adapter, "adapter")):
        if packed and target.exists() and packed.exists() and target.samefile(packed):
            raise ModelRefused(f"'{target}' is the {what} itself; write the bundle to another file.")


def check_together(model: pathlib.Path, adapter: pathlib.Path | None, read_by: Way | None) -> None:
    """Raises `ModelRefused` unless these are a model that edge-agent can ask this way (None: any model) and, perhaps, an adapter for it."""
    header = read_model(model)
    if read_by is not None:
        from_metadata(header.metadata, read_by)
    if adapter:
        read_adapter(adapter, header, adapters_in(model, header.metadata))


def check_free(name: str) -> None:
    """Raises `ModelRefused` for a catalogue name, which always means the model of the catalogue."""
    if name in entries():
        raise ModelRefused(f"'{name}' is a name of `edge-agent models` and always means that model; give the file another name.")


def is_bundle(path: pathlib.Path) -> bool:
    """Whether a file starts like a bundle, whatever its name."""
    try:
        with path.open("rb") as file:
            head = file.read(_BLOCK)
    except OSError:
        return False
    return head[257:262] == b"ustar" and head.startswith(MANIFEST.encode() + b"\0")


def model_start(data: bytes) -> bytes:
    """The first bytes of the model in the first bytes of a bundle; of any other file, `data` itself."""
    if data[257:262] != b"ustar" or not data.startswith(MANIFEST.encode() + b"\0"):
        return data
    try:
        n_bytes = tarfile.TarInfo.frombuf(data[:_BLOCK], "ascii", "strict").size
    except (tarfile.TarError, ValueError):
        return b""
    return data[_after(_BLOCK, n_bytes) + _BLOCK :] if 0 <= n_bytes <= MAX_MANIFEST_BYTES else b""


def read(path: pathlib.Path) -> Bundle:
    """Open a bundle and check its manifest and layout; raises `ModelMissing` or `ModelRefused`."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _read(path, file, size)
    except OSError as error:
        raise ModelMissing(f"The bundle '{path}' cannot be read ({error.strerror}); check the path.") from error


def extract(bundle: Bundle, part: str, target: pathlib.Path) -> None:
    """Write one part of a bundle to `target`; raises `ModelRefused` if it is not what the manifest says, and `OSError`."""
    wanted = bundle.parts[part]
    with bundle.path.open("rb") as source, target.open("wb") as out:
        source.seek(wanted.at)
        if _copy(source, out, wanted.bytes) != wanted.sha256:
            raise _refused(bundle.path, f"is damaged: its {part} is not what the manifest says")


def config_text(name: str, settings: Mapping[str, Any], adapter: str | None = None) -> str:
    """The `config.toml` for a bundle: its model, its adapter and its settings."""
    kept = {key: value for key, value in settings.items() if key not in WAY}  # remembered for the file alone, not for every model
    values: dict[str, Any] = {"model": name, **({"adapter": adapter} if adapter else {}), **kept}
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]  # JSON texts are TOML texts
    return "\n".join([f"# From the bundle {name}; change it as you like.", *lines, ""])


def _read(path: pathlib.Path, file: IO[bytes], size: int) -> Bundle:
    n_bytes = _header(path, file, size, MANIFEST)
    if n_bytes > MAX_MANIFEST_BYTES:
        raise _refused(path, f"has a manifest of {n_bytes} bytes")
    name, adapter, listed, settings = _manifest(path, file.read(n_bytes))
    parts, at = {}, _after(_BLOCK, n_bytes)
    for part, (part_bytes, sha256) in listed.items():
        file.seek(at)
        if _header(path, file, size, part) != part_bytes:
            raise _refused(path, f"has a {part} with a different size than its manifest says")
        parts[part] = Part(at + _BLOCK, part_bytes, sha256)
        at = _after(at + _BLOCK, part_bytes)
    file.seek(at)
    rest = file.read(2 * _BLOCK + 1)
    if rest != bytes(2 * _BLOCK):
        raise _refused(path, "has bytes after its last file")
    return Bundle(path, name, settings, parts, adapter)


def _header(path: pathlib.Path, file: IO[bytes], size: int, wanted: str) -> int:
    """The size of the member that starts here, which must be a plain file called `wanted`."""
    try:
        member = tarfile.TarInfo.frombuf(file.read(_BLOCK), "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise _refused(path, "is truncated, damaged, or not a bundle") from error
    if member.name != wanted or member.type != tarfile.REGTYPE:
        raise _refused(path, f"has {member.name!r:.80} where {wanted} should be")
    if not 0 <= member.size <= size - file.tell():
        raise _refused(path, f"is truncated: its {wanted} is longer than the file")
    return member.size


def checked_settings(text: str) -> dict[str, Any]:
    """The settings of a bundle that were recorded as JSON; none if they are not what they should be."""
    try:
        return {name: checked(name, value, "a recorded setting") for name, value in json.loads(text).items() if name in SETTINGS}
    except (BadSetting, ValueError, AttributeError, RecursionError):
        return {}


def _manifest(path: pathlib.Path, data: bytes) -> tuple[str, str | None, dict[str, tuple[int, str]], dict[str, Any]]:
    """The names of the model and its adapter, files (size and sha256) and settings, all checked."""
    try:
        manifest = json.loads(data)
        if manifest["format"] != FORMAT or manifest["version"] not in (VERSION, WITH_ADAPTER):
            raise _refused(path, f"has version {manifest['version']!r:.20}, and this edge-agent knows versions up to {WITH_ADAPTER}")
        name, files, settings = manifest["name"], manifest["files"], dict(manifest["settings"])
        adapter = manifest["adapter"] if manifest["version"] == WITH_ADAPTER else None
        needed = (MODEL, ADAPTER) if adapter is not None else (MODEL,)
        listed = {part: (files[part]["bytes"], files[part]["sha256"]) for part in (*needed, CALIBRATION) if part in needed or part in files}
        plain = NAME.fullmatch(name) and set(files) == set(listed) and set(settings) <= set(SETTINGS)
        plain = plain and (adapter is None or (NAME.fullmatch(adapter) and adapter != name))
        sizes = all(type(n_bytes) is int and _SHA256.fullmatch(sha256) for n_bytes, sha256 in listed.values())
        if not plain or not sizes or listed.get(CALIBRATION, (0, ""))[0] > MAX_CALIBRATION_BYTES:
            raise ValueError("a value is not what it should be")
        kept = {key: checked(key, value, f"the bundle's {key}") for key, value in settings.items()}
        if any(isinstance(value, str) and not value.isprintable() for value in kept.values()):
            raise ValueError("a setting has a control character")
    except BadSetting as error:
        raise _refused(path, f"has a wrong setting ({error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(path, f"has a manifest that cannot be understood ({error!s:.80})") from error
    return name, adapter, listed, kept


def way(settings: Mapping[str, Any]) -> Way:
    """How the model is to be read, as the settings of a bundle say. Raises `ModelRefused`."""
    return Way(**{name: settings.get(name) or "" for name in WAY})


def checked_calibration(path: pathlib.Path, model: pathlib.Path, adapter: pathlib.Path | None, read_by: Way) -> Calibration:
    """The calibration in a file, if it is for this model and adapter, read this way. Raises `ModelMissing` or `ModelRefused`."""
    if not path.exists():
        raise ModelMissing(f"There is no calibration '{path}'; check the path.")
    try:
        found = decoded(read_calibration(path), f"'{path}'")
    except BadData as error:
        raise ModelRefused(str(error)) from error
    profile = from_metadata(read_model(model).metadata, read_by)
    if not found.fits(sha256_of(model), sha256_of(adapter) if adapter else "", profile.sha256):
        on_top = f" with the adapter '{adapter.name}'" if adapter else ""
        raise ModelRefused(
            f"The calibration '{path}' is for another model file, adapter or prompt than '{model.name}'{on_top}; "
            "run `edge-agent calibrate` with this one."
        )
    return found


def _write(out: IO[bytes], name: str, data: bytes) -> None:
    _begin(out, name, len(data))
    out.write(data)
    _end(out, len(data))


def _write_file(out: IO[bytes], name: str, path: pathlib.Path, bytes: int, sha256: str) -> None:
    """Copy a file into the bundle. Raises `ModelRefused` if it is not the one that was hashed before."""
    _begin(out, name, bytes)
    with path.open("rb") as source:
        if _copy(source, out, bytes) != sha256:
            raise ModelRefused(f"'{path}' changed while it was packed; try again.")
    _end(out, bytes)


def _begin(out: IO[bytes], name: str, n_bytes: int) -> None:
    member = tarfile.TarInfo(name)  # owner 0, time 0: the same content gives the same bytes
    member.size, member.mode = n_bytes, 0o644
    try:
        out.write(member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
    except ValueError as error:
        raise ModelRefused(f"The model has {n_bytes:,} bytes, but a bundle can hold only 8 GiB; copy the .gguf file itself.") from error


def _end(out: IO[bytes], n_bytes: int) -> None:
    out.write(bytes(-n_bytes % _BLOCK))


def _after(at: int, n_bytes: int) -> int:
    """Where the next header is, after a file that starts at `at`."""
    return at + -(-n_bytes // _BLOCK) * _BLOCK


def _copy(source: IO[bytes], out: IO[bytes], n_bytes: int) -> str:
    """Copy `n_bytes`, or less if the source ends; returns the sha256 of the copy."""
    digest, left = hashlib.sha256(), n_bytes
    while left and (chunk := source.read(min(left, _CHUNK_BYTES))):
        digest.update(chunk)
        out.write(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _refused(path: pathlib.Path, what: str) -> ModelRefused:
    return ModelRefused(f"The bundle '{path}' {what}; fetch or create it again.")
