/** The page: fetches missing data over REST, receives live data over the WebSocket, and keeps every part up to date. */

import { AlertDetail, AlertList, kindName, patientName, scaleText } from "./alerts.js";
import { AlertEnding, CommandTable, isUnanswered } from "./commands.js";
import { byId, element, setText } from "./dom.js";
import { LANGUAGES, chooseLanguage, clockTime, currentLanguage, dayAndTime, loadLanguage, lookup, number, preferredLanguage, t, zoneName } from "./i18n.js";
import { HubAlarms } from "./hubs.js";
import { Link } from "./link.js";
import { LiveEcg } from "./live.js";
import { Measurements } from "./measurements.js";
import { PatientList } from "./patients.js";
import { SensorPanel, unopenedNotice } from "./sensors.js";
import { State, alertKey, comparePositions } from "./state.js";
import { Trend } from "./trend.js";

/** How much history before the newest data the page fetches at its start. */
const INITIAL_ECG_US = 15e6;
const INITIAL_TREND_US = 6 * 3600e6;
const JUDGED_US = 24 * 3600e6;

const oneColumnQuery = matchMedia("(max-width: 900px)"); // as in base.css
const state = new State();
const sensors = new SensorPanel(state, onSensor);
const patients = new PatientList(state, onPatient);
const live = new LiveEcg(byId("live-paper"), (gain) => setText(byId("live-scale"), scaleText(gain)), state);
const ending = new AlertEnding(state, endAlert);
const detail = new AlertDetail(state, fetchStrip, ending);
const commandTable = new CommandTable(state);
const list = new AlertList(state, onAlert, () => fetchMoreAlerts().catch(reportError));
const hubAlarms = new HubAlarms(state);
const trend = new Trend(state);
const measurements = new Measurements(state);
let linkLostAt_ms = null;
/** For each sensor, the time up to which its data is complete, before newer data arrives over the WebSocket. */
let dataEnds = new Map();
/** The sensors whose history was fetched, or is being fetched, since the last connection. */
let fetched = new Set();
let isSyncing = false;
let needsAnotherSync = false;
let linkState = "connecting";

async function getJson(path, query = {}) {
  const address = Object.keys(query).length ? `${path}?${new URLSearchParams(query)}` : path;
  const response = await fetch(address, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

/** Asks the clinic to end an alert. Returns null, or the status of the answer if it was not accepted. */
async function endAlert({ subject, hub, id }, kind) {
  const body = JSON.stringify({ subject, hub, alert: id, kind });
  try {
    const response = await fetch("/api/commands", { method: "POST", headers: { "content-type": "application/json" }, body });
    await refreshCommands().catch(reportError);
    return response.ok ? null : response.status;
  } catch (error) { // no answer: the request may have arrived, and the table shows it when the link is back
    reportError(error);
    return "link";
  }
}

/** Fetches the commands of the patients that are shown. */
async function refreshCommands() {
  const shown = new Set([sensors.subject, state.alerts.get(list.selected)?.subject].filter(Boolean));
  await Promise.all([...shown].map(async (subject) => state.commands.set(subject, (await getJson("/api/commands", { subject })).commands)));
  renderCommands();
}

function renderCommands() {
  ending.update();
  commandTable.render(sensors.subject);
}

/** Shows another sensor everywhere, and fetches its history unless that is complete. */
function onSensor(key) {
  live.show(key);
  trend.render(key);
  renderPatients();
  refreshJudged().catch(reportError);
  if (key && !fetched.has(key)) fetchSensor(key).then(() => trend.render(sensors.selected)).catch(reportError);
}

/** Shows a patient everywhere: the ECG, the trend and the most important alert. */
function onPatient(subject) {
  sensors.selectPatient(subject);
  list.showPatient(subject);
  renderPatients();
  detail.render(list.selected);
  refreshCommands().catch(reportError);
}

function onAlert(alert) {
  sensors.select(alert);
  renderPatients();
  detail.render(list.selected);
  refreshCommands().catch(reportError);
  if (oneColumnQuery.matches) document.querySelector(".detail").scrollIntoView();
}

async function fetchStrip({ subject, hub, id }) {
  const alert = await getJson(`/api/alerts/${encodeURIComponent(id)}`, { subject, hub });
  state.putAlert(alert);
  if (list.selected === alertKey(alert)) detail.render(list.selected);
}

async function fetchMoreAlerts() {
  const cursor = state.nextAlerts;
  const answer = await getJson("/api/alerts", { cursor });
  if (state.nextAlerts !== cursor) return; // the list was loaded again meanwhile
  answer.alerts.forEach((alert) => state.putAlert(alert));
  state.nextAlerts = answer.next;
  list.render();
}

/** Notes for each sensor the time up to which its data is complete, before newer data arrives over the WebSocket. */
function recordDataEnds() {
  for (const key of state.sensors.keys()) {
    if (!dataEnds.has(key)) dataEnds.set(key, { ecg_us: state.ecgEnd_us(key), rate_us: state.heartRates(key).at(-1)?.at_us ?? 0 });
  }
  fetched = new Set();
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
      await fetchMissing();
    } while (needsAnotherSync);
  } finally { isSyncing = false; }
}

