// The visitor's page: pick a question or write one, see the answer, and see it settle.
// Owns what is shown and when. Invariants: nothing that a visitor wrote outlives the reset; a text from a person or a model is only ever a
// text node.

import { Idle } from "/kiosk/idle.js";
import { Keyboard } from "/kiosk/keyboard.js";
import { el, icon, show } from "/kiosk/page.js";
import { askQuestion, Draft, Events, isHealthy, Refused, untilHealthy } from "/kiosk/server.js";
import { loadWords } from "/kiosk/words.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const MOST_OPTIONS = 6;
const MOST_QUESTION = 400;
const MOST_OPTION = 80;
const BUSY_RETRIES = 5;

const byId = (id) => document.getElementById(id);
const view = byId("view");

const page = {
  kiosk: null, // what /kiosk/deck says
  words: null,
  draw: null, // draws the present view again, in another language
  state: { connection: "loading", waiting: 0 },
  answer: null, // { decision, question, options, ending }
  draft: new Draft(),
  events: null,
  keyboard: null,
  away: false,
};

const say = (key, values) => page.words.say(key, values);

async function start() {
  navigator.serviceWorker?.register("/kiosk-worker.js").catch(() => {});
  page.kiosk = await settings();
  await choose(page.kiosk.language);
  page.keyboard = new Keyboard(byId("keyboard"), page.kiosk.languages.map((one) => one.code), page.words, () => document.activeElement.blur());
  page.events = new Events({ state: onState, ending: onEnding, gone: onGone, lost: watchServer });
  new Idle({
    after: page.kiosk.idle_s, dialog: byId("idle"), reset,
    say: (left) => { byId("idle-text").textContent = say("idle.text", { n: left }); },
    busy: () => page.draw === home && page.words.language === page.kiosk.language,
  });
  home();
  if (!(await isHealthy())) await watchServer();
}

