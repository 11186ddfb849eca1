/** The heart rate over time, with the alerts as bands in the background. */

import uPlot from "/static/vendor/uplot/uPlot.esm.js";
import { byId, cssColour, element, setText } from "./dom.js";
import { clockTime, currentLanguage, number, t } from "./i18n.js";

const HEIGHT = 200;
/** A longer gap between two values breaks the line. */
const MAX_GAP_S = 15;
const PRIORITY_COLOURS = { high: "--high", medium: "--medium", low: "--low" };

export class Trend {
  #plot = null;
  #style = "";

  constructor(state) {
    Object.assign(this, { state, host: byId("trend") });
    new ResizeObserver(() => this.#plot?.setSize({ width: this.#width(), height: HEIGHT })).observe(this.host);
  }

  /** Shows the heart rates of a sensor, and the alerts of its patient alone. */
  render(key) {
    const rates = this.state.heartRates(key);
    if (!rates.length) return this.#showEmpty();
    const { subject } = this.state.sensors.get(key);
    const style = [currentLanguage(), cssColour("--surface"), key].join();
    if (style !== this.#style) this.#create(style, subject);
    this.#plot.setData(withBreaks(rates));
    this.#describeRange(rates, subject);
    return undefined;
  }

  #showEmpty() {
    this.#plot?.destroy();
    [this.#plot, this.#style] = [null, ""];
    this.host.setAttribute("aria-label", t("no_trend"));
    this.host.replaceChildren(element("p", { class: "empty" }, t("no_trend")));
    setText(byId("trend-range"), "");
  }

  #create(style, subject) {
    this.#plot?.destroy();
    this.host.replaceChildren();
    this.#style = style;
    const alerts = () => [...this.state.alerts.values()].filter((alert) => alert.subject === subject);
    this.#plot = new uPlot(options(this.#width(), alerts, () => this.state.now_us()), [[], []], this.host);
  }

  #describeRange(rates, subject) {
    const now_us = this.state.now_us();
    const [low, high] = rates.reduce(([lowest, highest], { value }) => [Math.min(lowest, value), Math.max(highest, value)], [Infinity, -Infinity]);
    const ends = { from: clockTime(rates[0].at_us, now_us), to: clockTime(rates.at(-1).at_us, now_us) };
    setText(byId("trend-range"), t("trend_range", ends));
    this.host.setAttribute("aria-label",
      t("trend_label", { ...ends, patient: subject, low: number(low, 0), high: number(high, 0) }));
  }

  #width() { return Math.max(200, this.host.clientWidth - 16); }
}

function withBreaks(rates) {
  const [times, values] = [[], []];
  for (const { at_us, value } of rates) {
    const second = at_us / 1e6;
    if (times.length && second - times.at(-1) > MAX_GAP_S) { times.push(times.at(-1) + 1); values.push(null); }
    times.push(second);
    values.push(value);
  }
  return [times, values];
}

function options(width, alerts, now_us) {
  const language = currentLanguage();
  const axis = { stroke: cssColour("--quiet"), grid: { stroke: cssColour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const clock = (second, step) => new Intl.DateTimeFormat(language,
    { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(step < 60 ? { second: "2-digit" } : {}) }).format(new Date(second * 1000));
  return {
    width, height: HEIGHT, legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } },
    scales: { x: { time: true, range: (_, low, high) => [low, Math.max(high, low + 60)] }, y: { range: (_, low, high) => paddedRange(low, high) } },
    axes: [{ ...axis, size: 30, space: 80, values: (_, splits, __, ___, step) => splits.map((second) => clock(second, step)) }, { ...axis, size: 44 }],
    series: [{}, { stroke: cssColour("--accent"), width: 2, points: { show: false }, spanGaps: false }],
    hooks: { drawClear: [(plot) => drawBands(plot, alerts(), now_us())] },
  };
}

/** Returns the range of the axis: at least 40 to 120 /min, so that small changes look small. */
const paddedRange = (low, high) => [Math.min(40, Math.floor((low - 5) / 10) * 10), Math.max(120, Math.ceil((high + 5) / 10) * 10)];

function drawBands(plot, alerts, now_us) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const { priority, onset_us, end_us } of alerts) {
    const from = plot.valToPos(onset_us / 1e6, "x", true);
    const to = plot.valToPos((end_us ?? now_us) / 1e6, "x", true);
    ctx.fillStyle = cssColour(PRIORITY_COLOURS[priority] ?? "--low");
    ctx.globalAlpha = 0.25;
    ctx.fillRect(from, bbox.top, Math.max(2, to - from), bbox.height);
    ctx.globalAlpha = 1;
    ctx.fillRect(from, bbox.top, Math.max(2, to - from), 4);
  }
  ctx.restore();
}
