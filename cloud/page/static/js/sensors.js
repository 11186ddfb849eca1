/** The state of the sensors (connected, late, silent or in a gap), battery, skin contact, clock, and the notices about them. */

import { byId, element, setText } from "./dom.js";
import { clockTime, dayAndTime, duration, lookup, number, percent, plural, relativeTime, t } from "./i18n.js";
import { sensorKey } from "./state.js";

export const LOW_BATTERY_PERCENT = 20;
/** More notices about sensors than this would push everything else off the screen. */
const MAX_NOTICES = 4;

/** The hub reports a gap. A sensor is silent if neither it nor its hub sends data, judged by the clinic's clock alone.
 *
 * A sensor that is used on demand waits for its next use for most of the time; its hub tells the state of the link now and then.
 */
export function sensorState(sensor, now_us, { silentAfter_us, onDemandSilentAfter_us }) {
  const isResting = sensor.is_on_demand && sensor.link !== "stopped";
  if (sensor.gap_since_us !== null && !isResting) return "gap"; // an oximeter ends its link after each use
  const limit_us = isResting ? onDemandSilentAfter_us : silentAfter_us;
  if (sensor.last_received_us === null || now_us - sensor.last_received_us > limit_us) return "silent";
  if (sensor.clock === "behind") return "late";
  return isResting && sensor.link !== "streaming" ? "waiting" : "connected";
}

/** Waiting is neither good nor a problem: whether such a sensor works shows when it is used. */
export const stateLevel = (state) => ({ connected: "good", waiting: "rest" })[state] ?? "warn";

/** The panel of the selected sensor, one of the selected patient. */
export class SensorPanel {
  constructor(state, onSelect) { Object.assign(this, { state, onSelect, selected: null, isPreset: true, subject: null, limits: { silentAfter_us: 15e6, onDemandSilentAfter_us: 120e6 } }); }

  /** Keeps the selection, or else selects the first sensor of the first patient, if possible one with an ECG. */
  render() {
    if (!this.state.patients.has(this.subject)) this.subject = this.state.patientsInOrder()[0]?.subject ?? null;
    const sensors = this.state.sensorsOf(this.subject);
    if (this.state.sensors.get(this.selected)?.subject !== this.subject) this.isPreset = true;
    if (this.isPreset) this.#preset(sensors);
    this.#renderTabs(sensors);
    this.tick();
  }

