"""The payloads that a sensor sent, as a capture holds them: read by the same drivers as those of a live connection."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from drivers.device import DeviceInformation

EVENTS: Final = ("connected", "disconnected")


@dataclass(frozen=True, slots=True)
class CaptureHeader:
    """The sensor of a capture, and when the capture started; "" and 0 where the file does not say."""

    sensor: str
    started_us: int
    device: DeviceInformation = field(default_factory=DeviceInformation)


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes received from a characteristic (128-bit UUID in lower case), `t` seconds after the start."""

    t: float
    characteristic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A change of the link: one of `EVENTS`."""

    t: float
    name: str


@dataclass(frozen=True, slots=True)
class Truncation:
    """The file ends within an entry because its writer was stopped; `note` says where. The entries before it are complete."""

    note: str


Entry = Payload | LinkEvent | Truncation


@dataclass(frozen=True, slots=True)
class PayloadCapture:
    """An opened capture. `read_entries` reads the file from its start with each call, in order of `t`.

    It raises `RecordingError` where the file is damaged. `notes` say how the file was read and what is unusual about it.
    """

    header: CaptureHeader
    read_entries: Callable[[], Iterator[Entry]]
    notes: tuple[str, ...] = ()
