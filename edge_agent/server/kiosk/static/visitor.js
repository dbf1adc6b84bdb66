// The visitor's page: pick a question or write one, see the answer, and see it settle.
// Owns what is shown and when. Invariants: nothing that a visitor wrote outlives the reset; a text from a person or a model is only ever a
// text node.

import { answerView, spoken } from "/kiosk/answer.js";
import { Idle } from "/kiosk/idle.js";
import { Keyboard } from "/kiosk/keyboard.js";
import { el, icon, letter, LETTERS, show } from "/kiosk/page.js";
import { askQuestion, Draft, Events, isHealthy, Refused, untilHealthy } from "/kiosk/server.js";
import { loadWords } from "/kiosk/words.js";
import { OwnQuestion } from "/kiosk/write.js";

const TRIES = 6; // of a question that finds the server busy or gone
const TRY_AGAIN_MS = 1000;
const SAY_AWAY_AFTER_MS = 700; // a restart that nobody noticed needs no words
const FEW_QUESTIONS = 4; // with fewer in the chosen language, those in the others are shown, too

const byId = (id) => document.getElementById(id);
const view = byId("view");

const page = {
  kiosk: null, // what /kiosk/deck says
  languages: null, // the words of each language
  words: null, // those of the chosen one
  draw: null, // draws the present view again, in another language
  state: { connection: "loading", waiting: 0 },
  answer: null, // { decision, text, options, ending }, and {} while the model thinks
  draft: new Draft(),
  events: null,
  keyboard: null,
  recovery: null, // settles when the server is there again
};

const say = (key, values) => page.words.say(key, values);

async function start() {
  [page.kiosk, page.languages] = await files();
  page.keyboard = new Keyboard(byId("keyboard"), page.kiosk.languages, say);
  choose(page.kiosk.language);
  home();
  page.events = new Events({ state: onState, ending: onEnding, gone: onGone, lost: watchServer });
  new Idle({
    after: page.kiosk.idle_s, dialog: byId("idle"), reset,
    say: (left) => { byId("idle-text").textContent = say("idle.text", { n: left }); },
    isFresh: () => page.draw === home && page.words.language === page.kiosk.language,
  });
  addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch opens no menu of the browser
  addEventListener("keydown", pickByLetter);
  watchServer();
  navigator.serviceWorker?.register("/kiosk-worker.js").catch(() => {}); // last: it fetches every file once more
}

// The deck with its settings, and the words; the worker keeps the last ones for a start without the server.
async function files() {
  for (;;) {
    try {
      const reply = await fetch("/kiosk/deck");
      if (reply.ok) {
        const kiosk = await reply.json();
        return [kiosk, await loadWords(kiosk.languages.map((one) => one.code))];
      }
    } catch { /* the server is not there yet */ }
    await new Promise((done) => setTimeout(done, TRY_AGAIN_MS));
  }
}

function choose(language) {
  page.words = page.languages.get(language);
  document.documentElement.lang = language;
  document.title = title();
  byId("title").textContent = title();
  const days = page.kiosk.keep_days; // null: for ever, which the page promises to nobody
  byId("privacy").textContent = days === null ? "" : say("privacy", { n: Math.max(1, Math.ceil(days)) });
  byId("idle-heading").textContent = say("idle.heading");
  byId("idle-stay").textContent = say("idle.stay");
  byId("away-heading").textContent = say("away.heading");
  byId("away-text").textContent = say("away.text");
  drawLanguages();
  drawStatus();
  page.draw?.();
  page.keyboard.speak(language);
}

const title = () => page.kiosk.title?.[page.words.language] ?? say("title");

function drawLanguages() {
  const box = byId("languages");
  const hadFocus = box.contains(document.activeElement);
  box.hidden = page.kiosk.languages.length < 2;
  box.setAttribute("aria-label", say("language.choose"));
  box.replaceChildren(...page.kiosk.languages.map(({ code, name, short }) => el("button", {
    type: "button", lang: code, "aria-pressed": String(code === page.words.language), "aria-label": `${short} (${name})`, onclick: () => pick(code),
  }, short)));
  if (hadFocus) box.querySelector("[aria-pressed=true]").focus();
}

