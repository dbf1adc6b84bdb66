// The operator's page: signs in, shows one of its views, and keeps the state of the device live.
// Owns the session and the views' common tools. Invariants: without a token nothing is shown; after some idle minutes the operator is
// signed out and everything that was shown is gone; a text from a person or a model is only ever a text node.

import { Api } from "/kiosk/operator-api.js";
import { decisions } from "/kiosk/operator-decisions.js";
import { model } from "/kiosk/operator-model.js";
import { overview } from "/kiosk/operator-overview.js";
import { queue } from "/kiosk/operator-queue.js";
import { el, icon } from "/kiosk/page.js";
import { Words } from "/kiosk/words.js";

const IDLE_MS = 10 * 60_000;
const VIEWS = { overview, decisions, queue, model };

const byId = (id) => document.getElementById(id);
const view = byId("view");

class Page {
  constructor(words) {
    this.words = words;
    this.api = new Api((why) => this.signOut(why || this.say("signin.denied")));
    this.name = null;
    this.shown = null; // what the present view returned: { heard(name, data) }
    this.left = new AbortController(); // aborted when the view changes
    this.idle = 0;
  }

  say(key, values) {
    return this.words.say(key, values);
  }

  // A word for a value of the server's lists; a value without a word is shown as it is.
  named(list, value) {
    return value === null || value === undefined ? "" : this.words.catalogue[`${list}.${value}`] ?? String(value);
  }

  // The same with values in it; for an unknown value, the value itself.
  sentence(list, value, values) {
    return `${list}.${value}` in this.words.catalogue ? this.say(`${list}.${value}`, values) : String(value);
  }

  count(value) {
    return this.words.number(value ?? 0);
  }

  share(value, digits = 0) {
    return value === null || value === undefined || Number.isNaN(value) ? "–"
      : this.words.number(value, { style: "percent", maximumFractionDigits: digits });
  }

  ms(value) {
    if (value === null || value === undefined) return "–";
    return value < 1000 ? this.say("ms", { value: this.words.number(value, { maximumFractionDigits: 0 }) })
      : this.say("s", { value: this.words.number(value / 1000, { maximumFractionDigits: 1 }) });
  }

  bytes(value) {
    const names = ["kB", "MB", "GB", "TB"];
    let size = value / 1000;
    let place = 0;
    while (size >= 1000 && place < names.length - 1) { size /= 1000; place += 1; }
    return `${this.words.number(size, { maximumFractionDigits: size < 10 ? 1 : 0 })} ${names[place]}`;
  }

  age(seconds) {
    const [value, unit] = seconds < 90 ? [seconds, "second"] : seconds < 5400 ? [seconds / 60, "minute"]
      : seconds < 129_600 ? [seconds / 3600, "hour"] : [seconds / 86_400, "day"];
    return new Intl.NumberFormat(this.words.language, { style: "unit", unit, unitDisplay: "long", maximumFractionDigits: 0 }).format(value);
  }

  time(text, options = { dateStyle: "medium", timeStyle: "short" }) {
    return text && !Number.isNaN(Date.parse(text)) ? new Intl.DateTimeFormat(this.words.language, options).format(new Date(text)) : "–";
  }

  // What went wrong, as a sentence; null if the operator only went on.
  trouble(error) {
    if (error.name === "AbortError") return null;
    if (error.name === "TimeoutError") return this.say("failed.slow");
    return error.message && error.status ? error.message : this.say("failed.away");
  }

  announce(text) {
    byId("announcer").textContent = text;
  }

  notice(text) {
    return el("p", { class: "notice", role: "alert" }, text);
  }

  // Fill a place with what `load` makes; meanwhile, and if it fails, a sentence stands there.
  async fill(place, load) {
    place.setAttribute("aria-busy", "true");
    if (!place.hasChildNodes()) place.append(el("p", { class: "faint" }, this.say("loading")));
    try {
      const nodes = await load();
      if (place.isConnected) place.replaceChildren(...[nodes].flat().filter(Boolean));
    } catch (error) {
      const why = this.trouble(error);
      if (why && place.isConnected) {
        place.replaceChildren(this.notice(why), el("button", { class: "quiet small", type: "button", onclick: () => this.fill(place, load) }, this.say("again")));
      }
      if (why && !error.status && !(error instanceof TypeError)) console.error(error);
    } finally {
      place.removeAttribute("aria-busy");
    }
  }

