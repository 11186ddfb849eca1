/** The data of the page: alerts by id, sensors by name, their ECG and heart rate. This module draws nothing. */

const ECG_HISTORY_US = 30e6;
const TREND_HISTORY_US = 6 * 3600e6;

export class State {
  alerts = new Map();
  sensors = new Map();
  counters = null;
  revision = 0;
  #ecg = new Map();
  #rates = new Map();
  #serverOffset_us = 0;

  /** The server's time in microseconds: the clock of the viewer's computer may be wrong. */
  now_us() { return Date.now() * 1000 + this.#serverOffset_us; }

  setServerTime(us) { if (us) this.#serverOffset_us = us - Date.now() * 1000; }

  /** Alerts in the order of their decision, latest first; an old alert that arrives late is sorted in by its time. */
  alertsNewestFirst() {
    return [...this.alerts.values()].sort((a, b) => b.decided_us - a.decided_us || b.revision - a.revision);
  }

  /** Stores an alert; returns whether it is new to the page. A strip once received is kept. */
  putAlert(alert) {
    const known = this.alerts.get(alert.id);
    this.revision = Math.max(this.revision, alert.revision);
    if (known && known.revision >= alert.revision && !alert.strip) return false;
    this.alerts.set(alert.id, { ...alert, strip: alert.strip ?? known?.strip });
    return !known;
  }

  putSensor(sensor) { this.sensors.set(sensor.sensor, sensor); }

  ecg(sensor) { return this.#ecg.get(sensor) ?? []; }

  ecgEnd_us(sensor) { return this.ecg(sensor).at(-1)?.end_us ?? 0; }

  putEcg({ sensor, start_us, rate_hz, mv }) {
    const chunks = this.#getOrCreateList(this.#ecg, sensor);
    const chunk = { start_us, rate_hz, mv, end_us: start_us + (mv.length / rate_hz) * 1e6 };
    insertInOrder(chunks, chunk, "start_us");
    dropBefore(chunks, chunks.at(-1).end_us - ECG_HISTORY_US, "end_us");
  }

  heartRates(sensor) { return this.#rates.get(sensor) ?? []; }

  putHeartRate({ sensor, at_us, value }) {
    const rates = this.#getOrCreateList(this.#rates, sensor);
    insertInOrder(rates, { at_us, value }, "at_us");
    dropBefore(rates, rates.at(-1).at_us - TREND_HISTORY_US, "at_us");
  }

  #getOrCreateList(lists, name) {
    if (!lists.has(name)) lists.set(name, []);
    return lists.get(name);
  }
}

function insertInOrder(list, item, key) {
  let index = list.length;
  while (index > 0 && list[index - 1][key] > item[key]) index -= 1;
  if (list[index - 1]?.[key] !== item[key]) list.splice(index, 0, item);
}

function dropBefore(list, limit, key) {
  const firstKept = list.findIndex((item) => item[key] >= limit);
  if (firstKept > 0) list.splice(0, firstKept);
}