// Another language; whoever chose it by keyboard goes on from the same button.
function pick(code) {
  const isWriting = page.keyboard.field !== null;
  choose(code);
  if (!isWriting) byId("languages").querySelector("[aria-pressed=true]").focus({ preventScroll: true });
}

function drawStatus() {
  const { connection, waiting } = page.state;
  const picture = { online: "online", offline: "offline", paused: "paused", none: "device", loading: "waiting" }[connection];
  byId("status").dataset.state = connection;
  byId("status").replaceChildren(
    el("span", {}, icon(picture), say(`status.${connection}`)),
    ...(waiting ? [el("span", { class: "waiting" }, icon("waiting"), say("status.waiting", { n: waiting }))] : []));
}

// --- the views ---

function home() {
  page.draw = home;
  leave();
  show(view,
    el("section", { class: "home" },
      el("div", { class: "hero" },
        el("h2", {}, say("home.heading")),
        el("p", { class: "lead" }, say("lead")),
        el("button", { type: "button", class: "primary own", onclick: write }, icon("pen"), say("home.own"))),
      el("ul", { class: "deck" }, ...deck().map((one, i) => el("li", {},
        el("button", { type: "button", class: "card", onclick: () => question(one), "aria-keyshortcuts": LETTERS[i] },
          i < LETTERS.length && letter(i), el("span", { lang: one.language || null }, one.question)))))));
}

// The questions of the chosen language first.
function deck() {
  const all = page.kiosk.questions;
  const own = all.filter((one) => !one.language || one.language === page.words.language);
  return own.length >= FEW_QUESTIONS ? own : [...own, ...all.filter((one) => !own.includes(one))];
}

// In the list of questions, a letter key opens its question; elsewhere it does nothing.
function pickByLetter(event) {
  if (page.draw !== home || event.ctrlKey || event.altKey || event.metaKey || !view.contains(document.activeElement)) return;
  const at = event.code.startsWith("Key") ? LETTERS.indexOf(event.code.slice(3)) : -1; // by its place, whatever the layout
  const card = at < 0 ? null : view.querySelectorAll(".card")[at];
  if (!card) return;
  event.preventDefault(); // the letter is not typed into the next view
  card.click();
}

// A question that was picked: read it, while the model reads it, too.
function question(one) {
  const { question: text, options, language } = one;
  page.draw = () => question(one);
  page.draft.send(text, options, true);
  show(view,
    el("section", { class: "ask" },
      el("h2", { class: "unseen" }, say("question.heading")),
      el("div", { class: "read", lang: language || null },
        el("p", { class: "question" }, text),
        el("ol", { class: "options" }, ...options.map((option, i) => el("li", {}, letter(i), el("span", {}, option))))),
      el("div", { class: "actions" },
        el("button", { type: "button", class: "quiet", onclick: home }, icon("back"), say("question.back")),
        el("button", { type: "button", class: "primary", onclick: () => ask(text, options) }, say("question.ask")))));
  view.querySelector(".primary").focus({ preventScroll: true });
}

// A question of the visitor's own.
function write() {
  const form = new OwnQuestion({
    view, say, keyboard: page.keyboard, isOpen: page.kiosk.question_kind === "open", ask, back: home,
    changed: (text, options) => page.draft.send(text, options),
  });
  page.draw = () => form.draw();
  form.draw();
}

function thinking(text, key) {
  page.draw = () => thinking(text, key);
  show(view, el("section", { class: "thinking", "aria-busy": "true" },
    el("p", { class: "question" }, text),
    el("h2", { class: "dots" }, icon("spark"), say(key))));
}

function answer() {
  page.draw = answer;
  const wasAt = view.querySelector(".actions button:focus");
  show(view, answerView(page.answer, page.words));
  view.firstChild.append(el("div", { class: "actions" },
    el("button", { type: "button", class: "primary", onclick: home }, say("answer.again"))));
  if (wasAt) view.querySelector(".primary").focus({ preventScroll: true });
}

