"""Reads Bluetooth captures (btsnoop, pcap, pcapng) as the payloads of one sensor, for the same drivers as a live connection.

The file is read twice: first to find its sensors and the characteristics of their handles, then for the payloads. The discovery
of the services tells which characteristic a handle is, in all connections with the sensor. Where the file has no discovery,
the map of `--gatt` does (see `captures.bluetooth.gatt_map`). The times are those of the records.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from captures.bluetooth import btsnoop, pcap, pcapng
from captures.bluetooth.att import Named, Value
from captures.bluetooth.choice import choose_sensor
from captures.bluetooth.clock import Clock
from captures.bluetooth.gatt_map import read_gatt_map
from captures.bluetooth.hci import HciReader
from captures.bluetooth.link_layer import LinkLayerReader
from captures.bluetooth.packets import Ending, Record, unpack_record
from captures.bluetooth.sensors import Event, Key, SensorList, TooManyError, Tracker
from captures.payloads import CaptureHeader, Entry, LinkEvent, Payload, PayloadCapture, Truncation
from captures.recording import LONGEST_S, ReadOptions, RecordingError
from drivers.registry import load_drivers

_EARLIEST_US: Final = 1_262_304_000_000_000
"""2010-01-01: Bluetooth LE was published in that year, so an earlier time comes from a clock that was not set."""
_LATEST_US: Final = 1 << 53
_READERS: Final[Mapping[bytes, Callable[[Path], Iterator[Record | Ending]]]] = {
    btsnoop.MAGIC: btsnoop.read_btsnoop,
    pcapng.MAGIC: pcapng.read_pcapng,
    **dict.fromkeys(pcap.MAGICS, pcap.read_pcap),
}


class _Timed(NamedTuple):
    time_us: int
    event: Event | Ending


def is_bluetooth_capture(begin: bytes) -> bool:
    """Whether a file with these first bytes is a btsnoop, pcap or pcapng file, with packets of any kind."""
    return _find_reader(begin) is not None


def read_bluetooth_capture(path: Path, begin: bytes, options: ReadOptions) -> PayloadCapture:
    """Open a capture that begins with these bytes.

    Raises:
        RecordingError: it holds no values of a sensor that a driver reads, or leaves open what `options` must state.
        OSError: the file cannot be read.
    """
    read_records = _find_reader(begin)
    if read_records is None:
        raise RecordingError(f"{path}: not a btsnoop, pcap or pcapng file; give a Bluetooth capture")
    stated = read_gatt_map(options.gatt) if options.gatt else {}
    registry = load_drivers()
    streams = {stream.uuid: stream.is_optional for driver in registry.drivers for stream in driver.streams}
    reads = {read.uuid for driver in registry.drivers for read in driver.reads}
    tracker, clock, sensors = Tracker(), Clock(), SensorList(str(path))
    damage: RecordingError | None = None
    try:
        for time_us, event in _read_events(read_records(path), tracker, clock):
            if isinstance(event, Event):
                sensors.add(event, time_us)
    except TooManyError:
        raise
    except RecordingError as error:
        damage = error  # what comes before it is read; the second reading raises it again
    found = sensors.finish()
    if damage and not any(sensor.pushed or sensor.read for sensor in found):
        raise damage
    known = frozenset(streams) | reads
    main = frozenset(uuid for uuid, is_optional in streams.items() if not is_optional)
    choice = choose_sensor(str(path), found, tracker.names, stated, main, known, options.signal)
    sensor = choice.sensor
    has_date = _EARLIEST_US <= sensor.first_us < _LATEST_US
    notes = () if has_date else ("the clock of the recorder was not set, so the date is unknown",)
    read_entries = partial(_read_entries, path, read_records, sensor.key, sensor.first_us, choice.characteristics, known)
    header = CaptureHeader(choice.name, sensor.first_us if has_date else 0)
    return PayloadCapture(header, read_entries, (*choice.notes, *clock.notes, *notes))


def _find_reader(begin: bytes) -> Callable[[Path], Iterator[Record | Ending]] | None:
    return next((reader for magic, reader in _READERS.items() if begin.startswith(magic)), None)


def _read_events(records: Iterator[Record | Ending], tracker: Tracker, clock: Clock) -> Iterator[_Timed]:
    """Yield what the sensors did, with its time; an `Ending` last if the file ends within a record."""
    hci, air = HciReader(), LinkLayerReader()
    now_us = 0
    ending: Ending | None = None
    for record in records:
        if isinstance(record, Ending):
            ending = record
            break
        packet = unpack_record(record)
        if packet is None:
            continue
        now_us = clock.advance(record.number, record.time_us)
        for message in air.feed(packet, now_us) if packet.kind == "radio" else hci.feed(packet):
            for event in tracker.feed(message):
                yield _Timed(now_us, event)
    for event in tracker.finish():
        yield _Timed(now_us, event)
    if ending:
        yield _Timed(now_us, ending)


def _read_entries(
    path: Path,
    read_records: Callable[[Path], Iterator[Record | Ending]],
    key: Key,
    first_us: int,
    characteristics: Mapping[int, str],
    known: frozenset[str],
) -> Iterator[Entry]:
    """Yield the payloads and link events of one sensor. `characteristics` by handle hold until the file says otherwise."""
    address, side = key
    current = dict(characteristics)
    for time_us, event in _read_events(read_records(path), Tracker(), Clock()):
        if isinstance(event, Ending):
            yield Truncation(event.note)
            return
        if event.address != address or event.is_received not in (None, side):
            continue
        t = (time_us - first_us) / 1e6
        if t >= LONGEST_S:
            raise RecordingError(f"{path}: lasts longer than {LONGEST_S:g} s; correct its times with Wireshark's editcap -t")
        match event.what:
            case Named(handle, uuid):
                _learn(current, handle, uuid, known)
            case Value(handle, payload) if handle in current:
                yield Payload(t, current[handle], payload)
            case "connected" | "disconnected" as name:
                yield LinkEvent(t, name)
            case _:
                pass


def _learn(current: dict[int, str], handle: int, uuid: str, known: frozenset[str]) -> None:
    """Apply a discovery to the values after it: an update of the sensor's firmware can move its handles."""
    if uuid in known:
        current[handle] = uuid
    else:
        current.pop(handle, None)
