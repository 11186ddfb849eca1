/** What the page knows: alerts by id, sensors by name, their ECG and heart rate. Nothing here draws. */

const ECG_KEPT_US = 30e6;
const TREND_KEPT_US = 6 * 3600e6;

export class State {
  alerts = new Map();
  sensors = new Map();
  counters = null;
  revision = 0;
  #ecg = new Map();
  #rates = new Map();
  #ahead_us = 0;

  /** The server's clock now, in microseconds, so that a wrong clock on the viewer's machine does no harm. */
  now_us() { return Date.now() * 1000 + this.#ahead_us; }

  setServerTime(us) { if (us) this.#ahead_us = us - Date.now() * 1000; }

  /** Latest raised first; a late upload of an old one takes its place in time. */
  alertsNewestFirst() {
    return [...this.alerts.values()].sort((a, b) => b.decided_us - a.decided_us || b.revision - a.revision);
  }

  /** Whether the alert is new to the page. A strip once received stays. */
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
    const chunks = this.#listOf(this.#ecg, sensor);
    const chunk = { start_us, rate_hz, mv, end_us: start_us + (mv.length / rate_hz) * 1e6 };
    insertInOrder(chunks, chunk, "start_us");
    dropBefore(chunks, chunks.at(-1).end_us - ECG_KEPT_US, "end_us");
  }

  heartRates(sensor) { return this.#rates.get(sensor) ?? []; }

  putHeartRate({ sensor, at_us, value }) {
    const rates = this.#listOf(this.#rates, sensor);
    insertInOrder(rates, { at_us, value }, "at_us");
    dropBefore(rates, rates.at(-1).at_us - TREND_KEPT_US, "at_us");
  }

  #listOf(lists, name) {
    if (!lists.has(name)) lists.set(name, []);
    return lists.get(name);
  }
}

function insertInOrder(list, item, key) {
  let place = list.length;
  while (place > 0 && list[place - 1][key] > item[key]) place -= 1;
  if (list[place - 1]?.[key] !== item[key]) list.splice(place, 0, item);
}

function dropBefore(list, limit, key) {
  const keep = list.findIndex((item) => item[key] >= limit);
  if (keep > 0) list.splice(0, keep);
}
