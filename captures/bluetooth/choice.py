"""Chooses the sensor of a Bluetooth capture, and explains why no sensor can be read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from captures.bluetooth.sensors import Sensor
from captures.recording import RecordingError

_NAME_LIMIT: Final = 60
_SHOWN: Final = 4
_LISTED: Final = 12
"""Characteristics of a sensor that a note lists; a strap has some ten."""
_BASE_UUID_END: Final = "-0000-1000-8000-00805f9b34fb"


class Choice(NamedTuple):
    """The chosen sensor, its name, its known characteristics by handle, and notes on how it was read."""

    sensor: Sensor
    name: str
    characteristics: Mapping[int, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """A sensor and what is known about its values: numbers of values, known characteristics by handle, unknown handles."""

    sensor: Sensor
    name: str
    main: int
    known: int
    characteristics: Mapping[int, str]
    unknown: Mapping[int, int]

    @property
    def sends(self) -> bool:
        return bool(self.known or self.unknown)

    def __str__(self) -> str:
        address = self.sensor.address
        return f"{self.name} ({address})" if self.name != address else address


def choose_sensor(
    file: str,
    sensors: Sequence[Sensor],
    names: Mapping[str, str],
    stated: Mapping[int, str],
    main: frozenset[str],
    known: frozenset[str],
    wanted: str | None,
) -> Choice:
    """Choose the sensor that the user wants; else the only one with values of `main` characteristics, or of `known` ones.

    `names` are by address. `stated` are the user's UUIDs by handle, for handles that the file does not name.

    Raises:
        RecordingError: no sensor has such values, several sensors have them, or no sensor has the name.
    """
    found = [_examine(sensor, names, stated, main, known) for sensor in sensors]
    readable = [item for item in found if item.main] or [item for item in found if item.known]
    if not readable:
        raise RecordingError(f"{file}: {_explain(found)}")
    if wanted is not None:
        others = [item for item in found if item.known and item not in readable]
        chosen = _find(file, readable + others, wanted)
    elif len(readable) > 1:
        raise RecordingError(f"{file}: values of {len(readable)} sensors: {_list(readable)}; choose one with --signal ADDRESS")
    else:
        chosen = readable[0]
    return Choice(chosen.sensor, chosen.name, chosen.characteristics, tuple(_make_notes(chosen, found, stated)))


def _examine(
    sensor: Sensor, names: Mapping[str, str], stated: Mapping[int, str], main: frozenset[str], known: frozenset[str]
) -> _Found:
    uuids = {**stated, **sensor.handles}
    local = "" if sensor.key[1] else "this device"
    name = local or names.get(sensor.address) or sensor.gap_name or sensor.address
    values = sensor.pushed + sensor.read
    return _Found(
        sensor,
        name[:_NAME_LIMIT],
        sum(count for handle, count in sensor.pushed.items() if uuids.get(handle) in main),
        sum(count for handle, count in values.items() if uuids.get(handle) in known),
        {handle: uuids[handle] for handle in sorted(values) if uuids.get(handle) in known},
        {handle: count for handle, count in sensor.pushed.items() if handle not in uuids},
    )


def _find(file: str, candidates: Sequence[_Found], wanted: str) -> _Found:
    text = wanted.strip().casefold()
    matches = [item for item in candidates if text in (item.sensor.address.casefold(), item.name.casefold())]
    if not matches and text.isdecimal() and len(text) < 4 and 0 < int(text) <= len(candidates):
        return candidates[int(text) - 1]
    if len(matches) != 1:
        what = "several sensors are" if matches else "no sensor is"
        raise RecordingError(
            f"{file}: {what} named {wanted[:40]!r}; give --signal with an address or number of: {_list(candidates)}"
        )
    return matches[0]


def _list(found: Sequence[_Found]) -> str:
    shown = "; ".join(f"{number}. {item}, {item.known} values" for number, item in enumerate(found[:_SHOWN], start=1))
    return shown + (f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _make_notes(chosen: _Found, found: Sequence[_Found], stated: Mapping[int, str]) -> Iterator[str]:
    sensor = chosen.sensor
    by_map = ", by --gatt" if any(handle not in sensor.handles for handle in chosen.characteristics) else ""
    handles = list(chosen.characteristics.items())
    shown = ", ".join(f"{_shorten(uuid)} at handle {handle:#06x}" for handle, uuid in handles[:_LISTED])
    shown += f" and {len(handles) - _LISTED} more" if len(handles) > _LISTED else ""
    yield f"{chosen.known} values of {chosen} are read: {shown}{by_map}"
    others = [
        f"{item}, {sum(item.sensor.pushed.values())} notifications" for item in found if item is not chosen and item.sends
    ]
    if others:
        more = f"; and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        yield f"not read: {'; '.join(others[:_SHOWN])}{more}"
    if chosen.unknown:
        yield f"not read: notifications of unknown handles ({_list_handles(chosen.unknown)}); name them with --gatt"
    wrong = [handle for handle, uuid in stated.items() if sensor.handles.get(handle, uuid) != uuid]
    if wrong:
        shown = ", ".join(f"{handle:#06x}" for handle in wrong[:_SHOWN])
        yield f"--gatt is not used for handle {shown}: the file states another characteristic"
    if sensor.troubles["lost"]:
        yield f"{sensor.troubles['lost']} packets of its link are cut short or damaged in the file; their values are missing"
    if sensor.troubles["encrypted"]:
        yield f"{sensor.troubles['encrypted']} packets of its link are encrypted; their values are missing"
    if sensor.troubles["enhanced"]:
        yield "its link also uses the enhanced bearer of ATT, which is not read; values may be missing"


def _explain(found: Sequence[_Found]) -> str:
    """Why no sensor can be read, and what to do."""
    silent = [item for item in found if item.unknown]
    if silent:
        item = max(silent, key=lambda item: sum(item.unknown.values()))
        handle = max(item.unknown, key=lambda handle: item.unknown[handle])
        return (
            f"no GATT discovery in the file, so the characteristics of {item} are unknown: {_list_handles(item.unknown)};"
            f' give --gatt MAP.json with {{"{handle:#06x}": "UUID"}}, such as "2a37" for heart rate, or record again after'
            " removing the sensor from the phone"
        )
    troubles = [item.sensor.troubles for item in found]
    if any(trouble["encrypted"] for trouble in troubles):
        return "the link is encrypted; record the HCI log of the phone or hub, or decrypt the capture when it is recorded"
    if any(trouble["lost"] for trouble in troubles):
        return "its packets are cut short, so their values are missing; record the full HCI log, without filter or snap length"
    if any(trouble["enhanced"] for trouble in troubles):
        return "only the enhanced bearer of ATT is used, which is not read; record with another phone"
    pushed = {
        item.sensor.handles.get(handle, ""): count for item in found for handle, count in item.sensor.pushed.most_common(_SHOWN)
    }
    if pushed:
        shown = ", ".join(f"{_shorten(uuid)} ({count})" for uuid, count in list(pushed.items())[:_SHOWN])
        return f"no values that a driver reads, only notifications of characteristics {shown}; give a heart sensor's capture"
    if found:
        return "no notification of a sensor, only its services or single values; record while the sensor sends"
    return "no values of a Bluetooth LE sensor; record the HCI log while the sensor is connected"


def _shorten(uuid: str) -> str:
    """The four digits of a UUID of the Bluetooth SIG, else the whole UUID."""
    return uuid.removesuffix(_BASE_UUID_END).removeprefix("0000") if uuid.endswith(_BASE_UUID_END) else uuid


def _list_handles(unknown: Mapping[int, int]) -> str:
    shown = sorted(unknown.items(), key=lambda item: -item[1])
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(f"handle {handle:#06x} ({count} values)" for handle, count in shown[:_SHOWN]) + more