// The deck and the settings; the worker keeps the last ones for a start without the server.
async function settings() {
  for (;;) {
    try {
      const reply = await fetch("/kiosk/deck");
      if (reply.ok) return await reply.json();
    } catch { /* the server is not there yet */ }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function choose(language) {
  page.words = await loadWords(language);
  document.documentElement.lang = language;
  document.title = title();
  byId("title").textContent = title();
  byId("privacy").textContent = say("privacy", { n: page.kiosk.keep_days });
  byId("idle-heading").textContent = say("idle.heading");
  byId("idle-stay").textContent = say("idle.stay");
  byId("away-heading").textContent = say("away.heading");
  byId("away-text").textContent = say("away.text");
  drawLanguages();
  drawStatus();
  if (page.keyboard) page.keyboard.words = page.words;
  page.draw?.();
}

const title = () => page.kiosk.title?.[page.words.language] ?? say("title");

function drawLanguages() {
  const box = byId("languages");
  box.hidden = page.kiosk.languages.length < 2;
  box.setAttribute("aria-label", say("language.choose"));
  box.replaceChildren(...page.kiosk.languages.map(({ code, name, short }) => el("button", {
    type: "button", lang: code, "aria-pressed": String(code === page.words.language), "aria-label": name, title: name,
    onclick: () => choose(code),
  }, short)));
}

function drawStatus() {
  const { connection, waiting } = page.state;
  const picture = { online: "online", offline: "offline", paused: "paused", none: "device", loading: "waiting" }[connection];
  const parts = [icon(picture), el("span", {}, say(`status.${connection}`))];
  if (waiting) parts.push(el("span", { class: "waiting" }, icon("waiting"), say("status.waiting", { n: waiting })));
  byId("status").dataset.state = connection;
  byId("status").replaceChildren(...parts);
}

// --- the views ---

function home() {
  page.draw = home;
  closeKeyboard();
  page.draft.forget();
  page.answer = null;
  const questions = page.kiosk.questions.filter((one) => !one.language || one.language === page.words.language);
  const shown = questions.length ? questions : page.kiosk.questions;
  show(view,
    el("div", { class: "hero" },
      el("h2", {}, say("home.heading")),
      el("p", { class: "lead" }, say("lead")),
      el("button", { type: "button", class: "primary own", onclick: () => write() }, icon("pen"), say("home.own"))),
    el("ul", { class: "deck" }, ...shown.map((one) => el("li", {},
      el("button", { type: "button", class: "card", onclick: () => question(one.question, one.options) },
        el("span", {}, one.question))))));
}

// A question that was picked: read it, while the model reads it, too.
function question(text, options) {
  page.draw = () => question(text, options);
  page.draft.send(text, options, true);
  show(view,
    el("section", { class: "ask" },
      el("h2", { class: "unseen" }, say("question.heading")),
      el("p", { class: "question" }, text),
      el("ol", { class: "options" }, ...options.map((option, i) => el("li", {}, letter(i), el("span", {}, option)))),
      el("div", { class: "actions" },
        el("button", { type: "button", class: "quiet", onclick: home }, icon("back"), say("question.back")),
        el("button", { type: "button", class: "primary", onclick: () => ask(text, options) }, say("question.ask")))));
  view.querySelector(".primary").focus({ preventScroll: true });
}

const letter = (i) => el("span", { class: "letter", "aria-hidden": "true" }, LETTERS[i]);

// A question of the visitor's own.
function write(text = "", options = ["", ""]) {
  const field = (key, value, most, name, values) => {
    const id = `field-${key}`;
    const input = el(key === "question" ? "textarea" : "input", {
      id, maxlength: most, inputmode: "none", autocomplete: "off", autocapitalize: "off", spellcheck: "false", rows: key === "question" ? 2 : null,
      onfocus: () => page.keyboard.open(input, page.words.language, page.words), oninput: changed, onnext: () => next(input),
      onkeydown: (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); next(input); } },
    });
    input.value = value;
    return el("div", { class: "field" }, el("label", { for: id }, say(name, values)), input);
  };
  const read = () => {
    const [asked, ...given] = Array.from(view.querySelectorAll("textarea, input"), (one) => one.value.trim());
    return { asked, given };
  };
  const changed = () => {
    const { asked, given } = read();
    page.draw = () => write(asked, given);
    page.draft.send(asked, given.filter(Boolean));
    complain("");
  };
  const add = () => {
    const { asked, given } = read();
    write(asked, [...given, ""]);
    view.querySelector(".field:last-of-type input")?.focus();
  };
  const next = (input) => {
    const fields = Array.from(view.querySelectorAll("textarea, input"));
    const at = fields.indexOf(input);
    if (at + 1 < fields.length) fields[at + 1].focus();
    else if (fields.at(-1).value.trim() && fields.length - 1 < MOST_OPTIONS && fields.slice(1).filter((one) => one.value.trim()).length < 2) add();
    else submit();
  };
  const submit = () => {
    const { asked, given } = read();
    const options = given.filter(Boolean);
    const open = page.kiosk.question_kind === "open";
    if (!asked || (!open && options.length < 2)) return complain(say("own.few"));
    if (new Set(options.map((one) => one.toLowerCase())).size < options.length) return complain(say("own.same"));
    closeKeyboard();
    ask(asked, options);
  };
  const warning = el("p", { class: "warning", role: "alert" });
  const complain = (text) => { warning.textContent = text; };
  page.draw = () => { const { asked, given } = read(); write(asked, given); };
  const open = page.kiosk.question_kind === "open";
  show(view,
    el("form", { class: "own-form", novalidate: true, onsubmit: (event) => { event.preventDefault(); submit(); } },
      el("h2", {}, say("own.heading")),
      field("question", text, MOST_QUESTION, "own.question"),
      ...(open ? [] : options.map((option, i) => field(`option-${i}`, option, MOST_OPTION, "own.option", { letter: LETTERS[i] }))),
      warning,
      el("div", { class: "actions" },
        el("button", { type: "button", class: "quiet", onclick: home }, icon("back"), say("question.back")),
        !open && options.length < MOST_OPTIONS && el("button", { type: "button", class: "quiet", onclick: add }, say("own.add")),
        el("button", { type: "submit", class: "primary" }, say("own.ask")))));
  view.querySelector("textarea").focus({ preventScroll: true });
}

async function ask(text, options) {
  const asked = {};
  page.answer = asked;
  page.draw = () => thinking(text, say("asking"));
  page.draw();
  for (let tries = 0; page.answer === asked; tries += 1) {
    try {
      const decision = await askQuestion(text, options);
      if (page.answer !== asked) return; // the visitor went on
      page.answer = { decision, text, options, ending: null };
      page.draft.forget();
      if (decision.provisional) page.events.follow(decision.decision_id);
      page.draw = answer;
      answer();
      announce();
      return;
    } catch (error) {
      if (page.answer !== asked) return;
      if (error instanceof Refused && error.status === 503 && tries < BUSY_RETRIES) {
        thinking(text, say("busy"));
        await new Promise((done) => setTimeout(done, 1000));
      } else if (error instanceof Refused) {
        page.draw = () => failed(text, options, error.status === 400 ? "refused" : "failed");
        return page.draw();
      } else if (tries < BUSY_RETRIES) {
        await watchServer();
      } else {
        page.draw = () => failed(text, options, "failed");
        return page.draw();
      }
    }
  }
}

function thinking(text, words) {
  show(view, el("section", { class: "thinking", "aria-busy": "true" },
    el("p", { class: "question" }, text),
    el("h2", { class: "dots" }, words)));
}

