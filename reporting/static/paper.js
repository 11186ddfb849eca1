/** ECG paper as SVG: 25 mm/s and 10 mm/mV on a grid of 1 mm and 5 mm squares.
 *
 * The clinician's page and the replay report draw their strips with this module. One SVG unit is a quarter of a millimetre; on the
 * page it is one CSS pixel, which keeps grid lines crisp. Colours and line widths come from theme.css by class, and follow light,
 * dark and print without a new drawing.
 */

export const UNITS_PER_MM = 4;
export const UNITS_PER_S = 25 * UNITS_PER_MM;
/** Gains in mm/mV, most sensitive first. A signal too tall for one gain is drawn at the next, as in electrocardiographs. */
export const GAINS = [10, 5, 2.5, 1];
const MAX_HEIGHT_MM = 60;
const MARGIN_MV = 0.2;
/** Height above the paper for RR intervals and beat marks. */
const HEAD = 34;
/** Height below the paper for the time of each second. */
const FOOT = 22;
/** Width to the left of the first sample, for the calibration pulse. */
const CALIBRATION = 15 * UNITS_PER_MM;

/** Chooses the first gain that fits these millivolts, and the edges of the paper in mm from zero, in whole 5 mm squares. */
export function fitPaper(lowest_mv, highest_mv, min_height_mm, gains = GAINS) {
  const edges = (gain) => [Math.floor((lowest_mv - MARGIN_MV) * gain / 5) * 5, Math.ceil((highest_mv + MARGIN_MV) * gain / 5) * 5];
  const gain = gains.find((g) => { const [low, high] = edges(g); return high - low <= MAX_HEIGHT_MM; }) ?? gains.at(-1);
  const [low, high] = edges(gain);
  const extra = Math.max(0, Math.ceil((min_height_mm - (high - low)) / 10) * 5);
  return { gain, low_mm: low - extra, high_mm: high + extra, height: (high - low + 2 * extra) * UNITS_PER_MM };
}

/** Creates an empty picture, sized in units of one CSS pixel. Screen readers read `label`; they skip a picture without one. */
export function createPicture(width, height, label = null) {
  const name = label === null ? { "aria-hidden": "true" } : { role: "img", "aria-label": label };
  return svg("svg", { class: "ecg-paper", viewBox: `0 0 ${width} ${height}`, width, height, ...name });
}

/** Returns the grid of an area of paper whose top edge is at `top`. */
export function gridParts(width, height, top = 0) {
  return [
    svg("rect", { class: "paper-ground", x: 0, y: top, width, height }),
    svg("path", { class: "paper-fine", d: gridPath(width, height, top, UNITS_PER_MM) }),
    svg("path", { class: "paper-bold", d: gridPath(width, height, top, 5 * UNITS_PER_MM) }),
  ];
}

/** Adds a line through a gap-free run of samples to `path`, a canvas context or a `PathData`; `x(i)` and `y(mv)` give units. */
export function addTrace(path, mv, x, y) {
  mv.forEach((value, i) => (i ? path.lineTo(x(i), y(value)) : path.moveTo(x(i), y(value))));
}

export function median(values) {
  const sorted = Float64Array.from(values).sort();
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}

/** Draws the ECG strip of an alert in rows of `row_s` seconds.
 *
 * `strip` has `start_us`, `rate_hz`, `mv`, `beats_us` and `labels`, and `mark_from_us` and `mark_to_us` or null. `alert` has `onset_us` and `end_us`, which is null while it is
 * ongoing.
 * `texts` has the functions and words of the page:
 *   `number(value)` formats a whole number; `per_minute` is the unit of rates;
 *   `label({ start_us, seconds, beats })` names one row for screen readers;
 *   `onset` and `end`, optional, are written at their lines; without `end` the end of the episode has no line;
 *   `clock(us)`, optional, formats the time of each second below the paper;
 *   `mark({ seconds, beats, rate })`, optional, measures what the decision rests on; `rate` is null with fewer than three beats.
 * Returns the pictures of the rows with `width` and `height`, the gain, and the x of the onset on the first row, all in units.
 */