  /** Selects the first sensor with an ECG, else the first; sensors may become known one after the other. */
  #preset(sensors) {
    const first = sensors.find(({ last_waveform_us }) => last_waveform_us !== null) ?? sensors[0];
    const key = first ? sensorKey(first) : null;
    if (key !== this.selected) this.#choose(key);
  }

  selectPatient(subject) {
    this.subject = subject;
    this.render();
  }

  /** Selects a sensor and its patient; without such a sensor, the patient alone. */
  select({ subject, hub, sensor }) {
    this.subject = subject;
    const key = sensorKey({ subject, hub, sensor });
    this.isPreset = false;
    if (this.state.sensors.has(key) && key !== this.selected) this.#choose(key);
    this.render();
  }

  /** Updates everything that depends on the time: called every second and when a sensor changes. */
  tick() {
    const sensor = this.state.sensors.get(this.selected);
    const now_us = this.state.now_us();
    const rows = sensor ? this.#factRows(sensor, now_us) : [[t("sensor"), t("no_sensor")]];
    const facts = rows.map(([name, value, level]) =>
      element("div", {}, element("dt", {}, name), element("dd", { "data-level": level ?? null }, value)));
    byId("sensor-state").replaceChildren(...facts);
    this.#renderHeartRate(sensor, now_us);
  }

  /** The notices about all patients' sensors, most important patient first. */
  notices(now_us) {
    const sensors = this.state.patientsInOrder().flatMap(({ subject }) => this.state.sensorsOf(subject));
    const clocks = new Map(sensors.map((sensor) => [JSON.stringify([sensor.subject, sensor.hub]), this.#clockNotice(sensor, now_us)]));
    const texts = [...sensors.map((sensor) => this.#dataNotice(sensor, now_us)), ...clocks.values()].filter(Boolean);
    const hidden = texts.length - MAX_NOTICES;
    return hidden > 0 ? [...texts.slice(0, MAX_NOTICES), plural("notice_more", hidden)] : texts;
  }

  #dataNotice(sensor, now_us) {
    const name = sensor.model ? `${sensor.model} (${sensor.sensor})` : sensor.sensor;
    const values = { patient: t("patient_name", { patient: sensor.subject }), sensor: name };
    switch (sensorState(sensor, now_us, this.limits)) {
      case "gap": return t("notice_gap", { ...values, time: clockTime(sensor.gap_since_us, now_us), reason: gapReason(sensor.gap_reason) });
      case "silent": return sensor.last_received_us === null ? null : t("notice_silent", { ...values, time: clockTime(sensor.last_received_us, now_us) });
      default: return null;
    }
  }

  #clockNotice(sensor, now_us) {
    if (!sensor.clock || ["gap", "silent"].includes(sensorState(sensor, now_us, this.limits))) return null;
    const values = { patient: t("patient_name", { patient: sensor.subject }), hub: sensor.hub, duration: duration(Math.abs(sensor.clock_offset_us)) };
    return t(`notice_clock_${sensor.clock}`, values);
  }

  #choose(key) {
    this.selected = key;
    this.onSelect(key);
  }

  #renderTabs(sensors) {
    const isAmbiguous = ({ sensor }) => sensors.filter((other) => other.sensor === sensor).length > 1;
    const tabs = sensors.length < 2 ? [] : sensors.map((sensor) => {
      const key = sensorKey(sensor);
      const label = isAmbiguous(sensor) ? `${sensor.sensor} (${sensor.hub})` : sensor.sensor;
      const tab = element("button", { type: "button", "aria-pressed": key === this.selected }, label);
      tab.addEventListener("click", () => this.select(sensor));
      return tab;
    });
    byId("sensor-tabs").replaceChildren(...tabs);
  }

  #factRows(sensor, now_us) {
    const state = sensorState(sensor, now_us, this.limits);
    const battery = sensor.battery_percent;
    const clock = sensor.clock ? [[t("hub_clock"), t(`clock_${sensor.clock}`, { duration: duration(Math.abs(sensor.clock_offset_us)) }), "warn"]] : [];
    const origin = sensor.unproven_until_us === null ? [] : [[t("origin"), t("origin_unproven_until", { time: dayAndTime(sensor.unproven_until_us) }), "warn"]];
    return [
      [t("sensor"), [sensor.model, sensor.sensor].filter(Boolean).join(" · ")],
      [t("hub"), sensor.hub],
      [t("state"), t(`state_${state}`), stateLevel(state)],
      [t("skin_contact"), contactText(sensor.skin_contact), sensor.skin_contact === false ? "warn" : undefined],
      [t("battery"), battery === null ? t("unknown") : percent(battery / 100), battery !== null && battery <= LOW_BATTERY_PERCENT ? "warn" : undefined],
      [t("last_data"), sensor.last_received_us === null ? t("unknown") : relativeTime(sensor.last_received_us, now_us)],
      ...clock,
      ...origin,
      ...judgedRows(this.state.judged.get(sensorKey(sensor))),
      [t("samples"), number(sensor.samples, 0)],
      [t("missing"), number(sensor.missing_samples, 0)],
    ];
  }

  /** The latest heart rate in the hub's sequence: current only if it came a moment ago and was not late. */
  #renderHeartRate(sensor, now_us) {
    const latest = sensor?.heart_rate;
    const isCurrent = latest && now_us - latest.received_us < this.limits.silentAfter_us && sensor.clock !== "behind";
    setText(byId("heart-rate"), isCurrent ? number(latest.value, 0) : "–");
    setText(byId("heart-rate-age"), latest && !isCurrent ? relativeTime(latest.at_us, now_us) : "");
  }
}

/** The notice about blocks that this clinic could not read; empty if there are none. */
export function unopenedNotice({ unopened, unopened_reasons }) {
  if (!unopened) return [];
  const reasons = Object.keys(unopened_reasons).map((reason) => lookup("unopened", reason) ?? reason).join(", ");
  return [plural("notice_unopened", unopened, { reasons })];
}

/** How much of the ECG of the last 24 hours was judged, and why the rest was not. */
function judgedRows(judged) {
  if (!judged?.analysed_us) return [];
  const reasons = Object.entries(judged.not_judged_us);
  const missed_us = reasons.reduce((sum, [, length_us]) => sum + length_us, 0);
  const rows = [[t("ecg_of_day"), t("judged", { time: duration(judged.analysed_us - missed_us) })]];
  if (missed_us) {
    const told = reasons.map(([reason, length_us]) => `${lookup("inconclusive", reason) ?? reason}: ${duration(length_us)}`);
    rows.push([t("not_judged"), t("not_judged_why", { time: duration(missed_us), reasons: told.join("; ") })]);
  }
  return rows;
}

const gapReason = (reason) => lookup("gap_reason", reason) ?? reason;

function contactText(contact) {
  if (contact === null) return t("unknown");
  return contact ? t("contact_yes") : t("contact_no");
}
