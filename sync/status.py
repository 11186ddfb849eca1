"""The signed status that a hub sends every minute: how it is, and no health value, name of a sensor or address.

`docs/protocol.md`, "Status", is the reference.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sync.consent import TAG_BYTES, ToldConsent
from sync.signed_maps import check_valid, decode_message, encode_signed, lists, parse_list
from sync.signing import Label, SigningKey, VerifyingKey
from sync.wire import FORMAT, LANES, MAX_COUNT, Lane, is_bytes, is_count, is_epoch

STATUS_INTERVAL_S: Final = 60
"""Time between two statuses of a connected hub. Five of them are missing before the clinic raises an alarm."""
STATUS_LIMIT_BYTES: Final = 2048
"""The longest status: all fields at their limits take some 1,500 bytes."""
MAX_LINK_STATES: Final = 16
"""States of links in one status: `gateway.link_states` has nine."""
AUDIT_LIMIT_BYTES: Final = 512
"""The longest signed head of the hub's audit log."""
MAX_ERASED: Final = 4
"""Erased subjects in one status: a hub has one patient, and blocks of few earlier ones."""

_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")
_LINK_STATE: Final = re.compile(r"[a-z_]{1,24}")
_FIELDS: Final = (
    *("v", "hub", "sig", "epoch", "seq", "at_us", "version", "revision", "backlog", "battery", "clock_offset_us"),
    *("certificate_days", "models", "free_bytes", "links"),
)
_ADDED: Final = ("audit", "consent", "erased")
"""Fields that are there only if they say something."""


class Backlog(NamedTuple):
    """Blocks of a lane that wait for the clinic, and how long the oldest has waited; None without blocks."""

    lane: Lane
    blocks: int
    oldest_s: int | None


class Battery(NamedTuple):
    """The hub's own battery, and whether it is charging or full on mains."""

    percent: int
    is_charging: bool


@dataclass(frozen=True, slots=True)
class HubStatus:
    """How a hub is. A status follows another one of its hub if its (`epoch`, `seq`) is higher.

    `at_us` is the hub's clock, microseconds since 1970, and `clock_offset_us` how far it is ahead of the site's time; None if
    that is not known. `version` and `revision` are those of the agent. `certificate_days` are left until the hub's certificate
    expires, negative afterwards; None without one. `models` is the release of the models; None if they are refused. `links`
    counts the sensors in each state of their link. `audit` is the signed head of the hub's audit log. `consent` is what the hub
    knows of its subject's consent. `erased` are the tags (`sync.consent`) of erased
    subjects whose keys the hub has destroyed since its start.
    """

    hub: str
    epoch: int
    seq: int
    at_us: int
    version: str
    revision: int
    backlog: tuple[Backlog, ...]
    battery: Battery | None
    clock_offset_us: int | None
    certificate_days: int | None
    models: int | None
    free_bytes: int
    links: tuple[tuple[str, int], ...]
    audit: bytes | None = None
    consent: ToldConsent | None = None
    erased: tuple[bytes, ...] = ()

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.seq


