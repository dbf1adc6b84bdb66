"""A visitor's way through the page: a sure answer, a provisional one that settles by itself, other languages, and a server that dies."""

import itertools
import re

import pytest

from tests.support.visitor_page import MISSING, SURE, UNSURE, Installation, Visitor

expect = pytest.importorskip("playwright.sync_api", reason=MISSING).expect

# Each text that a live region gets, in its order, as a screen reader is told.
LISTEN = """() => {
    window.spoken = [];
    const live = "[role=status], [role=alert], [aria-live]";
    new MutationObserver((changes) => {
        for (const region of new Set(changes.map(({ target }) => (target.nodeType === 1 ? target : target.parentElement)?.closest(live)))) {
            if (region?.textContent && region.checkVisibility()) window.spoken.push([region.id, region.textContent]);
        }
    }).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });
}"""
SETTLES_MS = 60_000  # a queue that found no network waits before it tries again


def test_sure_answer_comes_from_this_device_and_says_so(visitor: Visitor) -> None:
    visitor.pick(SURE[0])
    assert visitor.ask() == SURE[1][0]
    expect(visitor.page.locator(".sureness strong")).to_have_text("Sure")
    expect(visitor.page.locator(".source")).to_contain_text(re.compile(r"on this device in 0\.\d+ seconds|from memory"))
    expect(visitor.page.locator("#status")).to_contain_text("Online")


def test_unsure_question_is_answered_by_the_cloud_while_there_is_one(visitor: Visitor) -> None:
    assert visitor.ask_own("Which lake is deeper?", ["Balkhash", "Zaysan"]) == "Zaysan"
    expect(visitor.page.locator(".source")).to_have_text("Answered by the bigger model")
    expect(visitor.page.locator(".sureness")).to_have_count(0)


@pytest.mark.parametrize(("letter", "ending", "shown"), [("B", "upheld", "4"), ("A", "overturned", "5")])
def test_answer_without_a_network_is_provisional_and_settles_without_a_reload(
    kiosk: Installation, visitor: Visitor, letter: str, ending: str, shown: str
) -> None:
    kiosk.cloud.reply = lambda body: letter
    question, options = UNSURE[0] + " " + ending, UNSURE[1]
    kiosk.cut()
    page = visitor.page
    page.evaluate("window.isSame = true")
    page.evaluate(LISTEN)
    first = visitor.ask_own(question, options)
    expect(page.locator(".promise")).to_contain_text("first answer")
    expect(page.locator(".sureness strong")).to_have_text("Not sure")
    expect(page.locator("#status")).to_contain_text("Offline")
    expect(page.locator("#status .waiting")).to_have_text("1 question waits")
    kiosk.restore()
    expect(page.locator(f"[data-ending={ending}]")).to_be_visible(timeout=SETTLES_MS)
    final = options["AB".index(letter)]
    assert (ending == "upheld") == (final == first)
    assert visitor.answer() == final
    if ending == "overturned":
        expect(page.locator(".settled")).to_contain_text("Now we know better")
        expect(page.locator(".before")).to_have_text(f"Our first answer was: {first}")
    expect(page.locator("#announcer")).to_contain_text(final)
    expect(page.locator("#status")).to_contain_text("Online")
    expect(page.locator("#status .waiting")).to_have_count(0)
    assert page.evaluate("window.isSame")
    spoken = page.evaluate("window.spoken")
    answers = [text for region, text in spoken if region != "status"]
    assert len(answers) == 2 and first in answers[0] and final in answers[1], answers  # each is said once
    states = [text for region, text in spoken if region == "status"]
    assert [text for text, before in itertools.pairwise(states) if text == before] == [], states


def test_every_language_can_be_chosen_at_any_time(visitor: Visitor) -> None:
    page = visitor.page
    visitor.pick(SURE[0])
    visitor.language("kk")
    expect(page.locator(".actions .primary")).to_have_text("Жауабын білу")
    visitor.ask()
    expect(page.locator(".sureness strong")).to_have_text("Сенімді")
    visitor.language("ru")
    expect(page.locator(".sureness strong")).to_have_text("Уверена")
    assert page.evaluate("document.activeElement.lang") == "ru"  # whoever uses the keyboard stays where they were
    visitor.language("en")
    expect(page.locator(".sureness strong")).to_have_text("Sure")


