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
    dialog.addEventListener("cancel", () => this.touched());
    dialog.querySelector("button").addEventListener("click", () => this.touched());
    setInterval(() => this.tick(), 1000);
  }

  touched() {
    this.since = performance.now();
    if (this.dialog.open) this.dialog.close();
  }

  tick() {
    if (this.isFresh()) return this.touched();
    const left = Math.ceil(this.after + WARNING_S - (performance.now() - this.since) / 1000);
    if (left <= 0) {
      this.touched();
      this.reset();
    } else if (left <= WARNING_S) {
      this.say(left);
      if (!this.dialog.open) this.dialog.showModal();
    }
  }
}
