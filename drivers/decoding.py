"""Decodes the values of one service of a sensor, in order, for the agent and for replay alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from drivers.conversation import Context, Effect, Expect, Moment, Procedure, Remember, Run, Value
from drivers.device import Decoder, Quirk
from drivers.readings import DecodeError, Quarantined, Reading, check_reading
from drivers.spec import DriverSpec

_NO_TIME: Final = Moment(0)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a value means. `memory` is what the driver remembers from now on, None if that has not changed.

    `expected` are the deadlines of its signals that change.
    """

    readings: tuple[Reading, ...]
    memory: Mapping[str, Any] | None = None
    procedures: tuple[Procedure, ...] = ()
    expected: tuple[Expect, ...] = ()


class ServiceDecoder:
    """Decodes the values of one service with the quirks of its sensor's model.

    `conversation` is that of a long-form driver, else None.
    """

    def __init__(self, driver: DriverSpec, context: Context) -> None:
        self.driver = driver
        self._quirks: tuple[Quirk, ...] = tuple(quirk for quirk in driver.quirks if quirk.applies_to(context.device))
        declared = driver.streams + driver.reads + driver.others
        self._decoders: dict[str, Decoder] = {item.uuid: item.decode for item in declared if item.decode}
        for quirk in self._quirks:
            self._decoders.update(quirk.decode)
        self.conversation = driver.converse(context) if driver.converse else None

    def decode(self, characteristic: str, payload: bytes, arrived: Moment = _NO_TIME) -> Decoded:
        """Decode one value.

        The readings are a `Quarantined` alone where decoding fails or gives a value that later stages cannot represent.
        """
        decoder = self._decoders.get(characteristic)
        try:
            if decoder is not None:
                return Decoded(self.check(decoder(payload)))
            if self.conversation is not None:
                return self._collect(self.conversation.receive(Value(characteristic, payload, arrived)))
        except DecodeError as error:
            return Decoded((Quarantined(characteristic, payload, str(error)),))
        return Decoded((Quarantined(characteristic, payload, "no driver decodes this characteristic"),))

    def check(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """Correct the readings by the quirks. Raises `DecodeError` where later stages cannot represent one."""
        for quirk in self._quirks:
            readings = quirk.correct(readings)
        for reading in readings:
            check_reading(reading)
        return readings

    def _collect(self, effects: Iterable[Effect]) -> Decoded:
        readings: list[Reading] = []
        memory: Mapping[str, Any] | None = None
        procedures: list[Procedure] = []
        expected: list[Expect] = []
        for effect in effects:
            match effect:
                case Remember(remembered):
                    memory = remembered
                case Expect():
                    expected.append(effect)
                case Run(procedure):
                    procedures.append(procedure)
                case _:
                    readings.append(effect)
        return Decoded(self.check(tuple(readings)), memory, tuple(procedures), tuple(expected))
