// A question of the visitor's own, with its options.
// Owns the form. Invariant: drawing it again, in another language, keeps every text, the field and the place in it.

import { el, icon, letter, LETTERS, show } from "/kiosk/page.js";

const MOST_OPTIONS = 6;
const MOST_QUESTION = 400;
const MOST_OPTION = 80;

export class OwnQuestion {
  // `isOpen`: the model answers in its own words, so there are no options. `changed` and `ask` get the question and its options.
  constructor({ view, say, keyboard, isOpen, changed, ask, back }) {
    Object.assign(this, { view, say, keyboard, isOpen, changed, ask, back });
    this.texts = isOpen ? [""] : ["", "", ""]; // the question, then its options
    this.complaint = null;
  }

  draw() {
    const { at, start, end } = this.place();
    const { say } = this;
    this.fields = this.texts.map((text, i) => this.field(text, i));
    this.warning = el("p", { class: "warning", role: "alert" });
    show(this.view,
      el("form", { class: "own-form", novalidate: true, autocomplete: "off", onsubmit: (event) => { event.preventDefault(); this.submit(); } },
        el("h2", {}, say("own.heading")),
        ...this.fields.map((field, i) => el("div", { class: i ? "field" : "field whole" },
          el("label", { for: field.id }, i ? say("own.option", { letter: LETTERS[i - 1] }) : say("own.question")), field, i > 0 && letter(i - 1))),
        this.warning,
        el("div", { class: "actions" },
          el("button", { type: "button", class: "quiet", onclick: this.back }, icon("back"), say("question.back")),
          this.mayAdd() && el("button", { type: "button", class: "quiet", onclick: () => this.add() }, icon("plus"), say("own.add")),
          el("button", { type: "submit", class: "primary" }, say("own.ask")))));
    this.complain(this.complaint);
    if (at === null) return;
    this.fields[at].focus({ preventScroll: true });
    this.fields[at].setSelectionRange(start, end);
  }

  // Which field has the focus, and where in it; at first the question, and null if the visitor is elsewhere.
  place() {
    if (!this.fields) return { at: 0, start: 0, end: 0 };
    const at = this.fields.indexOf(this.keyboard.field ?? document.activeElement);
    if (at < 0) return { at: null };
    return { at, start: this.fields[at].selectionStart, end: this.fields[at].selectionEnd };
  }

  field(text, i) {
    const own = this.keyboard.isWanted;
    const field = el(i ? "input" : "textarea", {
      id: `own-${i}`, maxlength: i ? MOST_OPTION : MOST_QUESTION, inputmode: own ? "none" : "text", enterkeyhint: "next", rows: i ? null : 2,
      autocomplete: "off", autocapitalize: "off", spellcheck: "false",
      onfocus: () => this.keyboard.open(field), onclick: () => this.keyboard.open(field),
      oninput: () => this.typed(i, field.value), onnext: () => this.next(i),
      onkeydown: (event) => this.pressed(event, i),
      oncopy: (event) => event.preventDefault(), oncut: (event) => event.preventDefault(), // the clipboard would outlive the reset
    });
    field.value = text;
    return field;
  }

  typed(i, value) {
    this.texts[i] = value;
    this.complain(null);
    const { asked, options } = this.given();
    this.changed(asked, options.length > 1 ? options : []);
  }

  pressed(event, i) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.next(i);
    } else if (event.key === "Escape") {
      this.keyboard.close();
    }
  }

  // To the next field that must be filled; with two options a further one is the visitor's choice.
  next(i) {
    if (i + 1 < this.fields.length) this.fields[i + 1].focus();
    else this.submit();
  }

  mayAdd() {
    return !this.isOpen && this.texts.length <= MOST_OPTIONS;
  }

  add() {
    this.texts.push("");
    this.draw();
    this.fields.at(-1).focus();
  }

  given() {
    const [asked, ...options] = this.texts.map((one) => one.trim());
    return { asked, options: options.filter(Boolean) };
  }

  submit() {
    const { asked, options } = this.given();
    if (!asked || (!this.isOpen && options.length < 2)) return this.complain(this.isOpen ? "own.empty" : "own.few");
    if (new Set(options.map((one) => one.toLowerCase())).size < options.length) return this.complain("own.same");
    this.keyboard.close();
    this.ask(asked, options);
  }

  complain(key) {
    this.complaint = key;
    this.warning.textContent = key ? this.say(key) : "";
    if (key) this.warning.scrollIntoView({ block: "nearest" });
  }
}
