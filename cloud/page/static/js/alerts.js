/** The list of alerts, and the selected alert with its ECG. */

import { drawStrip, measureMark, showsOnset } from "/static/reporting/paper.js";
import { byId, element, setText, svg } from "./dom.js";
import { clockTime, dayAndTime, duration, fill, lookup, number, percent, plural, relativeTime, t } from "./i18n.js";
import { alertKey, isOngoing } from "./state.js";

const SHAPES = { high: "M16 3 30 28H2Z", medium: "M16 2 30 16 16 30 2 16Z", low: "M4 16a12 12 0 1 0 24 0a12 12 0 1 0-24 0" };
const GLYPHS = { high: "!!!", medium: "!!", low: "!" };
/** Baseline of the glyph in the sign's view box of 32 by 32 units. */
const GLYPH_Y = { high: 24, medium: 20.5, low: 20.5 };

export const scaleText = (gain) => t("scale", { gain, ms: number(40), mv: number(1 / gain, 2) });
export const kindName = (kind) => lookup("kind", kind) ?? kind.replaceAll("_", " ");
export const patientName = ({ subject }) => t("patient_name", { patient: subject });

/** The priority sign: shape, colour and word; it flashes while the alert is ongoing. */
export function prioritySign(alert) {
  const { priority } = alert;
  const shape = svg("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" },
    svg("path", { class: "shape", d: SHAPES[priority] ?? SHAPES.low }),
    svg("text", { x: 16, y: GLYPH_Y[priority] ?? 20.5 }, GLYPHS[priority] ?? "!"));
  return element("span", { class: "sign", "data-priority": priority, "data-ongoing": isOngoing(alert) }, shape,
    element("span", {}, lookup("priority", priority) ?? priority));
}

export class AlertList {
  constructor(state, onSelect, onMore) {
    Object.assign(this, { state, onSelect, selected: null, followsFirst: true });
    byId("more-alerts").addEventListener("click", onMore);
  }

  /** Rebuilds the rows; the focused row keeps the focus. */
  render() {
    const alerts = this.state.alertsInOrder();
    if (this.followsFirst || !this.state.alerts.has(this.selected)) this.selected = alerts[0] ? alertKey(alerts[0]) : null;
    const focused = document.activeElement?.dataset?.alert;
    byId("alert-list").replaceChildren(...alerts.map((alert) => element("li", {}, this.#row(alert))));
    if (focused) document.querySelector(`[data-alert="${CSS.escape(focused)}"]`)?.focus();
    const ongoing = this.#countOngoing();
    const n = `${number(alerts.length)}${this.state.nextAlerts ? "+" : ""}`;
    setText(byId("alert-count"), alerts.length ? plural("alert_count", alerts.length, { n, ongoing }) : "");
    byId("more-alerts").hidden = this.state.nextAlerts === null;
    byId("no-alerts").hidden = alerts.length > 0;
    setText(byId("no-alerts"), t("no_alerts"));
    document.title = `${ongoing ? `(${ongoing}) ` : ""}pulsegate`;
    this.tick();
  }

  /** The ongoing alerts of all patients, those included that are not loaded. */
  #countOngoing() {
    return [...this.state.patients.values()].flatMap(({ ongoing }) => Object.values(ongoing)).reduce((sum, n) => sum + n, 0);
  }

  /** Updates ages and durations. */
  tick() {
    const now_us = this.state.now_us();
    for (const row of document.querySelectorAll("[data-alert]")) {
      const alert = this.state.alerts.get(row.dataset.alert);
      if (!alert) continue;
      setText(row.querySelector(".age"), relativeTime(alert.decided_us, now_us));
      setText(row.querySelector(".span"), stateText(alert, now_us));
    }
  }

  select(alert) {
    this.#choose(alert);
    this.onSelect(alert);
  }

  /** Selects the most important alert of a patient, if there is one. */
  showPatient(subject) {
    const alert = this.state.alertsInOrder().find((each) => each.subject === subject);
    if (alert) this.#choose(alert);
  }

  #choose(alert) {
    const [first] = this.state.alertsInOrder();
    this.selected = alertKey(alert);
    this.followsFirst = this.selected === alertKey(first);
    this.render();
  }

  #row(alert) {
    const now_us = this.state.now_us();
    const key = alertKey(alert);
    const row = element("button",
      { type: "button", class: "alert-row", "data-alert": key, "aria-current": key === this.selected ? "true" : null },
      prioritySign(alert),
      element("span", { class: "kind" }, kindName(alert.kind)),
      element("span", { class: "patient" }, patientName(alert)),
      element("span", { class: "when" }, element("span", { class: "age" }), ` · ${clockTime(alert.decided_us, now_us)}`),
      element("span", { class: "course" },
        element("span", { class: isOngoing(alert) ? "span ongoing" : "span" }),
        isSignalLost(alert) ? element("span", { class: "signal-lost" }, t("signal_lost_short")) : null,
        alert.measured?.episodes ? element("span", { class: "episodes" }, plural("episode_count", alert.measured.episodes)) : null,
        alert.reasons.includes("ended.marked_false") ? element("span", { class: "marked-false" }, t("marked_false_short")) : null,
        element("span", { class: "quiet" }, alert.sensor)),
      alert.is_proven ? null : element("span", { class: "unproven" }, t("origin_unproven_short")),
      this.state.isOutdated(alert.hub) ? element("span", { class: "unproven" }, t("outdated_hub_short")) : null);
    row.addEventListener("click", () => this.select(alert));
    return row;
  }
}