export function drawStrip(strip, alert, texts, { row_s, min_height_mm = 30, gains = GAINS }) {
  const zero_mv = median(strip.mv);
  const [lowest_mv, highest_mv] = range(strip.mv);
  const paper = { ...fitPaper(lowest_mv - zero_mv, highest_mv - zero_mv, min_height_mm, gains), zero_mv };
  const perRow = Math.max(1, Math.round(row_s * strip.rate_hz));
  const width = CALIBRATION + Math.ceil(row_s * 5) * UNITS_PER_S / 5;
  const height = HEAD + paper.height + (texts.clock ? FOOT : 0);
  const rows = [];
  for (let first = 0; first < strip.mv.length; first += perRow) {
    const row = new Row(strip, first, Math.min(perRow, strip.mv.length - first), paper, width);
    rows.push({ picture: drawRow(row, strip, alert, texts, height), width, height });
  }
  return { rows, gain: paper.gain, onset_x: CALIBRATION + ((alert.onset_us - strip.start_us) / 1e6) * UNITS_PER_S };
}

/** Whether the strip includes the onset. A long episode may have begun before its strip. */
export const showsOnset = (strip, alert) => alert.onset_us >= strip.start_us;

/** One row of a strip; maps its times and voltages to units. */
class Row {
  constructor(strip, first, count, paper, width) {
    this.start_us = strip.start_us + (first / strip.rate_hz) * 1e6;
    this.seconds = count / strip.rate_hz;
    this.mv = strip.mv.slice(first, first + count);
    this.rate_hz = strip.rate_hz;
    this.paper = paper;
    this.width = width;
    this.right = this.x(this.start_us + this.seconds * 1e6);
    this.bottom = HEAD + paper.height;
  }

  x(us) { return CALIBRATION + ((us - this.start_us) / 1e6) * UNITS_PER_S; }

  y(mv) { return HEAD + (this.paper.high_mm - (mv - this.paper.zero_mv) * this.paper.gain) * UNITS_PER_MM; }

  shows(us) { return us >= this.start_us && us < this.start_us + this.seconds * 1e6; }
}

/** Collects lines as the data of an SVG path. */
class PathData {
  text = "";

  moveTo(x, y) { this.text += `M${hundredths(x)} ${hundredths(y)}`; }

  lineTo(x, y) { this.text += `L${hundredths(x)} ${hundredths(y)}`; }
}

function drawRow(row, strip, alert, texts, height) {
  const beats = strip.beats_us.filter((us) => row.shows(us)).length;
  const picture = createPicture(row.width, height, texts.label({ start_us: row.start_us, seconds: row.seconds, beats }));
  picture.append(
    ...gridParts(row.width, row.paper.height, HEAD),
    ...episodeParts(row, alert, texts),
    svg("path", { class: "trace", d: calibrationPath(row.y(row.paper.zero_mv), row.y(row.paper.zero_mv + 1)) }),
    svg("path", { class: "trace", d: tracePath(row) }),
    ...beatParts(row, strip, texts),
    ...(texts.clock ? secondParts(row, texts) : []),
    ...(texts.mark && strip.mark_from_us != null ? decisionParts(row, strip, texts) : []),
  );
  return picture;
}

/** Measures what the decision rests on: its length, its beats, and their rate. */
export function measureMark({ mark_from_us, mark_to_us, beats_us }) {
  const beats = beats_us.filter((us) => us >= mark_from_us && us <= mark_to_us);
  const rate = beats.length < 3 ? null : (60e6 * (beats.length - 1)) / (beats.at(-1) - beats[0]);
  return { seconds: (mark_to_us - mark_from_us) / 1e6, beats: beats.length, rate };
}

/** Returns a bracket over what the decision rests on, as far as it is in this row, with its measure. */
function decisionParts(row, strip, { mark }) {
  const [from, to] = [strip.mark_from_us, strip.mark_to_us].map((us) => Math.min(row.right, Math.max(CALIBRATION, row.x(us))));
  if (to - from < 1) return [];
  const y = row.bottom - 10;
  const end = (us) => (row.shows(us) ? "v-6" : "");
  const bracket = `M${hundredths(from)} ${y}${end(strip.mark_from_us)}M${hundredths(from)} ${y}H${hundredths(to)}${end(strip.mark_to_us)}`;
  const text = svg("text", { class: "decision-text", x: hundredths((from + to) / 2), y: y - 5 }, mark(measureMark(strip)));
  return [svg("path", { class: "decision", d: bracket }), text];
}