  // Ask before something that cannot be undone.
  confirm(heading, text, yes) {
    const sheet = byId("sheet");
    byId("sheet-heading").textContent = heading;
    byId("sheet-text").textContent = text;
    byId("sheet-yes").textContent = yes;
    byId("sheet-no").textContent = this.say("cancel");
    sheet.returnValue = "";
    sheet.showModal();
    return new Promise((done) => sheet.addEventListener("close", () => done(sheet.returnValue === "yes"), { once: true }));
  }

  go(name, focus = true) {
    this.left.abort();
    this.left = new AbortController();
    this.name = name;
    for (const tab of byId("tabs").children) {
      if (tab.dataset.name === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
    view.replaceChildren();
    this.shown = VIEWS[name](this, view) ?? null;
    const heading = view.querySelector("h2");
    if (heading) heading.tabIndex = -1;
    if (focus) heading?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  signInForm(why = "") {
    const token = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", autocapitalize: "none", required: true });
    const keep = el("input", { id: "keep", type: "checkbox" });
    const told = el("p", { id: "why", class: "warning", role: "alert" }, why);
    const form = el("form", { class: "signin panel", novalidate: true },
      el("h2", {}, this.say("signin.heading")),
      el("p", { class: "faint" }, this.say("signin.text")),
      el("label", { for: "token" }, this.say("signin.token")), token, told,
      el("label", { class: "tick-box", for: "keep" }, keep, el("span", {}, this.say("signin.keep"))),
      el("button", { class: "primary", type: "submit" }, this.say("signin.go")));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const given = token.value.trim();
      if (!given) told.textContent = this.say("signin.empty");
      else if (!/^[\x21-\x7e]+$/.test(given)) told.textContent = this.say("signin.denied");
      else {
        this.api.signIn(given, keep.checked);
        try {
          await this.api.get("/edge/settings");
          this.signedIn();
        } catch (error) {
          if (this.api.isSignedIn) this.signOut(this.trouble(error) ?? "");
        }
      }
    });
    view.replaceChildren(form);
    token.focus();
  }

  signedIn() {
    byId("status").hidden = byId("tabs").hidden = byId("sign-out").hidden = false;
    document.body.classList.add("signed-in");
    this.state(null);
    this.go("overview");
    this.stay();
    this.api.follow((name, data) => this.heard(name, data), () => this.state(null));
  }

  // Everything that was shown goes, and so does the token.
  signOut(why = "") {
    clearTimeout(this.idle);
    this.left.abort();
    this.api.forget();
    this.shown = this.name = null;
    byId("status").hidden = byId("tabs").hidden = byId("sign-out").hidden = true;
    byId("status").replaceChildren();
    document.body.classList.remove("signed-in");
    if (byId("sheet").open) byId("sheet").close();
    this.announce("");
    this.signInForm(why);
  }

  stay() {
    clearTimeout(this.idle);
    if (this.api.isSignedIn) this.idle = setTimeout(() => this.signOut(this.say("signin.idle")), IDLE_MS);
  }

  heard(name, data) {
    if (name === "state") this.state(data);
    this.shown?.heard?.(name, data);
  }

  state(state) {
    const connection = state?.connection ?? "lost";
    const status = byId("status");
    const picture = { online: "online", offline: "offline", paused: "paused", none: "device" }[connection] ?? "waiting";
    status.dataset.state = connection;
    status.replaceChildren(icon(picture), el("span", {}, this.named("connection", connection)),
      ...(state?.waiting ? [el("span", { class: "waiting" }, icon("waiting"), this.say("waiting", { n: state.waiting }))] : []));
  }
}

async function start() {
  const reply = await fetch("/kiosk/operator.words.json");
  const page = new Page(new Words("en", await reply.json()));
  document.title = page.say("title");
  byId("title").textContent = page.say("title");
  byId("sign-out").textContent = page.say("signout");
  byId("tabs").setAttribute("aria-label", page.say("tabs"));
  byId("tabs").append(...Object.keys(VIEWS).map((name) =>
    el("button", { type: "button", "data-name": name, onclick: () => page.go(name) }, page.say(`tab.${name}`))));
  byId("sign-out").addEventListener("click", () => page.signOut());
  byId("sheet-no").addEventListener("click", () => byId("sheet").close("no"));
  byId("sheet-yes").addEventListener("click", () => byId("sheet").close("yes"));
  for (const name of ["pointerdown", "keydown", "wheel", "touchmove"]) document.addEventListener(name, () => page.stay(), { passive: true });
  if (page.api.isSignedIn) page.signedIn();
  else page.signInForm();
}

start();
