/** The running ECG, drawn as a monitor does: the newest sample sweeps over a grid that stands still. */

import { element, setText } from "./dom.js";
import { t } from "./i18n.js";
import { PX_PER_S, drawGrid, drawTrace, fit, makeCanvas, median } from "./paper.js";

const LEAST_MM = 35;
/** What is erased ahead of the newest sample. */
const ERASED_US = 400_000;
/** The play head follows the data this much late at most; further off, it jumps. */
const LATEST_US = 6e6;
/** Share by which the head may run faster or slower to hold its distance from the data. */
const SLEW = 0.05;
/** The gain settles on the last seconds' range and changes only if that no longer fits, so that the trace does not breathe. */
const RANGE_US = 8e6;

export class LiveEcg {
  #grid = null;
  #view = null;
  #head_us = 0;
  #drawn_ms = 0;
  #margin_us = 1.2e6;
  #shape = null;
  #middle = 0;

  constructor(host, scale, state) {
    Object.assign(this, { host, scale, state, sensor: null, note: element("p", { class: "paper-note" }, element("span")) });
    this.host.setAttribute("role", "img");
    this.host.append(this.note);
    new ResizeObserver(() => this.redraw()).observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    const tick = (now_ms) => { this.#frame(now_ms); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  show(sensor) {
    if (this.sensor === sensor) return;
    Object.assign(this, { sensor });
    this.#head_us = 0;
    this.#shape = null;
  }

  /** New canvas and grid: another size, theme or gain. */
  redraw() { this.#view = null; }

  /** Learns how late chunks come: the head stays behind the data by one chunk and some room. */
  arrived({ mv, rate_hz }) {
    this.#margin_us = Math.max(0.6e6, Math.min(3e6, 1.3 * (mv.length / rate_hz) * 1e6));
  }

  #frame(now_ms) {
    const chunks = this.state.ecg(this.sensor);
    this.note.hidden = chunks.length > 0;
    if (!chunks.length) setText(this.note.firstChild, t("no_ecg"));
    if (now_ms - this.#drawn_ms < 30) return;
    this.#move((now_ms - this.#drawn_ms) * 1000, chunks.at(-1)?.end_us ?? 0);
    this.#drawn_ms = now_ms;
    this.#fitRange(chunks);
    if (!this.#view) this.#prepare();
    if (this.#view) this.#draw(chunks);
  }

  #move(passed_us, end_us) {
    const wanted = end_us - this.#margin_us;
    if (Math.abs(wanted - this.#head_us) > LATEST_US) this.#head_us = wanted;
    const pace = 1 + Math.max(-SLEW, Math.min(SLEW, (wanted - this.#head_us) / 10e6));
    this.#head_us = Math.min(end_us, this.#head_us + passed_us * pace);
  }

  #fitRange(chunks) {
    const recent = chunks.filter((chunk) => chunk.end_us > this.#head_us - RANGE_US).flatMap((chunk) => chunk.mv);
    if (!recent.length && this.#shape) return;
    const [low, high] = [Math.min(0, ...recent), Math.max(0, ...recent)];
    const fits = this.#shape && (low - this.#middle) * this.#shape.gain > this.#shape.low_mm
      && (high - this.#middle) * this.#shape.gain < this.#shape.high_mm;
    if (fits) return;
    this.#middle = median(recent);
    this.#shape = fit(Math.min(-0.8, low - this.#middle), Math.max(1.6, high - this.#middle), LEAST_MM);
    this.redraw();
  }

  #prepare() {
    const width = Math.floor(this.host.clientWidth);
    if (!width) return;
    this.#grid = makeCanvas(width, this.#shape.height);
    drawGrid(this.#grid.context, width, this.#shape.height);
    this.#view = makeCanvas(width, this.#shape.height);
    this.host.replaceChildren(this.#view.canvas, this.note);
    this.host.setAttribute("aria-label", t("live_ecg"));
    this.scale(this.#shape.gain);
  }

  #draw(chunks) {
    const { context, width, height } = this.#view;
    const sweep_us = (width / PX_PER_S) * 1e6;
    const start_us = this.#head_us - (this.#head_us % sweep_us);
    context.drawImage(this.#grid.canvas, 0, 0, width, height);
    this.#stretch(chunks, start_us, this.#head_us, start_us);
    this.#stretch(chunks, this.#head_us - sweep_us + ERASED_US, start_us, start_us - sweep_us);
  }

  /** The samples between two times, with `left_us` at the left edge. */
  #stretch(chunks, from_us, to_us, left_us) {
    const y = (mv) => (this.#shape.high_mm - (mv - this.#middle) * this.#shape.gain) * 4;
    for (const run of runs(chunks, from_us, to_us)) {
      drawTrace(this.#view.context, run.map(([, mv]) => mv), (i) => ((run[i][0] - left_us) / 1e6) * PX_PER_S, y);
    }
  }
}

/** Gap-free runs of [time, mV] between two times; a step of more than 1.5 periods is a gap. */
function runs(chunks, from_us, to_us) {
  const found = [];
  let last_us = -Infinity;
  for (const { start_us, end_us, rate_hz, mv } of chunks) {
    if (end_us < from_us || start_us > to_us) continue;
    const period_us = 1e6 / rate_hz;
    mv.forEach((value, i) => {
      const us = start_us + i * period_us;
      if (us < from_us || us > to_us) return;
      if (us - last_us > 1.5 * period_us) found.push([]);
      found.at(-1).push([us, value]);
      last_us = us;
    });
  }
  return found;
}
