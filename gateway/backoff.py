"""How long a session waits after the end of a connection: a table by class of failure."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from gateway.radio import is_radio_busy
from gateway.sensor_limits import SensorLimitError

Failure = Literal["radio_busy", "connect_failed", "connect_timed_out", "set_up_failed", "lost", "silent", "over_limits"]

JITTER: Final = (0.5, 1.5)
"""Factors of a pause, so that the sessions of a hub do not all retry at once."""
USEFUL_AFTER_S: Final = 3.0
"""A connection that streamed for so long, or brought a result, was worth its cost: the next failure counts as the first again.
To connect takes a second, in which no other sensor can."""
FRESH_AFTER_S: Final = 10.0
"""A sensor that advertises after so long a silence was switched on or woken: all sensors advertise several times in ten
seconds."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pauses after the first, second, ... failure in a row; the last one repeats. `why` says what sets their length.

    `ends_when_fresh`: the pause ends when the sensor advertises after `FRESH_AFTER_S` of silence.
    """

    pauses_s: tuple[float, ...]
    why: str
    ends_when_fresh: bool = True


BACKOFFS: Final[Mapping[Failure, Backoff]] = {
    "radio_busy": Backoff((1.0, 2.0, 5.0, 10.0), "the adapter, not the sensor, is at fault, and a power cycle follows", False),
    "connect_failed": Backoff((0.5, 1.0, 2.0, 5.0, 10.0), "a patient who puts the sensor on wants to see it work"),
    "connect_timed_out": Backoff((2.0, 10.0, 30.0, 60.0), "each attempt keeps other sensors from connecting for 20 s"),
    "set_up_failed": Backoff((0.5, 2.0, 10.0, 30.0, 60.0), "a sensor that still starts up is ready within seconds"),
    "lost": Backoff((0.5, 1.0, 2.0, 5.0, 10.0, 30.0), "a walk to the next room lasts seconds; a bad link costs its records"),
    "silent": Backoff((0.5, 2.0, 10.0, 30.0, 60.0), "a sensor that hangs is often cured by the first reconnect"),
    "over_limits": Backoff((60.0, 300.0, 900.0, 3600.0), "it harms the other sensors while it is connected", False),
}
"""Not in the table: a sensor that is not found is searched without a pause, because a search costs nothing; and one that forgot
its bond is left alone until a person pairs it."""


def choose_pause_s(failure: Failure, failures: int) -> float:
    """Return the pause after so many failures in a row, the present one included, with jitter."""
    pauses_s = BACKOFFS[failure].pauses_s
    return pauses_s[min(failures, len(pauses_s)) - 1] * random.uniform(*JITTER)  # noqa: S311  not a secret


def classify_failure(error: Exception, *, was_connected: bool) -> Failure:
    """Return the class of what ended a connection, or an attempt to establish it."""
    if isinstance(error, SensorLimitError):
        return "over_limits"
    if was_connected:
        return "set_up_failed"
    if is_radio_busy(error):
        return "radio_busy"
    is_timeout = isinstance(error, TimeoutError) and not isinstance(error, BleakError)
    return "connect_timed_out" if is_timeout else "connect_failed"


@dataclass(slots=True)
class FreshMatch:
    """Whether an advertisement is the sensor's first one after `FRESH_AFTER_S` without any.

    `last_seen_s` is when it was last seen, at first the beginning of the pause; `now_s` returns the event loop's time.
    """

    match: Callable[[BLEDevice, AdvertisementData], bool]
    now_s: Callable[[], float]
    last_seen_s: float

    def __call__(self, device: BLEDevice, advertisement: AdvertisementData) -> bool:
        if not self.match(device, advertisement):
            return False
        before_s, self.last_seen_s = self.last_seen_s, self.now_s()
        return self.last_seen_s - before_s >= FRESH_AFTER_S