function failed(text, options, key) {
  page.draw = () => failed(text, options, key);
  show(view, el("section", { class: "answer" },
    el("p", { class: "question" }, text),
    el("h2", { class: "result" }, say(key)),
    el("div", { class: "actions" },
      el("button", { type: "button", class: "quiet", onclick: home }, icon("back"), say("question.back")),
      key === "failed" && el("button", { type: "button", class: "primary", onclick: () => ask(text, options) }, say("again")))));
}

// --- asking ---

async function ask(text, options) {
  const asked = {};
  page.answer = asked;
  page.draft.hold();
  let reply = askQuestion(text, options); // on its way while the page draws
  thinking(text, "asking");
  for (let tries = 1; page.answer === asked; tries += 1) {
    try {
      const decision = await (reply ?? askQuestion(text, options));
      if (page.answer === asked) answered(decision, text, options);
      return;
    } catch (error) {
      reply = null;
      if (page.answer !== asked) return; // the visitor went on
      const isBusy = error instanceof Refused && error.status === 503;
      if (tries === TRIES || (error instanceof Refused && !isBusy)) {
        const isBad = error instanceof Refused && (error.status === 400 || error.status === 413 || error.status === 422);
        failed(text, options, isBad ? "refused" : "failed");
        return;
      }
      if (isBusy) thinking(text, "busy");
      await Promise.all([watchServer(), new Promise((done) => setTimeout(done, TRY_AGAIN_MS))]);
    }
  }
}

function answered(decision, text, options) {
  page.answer = { decision, text, options, ending: null };
  answer();
  announce();
  page.draft.forget();
  if (decision.provisional) page.events.follow(decision.decision_id);
}

function announce() {
  byId("announcer").textContent = spoken(page.answer, page.words);
}

// --- what the server says ---

function onState({ connection, waiting }) {
  if (page.state.connection === connection && page.state.waiting === waiting) return; // a screen reader would say it again
  page.state = { connection, waiting };
  drawStatus();
}

function onEnding(ending) {
  if (page.answer?.decision?.decision_id !== ending.decision_id || !ending.ending || page.answer.ending) return;
  page.answer.ending = ending;
  answer();
  announce();
}

// The operator deleted the decision: nothing follows it any more.
function onGone({ decision_id: id }) {
  if (page.answer?.decision?.decision_id !== id) return;
  page.answer.decision = { ...page.answer.decision, provisional: false };
  answer();
}

// Resolves at once if the server is there; otherwise says "back in a moment" and resolves when it is.
function watchServer() {
  page.recovery ??= recover().finally(() => { page.recovery = null; });
  return page.recovery;
}

async function recover() {
  if (await isHealthy()) return;
  const soon = setTimeout(() => setAway(true), SAY_AWAY_AFTER_MS);
  await untilHealthy();
  clearTimeout(soon);
  if (page.draw === home && !byId("away").hidden && navigator.serviceWorker?.controller) return location.reload(); // perhaps it is a newer server
  setAway(false);
  page.events.open();
}

function setAway(isAway) {
  byId("away").hidden = !isAway;
  for (const part of [document.querySelector(".bar"), view, byId("keyboard"), document.querySelector(".foot")]) part.inert = isAway;
  if (!isAway) page.draw(); // it takes the focus back
}

// --- leaving no trace ---

// Forget the question at hand, here and in the server's drafts.
function leave() {
  page.keyboard.close();
  page.draft.forget();
  page.events?.forget();
  page.answer = null;
  byId("announcer").textContent = "";
}

// As if nobody had been here. The document itself goes, too, because a browser remembers what was undone; not while the server is away.
function reset() {
  for (const field of view.querySelectorAll("textarea, input")) field.value = "";
  page.draw = home;
  choose(page.kiosk.language);
  getSelection().removeAllRanges();
  if (byId("away").hidden && navigator.serviceWorker?.controller) location.replace("/");
}

start();