def test_numbers_and_plurals_are_those_of_the_language(visitor: Visitor) -> None:
    said = visitor.page.evaluate("""async () => {
        const words = await (await import("/kiosk/words.js")).loadWords(["en", "kk", "ru"]);
        const say = (code, n) => words.get(code).say("status.waiting", { n });
        return [say("ru", 1), say("ru", 3), say("ru", 5), say("ru", 21), say("ru", 1200), say("kk", 1200), say("en", 1), say("en", 1200),
                words.get("ru").seconds(312), words.get("ru").seconds(2000), words.get("kk").seconds(312), words.get("en").seconds(12400),
                words.get("ru").percent(0.75)].map((text) => text.replaceAll("\\u00a0", " "));
    }""")
    assert said == [
        "1 вопрос ждёт", "3 вопроса ждут", "5 вопросов ждут", "21 вопрос ждёт", "1 200 вопросов ждут", "1 200 сұрақ кезекте",
        "1 question waits", "1,200 questions wait", "0,3 секунды", "2 секунды", "0,3 секунд", "12 seconds", "75 %",
    ]  # fmt: skip


def test_page_recovers_by_itself_when_the_server_is_killed(kiosk: Installation, visitor: Visitor) -> None:
    page = visitor.page
    visitor.pick(SURE[0])
    kiosk.kill()
    expect(page.locator("#away")).to_be_visible()
    expect(page.locator("#away")).to_contain_text("Back in a moment")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body")  # nothing behind it can be reached
    kiosk.start_again()
    expect(page.locator("#away")).to_be_hidden(timeout=30_000)
    assert visitor.ask() == SURE[1][0]


def test_question_asked_while_the_server_dies_is_answered_once_it_is_back(kiosk: Installation, visitor: Visitor) -> None:
    page = visitor.page
    visitor.write("Which star is nearer?", ["Vega", "Sirius"])
    kiosk.kill()
    page.evaluate("document.querySelector('.actions .primary').click()")
    expect(page.locator("#away")).to_be_visible()
    kiosk.start_again()
    expect(page.locator(".answer .result")).to_be_visible(timeout=30_000)


def test_page_that_is_opened_while_the_model_loads_answers_as_soon_as_it_can(kiosk: Installation, visitor: Visitor) -> None:
    kiosk.kill()
    kiosk.start_again()  # it listens, and opens the model meanwhile
    visitor.page.reload()
    visitor.pick(SURE[0])
    assert visitor.ask() == SURE[1][0]


def test_reload_without_a_server_shows_the_page_and_not_the_browsers_error(kiosk: Installation, visitor: Visitor) -> None:
    page = visitor.page
    visitor.wait_kept()
    kiosk.kill()
    page.reload()
    expect(page.locator("#away")).to_contain_text("Back in a moment")
    kiosk.start_again()
    expect(page.locator("#away")).to_be_hidden(timeout=30_000)
    expect(page.locator(".card").first).to_be_visible()


def test_question_goes_past_the_worker_that_keeps_the_files(visitor: Visitor) -> None:
    """It would have to be started first, while a person waits."""
    visitor.wait_kept()
    visitor.page.reload()
    visitor.page.locator(".card").first.wait_for()
    visitor.pick(SURE[0])
    visitor.ask()
    by_worker = visitor.page.evaluate("""() => Object.fromEntries(performance.getEntriesByType("resource")
        .map((one) => [new URL(one.name).pathname, one.workerStart > 0 && one.workerMatchedSourceType !== "network"]))""")
    assert by_worker["/kiosk/deck"] and not by_worker["/edge/ask"], by_worker


def test_what_a_person_or_a_model_wrote_is_never_html(kiosk: Installation, visitor: Visitor) -> None:
    kiosk.cloud.reply = lambda body: "A"
    hostile = "<img src=x onerror='window.isBroken=1'><b>bold"
    assert visitor.ask_own(hostile, [f"{hostile} yes", "no"]) == f"{hostile} yes"
    expect(visitor.page.locator(".said .question")).to_have_text(hostile)
    assert visitor.page.evaluate("!window.isBroken && !document.querySelector('main img, main b')")


def test_question_that_the_server_refuses_is_refused_in_words(visitor: Visitor) -> None:
    page = visitor.page
    page.route("**/edge/ask", lambda route: route.fulfill(status=400, json={"error": {"message": "no"}}))
    visitor.pick(SURE[0])
    page.click(".actions .primary")
    expect(page.locator("h2.result")).to_contain_text("cannot be asked like that")


def test_busy_server_is_asked_again(visitor: Visitor) -> None:
    page, n_refused = visitor.page, [0]

    def refuse(route: object) -> None:
        n_refused[0] += 1
        if n_refused[0] > 2:
            route.continue_()
        else:
            route.fulfill(status=503, json={"error": {"message": "busy"}}, headers={"Retry-After": "1"})

    page.route("**/edge/ask", refuse)
    visitor.pick(SURE[0])
    page.click(".actions .primary")
    expect(page.locator(".dots")).to_contain_text("Many people are asking")
    expect(page.locator(".answer .result")).to_be_visible()
