/** The list of patients, with the ongoing alerts of each and its sensors without data. */

import { prioritySign } from "./alerts.js";
import { byId, element, setText } from "./dom.js";
import { plural, t } from "./i18n.js";
import { sensorState } from "./sensors.js";

export class PatientList {
  #shown = "";

  constructor(state, onSelect) { Object.assign(this, { state, onSelect, selected: null }); }

  /** Rebuilds the rows if any has changed; the focused row keeps the focus. */
  render(limits) {
    const rows = this.state.patientsInOrder().map((patient) => this.#summary(patient, limits));
    const shown = JSON.stringify(rows);
    byId("no-patients").hidden = rows.length > 0;
    setText(byId("no-patients"), t("no_patients"));
    if (shown === this.#shown) return;
    this.#shown = shown;
    const focused = document.activeElement?.dataset?.patient;
    byId("patient-list").replaceChildren(...rows.map((row) => element("li", {}, this.#row(row))));
    if (focused) document.querySelector(`[data-patient="${CSS.escape(focused)}"]`)?.focus();
  }

  #summary({ subject, ongoing }, limits) {
    const now_us = this.state.now_us();
    const counts = Object.entries(ongoing).filter(([, n]) => n > 0);
    const n = counts.reduce((sum, [, count]) => sum + count, 0);
    const silent = this.state.sensorsOf(subject).filter((sensor) => ["gap", "silent"].includes(sensorState(sensor, now_us, limits))).length;
    return {
      subject,
      isSelected: subject === this.selected,
      priority: counts[0]?.[0] ?? null,
      name: t("patient_name", { patient: subject }),
      alerts: n ? plural("ongoing_alerts", n) : t("no_ongoing_alerts"),
      sensors: silent ? plural("sensors_without_data", silent) : null,
    };
  }

  #row({ subject, isSelected, priority, name, alerts, sensors }) {
    const row = element("button",
      { type: "button", class: "patient-row", "data-patient": subject, "aria-current": isSelected ? "true" : null },
      priority ? prioritySign({ priority, end_us: null }) : element("span", { class: "sign" }),
      element("span", { class: "patient" }, name),
      element("span", { class: "quiet" }, alerts),
      sensors ? element("span", { class: "without-data" }, sensors) : null);
    row.addEventListener("click", () => this.onSelect(subject));
    return row;
  }
}
