"""The files of the pages, as they lie in the package, except that a page carries its styles: its first picture waits for one reply only.

Owns which files there are, their types and their headers. Invariants: a name that a request gives is only looked up in the list made
from the package, and never becomes part of a path; a page's policy allows exactly the styles that it carries, by their hash.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import mimetypes
import pathlib
import re
from typing import NamedTuple

FOLDER = pathlib.Path(__file__).parent / "static"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; font-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""What a page may load: only what this server serves; no inline script, no inline style but its own, and no form leaves the page."""
_STYLES = re.compile(r'(?:<link rel="stylesheet" href="/kiosk/[a-z.]+">\n?)+')
_TYPES = {".js": "text/javascript", ".json": "application/json", ".woff2": "font/woff2", ".webmanifest": "application/manifest+json"}


class Asset(NamedTuple):
    """One file: its bytes, its media type, the tag by which a browser asks whether it changed, and what it may load."""

    content: bytes
    media_type: str
    etag: str
    policy: str


@functools.cache
def all_assets() -> dict[str, Asset]:
    """Every file by its name below `static`, with `/` between folders."""
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in sorted(FOLDER.rglob("*")) if path.is_file()}


def _read(path: pathlib.Path) -> Asset:
    content, styles = path.read_bytes(), ""
    if path.suffix == ".html":
        content, styles = _with_styles(content.decode())
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind in ("application/json", "application/manifest+json"):
        kind += "; charset=utf-8"
    return Asset(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"', PAGE_POLICY.format(styles=styles))


def _with_styles(page: str) -> tuple[bytes, str]:
    """The page with its style sheets in it, and what the policy must say of them."""
    found = _STYLES.search(page)
    if found is None:
        return page.encode(), ""
    styles = "".join((FOLDER / name).read_text(encoding="utf-8") for name in re.findall(r"/kiosk/([a-z.]+)", found[0]))
    tag = base64.b64encode(hashlib.sha256(styles.encode()).digest()).decode()
    return f"{page[: found.start()]}<style>{styles}</style>\n{page[found.end() :]}".encode(), f" 'sha256-{tag}'"
