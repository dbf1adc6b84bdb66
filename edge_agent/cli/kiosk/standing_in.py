"""The page that stands in while the server is not there: "Back in a moment", in every language of the visitor's page.

Owns its text. Invariants: it is one file that loads nothing, from this device or another; its words, its font and its colours are those
of the visitor's page; it has no script.
"""

from __future__ import annotations

import base64
import html
import json
import re

LANGUAGES = ("en", "kk", "ru")
_FONTS = ("golos-latin", "golos-cyrillic", "golos-cyrillic-ext")
_COLOURS = ("ground", "ink", "faint", "accent")
_MARK = '<svg aria-hidden="true" viewBox="0 0 32 32"><path fill="currentColor" d="{}"/></svg>'
_STYLE = """\
* { margin: 0; cursor: none; user-select: none; }
html, body { height: 100%; overflow: hidden; }
body { display: grid; align-content: center; justify-items: center; gap: 2.2vh; padding: 4vmin; box-sizing: border-box; text-align: center;
  background: var(--ground); color: var(--ink); font: 400 clamp(18px, 2.7vmin, 40px)/1.35 Golos, sans-serif; text-wrap: balance; }
svg { width: 13vmin; color: var(--accent); animation: breathe 1.4s ease-in-out infinite alternate; }
@keyframes breathe { to { opacity: 0.45; transform: scale(0.94); } }
h1 { font-size: 2.4em; font-weight: 750; line-height: 1.15; letter-spacing: -0.01em; }
h2 { font-size: 1.45em; font-weight: 650; line-height: 1.2; margin-top: 1.5vh; }
p { color: var(--faint); margin-top: 0.3em; }
@media (prefers-reduced-motion: reduce) { svg { animation: none; } }
"""


def page(first: str) -> str:
    """The page, with the language `first` on top and in large type."""
    look = _visitors("look.css").decode()
    colours = "".join(re.findall(rf"^  (--(?:{'|'.join(_COLOURS)}): .*;)$", look, re.MULTILINE))
    style = "".join(map(_font, _FONTS)) + f":root {{ color-scheme: light dark; {colours} }}\n{_STYLE}"
    said = "".join(_said(language, "h1" if language == first else "h2") for language in sorted(LANGUAGES, key=lambda one: one != first))
    policy = "default-src 'none'; style-src 'unsafe-inline'; font-src data:"
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="color-scheme" content="light dark">',
        "<title>edge-agent</title>",
        f"<style>\n{style}</style>",
    ]
    body = f"<body>\n{_MARK.format(_drawing())}\n{said}</body>"
    return "\n".join(["<!doctype html>", f'<html lang="{first}">', "<head>", *head, "</head>", body, "</html>", ""])


def _said(language: str, heading: str) -> str:
    words = json.loads(_visitors(f"words/{language}.json"))
    title, text = html.escape(words["away.heading"]), html.escape(words["away.text"])
    return f'<div lang="{language}"><{heading}>{title}</{heading}><p>{text}</p></div>\n'


def _font(name: str) -> str:
    """The rule of the visitor's page for one part of the font, with the file inside."""
    content = base64.b64encode(_visitors(f"fonts/{name}.woff2")).decode()
    look = _visitors("look.css").decode()
    ranges = re.search(rf"{name}\.woff2\).*?unicode-range: ([^;]+);", look, re.DOTALL)
    assert ranges is not None
    return (
        f'@font-face {{ font-family: Golos; font-weight: 400 900; src: url(data:font/woff2;base64,{content}) format("woff2"); '
        f"unicode-range: {ranges[1]}; }}\n"
    )


def _drawing() -> str:
    """The mark of the visitor's page."""
    found = re.search(r'class="away".*?<path fill="currentColor" d="([^"]+)"', _visitors("visitor.html").decode(), re.DOTALL)
    assert found is not None
    return found[1]


def _visitors(name: str) -> bytes:
    """A file of the visitor's page."""
    from edge_agent.server.kiosk.assets import FOLDER  # every other command works without the server's wing

    return (FOLDER / name).read_bytes()
