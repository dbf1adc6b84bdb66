// Starts a page anew when nobody touches it: a warning first, then the reset.
// Owns the clock and the dialog. Knows nothing about what the page shows.

const WARNING_S = 20;
const SIGNS = ["pointerdown", "keydown", "wheel", "touchmove"];

export class Idle {
  // `after` is how many seconds without a touch bring the warning; `busy` says whether the page must wait.
  constructor({ after, dialog, say, reset, busy }) {
    Object.assign(this, { after, dialog, say, reset, busy });
    this.left = 0;
    this.since = Date.now();
    for (const sign of SIGNS) addEventListener(sign, () => this.touched(), { capture: true, passive: true });
    dialog.addEventListener("cancel", () => this.touched());
    dialog.querySelector("button").addEventListener("click", () => this.touched());
    setInterval(() => this.tick(), 1000);
  }

  touched() {
    this.since = Date.now();
    if (this.dialog.open) this.dialog.close();
  }

  tick() {
    const idle = (Date.now() - this.since) / 1000;
    if (idle < 0 || this.busy()) this.since = Date.now(); // the clock was set, or there is nothing to clear
    const left = Math.ceil(this.after + WARNING_S - idle);
    if (left <= 0) {
      this.since = Date.now();
      if (this.dialog.open) this.dialog.close();
      this.reset();
    } else if (left <= WARNING_S) {
      this.say(left);
      if (!this.dialog.open) this.dialog.showModal();
    }
  }
}
