/** The page: fetches missing data over REST, receives live data over the WebSocket, and keeps every part up to date. */

import { AlertDetail, AlertList, kindName, scaleText } from "./alerts.js";
import { byId, element, setText } from "./dom.js";
import { LANGUAGES, chooseLanguage, clockTime, currentLanguage, dayAndTime, loadLanguage, lookup, number, preferredLanguage, t, zoneName } from "./i18n.js";
import { Link } from "./link.js";
import { LiveEcg } from "./live.js";
import { SensorPanel, unopenedNotice } from "./sensors.js";
import { State } from "./state.js";
import { Trend } from "./trend.js";

/** How much history before the newest data the page fetches at its start. */
const INITIAL_ECG_US = 15e6;
const INITIAL_TREND_US = 6 * 3600e6;

const oneColumnQuery = matchMedia("(max-width: 900px)"); // as in base.css
const state = new State();
const sensors = new SensorPanel(state, (name) => { live.show(name); trend.render(name); });
const live = new LiveEcg(byId("live-paper"), (gain) => setText(byId("live-scale"), scaleText(gain)), state);
const detail = new AlertDetail(state, fetchStrip);
const list = new AlertList(state, () => {
  detail.render(list.selected);
  if (oneColumnQuery.matches) document.querySelector(".detail").scrollIntoView();
});
const trend = new Trend(state);
let linkLostAt_ms = null;
let dataEnds = new Map();
let isSyncing = false;
let needsAnotherSync = false;
let linkState = "connecting";

