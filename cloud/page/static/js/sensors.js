/** The sensors' state: connected, silent or in a gap, battery, skin contact, last data, and the notices that follow from it. */

import { byId, element, setText } from "./dom.js";
import { clockTime, lookup, number, percent, plural, relativeTime, t } from "./i18n.js";

const LOW_BATTERY = 20;
/** An older heart rate is not shown as if it were the present one. */
const RATE_VALID_US = 10e6;

/** A gap is told by the hub; silence is what the page sees when even the hub tells nothing. */
export function sensorState(sensor, now_us, silentAfter_us) {
  if (sensor.gap_since_us !== null) return "gap";
  return now_us - sensor.last_data_us > silentAfter_us ? "silent" : "connected";
}

export class SensorPanel {
  constructor(state, onChoose) { Object.assign(this, { state, onChoose, chosen: null, silentAfter_us: 10e6 }); }

  render() {
    const sensors = [...this.state.sensors.values()].sort((a, b) => a.sensor.localeCompare(b.sensor));
    if (!this.state.sensors.has(this.chosen)) this.#choose(sensors[0]?.sensor ?? null);
    this.#tabs(sensors);
    this.tick();
  }

  /** Everything that ages: called every second and when a sensor changes. */
  tick() {
    const sensor = this.state.sensors.get(this.chosen);
    const now_us = this.state.now_us();
    const rows = sensor ? this.#facts(sensor, now_us) : [[t("sensor"), t("no_sensor")]];
    const facts = rows.map(([name, value, level]) =>
      element("div", {}, element("dt", {}, name), element("dd", { "data-level": level ?? null }, value)));
    byId("sensor-state").replaceChildren(...facts);
    this.#heartRate(now_us);
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

  #choose(name) {
    this.chosen = name;
    this.onChoose(name);
  }

  #tabs(sensors) {
    const tabs = sensors.length < 2 ? [] : sensors.map(({ sensor }) => {
      const tab = element("button", { type: "button", "aria-pressed": sensor === this.chosen }, sensor);
      tab.addEventListener("click", () => { this.#choose(sensor); this.render(); });
      return tab;
    });
    byId("sensor-tabs").replaceChildren(...tabs);
  }

  #facts(sensor, now_us) {
    const state = sensorState(sensor, now_us, this.silentAfter_us);
    const battery = sensor.battery_percent;
    return [
      [t("sensor"), [sensor.model, sensor.sensor].filter(Boolean).join(" · ")],
      [t("state"), t(`state_${state}`), state === "connected" ? "good" : "warn"],
      [t("skin_contact"), contactText(sensor.skin_contact), sensor.skin_contact === false ? "warn" : undefined],
      [t("battery"), battery === null ? t("unknown") : percent(battery / 100), battery !== null && battery <= LOW_BATTERY ? "warn" : undefined],
      [t("last_data"), sensor.last_data_us ? relativeTime(sensor.last_data_us, now_us) : t("unknown")],
      [t("samples"), number(sensor.samples, 0)],
      [t("missing"), number(sensor.missing_samples, 0)],
    ];
  }

  #heartRate(now_us) {
    const newest = this.state.heartRates(this.chosen).at(-1);
    const valid = newest && now_us - newest.at_us < RATE_VALID_US;
    setText(byId("heart-rate"), valid ? number(newest.value, 0) : "–");
    setText(byId("heart-rate-age"), newest && !valid ? relativeTime(newest.at_us, now_us) : "");
  }
}

/** What the notice says of blocks that this clinic could not read. */
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
