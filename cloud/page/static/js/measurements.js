/** What was measured of a patient with all sensors: results by group, such as blood pressure, and the states of the sensors. */

import { patientName } from "./alerts.js";
import { byId, element, setText } from "./dom.js";
import { clockTime, lookup, number, percent, t } from "./i18n.js";
import { LOW_BATTERY_PERCENT, sensorState, stateLevel } from "./sensors.js";
import { NOT_MEASURED, sensorKey } from "./state.js";

/** The groups in the order of the page, with their kinds; the first ones of `lead` are shown large. */
const GROUPS = [
  { id: "blood_pressure", lead: ["systolic", "diastolic"], kinds: ["mean_pressure", "pulse_rate_cuff"], failed: "blood_pressure" },
  { id: "oxygen", lead: ["spo2"], kinds: ["pulse_rate", "pulse_amplitude", "spo2_fast", "spo2_slow", "pulse_rate_fast", "pulse_rate_slow"], failed: "oximetry" },
  { id: "weight", lead: ["weight"], kinds: ["bmi", "height", "body_fat", "muscle_percentage", "muscle_mass", "fat_free_mass", "soft_lean_mass", "body_water_mass", "basal_metabolism", "impedance"], failed: "weight" },
  { id: "temperature", lead: ["temperature"], kinds: ["temperature_intermediate", "skin_temperature"], failed: "temperature" },
  { id: "activity", lead: ["steps"], kinds: ["energy"] },
];
const GROUPED = new Set(GROUPS.flatMap(({ lead, kinds }) => [...lead, ...kinds]));
/** Values that say nothing to a reader of the page: the heart rate has a place of its own, the others are raw signals. */
const HIDDEN = new Set(["heart_rate", "heart_rate_fast", "motion_x", "motion_y", "motion_z", "cuff_pressure", "conversion_factor",
  "mag_calibration", "ppg_integrations", "ppg_gain_1", "ppg_gain_2", "sensor_temperature", "air_pressure", "pp_error"]);
/** Flags that are no reason to doubt a value. */
const QUIET_FLAGS = new Set(["continuous", "ongoing", "validated", "fully_qualified", "from_storage", "multiple_packets", "reserved_bits",
  "reserved_flags", "sent_in_kpa", "sent_in_lb", "sent_in_jin", "sent_in_inches", "sent_in_fahrenheit", "early_estimate", "extended_display_update"]);
const UNITS = { "mm[Hg]": "mmHg", Cel: "°C", "kg/m2": "kg/m²", Ohm: "Ω", "[g]": "g" };
const DIGITS = { weight: 2, temperature: 1, spo2: 0, systolic: 0, diastolic: 0, mean_pressure: 0, steps: 0 };
/** Earlier results of a group on the page. */
const MAX_EARLIER = 4;
/** A scale sends weight and body composition as two results; those of one weighing come within this time. */
const SAME_WEIGHING_US = 60e6;

export class Measurements {
  #shown = "";

  constructor(state) { Object.assign(this, { state }); }