/** Returns the path data of the trace of one row. */
function tracePath(row) {
  const path = new PathData();
  addTrace(path, row.mv, (i) => CALIBRATION + (i / row.rate_hz) * UNITS_PER_S, (mv) => row.y(mv));
  return path.text;
}

/** Returns the shading of the episode, and its onset and end, as far as they are in this row. */
function episodeParts(row, { onset_us, end_us }, texts) {
  const x = Math.max(CALIBRATION, row.x(onset_us));
  const width = Math.min(row.right, end_us === null ? row.right : row.x(end_us)) - x;
  const shading = { class: "episode", x: hundredths(x), y: HEAD, width: hundredths(width), height: row.paper.height };
  const parts = width > 0 ? [svg("rect", shading)] : [];
  if (row.shows(onset_us)) parts.push(...boundaryParts(row, row.x(onset_us), "onset", texts.onset));
  if (texts.end && end_us !== null && row.shows(end_us)) parts.push(...boundaryParts(row, row.x(end_us), "end", texts.end));
  return parts;
}

function boundaryParts(row, x, name, text) {
  const line = svg("path", { class: `boundary ${name}`, d: `M${hundredths(x)} ${HEAD}V${row.bottom}` });
  return text ? [line, svg("text", { class: "boundary-name", x: hundredths(x + 4), y: row.bottom - 5 }, text)] : [line];
}

/** Returns the calibration pulse: 1 mV for 200 ms, which shows the scale at any print size. */
function calibrationPath(zero, one) {
  const [left, length] = [3 * UNITS_PER_MM, 5 * UNITS_PER_MM];
  return `M4 ${hundredths(zero)}H${left}V${hundredths(one)}h${length}V${hundredths(zero)}h8`;
}

function beatParts(row, { beats_us, labels }, { number, per_minute }) {
  const parts = [svg("text", { class: "rate", x: 4, y: 12 }, "RR ms"), svg("text", { class: "rate", x: 4, y: 25 }, per_minute)];
  for (const [i, us] of beats_us.entries()) {
    if (row.shows(us)) parts.push(...markParts(row, row.x(us), labels[i]));
    if (i && row.shows((beats_us[i - 1] + us) / 2)) {
      parts.push(...intervalParts(row.x((beats_us[i - 1] + us) / 2), (us - beats_us[i - 1]) / 1000, number));
    }
  }
  return parts;
}

/** Returns the mark of an R peak, with the class of a beat that is not normal: S, V, F or ?. */
function markParts(row, x, label) {
  const parts = [
    svg("path", { class: "beat", d: `M${hundredths(x - 4.5)} ${HEAD - 8}h9l-4.5 8z` }),
    svg("path", { class: "beat-line", d: `M${hundredths(x)} ${HEAD}V${row.bottom}` }),
  ];
  if (label && label !== "N") parts.push(svg("text", { class: "beat-label", x: hundredths(x + 12), y: HEAD + 12 }, label));
  return parts;
}

function intervalParts(x, rr_ms, number) {
  return [
    svg("text", { class: "rr", x: hundredths(x), y: 12 }, number(rr_ms)),
    svg("text", { class: "rate middle", x: hundredths(x), y: 25 }, number(60_000 / rr_ms)),
  ];
}

/** Returns a tick and the time of each whole second, except where the edge of the paper would cut off the number. */
function secondParts(row, { clock }) {
  const parts = [];
  const end_us = row.start_us + row.seconds * 1e6;
  for (let us = Math.ceil(row.start_us / 1e6) * 1e6; us <= end_us && row.x(us) <= row.width - 15; us += 1e6) {
    const x = hundredths(row.x(us));
    parts.push(
      svg("path", { class: "second", d: `M${x} ${row.bottom}v5` }),
      svg("text", { class: "rate middle", x, y: row.bottom + 17 }, clock(us)),
    );
  }
  return parts;
}

function gridPath(width, height, top, step) {
  let path = "";
  for (let x = 0.5; x <= width; x += step) path += `M${x} ${top}v${height}`;
  for (let y = top + 0.5; y <= top + height; y += step) path += `M0 ${y}h${width}`;
  return path;
}

/** Returns the smallest and the largest value. Math.min(...values) could exceed the stack with a long strip. */
function range(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return [low, high];
}

const hundredths = (value) => Math.round(value * 100) / 100;

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
