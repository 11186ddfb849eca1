/** The data of the page: patients, alerts, sensors, and the ECG and heart rate of each sensor. This module draws nothing.
 *
 * Names of sensors and ids of alerts are unique only for one patient and hub; every key therefore names all three.
 */

const ECG_HISTORY_US = 30e6;
const TREND_HISTORY_US = 6 * 3600e6;
/** More alerts than this slow the page down; it then starts again with the first page of the list. */
const MAX_ALERTS = 1000;
/** Flags of a number that is no measurement of a person, as 0/min without a pulse: see drivers/kinds.py. */
export const NOT_MEASURED = ["implausible", "no_pulse_found", "demonstration", "testing", "calibration_ongoing", "unavailable", "invalid"];

export const sensorKey = ({ subject, hub, sensor }) => JSON.stringify([subject, hub, sensor]);
export const alertKey = ({ subject, hub, id }) => JSON.stringify([subject, hub, id]);
export const isOngoing = (alert) => alert.end_us === null;

export class State {
  patients = new Map();
  alerts = new Map();
  sensors = new Map();
  /** The hubs by their names, with their last status and the clinic's alarms about them. */
  hubs = new Map();
  /** The newest commands of each patient, newest first. */
  commands = new Map();
  /** By sensor: how much of its ECG was judged lately. */
  judged = new Map();
  counters = null;
  revision = 0;
  /** The place in the server's list behind the alerts that are loaded; null if all are. */
  nextAlerts = null;
  /** An ended alert is among the current ones for this long after its receipt; the server says how long. */
  current_us = 86_400e6;
  #ecg = new Map();
  #rates = new Map();
  #serverOffset_us = 0;