  /** Shows the patient's measurements, if anything has changed since the last time. */
  render(subject, limits) {
    const now_us = this.state.now_us();
    const sensors = this.state.sensorsOf(subject);
    const groups = collectGroups(sensors);
    const states = sensors.map((sensor) => describeSensor(sensor, now_us, limits));
    const shown = JSON.stringify([document.documentElement.lang, subject, groups, states]);
    setText(byId("measured-patient"), subject === null ? "" : patientName({ subject }));
    if (shown === this.#shown) return;
    this.#shown = shown;
    const empty = element("p", { class: "empty" }, t("no_measurements"));
    byId("measured").replaceChildren(...(groups.length ? groups.map((group) => this.#group(group, now_us)) : [empty]));
    byId("sensor-list").replaceChildren(...states.map(sensorItem));
  }

  #group({ id, title, items }, now_us) {
    const latest = items.find((item) => !item.failed && item.is_confirmed && isMeasured(item));
    const others = items.filter((item) => item !== latest).slice(0, MAX_EARLIER);
    const heading = element("h3", { id: `measured-${id}` }, title);
    return element("article", { class: "measured-group", "aria-labelledby": `measured-${id}` }, heading,
      latest ? element("div", {}, ...latestElements(latest, now_us)) : null,
      others.length ? element("ul", { class: "earlier" }, ...others.map((item) => element("li", {}, ...itemElements(item, now_us)))) : null);
  }
}

/** The groups that have values, each with its items: results and latest continuous values, the last by their time first. */
function collectGroups(sensors) {
  const items = sensors.flatMap((sensor) => [...sensor.results.map((result) => ({ ...result, sensor: sensor.sensor })), ...continuousItems(sensor)]);
  const known = GROUPS.map((group) => ({ id: group.id, title: lookup("measured_group", group.id), items: itemsOf(group, items) }));
  const unknown = [...new Map(items.flatMap(({ values }) => values).filter(({ kind }) => !GROUPED.has(kind) && !HIDDEN.has(kind)).map((value) => [value.kind, value])).values()];
  const other = unknown.map((value) => ({ id: value.kind, title: kindTitle(value), items: itemsOf({ lead: [value.kind], kinds: [] }, items) }));
  return [...known, ...other].filter((group) => group.items.length);
}

function continuousItems({ sensor, values }) {
  return values.map((value) => ({
    sensor, at_us: value.at_us, values: [{ flags: [], ...value }], is_confirmed: true, is_continuous: true, failed: null, reasons: [],
  }));
}

/** The items of a group, with the values of this group only, in its order. Values that a sensor filled in are left out. */
function itemsOf({ id, lead, kinds, failed }, items) {
  const order = [...lead, ...kinds];
  const own = items.map((item) => ({ ...item, lead, values: item.values.filter(({ kind, flags }) => order.includes(kind) && !flags.includes("placeholder")) }));
  const mine = own.filter((item) => item.values.length || (item.failed && item.failed === failed)).sort((a, b) => b.at_us - a.at_us);
  const merged = mergeNear(mine, id === "weight" ? SAME_WEIGHING_US : 0);
  merged.forEach(({ values }) => values.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind)));
  return merged;
}

/** Whether the values that are shown large are measurements of a person. */
const isMeasured = ({ values, lead }) => !values.some(({ kind, flags }) => lead.includes(kind) && flags.some((flag) => NOT_MEASURED.includes(flag)));

/** Joins continuous values of one sensor to one item, and results that were measured within a time. */
function mergeNear(items, near_us) {
  const merged = [];
  for (const item of items) {
    const host = merged.find((other) => other.sensor === item.sensor && !other.failed && !item.failed
      && (item.is_continuous ? other.is_continuous : !other.is_continuous && other.at_us - item.at_us < near_us)
      && !other.values.some(({ kind }) => item.values.some((value) => value.kind === kind)));
    if (host) host.values = [...host.values, ...item.values];
    else merged.push({ ...item });
  }
  return merged;
}

function latestElements(item, now_us) {
  const lead = item.values.filter(({ kind }) => item.lead.includes(kind));
  const others = item.values.filter((value) => !lead.includes(value));
  const unit = unitText((lead[0] ?? others[0]).unit);
  const value = lead.length
    ? [element("p", { class: "measured-value" }, element("strong", {}, lead.map(valueText).join("/")), " ", element("span", { class: "unit" }, unit))]
    : [];
  const facts = element("dl", { class: "measured-facts" }, ...others.map((one) =>
    element("div", {}, element("dt", {}, kindTitle(one)), element("dd", {}, `${valueText(one)} ${unitText(one.unit)}`.trim()))));
  return [...value, facts, element("p", { class: "quiet" }, timeText(item, now_us)), ...markElements(item)];
}

function itemElements(item, now_us) {
  const lead = item.values.filter(({ kind }) => item.lead.includes(kind));
  const shown = lead.length ? lead : item.values;
  const unit = shown.length ? unitText(shown[0].unit) : "";
  const text = item.failed ? t("measurement_failed") : `${shown.map(valueText).join("/")} ${unit}`.trim();
  return [element("span", { class: "earlier-value" }, text), " ", element("span", { class: "quiet" }, timeText(item, now_us)), ...markElements(item)];
}

const timeText = (item, now_us) => [clockTime(item.at_us, now_us), item.sensor, item.is_continuous ? t("continuous") : null].filter(Boolean).join(" · ");

/** What a reader must know about a result: whose it is, how its time was found, and what the sensor says of it. */
function markElements(item) {
  const doubts = [...new Set([...item.values.flatMap(({ flags }) => flags), ...item.reasons])].filter((flag) => flag && !QUIET_FLAGS.has(flag));
  const marks = [
    item.is_confirmed ? null : ["warn", t("person_unconfirmed")],
    item.failed && item.values.length ? ["warn", t("measurement_failed")] : null,
    ...doubts.map((flag) => ["warn", lookup("flag", flag) ?? flag.replaceAll("_", " ")]),
    timeMark(item),
    item.is_stored ? ["", t("from_memory")] : null,
  ].filter(Boolean);
  return marks.length ? [element("p", { class: "marks" }, ...marks.map(([level, text]) => element("span", { "data-level": level || null }, text)))] : [];
}

function timeMark({ time_source, clock }) {
  if (time_source === "corrected") return ["", t("time_corrected")];
  if (time_source === "unconfirmed") return ["warn", t("time_unconfirmed")];
  if (time_source === "arrival") return ["warn", t("time_arrival", { clock: lookup("sensor_clock", clock ?? "none") ?? clock })];
  return null;
}

function describeSensor(sensor, now_us, limits) {
  const state = sensorState(sensor, now_us, limits);
  return {
    key: sensorKey(sensor),
    name: sensor.sensor,
    model: sensor.model,
    state: t(`state_${state}`),
    level: stateLevel(state),
    battery: sensor.battery_percent === null ? null : t("battery_level", { percent: percent(sensor.battery_percent / 100) }),
    isLow: sensor.battery_percent !== null && sensor.battery_percent <= LOW_BATTERY_PERCENT,
  };
}

function sensorItem({ name, model, state, level, battery, isLow }) {
  return element("li", {}, element("span", { class: "sensor-name" }, name),
    model ? element("span", { class: "quiet" }, model) : null,
    battery ? element("span", { class: isLow ? null : "quiet", "data-level": isLow ? "warn" : null }, battery) : null,
    element("span", { "data-level": level }, state));
}

const kindTitle = ({ kind, title }) => lookup("measured_kind", kind) ?? title ?? kind.replaceAll("_", " ");
const unitText = (unit) => (unit === "{steps}" ? t("unit_steps") : UNITS[unit] ?? unit ?? "");
const valueText = ({ kind, value }) => number(value, DIGITS[kind] ?? 1);
