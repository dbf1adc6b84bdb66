// Starts a page anew when nobody touches it: a warning first, then the reset.
// Owns the clock and the dialog. Knows nothing about what the page shows. The clock is monotonic: setting the device's time starts nothing.

const WARNING_S = 20;
const SIGNS = ["pointerdown", "keydown", "wheel", "touchmove"];

export class Idle {
  // `after` is how many seconds without a touch bring the warning; `isFresh` says that there is nothing to clear.
  constructor({ after, dialog, say, reset, isFresh }) {
    Object.assign(this, { after, dialog, say, reset, isFresh });
    this.since = performance.now();
    for (const sign of SIGNS) addEventListener(sign, () => this.touched(), { capture: true, passive: true });
    dialog.addEventListener("cancel", () => this.stay());
    dialog.addEventListener("click", () => this.stay()); // anywhere; not at the first contact, or the rest of the touch would reach what is below
    addEventListener("keydown", (event) => this.typed(event), { capture: true });
    setInterval(() => this.tick(), 1000);
  }

  touched() {
    if (!this.dialog.open) this.since = performance.now();
  }

  // Whoever types goes on typing; Enter and Space press the button that has the focus.
  typed(event) {
    if (this.dialog.open && event.key !== "Enter" && event.key !== " ") this.stay();
  }

  stay() {
    this.dialog.close();
    this.touched();
  }

  tick() {
    if (this.isFresh()) return this.stay();
    const left = Math.ceil(this.after + WARNING_S - (performance.now() - this.since) / 1000);
    if (left <= 0) {
      this.stay();
      this.reset();
    } else if (left <= WARNING_S) {
      this.say(left);
      if (!this.dialog.open) this.dialog.showModal();
    }
  }
}