  /** The server's time in microseconds: the clock of the viewer's computer may be wrong. */
  now_us() { return Date.now() * 1000 + this.#serverOffset_us; }

  setServerTime(us) { if (us) this.#serverOffset_us = us - Date.now() * 1000; }

  /** Alerts in the order of the server's list: the current ones by priority, state and age, then the earlier ones by age. */
  alertsInOrder() {
    const since_us = this.now_us() - this.current_us;
    const places = new Map([...this.alerts.values()].map((alert) => [alert, placeInList(alert, since_us)]));
    return [...places.keys()].sort((a, b) => comparePositions(places.get(a), places.get(b)));
  }

  /** Stores an alert; returns whether it is new to the page. Strips once received are kept; `strip_revision` is that of theirs. */
  putAlert(alert) {
    const key = alertKey(alert);
    const known = this.alerts.get(key);
    this.revision = Math.max(this.revision, alert.revision);
    if (known && known.revision >= alert.revision && !alert.strip) return false;
    const { strip, strips, strip_revision } = alert.strip ? { ...alert, strip_revision: alert.revision } : known ?? {};
    this.alerts.set(key, { ...alert, strip, strips, strip_revision });
    return known?.decided_us !== alert.decided_us;
  }

  hasTooManyAlerts() { return this.alerts.size > MAX_ALERTS; }

  clearAlerts() {
    this.alerts.clear();
    this.revision = 0;
    this.nextAlerts = null;
  }

  /** Replaces all hubs; returns whether any is outdated now and was not, or the other way round. */
  putHubs(hubs) {
    const before = this.#refusedHubs();
    this.hubs = new Map(hubs.map((hub) => [hub.hub, hub]));
    return before !== this.#refusedHubs();
  }

  /** Whether the hub is so outdated that the clinic takes only its alerts. */
  isOutdated(hub) { return this.hubs.get(hub)?.is_refused ?? false; }

  #refusedHubs() { return [...this.hubs.values()].filter(({ is_refused }) => is_refused).map(({ hub }) => hub).join(); }

  commandsOf(subject) { return this.commands.get(subject) ?? []; }

  /** The commands to end this alert, newest first. */
  commandsAbout({ subject, hub, id }) { return this.commandsOf(subject).filter((one) => one.hub === hub && one.alert === id); }

  putPatient(patient) { this.patients.set(patient.subject, patient); }

  /** Patients with the most important ongoing alert first, then by name. */
  patientsInOrder() {
    const place = ({ ongoing }) => { const rank = Object.values(ongoing).findIndex((n) => n > 0); return rank < 0 ? Number.MAX_VALUE : rank; };
    return [...this.patients.values()].sort((a, b) => place(a) - place(b) || a.subject.localeCompare(b.subject));
  }

  putSensor(sensor) {
    this.sensors.set(sensorKey(sensor), sensor);
    if (!this.patients.has(sensor.subject)) this.putPatient({ subject: sensor.subject, ongoing: {} });
  }

  sensorsOf(subject) {
    const sensors = [...this.sensors.values()].filter((sensor) => sensor.subject === subject);
    return sensors.sort((a, b) => a.sensor.localeCompare(b.sensor) || a.hub.localeCompare(b.hub));
  }

  ecg(key) { return this.#ecg.get(key)?.items ?? []; }

  ecgEnd_us(key) { return this.ecg(key).at(-1)?.end_us ?? 0; }

  putEcg({ start_us, rate_hz, mv, position, ...names }) {
    const chunk = { time_us: start_us, start_us, rate_hz, mv, end_us: start_us + (mv.length / rate_hz) * 1e6 };
    this.#series(this.#ecg, sensorKey(names), ECG_HISTORY_US).put(chunk, position);
  }

  heartRates(key) { return this.#rates.get(key)?.items ?? []; }

  putHeartRate({ at_us, value, position, flags = [], ...names }) {
    if (flags.some((flag) => NOT_MEASURED.includes(flag))) return;
    this.#series(this.#rates, sensorKey(names), TREND_HISTORY_US).put({ time_us: at_us, at_us, value }, position);
  }

  /** Says which of the hub's blocks the heart rates of a sensor reach to, after they were fetched. */
  setHeartRatePosition(key, position) {
    const names = Object.fromEntries(["subject", "hub", "sensor"].map((name, i) => [name, JSON.parse(key)[i]]));
    this.#series(this.#rates, sensorKey(names), TREND_HISTORY_US).advance(position);
  }

  #series(all, key, history_us) {
    if (!all.has(key)) all.set(key, new Series(history_us));
    return all.get(key);
  }
}

/** Items in the order of their time, for a limited history. If the hub's clock was set back, what is now later is dropped. */
class Series {
  items = [];
  #position = null;

  constructor(history_us) { this.history_us = history_us; }

  put(item, position) {
    if (this.advance(position)) this.items = this.items.filter(({ time_us }) => time_us <= item.time_us);
    let index = this.items.length;
    while (index > 0 && this.items[index - 1].time_us > item.time_us) index -= 1;
    if (this.items[index - 1]?.time_us !== item.time_us) this.items.splice(index, 0, item);
    const limit_us = this.items.at(-1).time_us - this.history_us;
    const firstKept = this.items.findIndex(({ time_us }) => time_us >= limit_us);
    if (firstKept > 0) this.items.splice(0, firstKept);
  }

  /** Notes the position of a block in the hub's sequence; returns whether it is later than all before. */
  advance(position) {
    if (!position || (this.#position && comparePositions(position, this.#position) <= 0)) return false;
    this.#position = position;
    return true;
  }
}

function placeInList({ rank, end_us, raised_us, received_us, revision }, since_us) {
  const age = [-raised_us, -revision];
  return end_us !== null && received_us < since_us ? [1, ...age] : [0, rank, Number(end_us !== null), ...age];
}

/** Compares two positions, or two lists of numbers, by their first difference. */
export function comparePositions(a, b) {
  const index = a.findIndex((value, i) => value !== b[i]);
  return index < 0 ? 0 : a[index] - b[index];
}
