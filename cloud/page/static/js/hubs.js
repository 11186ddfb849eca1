/** The clinic's alarms about hubs, above the alerts of patients, and which hubs are so outdated that only their alerts are taken. */

import { kindName, patientName, prioritySign } from "./alerts.js";
import { byId, element, setText } from "./dom.js";
import { clockTime, duration, lookup, number, plural, relativeTime, t } from "./i18n.js";

const RANKS = { high: 0, medium: 1, low: 2 };

export class HubAlarms {
  #shown = "";
  #known = null;

  constructor(state) { this.state = state; }

  /** Shows the alarms that last. Returns those that were not there at the last call; none at the first. */
  update() {
    const alarms = this.#alarms();
    const keys = alarms.map(({ key }) => key);
    const added = this.#known === null ? [] : alarms.filter(({ key }) => !this.#known.includes(key));
    this.#known = keys;
    this.render();
    return added;
  }

  /** Rebuilds the rows if any has changed. */
  render(force = false) {
    const alarms = this.#alarms();
    const shown = JSON.stringify(alarms);
    if (shown !== this.#shown || force) byId("hub-alarms").replaceChildren(...alarms.map((alarm) => this.#row(alarm)));
    this.#shown = shown;
    setText(byId("hub-alarm-count"), alarms.length ? plural("hub_alarm_count", alarms.length) : "");
    byId("hubs").hidden = alarms.length === 0;
    this.tick();
  }

  /** Updates the durations. */
  tick() {
    const now_us = this.state.now_us();
    for (const row of document.querySelectorAll("[data-hub-alarm]")) {
      const since_us = Number(row.dataset.since);
      setText(row.querySelector(".age"), relativeTime(since_us, now_us));
      setText(row.querySelector(".span"), t("ongoing", { duration: duration(Math.floor((now_us - since_us) / 1e6) * 1e6) }));
    }
  }

  #alarms() {
    const alarms = [...this.state.hubs.values()].flatMap(({ hub, subject, is_refused, update_by_s, alarms: own }) =>
      own.map((alarm) => ({ ...alarm, hub, subject, is_refused, update_by_s, key: JSON.stringify([hub, alarm.kind, alarm.raised_us]) })));
    return alarms.sort((a, b) => RANKS[a.priority] - RANKS[b.priority] || a.since_us - b.since_us);
  }

  #row(alarm) {
    const now_us = this.state.now_us();
    return element("li", { class: "alert-row hub-alarm", "data-hub-alarm": alarm.key, "data-since": alarm.since_us },
      prioritySign({ priority: alarm.priority, end_us: null }),
      element("span", { class: "kind" }, kindName(alarm.kind)),
      element("span", { class: "patient" }, alarm.subject === null ? "" : patientName(alarm)),
      element("span", { class: "when" }, element("span", { class: "age" }), ` · ${clockTime(alarm.since_us, now_us)}`),
      element("span", { class: "course" }, element("span", { class: "span ongoing" }), element("span", { class: "quiet" }, alarm.hub)),
      element("span", { class: "advice" }, adviceText(alarm, now_us)));
  }
}

/** What staff should do: told from the state of the hub. */
function adviceText({ kind, is_refused, update_by_s }, now_us) {
  if (kind !== "hub_outdated") return lookup("hub_advice", kind) ?? "";
  if (is_refused) return lookup("hub_advice", "refused") ?? "";
  const days = Math.max(0, Math.ceil((update_by_s * 1e6 - now_us) / 86_400e6));
  return t("hub_update_within", { days: number(days, 0) });
}
