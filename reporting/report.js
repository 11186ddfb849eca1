/* The second part of the report's script, after paper.js in the same module: replaces each strip's JSON with its picture. */

const ROW_S = 6;
const MIN_HEIGHT_MM = 15;

/** Formats a time from the start of the file: 1:02:03, 4:05. */
function clockText(us) {
  const whole = Math.max(0, Math.round(us / 1e6));
  const [hours, minutes, seconds] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const padded = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${padded(minutes)}:${padded(seconds)}` : `${minutes}:${padded(seconds)}`;
}

function labelText({ start_us, seconds, beats }) {
  return `ECG from ${clockText(start_us)} to ${clockText(start_us + seconds * 1e6)}, ${beats} beats`;
}

/** The millivolts of a strip that is stored as first differences in units of `step_mv`. */
function decodeSamples({ differences, step_mv }) {
  let sum = 0;
  return differences.map((difference) => { sum += difference; return sum * step_mv; });
}

const TEXTS = {
  number: (value) => String(Math.round(value)), per_minute: "/min", onset: "onset", end: "end", clock: clockText, label: labelText,
};

for (const data of document.querySelectorAll("script.strip")) {
  const alert = JSON.parse(data.textContent);
  const strip = { ...alert.strip, mv: decodeSamples(alert.strip) };
  const layout = { row_s: ROW_S, min_height_mm: MIN_HEIGHT_MM, gains: [GAINS[0]] };
  const { rows } = drawStrip(strip, alert, TEXTS, layout);
  for (const { picture, width, height } of rows) {
    picture.setAttribute("width", `${width / UNITS_PER_MM}mm`);
    picture.setAttribute("height", `${height / UNITS_PER_MM}mm`);
  }
  data.replaceWith(...rows.map(({ picture }) => picture));
}
