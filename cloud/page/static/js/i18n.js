/** Texts, numbers and times in the reader's language and time zone. */

export const LANGUAGES = ["en", "de", "fr", "es"];
const STORAGE_KEY = "pulsegate.language";

let texts = {};
let language = "en";

/** The language that the reader has selected, or else the one that the server took from Accept-Language. */
export function preferredLanguage() {
  const chosen = localStorage.getItem(STORAGE_KEY);
  return LANGUAGES.includes(chosen) ? chosen : document.documentElement.lang;
}

export async function loadLanguage(wanted) {
  const response = await fetch(`/static/lang/${wanted}.json`);
  if (!response.ok) throw new Error(`cannot load the texts in ${wanted}: ${response.status}`);
  texts = await response.json();
  language = wanted;
  document.documentElement.lang = wanted;
}

export function chooseLanguage(wanted) {
  localStorage.setItem(STORAGE_KEY, wanted);
  return loadLanguage(wanted);
}

export const currentLanguage = () => language;

/** The text at a path such as ("kind", "af"); null if there is none. */
export function lookup(...path) {
  const found = path.reduce((level, step) => level?.[step], texts);
  return typeof found === "string" ? found : null;
}

export function fill(template, values = {}) {
  return template.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? "–"));
}

export const t = (key, values) => fill(lookup(key) ?? key, values);

/** A text with the plural forms "one" and "other". */
export function plural(key, n, values) {
  const form = new Intl.PluralRules(language).select(n) === "one" ? "one" : "other";
  return fill(lookup(key, form) ?? key, { n: number(n), ...values });
}

export const number = (value, digits = 1) => new Intl.NumberFormat(language, { maximumFractionDigits: digits, useGrouping: value >= 10_000 }).format(value);
export const percent = (value) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 }).format(value);

/** 24-hour times in every language, as clinics write them. */
const TIME = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

const sameDay = (a, b) => a.toDateString() === b.toDateString();

/** The time of day with seconds, and the date if it is not today. */
export function clockTime(us, now_us) {
  const date = new Date(us / 1000);
  const day = sameDay(date, new Date(now_us / 1000)) ? {} : { day: "2-digit", month: "short", year: "numeric" };
  return new Intl.DateTimeFormat(language, { ...TIME, ...day }).format(date);
}

export function dayAndTime(us) {
  const options = { weekday: "short", day: "2-digit", month: "short", ...TIME };
  return new Intl.DateTimeFormat(language, { ...options, timeZoneName: "short" }).format(new Date(us / 1000));
}

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** A past time such as "12 seconds ago", in whole units. */
export function relativeTime(us, now_us) {
  const seconds = Math.min(0, (us - now_us) / 1e6);
  const [unit, size] = UNITS.find(([, length]) => -seconds >= length) ?? UNITS[3];
  return new Intl.RelativeTimeFormat(language, { numeric: "auto" }).format(Math.trunc(seconds / size), unit);
}

export function duration(us) {
  const seconds = Math.max(0, us / 1e6);
  const [h, m] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (h) return fill(lookup("duration", "h"), { h, m });
  if (m) return fill(lookup("duration", "m"), { m, s: Math.floor(seconds % 60) });
  return fill(lookup("duration", "s"), { s: number(seconds, seconds < 10 ? 1 : 0) });
}

export function zoneName() {
  const parts = new Intl.DateTimeFormat(language, { timeZoneName: "long" }).formatToParts(new Date());
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  return `${parts.find((part) => part.type === "timeZoneName").value} (${timeZone})`;
}
