"""ECG service of the open Movesense firmware: 0x1857, in its early versions. Later ones have `movesense_open_activity`.

Source: JonasPrimbs/movesense-ble-ecg-firmware, README.md and ElectrocardiogramGATTSvcClient.cpp. The numbers 0x1857, 0x1859,
0x2BDD and 0x2BE3 are the firmware's choice: the Bluetooth SIG has not assigned them to this.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Final

from drivers.codec import Reader
from drivers.conversation import Context, Effect, Moment, Procedure, Read, Value
from drivers.millisecond_clock import MillisecondClock
from drivers.readings import DecodeError, Waveform
from drivers.spec import Characteristic, DriverSpec, uuid16

VOLTAGE: Final = uuid16(0x2BDD)
_INTERVAL: Final = uuid16(0x2A21)

_SAMPLE_BYTES: Final = 2
_INVALID: Final = -32768
_MILLIVOLTS_PER_SAMPLE: Final = 0.001

_DEFAULT_INTERVAL_MS: Final = 4
"""The firmware's DEFAULT_MEASUREMENT_INTERVAL; used until the interval has been read."""
_INTERVALS_MS: Final = frozenset((1, 2, 4, 5, 8, 10))
"""The intervals that one version or another offers."""


class OpenEcgConversation:
    """Reads the measurement interval and decodes the voltages."""

    def __init__(self, interval: str) -> None:
        """`interval` is the characteristic that has the measurement interval."""
        self._interval = interval
        self._interval_ms = _DEFAULT_INTERVAL_MS
        self._clock = MillisecondClock()

    def start(self, now: Moment) -> Procedure:
        del now
        payload = yield Read(self._interval)
        sent_ms = int.from_bytes(payload or b"", "little")
        if sent_ms in _INTERVALS_MS:
            self._interval_ms = sent_ms

    def stop(self) -> Procedure:
        """The firmware stops by itself when nobody is subscribed."""
        yield from ()

    def receive(self, value: Value) -> Iterator[Effect]:
        """A time stamp in ms (32 bits), of the **last** sample, then signed 16-bit samples in µV.

        Yields a waveform for each run of valid samples: an invalid one is a gap.
        """
        reader = Reader(value.payload)
        stamp_ms = reader.u32("time stamp")
        if reader.remaining % _SAMPLE_BYTES or not reader.remaining:
            raise DecodeError(f"samples: {reader.remaining} bytes are not a whole number of 2-byte samples (at least one)")
        samples = [reader.i16("sample") for _ in range(reader.remaining // _SAMPLE_BYTES)]
        first_ms = self._clock.continue_ms(stamp_ms) - (len(samples) - 1) * self._interval_ms
        for is_valid, run in groupby(range(len(samples)), lambda i: samples[i] != _INVALID):
            indexes = tuple(run)
            last_ms = first_ms + indexes[-1] * self._interval_ms
            if is_valid:
                values = tuple(samples[i] for i in indexes)
                yield Waveform("ecg", values, 1000 / self._interval_ms, _MILLIVOLTS_PER_SAMPLE, last_ms * 1_000_000)


def make_driver(name: str, service: str, interval: str) -> DriverSpec:
    """The driver of a service whose measurement interval is in the characteristic `interval`."""

    def converse(context: Context) -> OpenEcgConversation:
        del context
        return OpenEcgConversation(interval)

    # A packet holds 16 samples: one each 64 ms. Five seconds without one exceed any normal radio loss.
    return DriverSpec(name, service, (Characteristic(VOLTAGE, "notify", silent_after_s=5.0),), converse=converse)


DRIVER: Final = make_driver("movesense_open_ecg", uuid16(0x1857), _INTERVAL)
