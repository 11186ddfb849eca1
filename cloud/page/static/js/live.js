/** The live ECG, drawn like a bedside monitor: the trace sweeps over a fixed grid. */

import { UNITS_PER_MM, UNITS_PER_S, addTrace, createPicture, fitPaper, gridParts, median } from "/static/reporting/paper.js";
import { cssColour, element, setText } from "./dom.js";
import { t } from "./i18n.js";
import { sensorKey } from "./state.js";

const MIN_HEIGHT_MM = 35;
/** Blank time ahead of the newest sample. */
const BLANK_US = 400_000;
/** If the delay of the head differs from its target by more than this, the head jumps. */
const MAX_DELAY_ERROR_US = 6e6;
/** Largest relative change of the playback speed, which keeps the delay of the head at its target. */
const MAX_SPEED_CHANGE = 0.05;
/** The gain fits the range of the last seconds. It changes only if the trace no longer fits, to keep the scale steady. */
const FIT_WINDOW_US = 8e6;

export class LiveEcg {
  #view = null;
  /** The time of the newest sample drawn. */
  #head_us = 0;
  #drawn_ms = 0;
  /** Target delay of the head behind the newest data. */
  #delay_us = 1.2e6;
  #layout = null;
  #baseline_mv = 0;

  constructor(host, onGain, state) {
    Object.assign(this, { host, onGain, state, key: null, note: element("p", { class: "paper-note" }, element("span")) });
    this.host.setAttribute("role", "img");
    this.host.append(this.note);
    new ResizeObserver(() => this.redraw()).observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    const tick = (now_ms) => { this.#onFrame(now_ms); requestAnimationFrame(tick); };
    requestAnimationFrame(tick);
  }

  /** Shows another sensor: nothing of the one before stays on the screen. */
  show(key) {
    if (this.key === key) return;
    Object.assign(this, { key });
    this.#head_us = 0;
    this.#layout = null;
    if (this.#view) this.#view.context.clearRect(0, 0, this.#view.width, this.#view.height);
  }

  /** Creates a new canvas and grid in the next frame, for another size, theme or gain. */
  redraw() { this.#view = null; }

  /** Adapts the delay to the length of the chunks: 1.3 chunks, within 0.6 to 3 s. */
  onChunk({ mv, rate_hz, ...names }) {
    if (sensorKey(names) !== this.key) return;
    this.#delay_us = Math.max(0.6e6, Math.min(3e6, 1.3 * (mv.length / rate_hz) * 1e6));
  }

  #onFrame(now_ms) {
    const chunks = this.state.ecg(this.key);
    this.note.hidden = chunks.length > 0;
    if (!chunks.length) setText(this.note.firstChild, t("no_ecg"));
    if (now_ms - this.#drawn_ms < 30) return;
    this.#moveHead((now_ms - this.#drawn_ms) * 1000, chunks.at(-1)?.end_us ?? 0);
    this.#drawn_ms = now_ms;
    this.#fitRange(chunks);
    if (!this.#view) this.#createCanvas();
    if (this.#view) this.#draw(chunks);
  }

  #moveHead(elapsed_us, end_us) {
    const target_us = end_us - this.#delay_us;
    if (Math.abs(target_us - this.#head_us) > MAX_DELAY_ERROR_US) this.#head_us = target_us;
    const speed = 1 + Math.max(-MAX_SPEED_CHANGE, Math.min(MAX_SPEED_CHANGE, (target_us - this.#head_us) / 10e6));
    this.#head_us = Math.min(end_us, this.#head_us + elapsed_us * speed);
  }

  #fitRange(chunks) {
    const recent = chunks.filter((chunk) => chunk.end_us > this.#head_us - FIT_WINDOW_US).flatMap((chunk) => chunk.mv);
    if (!recent.length && this.#layout) return;
    const [low, high] = recent.reduce(([lowest, highest], mv) => [Math.min(lowest, mv), Math.max(highest, mv)], [0, 0]);
    const fits = this.#layout && (low - this.#baseline_mv) * this.#layout.gain > this.#layout.low_mm
      && (high - this.#baseline_mv) * this.#layout.gain < this.#layout.high_mm;
    if (fits) return;
    this.#baseline_mv = median(recent);
    this.#layout = fitPaper(Math.min(-0.8, low - this.#baseline_mv), Math.max(1.6, high - this.#baseline_mv), MIN_HEIGHT_MM);
    this.redraw();
  }

  #createCanvas() {
    const width = Math.floor(this.host.clientWidth);
    if (!width) return;
    const grid = createPicture(width, this.#layout.height);
    grid.append(...gridParts(width, this.#layout.height));
    this.#view = makeCanvas(width, this.#layout.height);
    this.host.replaceChildren(grid, this.#view.canvas, this.note);
    const sensor = this.state.sensors.get(this.key);
    this.host.setAttribute("aria-label", sensor ? t("live_ecg_label", { patient: sensor.subject, sensor: sensor.sensor }) : t("live_ecg"));
    this.onGain(this.#layout.gain);
  }

  #draw(chunks) {
    const { context, width, height } = this.#view;
    const sweep_us = (width / UNITS_PER_S) * 1e6;
    const start_us = this.#head_us - (this.#head_us % sweep_us);
    context.clearRect(0, 0, width, height);
    this.#drawSamples(chunks, start_us, this.#head_us, start_us);
    this.#drawSamples(chunks, this.#head_us - sweep_us + BLANK_US, start_us, start_us - sweep_us);
  }

  /** Draws the samples between two times, with `left_us` at the left edge. */
  #drawSamples(chunks, from_us, to_us, left_us) {
    const { context } = this.#view;
    const y = (mv) => (this.#layout.high_mm - (mv - this.#baseline_mv) * this.#layout.gain) * UNITS_PER_MM;
    for (const run of gapFreeRuns(chunks, from_us, to_us)) {
      context.beginPath();
      addTrace(context, run.map(([, mv]) => mv), (i) => ((run[i][0] - left_us) / 1e6) * UNITS_PER_S, y);
      context.stroke();
    }
  }
}

/** Creates a transparent canvas of this size in CSS pixels. Its resolution is at most twice that, to stay fast. */
function makeCanvas(width, height) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const canvas = element("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  Object.assign(context, { strokeStyle: cssColour("--trace"), lineWidth: 1.5, lineJoin: "round" });
  return { canvas, context, width, height };
}

/** Splits the samples between two times into gap-free runs of [time, mV]; a step of more than 1.5 periods is a gap. */
function gapFreeRuns(chunks, from_us, to_us) {
  const found = [];
  let last_us = -Infinity;
  for (const { start_us, end_us, rate_hz, mv } of chunks) {
    if (end_us < from_us || start_us > to_us) continue;
    const period_us = 1e6 / rate_hz;
    mv.forEach((value, i) => {
      const us = start_us + i * period_us;
      if (us < from_us || us > to_us || us <= last_us) return; // never backwards, where chunks overlap
      if (us - last_us > 1.5 * period_us) found.push([]);
      found.at(-1).push([us, value]);
      last_us = us;
    });
  }
  return found;
}
