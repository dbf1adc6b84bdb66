"""The files of the visitor's page: catalogues with equal keys and right forms, no words in the code, and a worker that keeps them all."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from edge_agent.server.kiosk.assets import FOLDER, all_assets
from tests.support.paths import ROOT

LANGUAGES = ("en", "kk", "ru")
FORMS = {"en": {"one", "other"}, "kk": {"one", "other"}, "ru": {"one", "few", "many", "other"}}
CATALOGUES = {code: json.loads((FOLDER / "words" / f"{code}.json").read_text()) for code in LANGUAGES}
SCRIPTS = sorted(path for path in FOLDER.glob("*.js") if not path.name.startswith("operator") and "htmx" not in path.name)
MOST_PICTURE_BYTES = 58_000
PLACES = re.compile(r"\{\w+\}")


def texts(text: object) -> list[str]:
    return list(text.values()) if isinstance(text, dict) else [str(text)]


def test_catalogues_have_equal_keys_in_the_same_order() -> None:
    assert list(CATALOGUES["en"]) == list(CATALOGUES["kk"]) == list(CATALOGUES["ru"])


@pytest.mark.parametrize("code", LANGUAGES)
def test_text_with_a_number_has_the_forms_of_its_language(code: str) -> None:
    for key, text in CATALOGUES[code].items():
        assert isinstance(text, dict) == isinstance(CATALOGUES["en"][key], dict), key
        if isinstance(text, dict):
            assert set(text) == FORMS[code], key


@pytest.mark.parametrize("code", LANGUAGES)
def test_places_for_values_are_the_same_in_each_language(code: str) -> None:
    for key, text in CATALOGUES[code].items():
        wanted = set(PLACES.findall(texts(CATALOGUES["en"][key])[0]))
        assert all(set(PLACES.findall(one)) == wanted for one in texts(text)), key


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_text_is_empty_or_still_english(code: str) -> None:
    for key, text in CATALOGUES[code].items():
        for one in texts(text):
            assert one.strip() == one != "", key
            if code != "en":
                assert re.search(r"[а-яёәіңғүұқөһ]", one, re.IGNORECASE) and not re.search(r"[a-z]", PLACES.sub("", one), re.IGNORECASE), (
                    key
                )


def test_code_uses_each_key_and_no_other() -> None:
    code = "\n".join(path.read_text() for path in SCRIPTS)
    for key in CATALOGUES["en"]:
        stem = key.rpartition(".")[0]
        assert f'"{key}"' in code or f"`{stem}.${{" in code or f"catalogue.{key}" in code or key.rpartition(".")[2] in _actions(code), key
    used = set(re.findall(r'say\("([\w.]+)"', code))
    assert used and used <= set(CATALOGUES["en"])


def _actions(code: str) -> set[str]:
    """The keys that the keyboard names itself: `this.action("shift", ...)`."""
    return set(re.findall(r'this\.action\("(\w+)"', code))


def test_code_has_no_words_of_its_own() -> None:
    """Only the layouts of the keyboard have letters of other languages; and no text node is written as a literal."""
    for path in SCRIPTS:
        code = re.sub(r"^\s*//.*$|\s// .*$", "", path.read_text(), flags=re.MULTILINE)
        if path.name != "keyboard.js":
            assert not re.search(r"[^\x00-\x7f]", code), path.name
        assert not re.search(r"textContent = \"[^\"]", code), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", code), path.name


def test_page_has_no_words_of_its_own() -> None:
    found: list[str] = []

    class Texts(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data.strip())

    Texts().feed((FOLDER / "visitor.html").read_text())
    assert [text for text in found if text] == ["edge-agent"]  # the title, until the words are there


def test_worker_keeps_each_file_of_the_page_and_nothing_else() -> None:
    kept = set(re.findall(r'"(/[^"]*)"', re.search(r"KEPT = \[(.*?)\]", (FOLDER / "worker.js").read_text(), re.DOTALL)[1]))
    names = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    needed = {
        f"/kiosk/{name}"
        for name in names
        if not re.match(r"operator|words/operator|worker\.js|visitor\.html|.*\.css|fonts/OFL|standin", name)
    }
    assert kept == needed | {"/", "/kiosk/deck"}


@pytest.mark.parametrize("name", ["visitor.html", "operator.html"])
def test_page_carries_its_styles_and_may_use_no_others_inline(name: str) -> None:
    asset = all_assets()[name]
    styles = re.search(b"<style>(.*)</style>", asset.content, re.DOTALL)
    assert styles and b"stylesheet" not in asset.content
    sheets = re.findall(r"/kiosk/(\w+\.css)", (FOLDER / name).read_text())
    assert styles[1].decode() == "".join((FOLDER / sheet).read_text() for sheet in sheets) and len(sheets) == 2
    tag = base64.b64encode(hashlib.sha256(styles[1]).digest()).decode()
    assert f"style-src 'self' 'sha256-{tag}';" in asset.policy and "unsafe" not in asset.policy


def test_page_loads_each_script_at_once() -> None:
    """A script that another one imports is named in the page, so that the browser does not find it one step later."""
    page = (FOLDER / "visitor.html").read_text()
    imported = set().union(*(re.findall(r'from "(/kiosk/[\w.]+)"', path.read_text()) for path in SCRIPTS))
    assert imported == set(re.findall(r'modulepreload" href="([^"]+)"', page))


def test_docs_show_each_size_in_each_language_and_every_picture() -> None:
    pictures = {path.stem: path.stat().st_size for path in (ROOT / "docs" / "kiosk").glob("*.webp")}
    for size in ("touch", "desk", "tall", "phone"):
        assert {code for code in LANGUAGES if any(name.startswith(f"{size}-{code}-") for name in pictures)} == set(LANGUAGES), size
    assert max(pictures.values()) <= MOST_PICTURE_BYTES
    assert set(re.findall(r"\(kiosk/([\w-]+)\.webp\)", (ROOT / "docs" / "kiosk-pictures.md").read_text())) == set(pictures)
