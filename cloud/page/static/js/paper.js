/** ECG paper: 25 mm/s and 10 mm/mV on a grid of 1 mm and 5 mm squares. One millimetre is 4 CSS pixels, which keeps lines crisp. */

import { cssColour, element } from "./dom.js";
import { number, t } from "./i18n.js";

export const PX_PER_MM = 4;
export const PX_PER_S = 25 * PX_PER_MM;
const STANDARD_GAIN = 10;
/** A signal taller than this at 10 mm/mV is drawn at 5 mm/mV, as on an electrocardiograph. */
const MAX_HEIGHT_MM = 60;
const ANNOTATION_PX = 34;
const CALIBRATION_PX = 60;
const MARGIN_MV = 0.2;

export const scaleText = (gain) => t("scale", { gain, ms: number(40), mv: number(1 / gain, 2) });

/** Creates a canvas of this size in CSS pixels, with its context scaled to the screen's pixel ratio. */
export function makeCanvas(width, height) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const canvas = element("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { canvas, context, width, height };
}

/** The gain that shows this range, and the limits of the paper around zero, in whole 5 mm boxes to keep the grid square. */
export function fitPaper(lowest_mv, highest_mv, min_height_mm) {
  const span = (gain) => [Math.floor((lowest_mv - MARGIN_MV) * gain / 5) * 5, Math.ceil((highest_mv + MARGIN_MV) * gain / 5) * 5];
  const gain = [STANDARD_GAIN, STANDARD_GAIN / 2, STANDARD_GAIN / 4].find((g) => { const [a, b] = span(g); return b - a <= MAX_HEIGHT_MM; }) ?? 1;
  const [low, high] = span(gain);
  const extra = Math.max(0, Math.ceil((min_height_mm - (high - low)) / 10) * 5);
  return { gain, low_mm: low - extra, high_mm: high + extra, height: (high - low + 2 * extra) * PX_PER_MM };
}

export function drawGrid(context, width, height) {
  context.fillStyle = cssColour("--paper");
  context.fillRect(0, 0, width, height);
  drawGridLines(context, width, height, PX_PER_MM, cssColour("--paper-fine"), 1);
  drawGridLines(context, width, height, 5 * PX_PER_MM, cssColour("--paper-bold"), 1.25);
}

function drawGridLines(context, width, height, step, colour, thickness) {
  context.strokeStyle = colour;
  context.lineWidth = thickness;
  context.beginPath();
  for (let x = 0.5; x <= width; x += step) { context.moveTo(x, 0); context.lineTo(x, height); }
  for (let y = 0.5; y <= height; y += step) { context.moveTo(0, y); context.lineTo(width, y); }
  context.stroke();
}

/** Draws one gap-free run of samples; `x(i)` and `y(mv)` return pixels. */
export function drawTrace(context, mv, x, y) {
  context.strokeStyle = cssColour("--trace");
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  context.beginPath();
  mv.forEach((value, i) => (i ? context.lineTo(x(i), y(value)) : context.moveTo(x(i), y(value))));
  context.stroke();
}

/** Draws the strip of an alert with its beats, RR intervals and rates, the onset and the 1 mV calibration pulse. */
export function drawStrip(strip, alert) {
  const seconds = strip.mv.length / strip.rate_hz;
  const baseline_mv = median(strip.mv);
  const layout = fitPaper(Math.min(...strip.mv) - baseline_mv, Math.max(...strip.mv) - baseline_mv, 30);
  const height = ANNOTATION_PX + layout.height;
  const { canvas, context, width } = makeCanvas(Math.ceil(seconds * 5) * PX_PER_S / 5 + CALIBRATION_PX, height);
  const x = (us) => CALIBRATION_PX + ((us - strip.start_us) / 1e6) * PX_PER_S;
  const y = (mv) => ANNOTATION_PX + (layout.high_mm - (mv - baseline_mv) * layout.gain) * PX_PER_MM;
  context.fillStyle = cssColour("--surface");
  context.fillRect(0, 0, width, height);
  context.save();
  context.translate(0, ANNOTATION_PX);
  drawGrid(context, width, layout.height);
  context.restore();
  drawEpisode(context, strip, alert, x, seconds, height);
  drawCalibration(context, y(baseline_mv), y(baseline_mv + 1));
  drawTrace(context, strip.mv, (i) => CALIBRATION_PX + (i / strip.rate_hz) * PX_PER_S, y);
  drawBeats(context, strip.beats_us, strip.labels, x, layout.height);
  return { canvas, gain: layout.gain, seconds, onset_px: x(alert.onset_us) };
}

/** Whether the onset lies within the strip. An episode that began long before the decision has its onset before the strip. */
export const showsOnset = (strip, alert) => alert.onset_us >= strip.start_us;

function drawEpisode(context, strip, alert, x, seconds, height) {
  const end_px = CALIBRATION_PX + seconds * PX_PER_S;
  const from = Math.max(CALIBRATION_PX, x(alert.onset_us));
  const to = Math.min(end_px, alert.end_us === null ? end_px : x(alert.end_us));
  if (to <= from) return;
  context.fillStyle = cssColour("--episode");
  context.fillRect(from, ANNOTATION_PX, to - from, height - ANNOTATION_PX);
  if (!showsOnset(strip, alert)) return;
  context.fillStyle = cssColour("--onset");
  context.fillRect(from - 1, ANNOTATION_PX, 2, height - ANNOTATION_PX);
}

function drawCalibration(context, zero_px, one_px) {
  const [left, width] = [15 * PX_PER_MM / 5, 5 * PX_PER_MM];
  context.strokeStyle = cssColour("--trace");
  context.lineWidth = 1.5;
  context.beginPath();
  for (const [i, [x, y]] of [[4, zero_px], [left, zero_px], [left, one_px], [left + width, one_px], [left + width, zero_px], [left + width + 8, zero_px]].entries())
    i ? context.lineTo(x, y) : context.moveTo(x, y);
  context.stroke();
}

function drawBeats(context, beats_us, labels, x, height) {
  context.font = "11px system-ui, sans-serif";
  context.fillStyle = cssColour("--quiet");
  context.fillText("RR ms", 4, 12);
  context.fillText(t("per_minute"), 4, 25);
  context.textAlign = "center";
  for (const [i, us] of beats_us.entries()) {
    const beat_px = x(us);
    context.fillStyle = cssColour("--mark");
    context.beginPath();
    context.moveTo(beat_px - 4.5, ANNOTATION_PX - 8);
    context.lineTo(beat_px + 4.5, ANNOTATION_PX - 8);
    context.lineTo(beat_px, ANNOTATION_PX);
    context.fill();
    context.globalAlpha = 0.25;
    context.fillRect(beat_px - 0.5, ANNOTATION_PX, 1, height);
    context.globalAlpha = 1;
    if (labels[i] && labels[i] !== "N") drawLabel(context, beat_px, labels[i]);
    if (i) drawInterval(context, (x(beats_us[i - 1]) + beat_px) / 2, (us - beats_us[i - 1]) / 1000);
  }
}

/** Draws the label of a beat that is not normal beside its mark: S, V, F or ?. */
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
