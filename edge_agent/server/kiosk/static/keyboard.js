// A keyboard in the page, because the system's own stays under a full-screen window.
// Owns the layouts and where a key writes to. Invariant: the field keeps the focus, so a physical keyboard works all the same.

import { el, icon } from "/kiosk/page.js";

const LAYOUTS = {
  en: ["1234567890", "qwertyuiop", "asdfghjkl'", "zxcvbnm,.?"],
  ru: ["1234567890", "йцукенгшщзхъ", "фывапролджэё", "ячсмитьбю,.?"],
  kk: ["әіңғүұқөһ", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю,.?"],
};
const DIGITS = "1234567890+-×÷=%()/:";

export class Keyboard {
  constructor(box, languages, words, onHide) {
    Object.assign(this, { box, languages, words, onHide });
    this.layout = "en";
    this.upper = false;
    this.digits = false;
    this.field = null;
  }

  open(field, language, words) {
    if (this.field !== field || this.box.hidden) {
      this.field = field;
      this.words = words;
      if (this.box.hidden) this.layout = language in LAYOUTS ? language : "en";
      this.box.hidden = false;
      document.body.classList.add("typing");
      this.draw();
    }
    field.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.box.hidden = true;
    this.field = null;
    this.upper = this.digits = false;
    document.body.classList.remove("typing");
  }

  draw() {
    const rows = this.digits ? [DIGITS.slice(0, 10), DIGITS.slice(10)] : LAYOUTS[this.layout];
    const lines = rows.map((row) => el("div", { class: "keys" }, ...Array.from(row, (letter) => this.letter(letter))));
    lines.at(-1).prepend(this.action("shift", "shift", () => this.flip("upper"), { "aria-pressed": String(this.upper) }));
    lines.at(-1).append(this.action("erase", "erase", () => this.erase()));
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", this.words.say("keyboard"));
    this.box.replaceChildren(...lines, this.bottom());
  }

  bottom() {
    const others = this.languages.length > 1;
    const name = this.nextLayout();
    return el(
      "div", { class: "keys" },
      this.action("hide", "down", () => this.onHide()),
      this.plain(this.digits ? "abc" : "123", null, () => this.flip("digits"), "wide"),
      others && this.plain(name.toUpperCase(), this.words.say("keyboard.layout", { language: name }), () => this.turn(), "wide"),
      this.plain(this.words.say("keyboard.space"), null, () => this.write(" "), "space"),
      this.plain(this.words.say("keyboard.next"), null, () => this.next(), "wide accent"),
    );
  }

  letter(letter) {
    const shown = this.upper ? letter.toUpperCase() : letter;
    return this.plain(shown, null, () => this.write(shown), "letter");
  }

  action(key, picture, run, extra = {}) {
    return this.key({ "aria-label": this.words.say(`keyboard.${key}`), class: `key ${key}`, ...extra }, run, icon(picture));
  }

  plain(text, label, run, kind) {
    return this.key({ class: `key ${kind}`, "aria-label": label }, run, text);
  }

  key(attributes, run, face) {
    const key = el("button", { type: "button", tabindex: "-1", ...attributes }, face);
    key.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the field keeps the focus
      run();
    });
    key.addEventListener("click", (event) => event.detail === 0 && run()); // assistive technology clicks without a pointer
    return key;
  }

  flip(name) {
    this[name] = !this[name];
    this.draw();
  }

  nextLayout() {
    const known = this.languages.filter((language) => language in LAYOUTS);
    return known[(known.indexOf(this.layout) + 1) % known.length];
  }

  turn() {
    this.layout = this.nextLayout();
    this.digits = false;
    this.draw();
  }

  write(text) {
    const field = this.field;
    if (!field || field.value.length - (field.selectionEnd - field.selectionStart) + text.length > field.maxLength) return;
    field.setRangeText(text, field.selectionStart, field.selectionEnd, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
    if (this.upper) this.flip("upper");
  }

  erase() {
    const field = this.field;
    if (!field) return;
    const before = field.value.slice(0, field.selectionStart);
    const last = Array.from(before).at(-1) ?? "";
    const start = field.selectionStart === field.selectionEnd ? field.selectionStart - last.length : field.selectionStart;
    field.setRangeText("", start, field.selectionEnd, "end");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  next() {
    this.field?.dispatchEvent(new CustomEvent("next", { bubbles: true }));
  }
}