function failed(text, options, key) {
  show(view, el("section", { class: "ask" },
    el("p", { class: "question" }, text),
    el("h2", {}, say(key)),
    el("div", { class: "actions" },
      el("button", { type: "button", class: "quiet", onclick: home }, icon("back"), say("question.back")),
      el("button", { type: "button", class: "primary", onclick: () => write(text, options.length ? options : ["", ""]) }, say("home.own")))));
}

function answer() {
  const { decision, text, ending } = page.answer;
  const overturned = ending?.ending === "overturned";
  show(view,
    el("section", { class: "answer", "data-ending": ending?.ending ?? "" },
      el("p", { class: "question" }, text),
      el("h2", { class: "unseen" }, say("answer.heading")),
      overturned && el("p", { class: "settled" }, say("answer.overturned")),
      el("p", { class: "result" }, face(overturned ? ending.final_answer : decision.answer)),
      overturned ? el("p", { class: "before" }, say("answer.before", { answer: named(decision.answer) })) : sureness(decision),
      el("p", { class: "source" }, ...source(decision, ending)),
      promise(decision, ending),
      el("div", { class: "actions" }, el("button", { type: "button", class: "primary", onclick: home }, say("answer.again")))));
}

// The answer in large type: its letter and its text, or the text alone.
function face(answer) {
  const at = LETTERS.indexOf(answer);
  const option = page.answer.options[at];
  return option === undefined ? el("span", {}, answer) : el("span", { class: "chosen" }, letter(at), el("span", {}, option));
}

const named = (answer) => page.answer.options[LETTERS.indexOf(answer)] ?? answer;

function sureness(decision) {
  if (decision.confidence === null || decision.route === "cloud") return null;
  const share = decision.expected_confidence ?? decision.confidence;
  const sure = !decision.deferred && decision.reason !== "no_cloud";
  const lit = Math.round(share * 5);
  return el("p", { class: "sureness", "data-sure": String(sure) },
    el("strong", {}, say(sure ? "answer.sure" : "answer.unsure")),
    el("span", { class: "meter", role: "img", "aria-label": say("answer.level", { percent: page.words.percent(share) }) },
      ...[1, 2, 3, 4, 5].map((n) => el("i", { class: n <= lit ? "lit" : null }))));
}

function source(decision, ending) {
  const settled = ending && ending.ending !== "abandoned";
  if (decision.route === "cloud" || settled) return [icon("cloud"), say("answer.cloud")];
  if (decision.recalled) return [icon("device"), say("answer.remembered")];
  return [icon("device"), say("answer.here.time", { time: page.words.seconds(decision.timings.total_ms) })];
}

function promise(decision, ending) {
  if (ending?.ending === "overturned") return null;
  if (ending) return el("p", { class: "settled" }, icon("check"), say(`answer.${ending.ending}`));
  if (decision.provisional) return el("p", { class: "promise" }, icon("waiting"), say("answer.first"));
  return decision.reason === "never_send" ? el("p", { class: "promise" }, say("answer.stays")) : null;
}

function announce() {
  const { decision, ending } = page.answer;
  const given = named(ending?.final_answer ?? decision.answer);
  const more = ending ? say(`answer.${ending.ending}`) : decision.provisional ? say("answer.first") : "";
  byId("announcer").textContent = `${say("answer.heading")}: ${given}. ${more}`;
}

// --- what the server says ---

function onState(state) {
  page.state = { connection: state.connection, waiting: state.waiting };
  drawStatus();
}

function onEnding(ending) {
  if (page.answer?.decision?.decision_id !== ending.decision_id || !ending.ending) return;
  page.answer.ending = ending;
  answer();
  announce();
}

function onGone({ decision_id: id }) {
  if (page.answer?.decision?.decision_id === id && page.draw === answer) {
    page.answer.decision = { ...page.answer.decision, provisional: false };
    answer();
  }
}

// Says "back in a moment" while the server is gone.
async function watchServer() {
  if (page.away || (await isHealthy())) return;
  page.away = true;
  const soon = setTimeout(() => { byId("away").hidden = false; }, 700); // a restart that nobody noticed needs no words
  await untilHealthy();
  clearTimeout(soon);
  byId("away").hidden = true;
  page.away = false;
  page.events.open();
}

// --- leaving no trace ---

function closeKeyboard() {
  page.keyboard?.close();
}

async function reset() {
  page.draft.forget();
  page.events.forget();
  page.answer = null;
  byId("announcer").textContent = "";
  for (const field of view.querySelectorAll("textarea, input")) field.value = "";
  history.replaceState(null, "", "/");
  page.draw = null;
  await choose(page.kiosk.language);
  home();
}

start();
