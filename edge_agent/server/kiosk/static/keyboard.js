// A keyboard in the page, because the system's own stays under a full-screen window.
// Owns the layouts and where a key writes to. Invariant: the field keeps the focus, so a physical keyboard works all the same.

import { el, icon } from "/kiosk/page.js";

// The rows of letters, and what stands on the key that leads back to them.
const LAYOUTS = {
  en: { rows: ["qwertyuiop", "asdfghjkl'", "zxcvbnm-"], face: "abc" },
  ru: { rows: ["йцукенгшщзхъ", "фывапролджэё", "ячсмитьбю"], face: "абв" },
  kk: { rows: ["әіңғүұқөһё", "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"], face: "аәб" },
};
const DIGITS = "1234567890";
const SIGNS = [DIGITS, "+-×÷=%/():", "«»\"!;№₸$€°"];
const MARKS = [",", ".", "?"];
const REPEAT_AFTER_MS = 450;
const REPEAT_EVERY_MS = 70;

// A phone has a keyboard of its own, and ours would be too small there.
const PHONE = matchMedia("(max-width: 450px), (max-height: 450px)");
// There is room for a row of digits above three rows of letters, and above four.
const HIGH = matchMedia("(min-height: 640px)");
const HIGHER = matchMedia("(min-height: 900px)");

export class Keyboard {
  // `say` gives the words of the page, `languages` are those of the deck.
  constructor(box, languages, say) {
    Object.assign(this, { box, say });
    this.languages = languages.filter((one) => one.code in LAYOUTS);
    this.layout = this.languages[0]?.code ?? "en";
    this.upper = false;
    this.digits = false;
    this.field = null;
    for (const one of [HIGH, HIGHER]) one.addEventListener("change", () => this.box.hidden || this.draw());
  }

  get isWanted() {
    return !PHONE.matches;
  }

  // Write into a field from now on.
  open(field) {
    if (!this.isWanted) return;
    this.field = field;
    if (this.box.hidden) {
      this.box.hidden = false;
      document.body.classList.add("typing");
      this.draw();
    }
    field.scrollIntoView({ block: "nearest" });
  }

  close() {
    this.box.hidden = true;
    this.box.replaceChildren();
    this.field = null;
    this.upper = this.digits = false;
    document.body.classList.remove("typing");
  }

  // Show the letters of a language, as far as there are some.
  speak(language) {
    if (language in LAYOUTS) this.layout = language;
    if (!this.box.hidden) this.draw();
  }

  draw() {
    const { rows } = LAYOUTS[this.layout];
    const isRoomy = rows.length > 3 ? HIGHER.matches : HIGH.matches;
    const shown = this.digits ? SIGNS : isRoomy ? [DIGITS, ...rows] : rows;
    const lines = shown.map((row) => el("div", { class: "keys" }, ...Array.from(row, (letter) => this.letter(letter))));
    if (!this.digits) lines.at(-1).prepend(this.action("shift", "shift", () => this.flip("upper"), { "aria-pressed": String(this.upper) }));
    lines.at(-1).append(this.erasing());
    this.box.dataset.across = Math.max(...shown.map((row) => row.length)); // how many keys stand side by side
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", this.say("keyboard"));
    this.box.replaceChildren(...lines, this.bottom());
  }

  bottom() {
    const other = this.nextLayout();
    return el(
      "div", { class: "keys" },
      this.action("hide", "down", () => this.hide()),
      this.plain(this.digits ? LAYOUTS[this.layout].face : "123", null, () => this.flip("digits"), "wide"),
      other && this.plain(other.short, `${other.short} (${this.say("keyboard.layout", { language: other.name })})`, () => this.turn(), "wide"),
      this.plain(this.say("keyboard.space"), null, () => this.write(" "), "space"),
      ...MARKS.map((mark) => this.letter(mark)),
      this.plain(this.say("keyboard.next"), null, () => this.next(), "go"),
    );
  }

  letter(letter) {
    const shown = this.upper ? letter.toUpperCase() : letter;
    return this.plain(shown, null, () => this.write(shown), "char");
  }

  action(key, picture, run, extra = {}) {
    return this.key({ "aria-label": this.say(`keyboard.${key}`), class: `key ${key}`, ...extra }, run, icon(picture));
  }

  plain(text, label, run, kind) {
    return this.key({ class: `key ${kind}`, "aria-label": label }, run, text);
  }

  key(attributes, run, face) {
    const key = el("button", { type: "button", tabindex: "-1", ...attributes }, el("span", {}, face));
    key.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the field keeps the focus
      run();
    });
    key.addEventListener("click", (event) => event.detail === 0 && run()); // assistive technology clicks without a pointer
    return key;
  }

  // The key that erases, and goes on while it is held.
  erasing() {
    let timer = 0;
    const again = () => { this.erase(); timer = setTimeout(again, REPEAT_EVERY_MS); };
    const key = this.action("erase", "erase", () => {
      clearTimeout(timer);
      this.erase();
      timer = setTimeout(again, REPEAT_AFTER_MS);
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) key.addEventListener(end, () => clearTimeout(timer));
    key.addEventListener("click", () => clearTimeout(timer));
    return key;
  }

  flip(name) {
    this[name] = !this[name];
    this.draw();
  }

  nextLayout() {
    if (this.languages.length < 2) return null;
    return this.languages[(this.languages.findIndex((one) => one.code === this.layout) + 1) % this.languages.length];
  }

  turn() {
    this.digits = false;
    this.speak(this.nextLayout().code);
  }

  hide() {
    this.field?.blur();
    this.close();
  }

  write(text) {
    const field = this.field;
    if (!field || field.value.length - (field.selectionEnd - field.selectionStart) + text.length > field.maxLength) return;
    this.put(text, field.selectionStart, field.selectionEnd);
    if (this.upper) this.flip("upper");
  }

  erase() {
    const field = this.field;
    if (!field) return;
    const last = Array.from(field.value.slice(0, field.selectionStart)).at(-1) ?? "";
    const start = field.selectionStart === field.selectionEnd ? field.selectionStart - last.length : field.selectionStart;
    this.put("", start, field.selectionEnd);
  }

  put(text, start, end) {
    this.field.setRangeText(text, start, end, "end");
    this.field.dispatchEvent(new Event("input", { bubbles: true }));
    this.field.scrollLeft = this.field.scrollWidth;
    this.field.scrollTop = this.field.scrollHeight;
  }

  next() {
    this.field?.dispatchEvent(new CustomEvent("next", { bubbles: true }));
  }
}