def count_links(states: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return how many sensors are in each state, in the order of the states' names."""
    return tuple(sorted(Counter(states).items()))


def encode_status(status: HubStatus, device: SigningKey) -> bytes:
    """Return the payload of a message on `up/status`.

    Raises:
        WireError: it would be too large.
    """
    fields: dict[str, Any] = {
        "v": FORMAT,
        "hub": status.hub,
        "epoch": status.epoch,
        "seq": status.seq,
        "at_us": status.at_us,
        "version": status.version,
        "revision": status.revision,
        "backlog": lists(status.backlog),
        "battery": status.battery and list(status.battery),
        "clock_offset_us": status.clock_offset_us,
        "certificate_days": status.certificate_days,
        "models": status.models,
        "free_bytes": status.free_bytes,
        "links": lists(status.links),
    }
    if status.audit is not None:
        fields["audit"] = status.audit
    if status.consent is not None:
        fields["consent"] = list(status.consent)
    if status.erased:
        fields["erased"] = list(status.erased)
    return encode_signed(fields, lambda content: device.sign(Label.STATUS, status.hub, content))


def decode_status(data: bytes, device: VerifyingKey) -> HubStatus:
    """The inverse of `encode_status`.

    Raises:
        WireError: not a status.
        SignatureError: not signed by this key.
    """
    message, content = decode_message(data, "status", _FIELDS, _ADDED, STATUS_LIMIT_BYTES)
    device.verify(message["sig"], Label.STATUS, message["hub"], content)
    return _parse(message)


def read_verified_status(data: bytes) -> HubStatus:
    """Return a status whose signature was verified when it was received.

    Raises:
        WireError: not a status.
    """
    return _parse(decode_message(data, "status", _FIELDS, _ADDED, STATUS_LIMIT_BYTES)[0])


def _parse(message: Mapping[str, Any]) -> HubStatus:
    valid = {
        "epoch": is_epoch(message["epoch"]),
        "seq": is_epoch(message["seq"]),
        "at_us": is_count(message["at_us"]),
        "version": _is_version(message["version"]),
        "revision": is_count(message["revision"]),
        "battery": message["battery"] is None or _is_battery(message["battery"]),
        "clock_offset_us": message["clock_offset_us"] is None or _is_integer(message["clock_offset_us"]),
        "certificate_days": message["certificate_days"] is None or _is_integer(message["certificate_days"]),
        "models": message["models"] is None or is_count(message["models"]),
        "free_bytes": is_count(message["free_bytes"]),
        "audit": "audit" not in message or _is_audit(message["audit"]),
        "consent": "consent" not in message or ToldConsent.from_list(message["consent"]) is not None,
        "erased": "erased" not in message or _are_erased(message["erased"]),
    }
    backlog = parse_list(message, "backlog", _parse_backlog)
    links = parse_list(message, "links", _parse_link)
    valid["backlog"] = tuple(row.lane for row in backlog) == LANES
    valid["links"] = len(links) <= MAX_LINK_STATES and list(links) == sorted(dict(links).items())
    check_valid(valid, "status")
    battery = Battery(*message["battery"]) if message["battery"] is not None else None
    values: dict[str, Any] = {name: message.get(name) for name in ("hub", *valid)}
    values |= {"backlog": backlog, "links": links, "battery": battery}
    values |= {"consent": ToldConsent.from_list(message.get("consent")), "erased": tuple(message.get("erased", ()))}
    return HubStatus(**values)


def _is_integer(value: object) -> bool:
    return type(value) is int and -MAX_COUNT <= value <= MAX_COUNT


def _is_version(value: object) -> bool:
    return isinstance(value, str) and _VERSION.fullmatch(value) is not None


def _is_battery(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return is_count(value[0]) and value[0] <= 100 and isinstance(value[1], bool)


def _is_audit(value: object) -> bool:
    return isinstance(value, bytes) and 1 <= len(value) <= AUDIT_LIMIT_BYTES


def _are_erased(value: object) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= MAX_ERASED and all(is_bytes(tag, TAG_BYTES) for tag in value)


def _parse_backlog(row: Any) -> Backlog | None:
    if not isinstance(row, list) or len(row) != 3:
        return None
    lane, blocks, oldest_s = row
    is_valid = lane in LANES and is_count(blocks) and ((oldest_s is None) if blocks == 0 else is_count(oldest_s))
    return Backlog(lane, blocks, oldest_s) if is_valid else None


def _parse_link(row: Any) -> tuple[str, int] | None:
    if not isinstance(row, list) or len(row) != 2:
        return None
    state, n = row
    is_valid = isinstance(state, str) and _LINK_STATE.fullmatch(state) is not None and is_epoch(n)
    return (state, n) if is_valid else None
