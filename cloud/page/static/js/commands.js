/** Commands to hubs: ending an alert from its detail, and the table of the patient's commands. */

import { kindName, patientName } from "./alerts.js";
import { byId, element, setText } from "./dom.js";
import { clockTime, dayAndTime, lookup, t } from "./i18n.js";
import { alertKey, isOngoing } from "./state.js";

const ENDINGS = ["close_alert", "mark_false"];
const UNANSWERED = ["waiting", "sent"];

export const isUnanswered = ({ state }) => UNANSWERED.includes(state);
const commandName = (kind) => lookup("command_kind", kind) ?? kind.replaceAll("_", " ");

/** What became of a command, in words. `when` is the time of its answer by the hub's clock. */
function stateText({ state, refusal, answered_us, asked_us }, now_us) {
  const values = { time: clockTime(answered_us ?? asked_us, now_us), reason: lookup("command_refusal", refusal ?? "") ?? refusal ?? "" };
  return t(`command_${state}`, values);
}

/** The part of an alert's detail that ends it: two buttons, a question before anything is sent, and what the hub made of it. */
export class AlertEnding {
  /** The alert and kind that the reader is asked about; null if nothing is asked. */
  #asked = null;
  /** The alert whose request failed, and why. */
  #failed = null;
  #isSending = false;

  constructor(state, send) {
    Object.assign(this, { state, send, host: element("section", { class: "ending", "aria-labelledby": "ending-heading" }), shown: "" });
  }

  /** Returns the element for an alert; a question about another alert is forgotten. */
  show(alert) {
    if (this.#asked?.key !== alertKey(alert)) this.#asked = null;
    if (this.#failed?.key !== alertKey(alert)) this.#failed = null;
    this.shown = "";
    this.alert = alert;
    this.update();
    return this.host;
  }

  /** Redraws what has changed; the focus stays in this part. */
  update() {
    if (!this.alert) return;
    const alert = this.state.alerts.get(alertKey(this.alert)) ?? this.alert;
    const last = this.state.commandsAbout(alert)[0] ?? null;
    const shown = JSON.stringify([alertKey(alert), alert.end_us, last, this.#asked, this.#failed, this.#isSending, t("ending")]);
    if (shown === this.shown) return;
    this.shown = shown;
    const focused = this.focused();
    const status = last && ENDINGS.includes(last.kind) ? this.#statusText(last) : "";
    const canEnd = isOngoing(alert) && !alert.is_technical && !(last && isUnanswered(last));
    if (!canEnd) this.#asked = null;
    this.host.hidden = !status && !canEnd && !this.#failed;
    this.host.replaceChildren(
      element("h3", { id: "ending-heading", class: "visually-hidden" }, t("ending")),
      element("p", { class: "ending-status", role: "status" }, this.#failed?.text ?? status),
      ...(canEnd ? this.#controls(alert) : []));
    this.focus(focused);
  }

  /** The button of this part that has the focus; null if none has it. */
  focused() { return this.host.contains(document.activeElement) ? document.activeElement.dataset.action : null; }

  /** Gives the focus to a button, or to another one of this part if it is gone. */
  focus(action) {
    if (action) (this.host.querySelector(`[data-action="${action}"]`) ?? this.host.querySelector("button"))?.focus();
  }

  #statusText(command) {
    return t("command_said", { command: commandName(command.kind), by: command.by, state: stateText(command, this.state.now_us()) });
  }

  #controls(alert) {
    if (this.#asked === null) {
      return [element("p", { class: "actions" }, ...ENDINGS.map((kind) => this.#button(kind, commandName(kind), "action", () => this.#ask(alert, kind))))];
    }
    const { kind } = this.#asked;
    const question = t(`confirm_${kind}`, { kind: kindName(alert.kind), patient: patientName(alert) });
    return [element("div", { class: "confirm", role: "group", "aria-labelledby": "confirm-text" },
      element("p", { id: "confirm-text" }, question),
      element("p", { class: "actions" },
        this.#button("confirm", commandName(kind), "action main", () => this.#send(alert, kind)),
        this.#button("cancel", t("cancel"), "action", () => this.#cancel())))];
  }

  #button(action, text, style, onClick) {
    const button = element("button", { type: "button", class: style, "data-action": action, disabled: this.#isSending ? "" : null }, text);
    button.addEventListener("click", onClick);
    button.addEventListener("keydown", (event) => { if (event.key === "Escape" && this.#asked) this.#cancel(); });
    return button;
  }

  #ask(alert, kind) {
    this.#asked = { key: alertKey(alert), kind };
    this.#failed = null;
    this.update();
    this.host.querySelector("[data-action=cancel]")?.focus(); // a second press of Enter must not confirm
  }

  #cancel() {
    const { kind } = this.#asked;
    this.#asked = null;
    this.update();
    this.host.querySelector(`[data-action="${kind}"]`)?.focus();
  }

  async #send(alert, kind) {
    this.#isSending = true;
    this.update();
    const failure = await this.send(alert, kind);
    this.#isSending = false;
    this.#failed = failure === null ? null : { key: alertKey(alert), text: t("command_failed", { reason: lookup("command_failure", String(failure)) ?? failure }) };
    this.#asked = null;
    this.update();
  }
}

/** The table of the newest commands about a patient. */
export class CommandTable {
  #shown = "";

  constructor(state) { this.state = state; }

  render(subject) {
    const now_us = this.state.now_us();
    const rows = this.state.commandsOf(subject).map((command) => this.#texts(command, now_us));
    const shown = JSON.stringify([subject, rows, t("commands")]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    byId("commands").hidden = rows.length === 0;
    setText(byId("commands-patient"), subject === null ? "" : patientName({ subject }));
    const titles = ["command", "command_asked", "command_by", "command_state"].map((key) => t(key));
    byId("command-table").replaceChildren(
      element("thead", {}, element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, ...rows.map((row) => tableRow(row, titles))));
  }

  #texts(command, now_us) {
    const alert = [...this.state.alerts.values()].find((each) => each.hub === command.hub && each.id === command.alert);
    const name = alert ? t("command_about", { command: commandName(command.kind), alert: kindName(alert.kind) }) : commandName(command.kind);
    return { state: command.state, cells: [name, dayAndTime(command.asked_us), command.by, stateText(command, now_us)] };
  }
}

function tableRow({ state, cells }, titles) {
  return element("tr", { "data-state": state }, ...cells.map((text, i) => (i === 0
    ? element("th", { scope: "row" }, text)
    : element("td", { "data-title": titles[i] }, text))));
}
