"""A question of the visitor's own: the keyboard in the page by touch, a computer's keyboard, and what the form says."""

import re
from typing import Any

import pytest

from tests.support.visitor_page import MISSING, SURE, Visitor

expect = pytest.importorskip("playwright.sync_api", reason=MISSING).expect


def tap(page: Any, *keys: str) -> None:
    """Touch keys of the page's keyboard, by what is printed on them or by their name."""
    for key in keys:
        face = page.locator("#keyboard .key").filter(has_text=re.compile(f"^{re.escape(key)}$"))
        (face if face.count() else page.locator(f"#keyboard .key[aria-label='{key}']")).first.tap()


def test_question_is_written_by_touch_alone(visitor: Visitor) -> None:
    page = visitor.page
    page.locator(".own").tap()
    tap(page, "Capital letters", *"Is", "Space", *"it", "Space", "123", *"3×2", "abc", "?", "Next", "123", "6", "Next", "5", "Next")
    expect(page.locator(".answer .result")).to_be_visible()
    expect(page.locator(".said .question")).to_have_text("Is it 3×2?")
    expect(page.locator("#keyboard")).to_be_hidden()


def test_each_letter_of_the_three_languages_has_a_key(visitor: Visitor) -> None:
    page = visitor.page
    page.locator(".own").tap()
    for letters in ("abcdefghijklmnopqrstuvwxyz", "аәбвгғдеёжзийкқлмнңоөпрстуұүфхһцчшщъыіьэюя", "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"):
        keys = set(page.locator("#keyboard .char").all_inner_texts())
        assert set(letters) <= keys
        page.locator("#keyboard .wide").nth(1).tap()
    tap(page, "123")
    assert set("1234567890+-×÷=%/():?,.") <= set(page.locator("#keyboard .char").all_inner_texts())


def test_key_of_the_next_letters_has_a_readable_name(visitor: Visitor) -> None:
    page = visitor.page
    page.locator(".own").tap()
    key = page.locator("#keyboard .wide").nth(1)
    expect(key).to_have_text("ҚАЗ")
    expect(key).to_have_attribute("aria-label", "ҚАЗ (Letters: Қазақша)")
    key.tap()
    expect(key).to_have_text("РУС")


def test_erasing_goes_on_while_the_key_is_held(visitor: Visitor) -> None:
    page = visitor.page
    page.locator(".own").tap()
    page.keyboard.type("ұшқан құс")
    tap(page, "Delete")
    expect(page.locator("#own-0")).to_have_value("ұшқан құ")
    page.locator("#keyboard .erase").hover()
    page.mouse.down()
    expect(page.locator("#own-0")).to_have_value("")
    page.mouse.up()


def test_keyboard_can_be_hidden_and_comes_back(visitor: Visitor) -> None:
    page = visitor.page
    page.locator(".own").tap()
    tap(page, "Hide the keyboard")
    expect(page.locator("#keyboard")).to_be_hidden()
    page.locator("#own-1").tap()
    expect(page.locator("#keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keyboard")).to_be_hidden()


def test_another_language_keeps_what_was_typed_and_the_place(visitor: Visitor) -> None:
    page = visitor.page
    page.locator(".own").tap()
    page.keyboard.type("Which one? ")
    page.keyboard.press("Enter")
    page.keyboard.type("left")
    page.keyboard.press("ArrowLeft")
    page.locator("#languages [lang=kk]").tap()
    expect(page.locator("label[for=own-1]")).to_have_text("A нұсқасы")
    expect(page.locator("#own-1")).to_be_focused()
    assert page.evaluate("[document.activeElement.selectionStart, document.getElementById('own-0').value]") == [3, "Which one? "]
    assert "ә" in page.locator("#keyboard .char").all_inner_texts()


def test_keyboard_alone_is_enough(visitor: Visitor) -> None:
    page = visitor.page
    page.keyboard.press("c")  # the third question; its letter stands beside it
    expect(page.locator(".ask .question")).to_have_text(SURE[0])
    page.keyboard.press("Enter")
    expect(page.locator(".answer .result")).to_contain_text(SURE[1][0])
    page.keyboard.press("Tab")
    expect(page.locator(".answer .primary")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(".own")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Which is more?\n")
    page.keyboard.type("seven\nnine\n")
    expect(page.locator(".answer .result")).to_be_visible()


def test_letter_key_picks_nothing_outside_of_the_list(visitor: Visitor) -> None:
    visitor.page.locator("#languages [lang=en]").focus()
    visitor.page.keyboard.press("c")
    expect(visitor.page.locator(".card").first).to_be_visible()
    visitor.page.keyboard.press("Control+c")
    expect(visitor.page.locator(".card").first).to_be_visible()


def test_form_says_what_is_missing(visitor: Visitor) -> None:
    page = visitor.page
    warning = page.locator(".warning")
    visitor.write("Which?", ["one", ""])
    page.click(".own-form .primary")
    expect(warning).to_have_text("Write the question and at least two options.")
    visitor.language("ru")
    expect(warning).to_have_text("Напишите вопрос и хотя бы два варианта ответа.")
    page.locator("#own-2").fill("ONE")
    expect(warning).to_be_empty()
    page.keyboard.press("Escape")
    page.click(".own-form .primary")
    expect(warning).to_have_text("Два варианта одинаковы. Измените один из них.")


def test_six_options_are_the_most(visitor: Visitor) -> None:
    visitor.write("Which?", [*"abcdef"])
    assert visitor.page.locator("input").count() == 6
    expect(visitor.page.locator(".own-form .actions .quiet")).to_have_count(1)


def test_model_that_answers_in_its_own_words_needs_no_options(visitor: Visitor) -> None:
    page = visitor.page

    def open_ended(route: object) -> None:
        route.fulfill(json={**route.fetch().json(), "question_kind": "open"})

    def decided(route: object) -> None:
        decision = {
            "decision_id": "x", "answer": "About 150 million km", "confidence": 0.75, "expected_confidence": 0.7, "score": 0.75, "tau": 0.5,
            "route": "local", "reason": "confident", "cause": None, "provisional": False, "recalled": False, "timings": {"total_ms": 900},
        }  # fmt: skip
        assert route.request.post_data_json == {"question": "How far is the Sun?"}
        route.fulfill(json=decision)

    page.context.route("**/kiosk/deck", open_ended)
    page.context.route("**/edge/ask", decided)
    page.reload()
    page.click(".own")
    assert page.locator("input").count() == 0
    page.keyboard.press("Enter")
    expect(page.locator(".warning")).to_have_text("Write a question first.")
    page.keyboard.type("How far is the Sun?\n")
    assert visitor.answer() == "About 150 million km"


def test_phone_keeps_its_own_keyboard(visitor: Visitor) -> None:
    page = visitor.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator(".own").tap()
    expect(page.locator("#own-0")).to_be_focused()
    expect(page.locator("#own-0")).to_have_attribute("inputmode", "text")
    expect(page.locator("#keyboard")).to_be_hidden()