async function fetchMissing() {
  const known = state.revision;
  const [alerts, patientList, sensorList] = await Promise.all(
    [getJson("/api/alerts", { after_revision: known }), getJson("/api/patients"), getJson("/api/sensors")]);
  state.setServerTime(sensorList.now_us);
  if (alerts.revision < known || alerts.complete === false) { // the clinic rebuilt its projections, or too much has changed
    state.clearAlerts();
    needsAnotherSync = true;
    return;
  }
  alerts.alerts.forEach((alert) => state.putAlert(alert));
  state.revision = Math.max(state.revision, alerts.revision);
  if (known === 0) Object.assign(state, { nextAlerts: alerts.next, current_us: alerts.current_us });
  patientList.patients.forEach((patient) => state.putPatient(patient));
  sensors.limits = { silentAfter_us: sensorList.silent_after_us, onDemandSilentAfter_us: sensorList.on_demand_silent_after_us };
  sensorList.sensors.forEach((sensor) => state.putSensor(sensor));
  sensors.render();
  const isMissing = sensors.selected && !fetched.has(sensors.selected);
  await Promise.all([isMissing ? fetchSensor(sensors.selected) : null, refreshCounters(), refreshHubs()]);
  renderAll();
  await refreshCommands();
}

/** Fetches the latest ECG and heart rates of a sensor, from the last that the page has. */
async function fetchSensor(key) {
  fetched.add(key);
  try { await fetchHistory(key); } catch (error) {
    fetched.delete(key); // for the next attempt
    throw error;
  }
}

async function fetchHistory(key) {
  const { subject, hub, sensor, last_data_us, last_waveform_us } = state.sensors.get(key);
  const since = dataEnds.get(key) ?? { ecg_us: 0, rate_us: 0 };
  const names = { subject, hub, sensor };
  const from = (end_us, history_us, known_us) => Math.round(known_us < end_us ? Math.max(end_us - history_us, known_us) : end_us - history_us);
  const [ecg, vitals] = await Promise.all([
    getJson("/api/ecg", { ...names, from_us: from(last_waveform_us ?? 0, INITIAL_ECG_US, since.ecg_us), to_us: last_waveform_us ?? 0 }),
    getJson("/api/vitals", { ...names, kind: "heart_rate", from_us: from(last_data_us ?? 0, INITIAL_TREND_US, since.rate_us + 1), to_us: last_data_us ?? 0 })]);
  ecg.segments.sort((a, b) => comparePositions(a.position, b.position)).forEach((segment) => state.putEcg({ ...names, ...segment }));
  vitals.vitals.forEach(({ at_us, value, flags }) => state.putHeartRate({ ...names, at_us, value, flags }));
  state.setHeartRatePosition(key, vitals.latest?.position);
  dataEnds.delete(key);
}

