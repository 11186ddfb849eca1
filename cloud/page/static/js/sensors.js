/** The state of the sensors (connected, silent or in a gap), battery, skin contact, last data, and the notices about them. */

import { byId, element, setText } from "./dom.js";
import { clockTime, lookup, number, percent, plural, relativeTime, t } from "./i18n.js";

const LOW_BATTERY_PERCENT = 20;
/** An older heart rate is not shown as the current one. */
const RATE_MAX_AGE_US = 10e6;

/** Returns "gap" while the hub reports a gap, "silent" if neither sensor nor hub has sent data for `silentAfter_us`, else "connected". */
export function sensorState(sensor, now_us, silentAfter_us) {
  if (sensor.gap_since_us !== null) return "gap";
  return now_us - sensor.last_data_us > silentAfter_us ? "silent" : "connected";
}

export class SensorPanel {
  constructor(state, onSelect) { Object.assign(this, { state, onSelect, selected: null, silentAfter_us: 10e6 }); }

  render() {
    const sensors = [...this.state.sensors.values()].sort((a, b) => a.sensor.localeCompare(b.sensor));
    if (!this.state.sensors.has(this.selected)) this.#select(sensors[0]?.sensor ?? null);
    this.#renderTabs(sensors);
    this.tick();
  }

  /** Updates everything that depends on the time: called every second and when a sensor changes. */
  tick() {
    const sensor = this.state.sensors.get(this.selected);
    const now_us = this.state.now_us();
    const rows = sensor ? this.#factRows(sensor, now_us) : [[t("sensor"), t("no_sensor")]];
    const facts = rows.map(([name, value, level]) =>
      element("div", {}, element("dt", {}, name), element("dd", { "data-level": level ?? null }, value)));
    byId("sensor-state").replaceChildren(...facts);
    this.#renderHeartRate(now_us);
  }

  notices(now_us) {
    return [...this.state.sensors.values()].flatMap((sensor) => {
      const name = sensor.model ? `${sensor.model} (${sensor.sensor})` : sensor.sensor;
      switch (sensorState(sensor, now_us, this.silentAfter_us)) {
        case "gap": return [t("notice_gap", { sensor: name, time: clockTime(sensor.gap_since_us, now_us), reason: gapReason(sensor.gap_reason) })];
        case "silent": return [t("notice_silent", { sensor: name, time: clockTime(sensor.last_data_us, now_us) })];
        default: return [];
      }
    });
  }

  #select(name) {
    this.selected = name;
    this.onSelect(name);
  }

  #renderTabs(sensors) {
    const tabs = sensors.length < 2 ? [] : sensors.map(({ sensor }) => {
      const tab = element("button", { type: "button", "aria-pressed": sensor === this.selected }, sensor);
      tab.addEventListener("click", () => { this.#select(sensor); this.render(); });
      return tab;
    });
    byId("sensor-tabs").replaceChildren(...tabs);
  }

  #factRows(sensor, now_us) {
    const state = sensorState(sensor, now_us, this.silentAfter_us);
    const battery = sensor.battery_percent;
    return [
      [t("sensor"), [sensor.model, sensor.sensor].filter(Boolean).join(" · ")],
      [t("state"), t(`state_${state}`), state === "connected" ? "good" : "warn"],
      [t("skin_contact"), contactText(sensor.skin_contact), sensor.skin_contact === false ? "warn" : undefined],
      [t("battery"), battery === null ? t("unknown") : percent(battery / 100), battery !== null && battery <= LOW_BATTERY_PERCENT ? "warn" : undefined],
      [t("last_data"), sensor.last_data_us ? relativeTime(sensor.last_data_us, now_us) : t("unknown")],
      [t("samples"), number(sensor.samples, 0)],
      [t("missing"), number(sensor.missing_samples, 0)],
    ];
  }

  #renderHeartRate(now_us) {
    const newest = this.state.heartRates(this.selected).at(-1);
    const isCurrent = newest && now_us - newest.at_us < RATE_MAX_AGE_US;
    setText(byId("heart-rate"), isCurrent ? number(newest.value, 0) : "–");
    setText(byId("heart-rate-age"), newest && !isCurrent ? relativeTime(newest.at_us, now_us) : "");
  }
}

/** The notice about blocks that this clinic could not read; empty if there are none. */
export function unopenedNotice({ unopened, unopened_reasons }) {
  if (!unopened) return [];
  const reasons = Object.keys(unopened_reasons).map((reason) => lookup("unopened", reason) ?? reason).join(", ");
  return [plural("notice_unopened", unopened, { reasons })];
}

const gapReason = (reason) => lookup("gap_reason", reason) ?? reason;

function contactText(contact) {
  if (contact === null) return t("unknown");
  return contact ? t("contact_yes") : t("contact_no");
}