export class AlertDetail {
  #shown = "";

  /** `ending` draws the part that ends an alert. */
  constructor(state, fetchStrip, ending) { Object.assign(this, { state, fetchStrip, ending }); }

  /** Redraws the alert if it has changed, or if `force` is set; the strip of the same alert keeps its scroll position. */
  async render(key, force = false) {
    const alert = this.state.alerts.get(key);
    const shown = alert ? `${key}|${alert.revision}|${alert.strip_revision}` : "";
    if (shown === this.#shown && !force && byId("detail").hasChildNodes()) return this.tick(key);
    const sameAlert = this.#shown.startsWith(`${key}|`);
    const focused = this.ending.focused();
    const scrolled = sameAlert ? document.querySelector(".strip")?.scrollLeft : undefined;
    this.#shown = shown;
    byId("detail").replaceChildren(...(alert ? this.#content(alert, scrolled) : [placeholder()]));
    this.tick(key);
    this.ending.focus(focused);
    if (alert?.has_strip && alert.strip_revision !== alert.revision) await this.fetchStrip(alert);
  }

  tick(key) {
    const alert = this.state.alerts.get(key);
    const course = document.querySelector("#detail .span");
    if (alert && course) setText(course, stateText(alert, this.state.now_us()));
    if (alert) this.ending.update();
  }

  #content(alert, scrolled) {
    const end = alert.end_us === null ? null : t("ended_at", { time: dayAndTime(alert.end_us) });
    const latest_us = latestEnd_us(alert);
    const latest = latest_us === null || end ? null : t("latest_episode", { time: dayAndTime(latest_us) });
    const head = element("header", { class: "detail-head" }, prioritySign(alert), element("div", {},
      element("h2", { id: "detail-heading" }, kindName(alert.kind)),
      element("p", { id: "detail-patient", class: "patient" }, patientName(alert)),
      element("p", { class: isOngoing(alert) ? "span ongoing" : "span" }),
      isSignalLost(alert) ? element("p", { class: "signal-lost" }, t("signal_lost_short")) : null,
      element("p", { class: "quiet" }, [t("onset", { time: dayAndTime(alert.onset_us) }), latest, end].filter(Boolean).join(" · ")),
      element("p", { class: "quiet" }, `${alert.sensor} · ${sourceText(alert.source)}`),
      alert.is_proven ? null : element("p", { class: "unproven" }, t("origin_unproven")),
      this.state.isOutdated(alert.hub) ? element("p", { class: "unproven" }, t("outdated_hub", { hub: alert.hub })) : null));
    const reasons = element("ul", { class: "reasons" }, ...reasonTexts(alert).map((text) => element("li", {}, text)));
    const ending = this.ending.show(alert);
    if (alert.strip?.mv.length) {
      const shown = alert.strips?.length ? alert.strips : [alert.strip];
      return [head, reasons, ending, ...shown.flatMap((strip, i) => stripElements(alert, strip, i ? undefined : scrolled)), legend(alert, shown)];
    }
    const note = alert.has_strip ? t("loading") : t("no_strip");
    return [head, reasons, ending, element("p", { class: "empty" }, note)];
  }
}

function placeholder() {
  return element("div", {}, element("h2", { id: "detail-heading", class: "card-head" }, t("strip")),
    element("p", { class: "empty" }, t("choose_alert")));
}

function stripElements(alert, strip, scrolled) {
  const seconds = strip.mv.length / strip.rate_hz;
  const part = lookup("strip_part", strip.part);
  const isOneOfTwo = alert.strips?.some((each) => each.is_longest);
  const episode = isOneOfTwo ? lookup("strip_episode", strip.is_longest ? "longest" : "latest") : null;
  const name = [episode, part].filter(Boolean).join(": ") || t("strip");
  const measured = strip.mark_from_us == null ? "" : markText(measureMark(strip));
  const values = { seconds: number(seconds), beats: number(strip.beats_us.length), kind: kindName(alert.kind), patient: patientName(alert) };
  const label = () => [t("strip_label", values), measured].filter(Boolean).join(", ");
  const texts = { number: (value) => number(value, 0), per_minute: t("per_minute"), label, mark: markText };
  const { rows: [{ picture }], gain, onset_x } = drawStrip(strip, alert, texts, { row_s: seconds });
  const box = element("div", { class: "strip", tabindex: 0, role: "region", "aria-label": name }, picture);
  requestAnimationFrame(() => { box.scrollLeft = scrolled ?? initialScroll(onset_x, box.clientWidth); });
  return [
    element("p", { class: "strip-head" }, element("strong", {}, name), element("span", { class: "patient" }, patientName(alert)), element("span", {}, t("strip_length", values)),
      element("span", {}, scaleText(gain))),
    box];
}

function legend(alert, strips) {
  return element("p", { class: "legend" },
    element("span", {}, element("i", { "aria-hidden": "true" }, "▼"), t("legend_beat")),
    element("span", {}, t("legend_numbers")),
    strips.some((strip) => showsOnset(strip, alert)) ? element("span", {}, element("i", { class: "onset", "aria-hidden": "true" }, "┃"), t("legend_onset")) : null,
    strips.some((strip) => strip.mark_from_us != null) ? element("span", {}, element("i", { "aria-hidden": "true" }, "⎵"), t("legend_decision")) : null,
    element("span", {}, t("legend_calibration")));
}

/** What the decision rests on: its length, and from three beats on their number and rate. */
const markText = ({ seconds, beats, rate }) => (rate === null
  ? t("mark_seconds", { seconds: number(seconds) })
  : t("mark_beats", { seconds: number(seconds), beats: number(beats, 0), rate: number(rate, 0) }));

/** Scroll to the start, where the 1 mV pulse is; if the onset would then be out of view, scroll to the onset. */
const initialScroll = (onset_x, width) => (onset_x < 0.7 * width ? 0 : onset_x - width / 3);

/** Whether the alert is open because nobody can see whether its episode goes on. */
const isSignalLost = (alert) => isOngoing(alert) && alert.reasons.includes("latched.signal_lost");

/** When the latest of several episodes ended; null while one lasts, or of an alert about one episode. */
const latestEnd_us = ({ onset_us, measured }) => (measured?.latest_s === undefined ? null : onset_us + measured.latest_s * 1e6);

function stateText(alert, now_us) {
  const latest_us = latestEnd_us(alert);
  if (isOngoing(alert) && latest_us !== null) return t("between_episodes", { time: relativeTime(latest_us, now_us) });
  return isOngoing(alert)
    ? t(alert.measured?.maybe_ended ? "ongoing_or_ended" : "ongoing", { duration: duration(Math.floor((now_us - alert.onset_us) / 1e6) * 1e6) })
    : t("ended", { duration: duration(alert.end_us - alert.onset_us) });
}

/** The reasons as texts with their numbers; an unknown reason (of a newer hub) shows its key and its numbers. */
function reasonTexts({ reasons, measured, probability }) {
  const numbers = Object.fromEntries(Object.entries(measured ?? {}).map(([name, value]) => [name, number(value, 2)]));
  const texts = reasons.map((key) => {
    const template = lookup("reason", key);
    return template ? fill(template, numbers) : [key.replaceAll(/[._]/g, " "), ...measuredTexts(numbers)].join(", ");
  });
  return probability === null ? texts : [...texts, t("probability", { percent: probabilityText(probability) })];
}

/** Rounding must not show a model's probability as 0 % or 100 %. */
const probabilityText = (p) => (p > 0.99 ? `> ${percent(0.99)}` : p < 0.01 ? `< ${percent(0.01)}` : percent(p));

function measuredTexts(numbers) {
  return Object.entries(numbers).map(([name, value]) => fill(lookup("measured", name) ?? `${name} {value}`, { value }));
}

function sourceText(source) {
  if (source.startsWith("rule:")) return t("source_rule", { name: kindName(source.slice(5)) });
  const [name, version] = source.split("@");
  return version ? t("source_model", { name, version }) : t("source_other", { name });
}
