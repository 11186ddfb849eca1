/** ECG paper: 25 mm/s and 10 mm/mV on a grid of 1 mm and 5 mm squares. One millimetre is 4 CSS pixels, so that lines are crisp. */

import { cssColour, element } from "./dom.js";
import { number, t } from "./i18n.js";

export const PX_PER_MM = 4;
export const PX_PER_S = 25 * PX_PER_MM;
const FULL_GAIN = 10;
/** A signal taller than this at 10 mm/mV is drawn at 5 mm/mV, as electrocardiographs do. */
const TALLEST_MM = 60;
const ANNOTATION_PX = 34;
const CALIBRATION_PX = 60;
const MARGIN_MV = 0.2;

export const scaleText = (gain) => t("scale", { gain, ms: number(40), mv: number(1 / gain, 2) });

/** A canvas of that many CSS pixels with its context scaled for the screen. */
export function makeCanvas(width, height) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const canvas = element("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { canvas, context, width, height };
}

/** Which gain shows these millivolts, and where zero is: whole 5 mm boxes, so that the grid stays square. */
export function fit(lowest_mv, highest_mv, least_mm) {
  const span = (gain) => [Math.floor((lowest_mv - MARGIN_MV) * gain / 5) * 5, Math.ceil((highest_mv + MARGIN_MV) * gain / 5) * 5];
  const gain = [FULL_GAIN, FULL_GAIN / 2, FULL_GAIN / 4].find((g) => { const [a, b] = span(g); return b - a <= TALLEST_MM; }) ?? 1;
  const [low, high] = span(gain);
  const extra = Math.max(0, Math.ceil((least_mm - (high - low)) / 10) * 5);
  return { gain, low_mm: low - extra, high_mm: high + extra, height: (high - low + 2 * extra) * PX_PER_MM };
}

export function drawGrid(context, width, height) {
  context.fillStyle = cssColour("--paper");
  context.fillRect(0, 0, width, height);
  lines(context, width, height, PX_PER_MM, cssColour("--paper-fine"), 1);
  lines(context, width, height, 5 * PX_PER_MM, cssColour("--paper-bold"), 1.25);
}

function lines(context, width, height, step, colour, thickness) {
  context.strokeStyle = colour;
  context.lineWidth = thickness;
  context.beginPath();
  for (let x = 0.5; x <= width; x += step) { context.moveTo(x, 0); context.lineTo(x, height); }
  for (let y = 0.5; y <= height; y += step) { context.moveTo(0, y); context.lineTo(width, y); }
  context.stroke();
}

/** One stretch of samples; `x(i)` and `y(mv)` give pixels. */
export function drawTrace(context, mv, x, y) {
  context.strokeStyle = cssColour("--trace");
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  mv.forEach((value, i) => (i ? context.lineTo(x(i), y(value)) : context.moveTo(x(i), y(value))));
  context.stroke();
}

/** The strip behind an alert with its beats, the numbers between them, onset and the 1 mV step. */
export function drawStrip(strip, alert) {
  const seconds = strip.mv.length / strip.rate_hz;
  const middle = median(strip.mv);
  const shape = fit(Math.min(...strip.mv) - middle, Math.max(...strip.mv) - middle, 30);
  const tall = ANNOTATION_PX + shape.height;
  const { canvas, context, width } = makeCanvas(Math.ceil(seconds * 5) * PX_PER_S / 5 + CALIBRATION_PX, tall);
  const at = (us) => CALIBRATION_PX + ((us - strip.start_us) / 1e6) * PX_PER_S;
  const y = (mv) => ANNOTATION_PX + (shape.high_mm - (mv - middle) * shape.gain) * PX_PER_MM;
  context.fillStyle = cssColour("--surface");
  context.fillRect(0, 0, width, tall);
  context.save();
  context.translate(0, ANNOTATION_PX);
  drawGrid(context, width, shape.height);
  context.restore();
  drawEpisode(context, strip, alert, at, seconds, tall);
  drawCalibration(context, y(middle), y(middle + 1));
  drawTrace(context, strip.mv, (i) => CALIBRATION_PX + (i / strip.rate_hz) * PX_PER_S, y);
  drawBeats(context, strip.beats_us, strip.labels, at, shape.height);
  return { canvas, gain: shape.gain, seconds, onset_px: at(alert.onset_us) };
}

/** An episode that was long before it was certain begins before its strip. */
export const showsOnset = (strip, alert) => alert.onset_us >= strip.start_us;

function drawEpisode(context, strip, alert, at, seconds, height) {
  const last = CALIBRATION_PX + seconds * PX_PER_S;
  const from = Math.max(CALIBRATION_PX, at(alert.onset_us));
  const to = Math.min(last, alert.end_us === null ? last : at(alert.end_us));
  if (to <= from) return;
  context.fillStyle = cssColour("--episode");
  context.fillRect(from, ANNOTATION_PX, to - from, height - ANNOTATION_PX);
  if (!showsOnset(strip, alert)) return;
  context.fillStyle = cssColour("--onset");
  context.fillRect(from - 1, ANNOTATION_PX, 2, height - ANNOTATION_PX);
}

function drawCalibration(context, zero, one) {
  const [left, foot] = [15 * PX_PER_MM / 5, 5 * PX_PER_MM];
  context.strokeStyle = cssColour("--trace");
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [i, [x, y]] of [[4, zero], [left, zero], [left, one], [left + foot, one], [left + foot, zero], [left + foot + 8, zero]].entries())
    i ? context.lineTo(x, y) : context.moveTo(x, y);
  context.stroke();
}

function drawBeats(context, beats_us, labels, at, height) {
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = cssColour("--quiet");
  context.fillText("RR ms", 4, 12);
  context.fillText(t("per_minute"), 4, 25);
  context.textAlign = "center";
  for (const [i, us] of beats_us.entries()) {
    const x = at(us);
    context.fillStyle = cssColour("--mark");
    context.beginPath();
    context.moveTo(x - 4.5, ANNOTATION_PX - 8);
    context.lineTo(x + 4.5, ANNOTATION_PX - 8);
    context.lineTo(x, ANNOTATION_PX);
    context.fill();
    context.globalAlpha = 0.25;
    context.fillRect(x - 0.5, ANNOTATION_PX, 1, height);
    context.globalAlpha = 1;
    if (labels[i] && labels[i] !== "N") drawLabel(context, x, labels[i]);
    if (i) drawInterval(context, (at(beats_us[i - 1]) + x) / 2, (us - beats_us[i - 1]) / 1000);
  }
}

/** The class of a beat that is not normal, beside its mark: S, V, F or ?. */
function drawLabel(context, x, label) {
  context.font = "700 12px system-ui, sans-serif";
  context.fillStyle = cssColour("--onset");
  context.fillText(label, x + 12, ANNOTATION_PX + 12);
}

function drawInterval(context, x, rr_ms) {
  context.font = "600 11px system-ui, sans-serif";
  context.fillStyle = cssColour("--ink");
  context.fillText(number(rr_ms, 0), x, 12);
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = cssColour("--quiet");
  context.fillText(number(60_000 / rr_ms, 0), x, 25);
}

export function median(values) {
  const sorted = Float64Array.from(values).sort();
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}
