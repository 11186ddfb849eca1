"""`pulsegate-cloud hubs`: lists the hubs with their last status."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloud.cli_keys import AddCommand, AddOptions, folder_of
from cloud.errors import ClinicError
from cloud.hub_overview import HubOverview, hub_as_json, list_hubs
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.store.hub_states import HUB_SILENT
from config.terminal import escape_controls

_COLUMNS: Final = ("hub", "last seen", "version", "backlog", "battery", "certificate", "alarms")
_UNITS: Final = (("days", 86_400), ("h", 3600), ("min", 60))


def add_hubs_command(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the command to the parser."""
    hubs = add_command("hubs", "list the hubs: when each was last heard, its version, backlog, battery and certificate")
    add_data_options(hubs)
    hubs.add_argument("--json", action="store_true", help="print each hub as a JSON line")
    hubs.set_defaults(run=_run_hubs)


def _run_hubs(options: argparse.Namespace) -> int:
    folder = folder_of(options)
    if isinstance(folder.blocks, Path) and not folder.blocks.exists():
        raise ClinicError(f"no clinic in {folder.path}: give the folder that pulsegate-cloud dev was started with")
    now_us = time.time_ns() // 1000
    with contextlib.closing(Store.open(folder.blocks)) as store:
        hubs = list_hubs(store, EVERY_SUBJECT, now_us)
    if options.json:
        sys.stdout.writelines(json.dumps(hub_as_json(hub), separators=(",", ":")) + "\n" for hub in hubs)
    else:
        Console(highlight=False).print(make_table(hubs, now_us))
    return 0


def make_table(hubs: Sequence[HubOverview], now_us: int) -> Table:
    """Return the hubs as a table. `now_us` is the present time, microseconds since 1970."""
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for hub in hubs:
        cells = (Text(escape_controls(cell)) for cell in _cells(hub, now_us))
        table.add_row(*cells, style="red" if hub.alarms else None)
    return table


def _cells(hub: HubOverview, now_us: int) -> Iterator[str]:
    state, status = hub.state, hub.status
    yield state.hub
    yield "never" if state.heard_us is None else f"{_describe_time((now_us - state.heard_us) / 1e6)} ago"
    if status is None:
        yield from ["unknown"] * 4
    else:
        yield status.version
        blocks, ages = sum(row.blocks for row in status.backlog), [row.oldest_s for row in status.backlog]
        oldest_s = max((age for age in ages if age is not None), default=None)
        yield f"{blocks} blocks" + ("" if oldest_s is None else f", {_describe_time(oldest_s)}")
        battery = status.battery
        yield "none" if battery is None else f"{battery.percent} %" + (", charging" if battery.is_charging else "")
        yield "none" if status.certificate_days is None else f"{status.certificate_days} days"
    yield "; ".join("silent" if alarm.kind == HUB_SILENT else _describe_outdated(hub) for alarm in hub.alarms)


def _describe_outdated(hub: HubOverview) -> str:
    if hub.policy.update_by_s is None or hub.policy.is_refused:
        return "outdated: only its alerts are taken"
    return f"outdated: update it by {time.strftime('%Y-%m-%d', time.gmtime(hub.policy.update_by_s))}"


def _describe_time(seconds: float) -> str:
    """Return a duration in its largest unit of which there are at least two."""
    for unit, length_s in _UNITS:
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
