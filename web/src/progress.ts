/** How far the work is, in a bar and in words; the time is renewed each second, so that nothing looks as if it hung. */

import { element } from "./dom.js";
import type { Phase } from "./segment.js";
import { duration, timeLeft } from "./timing.js";

const SECOND_MS = 1000;
const PHASES: Record<Phase, string> = {
  reading: "Reading the image",
  preparing: "Preparing the image",
  loading: "Loading the model",
  segmenting: "Segmenting",
  writing: "Writing the segmentation",
};
/** Phases whose shares say how long they will take. */
const MEASURED: readonly Phase[] = ["preparing", "segmenting"];

export class Progress {
  private began = 0;
  private phase: Phase | null = null;
  private phaseBegan = 0;
  /** Per cent and time left, where they are known. */
  private left = "";
  private timer = 0;

  begin(phase: Phase): void {
    this.end();
    this.began = performance.now();
    this.phase = null;
    this.timer = window.setInterval(() => this.renew(), SECOND_MS);
    this.advance(phase, 0);
  }

  end(): void {
    clearInterval(this.timer);
  }

  /** Say that a share of a phase is done. */
  advance(phase: Phase, share: number): void {
    if (phase !== this.phase) {
      this.phase = phase;
      this.phaseBegan = performance.now();
      element("phase").textContent = PHASES[phase];
    }
    const isMeasured = MEASURED.includes(phase);
    const bar = element<HTMLProgressElement>("progress");
    if (isMeasured) bar.value = share;
    else bar.removeAttribute("value");
    const left = isMeasured ? timeLeft(performance.now() - this.phaseBegan, share) : null;
    this.left = left ? `, ${Math.floor(100 * share)} per cent, ${left}` : "";
    this.renew();
    // Screen readers are told now and then, not ten times a second.
    const quarter = isMeasured ? `, ${25 * Math.floor(4 * share)} per cent` : "";
    const step = `${PHASES[phase]}${quarter}.`;
    if (element("status").textContent !== step) element("status").textContent = step;
  }

  private renew(): void {
    element("left").textContent = `${duration(performance.now() - this.began)} so far${this.left}`;
  }
}
