"""The states of the connection to one sensor, and the events that change them. The picture in the docs is drawn from the table.

A sensor is `absent` until it advertises. A session connects (`connecting`), encrypts the link where a driver needs it
(`securing`), subscribes and runs the drivers' set-ups (`subscribing`), and is then `streaming`. A stream that misses its
deadline makes the sensor `silent`: no Bluetooth stack reports a link that is up but dead. After any end of a connection the
session waits (`backing_off`) and searches again. A sensor that only broadcasts is `seen` while it advertises.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

LinkState = Literal["absent", "seen", "connecting", "securing", "subscribing", "streaming", "silent", "backing_off", "stopped"]
LinkEvent = Literal[
    "search", "advertised", "connect", "connected", "secured", "subscribed", "silence", "failed", "lost", "stop"
]

_IN_CONNECTION: Final[tuple[LinkState, ...]] = ("connecting", "securing", "subscribing", "streaming")

TRANSITIONS: Final[Mapping[tuple[LinkState, LinkEvent], LinkState]] = {
    ("stopped", "search"): "absent",
    ("backing_off", "search"): "absent",
    ("absent", "advertised"): "seen",
    ("seen", "connect"): "connecting",
    ("connecting", "connected"): "securing",
    ("securing", "secured"): "subscribing",
    ("subscribing", "subscribed"): "streaming",
    ("streaming", "silence"): "silent",
    ("seen", "silence"): "absent",
    ("absent", "failed"): "backing_off",
    ("seen", "failed"): "backing_off",
    **{(state, "failed"): "backing_off" for state in _IN_CONNECTION},
    **{(state, "lost"): "backing_off" for state in (*_IN_CONNECTION, "silent")},
    **{(state, "stop"): "stopped" for state in get_args(LinkState)},
}
"""The state after an event. An event that is not here does not happen in that state."""


def draw_transitions() -> str:
    """Return the table as a Mermaid state diagram. `stop`, which every state has, is left out."""
    lines = [f"    {before} --> {after}: {event}" for (before, event), after in TRANSITIONS.items() if event != "stop"]
    return "\n".join(["stateDiagram-v2", "    [*] --> stopped", *lines])