async function getJson(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

async function fetchStrip(id) {
  state.putAlert(await getJson(`/api/alerts/${encodeURIComponent(id)}`));
  if (list.selected === id) detail.render(id);
}

/** Notes for each sensor the time up to which its data is complete, before newer data arrives over the WebSocket. */
function recordDataEnds() {
  for (const name of state.sensors.keys()) {
    if (!dataEnds.has(name)) dataEnds.set(name, { ecg_us: state.ecgEnd_us(name), rate_us: state.heartRates(name).at(-1)?.at_us ?? 0 });
  }
}

/** Fetches missing data; if called while it runs, it fetches once more afterwards. */
async function resync() {
  recordDataEnds();
  needsAnotherSync = isSyncing;
  if (isSyncing) return;
  isSyncing = true;
  try {
    do {
      needsAnotherSync = false;
      const since = dataEnds;
      dataEnds = new Map();
      try { await fetchMissing(since); } catch (error) {
        since.forEach((ends, name) => dataEnds.set(name, ends)); // for the next attempt
        throw error;
      }
    } while (needsAnotherSync);
  } finally { isSyncing = false; }
}

async function fetchMissing(since) {
  const [alerts, sensorList] = await Promise.all([getJson(`/api/alerts?after_revision=${state.revision}`), getJson("/api/sensors")]);
  state.setServerTime(sensorList.now_us);
  if (alerts.revision < state.revision) { // the clinic rebuilt its projections
    state.alerts.clear();
    state.revision = 0;
    needsAnotherSync = true;
    return;
  }
  alerts.alerts.forEach((alert) => state.putAlert(alert));
  sensors.silentAfter_us = sensorList.silent_after_us;
  sensorList.sensors.forEach((sensor) => state.putSensor(sensor));
  await Promise.all([...state.sensors.keys()].map((name) => fetchSensor(name, since.get(name))).concat(refreshCounters()));
  renderAll();
}

async function fetchSensor(name, since = { ecg_us: 0, rate_us: 0 }) {
  const sensor = encodeURIComponent(name);
  const end_us = state.sensors.get(name).last_data_us;
  const ecgFrom_us = Math.round(Math.max(0, end_us - INITIAL_ECG_US, since.ecg_us));
  const rateFrom_us = Math.round(Math.max(0, end_us - INITIAL_TREND_US, since.rate_us + 1));
  const [ecg, vitals] = await Promise.all([
    getJson(`/api/ecg?sensor=${sensor}&from_us=${ecgFrom_us}&to_us=${end_us}`),
    getJson(`/api/vitals?sensor=${sensor}&kind=heart_rate&from_us=${rateFrom_us}`)]);
  ecg.segments.forEach((segment) => state.putEcg({ sensor: name, ...segment }));
  vitals.vitals.forEach(({ at_us, value }) => state.putHeartRate({ sensor: name, at_us, value }));
}

async function refreshCounters() {
  state.counters = await getJson("/api/counters");
  const values = Object.fromEntries(Object.entries(state.counters.blocks).concat(Object.entries(state.counters)).map(([name, value]) => [name, number(value, 0)]));
  setText(byId("counters"), t("counters", values));
}

const handlers = {
  alert(message) {
    const isNew = state.putAlert(message);
    list.render();
    detail.render(list.selected);
    trend.render(sensors.selected);
    if (isNew) setText(byId("announcer"), t("new_alert", announcementValues(message)));
  },
  sensor(message) { state.putSensor(message); sensors.render(); },
  ecg(message) { state.putEcg(message); if (message.sensor === live.sensor) live.onChunk(message); },
  vital(message) { if (message.kind === "heart_rate") state.putHeartRate(message); },
  resync,
  beat() {}, // the heartbeat of the connection, not of the patient
};

function announcementValues({ priority, kind, sensor }) {
  return { priority: lookup("priority_label", priority) ?? priority, kind: kindName(kind), sensor };
}

const link = new Link({
  onUp() { linkLostAt_ms = null; linkState = "connected"; resync().catch(reportError); tick(); },
  onMessage(message) {
    state.setServerTime(message.published_us);
    Promise.resolve(handlers[message.type]?.(message)).catch(reportError);
  },
  onDown(ms) { linkLostAt_ms ??= ms; linkState = "lost"; tick(); },
});

function reportError(error) { console.warn(`cannot fetch the missing data, will retry at the next connection: ${error.message}`); }

function renderNotices() {
  const now_us = state.now_us();
  const texts = linkLostAt_ms === null ? sensors.notices(now_us) : [t("notice_link", { time: clockTime(linkLostAt_ms * 1000, Date.now() * 1000) })];
  texts.push(...(state.counters ? unopenedNotice(state.counters.blocks) : []));
  const currentTexts = [...byId("notices").children].map((notice) => notice.textContent);
  if (texts.join("\n") !== currentTexts.join("\n")) byId("notices").replaceChildren(...texts.map((text) => element("p", { class: "notice" }, text)));
  document.querySelector(".live").dataset.stale = linkLostAt_ms !== null;
}

function tick() {
  byId("link").dataset.state = linkState;
  setText(byId("link-text"), t(`link_${linkState}`));
  setText(byId("clock"), dayAndTime(state.now_us()));
  byId("clock").title = t("zone", { zone: zoneName() });
  renderNotices();
  sensors.tick();
  list.tick();
  detail.tick(list.selected);
}

function renderAll() {
  document.querySelectorAll("[data-i18n]").forEach((node) => setText(node, t(node.dataset.i18n)));
  byId("language").value = currentLanguage();
  sensors.render();
  list.render();
  detail.render(list.selected, true);
  trend.render(sensors.selected);
  tick();
}

async function fillLanguageMenu() {
  const names = await Promise.all(LANGUAGES.map(async (language) => [language, (await getJson(`/static/lang/${language}.json`)).name]));
  byId("language").replaceChildren(...names.map(([value, name]) => element("option", { value, lang: value }, name)));
  byId("language").addEventListener("change", async ({ target }) => {
    await chooseLanguage(target.value);
    if (state.counters) refreshCounters().catch(reportError);
    live.redraw();
    renderAll();
  });
}

await loadLanguage(preferredLanguage());
await fillLanguageMenu();
renderAll();
link.connect();
setInterval(tick, 1000);
setInterval(() => { if (linkLostAt_ms === null) { refreshCounters().catch(reportError); trend.render(sensors.selected); } }, 5000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renderAll);