/** Fetches how much of the selected sensor's ECG was judged. */
async function refreshJudged() {
  const key = sensors.selected;
  if (key === null || !state.sensors.has(key)) return;
  const { subject, hub, sensor } = state.sensors.get(key);
  const to_us = Math.round(state.now_us());
  state.judged.set(key, await getJson("/api/judged", { subject, hub, sensor, from_us: to_us - JUDGED_US, to_us }));
  sensors.tick();
}

async function refreshCounters() {
  state.counters = await getJson("/api/counters");
  const values = Object.fromEntries(Object.entries(state.counters.blocks).concat(Object.entries(state.counters)).map(([name, value]) => [name, number(value, 0)]));
  setText(byId("counters"), t("counters", values));
}

/** Hubs are asked for every 10 seconds: the clinic looks at them as often. */
async function refreshHubs() {
  const { now_us, hubs } = await getJson("/api/hubs");
  state.setServerTime(now_us);
  if (state.putHubs(hubs)) { list.render(); detail.render(list.selected, true); }
  for (const alarm of hubAlarms.update()) setText(byId("announcer"), t("new_hub_alarm", hubAnnouncement(alarm)));
}

function hubAnnouncement(alarm) {
  const { priority, kind, hub } = alarm;
  return { priority: lookup("priority_label", priority) ?? priority, kind: kindName(kind), patient: alarm.subject === null ? "" : patientName(alarm), hub };
}

const handlers = {
  alert(message) {
    const isRaised = state.putAlert(message);
    list.render();
    detail.render(list.selected);
    trend.render(sensors.selected);
    if (isRaised) setText(byId("announcer"), t("new_alert", announcementValues(message)));
    if (state.commandsAbout(message).some(isUnanswered)) refreshCommands().catch(reportError);
    if (state.hasTooManyAlerts()) { state.clearAlerts(); resync().catch(reportError); }
  },
  patient(message) { state.putPatient(message); sensors.render(); list.render(); renderPatients(); },
  sensor(message) { state.putSensor(message); sensors.render(); measurements.render(sensors.subject, sensors.limits); },
  ecg(message) { state.putEcg(message); live.onChunk(message); },
  vital(message) { if (message.kind === "heart_rate") state.putHeartRate(message); },
  resync,
  beat() {}, // the heartbeat of the connection, not of the patient
};

function announcementValues(alert) {
  const { priority, kind, sensor } = alert;
  return { priority: lookup("priority_label", priority) ?? priority, kind: kindName(kind), patient: patientName(alert), sensor };
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

/** Names the patient whose ECG and trend are shown, and marks that patient in the list. */
function renderPatients() {
  patients.selected = sensors.subject;
  patients.render(sensors.limits);
  measurements.render(sensors.subject, sensors.limits);
  const name = sensors.subject === null ? "" : patientName({ subject: sensors.subject });
  setText(byId("live-patient"), name);
  setText(byId("trend-patient"), name);
  commandTable.render(sensors.subject);
}

function tick() {
  byId("link").dataset.state = linkState;
  setText(byId("link-text"), t(`link_${linkState}`));
  setText(byId("clock"), dayAndTime(state.now_us()));
  byId("clock").title = t("zone", { zone: zoneName() });
  renderNotices();
  sensors.tick();
  renderPatients();
  list.tick();
  hubAlarms.tick();
  detail.tick(list.selected);
}

function renderAll() {
  document.querySelectorAll("[data-i18n]").forEach((node) => setText(node, t(node.dataset.i18n)));
  byId("language").value = currentLanguage();
  sensors.render();
  hubAlarms.render(true);
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
setInterval(() => { if (linkLostAt_ms === null) Promise.all([refreshHubs(), refreshCommands()]).catch(reportError); }, 10_000);
setInterval(() => { if (linkLostAt_ms === null) refreshJudged().catch(reportError); }, 60_000);
setInterval(() => {
  const isWaiting = [...state.commands.values()].flat().some(isUnanswered);
  if (isWaiting && linkLostAt_ms === null) refreshCommands().catch(reportError);
}, 2000);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renderAll);
