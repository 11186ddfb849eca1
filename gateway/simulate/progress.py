"""The progress of the demo: collected from the strap, the agent and the clinic's page, and shown on the terminal."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from rich.table import Table

from gateway.simulate.home_audit import SensorLog

COUNTERS: Final = ("samples_received", "samples_lost", "blocks_stored", "blocks_sent", "blocks_acked", "blocks_pending")
"""The agent's counters that the demo shows and reports."""

_SENT_LENGTH: Final = 1024
"""The strap reports every frame: some ten minutes, longer than the agent takes to restart."""

Json = Mapping[str, Any]


@dataclass(slots=True)
class DemoProgress:
    """The state of the strap, the agent's status and the alerts on the page, so far."""

    started_s: float = field(default_factory=time.monotonic)
    strap_state: str = "starting"
    script_start_us: int | None = None
    first_ecg_s: float | None = None
    """Seconds from the demo's start to the first ECG on the page."""
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The alerts on the page by id, with the latency from the agent's decision."""
    agent: Json = field(default_factory=dict)
    """The agent's latest status."""
    home: Mapping[str, SensorLog] = field(default_factory=dict)
    """The sensors beside the strap."""
    _sent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_SENT_LENGTH))
    """When the strap reported how many samples it had sent, in microseconds since 1970, and how many."""

    @property
    def samples_sent(self) -> int:
        """The samples that the strap had sent when the agent wrote its status, so that they compare with those received."""
        at_us = self.agent.get("at_us", inf)
        return next((count for sent_us, count in reversed(self._sent) if sent_us <= at_us), 0)

    def on_agent_status(self, status: Json) -> None:
        """Handle the agent's status file; an empty status is ignored."""
        self.agent = status or self.agent

    def on_strap_event(self, event: Json, now_us: int) -> None:
        """Handle a line of the strap's standard output, received at `now_us` (Unix time)."""
        match event.get("event"):
            case "frames":
                self._sent.append((now_us, event["sent_samples"]))
            case "streaming":
                self.strap_state = "streaming"
                if self.script_start_us is None:
                    self.script_start_us = event["script_start_us"]
            case str(name):
                self.strap_state = name
            case _:
                pass

    def on_page_message(self, message: Json, now_us: int) -> None:
        """Handle a message of the clinic's WebSocket, received at `now_us` (Unix time)."""
        if message.get("type") == "ecg" and self.first_ecg_s is None:
            self.first_ecg_s = round(time.monotonic() - self.started_s, 1)
        if message.get("type") == "alert":
            alert = message.get("alert", message)
            known = self.alerts.setdefault(alert["id"], {"latency_ms": round((now_us - alert["decided_us"]) / 1000, 1)})
            known.update({name: alert[name] for name in ("sensor", "kind", "priority", "onset_us", "end_us")})

    def alerts_in_script_time(self) -> list[dict[str, Any]]:
        """Return the alerts by onset; "onset" and "end" are in seconds of the script."""
        start_us = self.script_start_us or 0
        return [
            {
                "sensor": alert["sensor"],
                "kind": alert["kind"],
                "priority": alert["priority"],
                "onset": round((alert["onset_us"] - start_us) / 1e6, 2),
                "end": None if alert["end_us"] is None else round((alert["end_us"] - start_us) / 1e6, 2),
                "latency_ms": alert["latency_ms"],
            }
            for alert in sorted(self.alerts.values(), key=lambda alert: alert["onset_us"])
        ]

    def format_line(self) -> str:
        """Return the progress in one line."""
        return (
            f"strap {self.strap_state}, {self.samples_sent} samples sent | "
            + "".join(f"{name} {log.format()} | " for name, log in self.home.items())
            + f"agent {_format_counters(self.agent)} | "
            f"{len(self.alerts)} alerts"
        )

    def make_table(self, restarts: Mapping[str, int]) -> Table:
        """Return the progress as a table; `restarts` holds the number of restarts of each process."""
        table = Table(box=None, show_header=False, pad_edge=False)
        restarted = {name: f", restarted {count}×" if count else "" for name, count in restarts.items()}
        sensors = ", ".join(f"{name} {state}" for name, state in self.agent.get("sensors", {}).items())
        table.add_row("strap", f"{self.strap_state}, {self.samples_sent} samples sent{restarted['strap']}")
        for name, log in self.home.items():
            table.add_row(name, f"{log.format()}{restarted[name]}")
        table.add_row("agent", f"{sensors or 'starting'}, {_format_counters(self.agent)}{restarted['agent']}")
        table.add_row("clinic", f"{len(self.alerts)} alerts{restarted['clinic']}")
        for alert in self.alerts_in_script_time():
            end = "ongoing" if alert["end"] is None else f"until {alert['end']:.1f} s"
            latency = f"shown after {alert['latency_ms']:.0f} ms"
            table.add_row("", f"{alert['priority']:>6}  {alert['kind']} from {alert['onset']:.1f} s, {end}, {latency}")
        return table


def _format_counters(agent: Json) -> str:
    count = {name: agent.get(name, 0) for name in COUNTERS}
    return (
        f"{count['samples_received']} samples received, {count['samples_lost']} lost, blocks {count['blocks_stored']} stored → "
        f"{count['blocks_sent']} sent → {count['blocks_acked']} acknowledged"
    )
