"""`pulsegate status` for people: the status file as a table. Programs read it with `--json`."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from config.terminal import escape_controls
from gateway.status import STALE_AFTER_S

_IN_ROWS_OF_THEIR_OWN: Final = (
    *("at_us", "hub", "sensors", "models", "update_by_s"),
    *("uplink_problem", "identity_is_copied", "buffer_is_nearly_full", "aside_reason", "refused_reason", "ignored_reason"),
)
_LABELS: Final[Mapping[str, str]] = {
    "samples_received": "ECG samples received",
    "samples_lost": "ECG samples lost",
    "quarantined": "payloads not decoded",
    "values_left_out": "vital signs left out",
    "failed_writes": "failed writes to the buffer",
    "blocks_stored": "blocks stored in all",
    "blocks_sent": "blocks sent since the start",
    "blocks_acked": "blocks acknowledged in all",
    "blocks_pending": "blocks not acknowledged yet",
    "blocks_without_receipt": "blocks without a receipt yet",
    "blocks_aside": "blocks set aside by the clinic",
    "blocks_refused": "blocks refused by the clinic",
    "blocks_dropped": "blocks lost to a full buffer",
    "messages_ignored": "messages ignored since the start",
    "pauses": "pauses that the clinic asked for",
    "results_repeated": "values that a sensor sent again",
    "results_of_others": "results of other users of a sensor",
    "results_unconfirmed": "results to confirm with pulsegate persons",
    "results_given_up": "results never confirmed, deleted",
    "loop_stalls": "delays of the event loop",
}
"""The labels of counters whose name in the status file does not say enough. Other counters are shown under their name."""

_STATES: Final[Mapping[str, str]] = {
    "absent": "searching: out of range, switched off, or asleep until its next use",
    "seen": "found, about to connect",
    "connecting": "connecting",
    "securing": "connected, encrypting the link",
    "subscribing": "connected, setting up its measurements",
    "streaming": "connected",
    "silent": "connected, but it sends nothing: the link is closed",
    "backing_off": "disconnected, about to search again",
    "stopped": "not in use: the agent has stopped or cannot use its radio",
}
"""The states of a sensor's connection (`gateway.link_states`) in words."""


def make_status_table(status: Mapping[str, Any], now_us: int) -> Table:
    """Return a table of everything in the status file. `now_us` is the present time, in microseconds since 1970."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for label, value, style in _rows(status, now_us):
        table.add_row(Text(escape_controls(label)), Text(escape_controls(value), style))
    return table


def describe_age(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as `3 min`."""
    for unit, length_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _rows(status: Mapping[str, Any], now_us: int) -> Iterator[tuple[str, str, str]]:
    """Yield label, value and style of each row."""
    age_s = (now_us - status["at_us"]) / 1e6
    if age_s > STALE_AFTER_S:
        yield "agent", f"not running; this status is {describe_age(age_s)} old", "bold red"
    else:
        yield "agent", "running", "green"
    yield "hub", str(status.get("hub", "unknown")), ""
    for name, state in dict(status.get("sensors") or {}).items():
        yield f"sensor {name}", _STATES.get(state, str(state)), "green" if state == "streaming" else "yellow"
    problem = status.get("uplink_problem")
    yield "clinic", str(problem or "no problem"), "red" if problem else "green"
    yield from _describe_warnings(status)
    yield "models", *_describe_models(status.get("models") or {})
    for name, value in status.items():
        if name not in _IN_ROWS_OF_THEIR_OWN:
            yield _LABELS.get(name, name.replace("_", " ")), str(value), ""


def _describe_warnings(status: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each thing about the buffer and the clinic that somebody should look at."""
    if status.get("identity_is_copied"):
        problem = "another machine uses this hub's identity: find and stop it, and register it under another name"
        yield "identity", problem, "bold red"
    if (update_by_s := status.get("update_by_s")) is not None:
        date = time.strftime("%Y-%m-%d", time.gmtime(update_by_s))
        yield "version", f"outdated: update pulsegate; from {date} on the clinic takes only alerts", "bold red"
    if status.get("buffer_is_nearly_full"):
        yield "buffer", "nearly full: check why the clinic does not acknowledge", "bold red"
    if reason := status.get("aside_reason"):
        yield "set aside", f"the last block: {reason}", "red"
    if reason := status.get("refused_reason"):
        yield "refused", f"the last block: {reason}; ask the clinic, and stop the agent or set another subject", "red"
    if reason := status.get("ignored_reason"):
        yield "messages ignored", f"one of them: {reason}", "yellow"


def _describe_models(models: Mapping[str, Any]) -> tuple[str, str]:
    if models.get("refused"):
        return f"rules alone: {' '.join(map(str, models['refused']))}", "red"
    if models.get("release") is None:
        return "unknown", ""
    return f"release {models['release']}: {', '.join(map(str, models.get('running', ())))}", ""
