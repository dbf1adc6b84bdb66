"""The files of the pages, as they lie in the package.

Owns which files there are, their types and their headers. Invariant: a name that a request gives is only looked up in the list made
from the package, and never becomes part of a path.
"""

from __future__ import annotations

import functools
import hashlib
import mimetypes
import pathlib
from typing import NamedTuple

FOLDER = pathlib.Path(__file__).parent / "static"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""What a page may load: only what this server serves; no inline script, no inline style, and no form leaves the page."""
_TYPES = {".js": "text/javascript", ".json": "application/json", ".woff2": "font/woff2", ".webmanifest": "application/manifest+json"}


class Asset(NamedTuple):
    """One file: its bytes, its media type, and the tag by which a browser asks whether it changed."""

    content: bytes
    media_type: str
    etag: str


@functools.cache
def all_assets() -> dict[str, Asset]:
    """Every file by its name below `static`, with `/` between folders."""
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in sorted(FOLDER.rglob("*")) if path.is_file()}


def _read(path: pathlib.Path) -> Asset:
    content = path.read_bytes()
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind in ("application/json", "application/manifest+json"):
        kind += "; charset=utf-8"
    return Asset(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
