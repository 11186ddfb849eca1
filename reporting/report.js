/* The second part of the report's script, after paper.js in the same module: draws the paper of each strip in place of its plain
   trace. */

const ROW_S = 6;
const MIN_HEIGHT_MM = 15;
const STEPS_PER_MV = 200;

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

function markText({ seconds, beats, rate }) {
  return rate === null ? `${seconds.toFixed(1)} s` : `${seconds.toFixed(1)} s, ${beats} beats, ${Math.round(rate)}/min`;
}

/** The millivolts of a plain trace: a path of relative steps, 200 units for 1 mV, downwards. */
function decodeSamples(path) {
  const [, first, steps] = path.getAttribute("d").match(/^M0 (-?\d+)l(.*)$/);
  const numbers = steps.split(" ");
  const samples = [-first / STEPS_PER_MV];
  let y = Number(first);
  for (let i = 1; i < numbers.length; i += 2) {
    y += Number(numbers[i]);
    samples.push(-y / STEPS_PER_MV);
  }
  return samples;
}

const TEXTS = {
  number: (value) => String(Math.round(value)), per_minute: "/min", onset: "onset", end: "end", clock: clockText, label: labelText, mark: markText,
};

for (const data of document.querySelectorAll("script.strip")) {
  const alert = JSON.parse(data.textContent);
  const trace = data.previousElementSibling;
  const strip = { ...alert.strip, mv: decodeSamples(trace.querySelector(".trace")) };
  const layout = { row_s: ROW_S, min_height_mm: MIN_HEIGHT_MM, gains: [GAINS[0]] };
  const { rows } = drawStrip(strip, alert, TEXTS, layout);
  for (const { picture, width, height } of rows) {
    picture.setAttribute("width", `${width / UNITS_PER_MM}mm`);
    picture.setAttribute("height", `${height / UNITS_PER_MM}mm`);
  }
  trace.remove();
  data.replaceWith(...rows.map(({ picture }) => picture));
}
