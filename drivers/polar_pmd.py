"""Polar Measurement Data (PMD), the vendor's service for raw signals of chest straps, optical sensors and watches.

Source: Polar, "Polar Measurement Data", version 1.0 (2024), and the vendor's SDK (8fb5311c) with its KnownIssues.md. A sensor
answers each request to its control point by an indication; samples arrive as notifications of the data characteristic.

Of what a sensor offers, the driver starts the ECG, the PPG and the pulse-to-pulse intervals (PPI): the analysis reads the first
two, and PPI are the sensor's own beats with its own judgement of them. Where an ECG has come, it starts the acceleration too,
which tells whether the wearer moves. Angular rate, magnetic field, temperatures and pressure are decoded if another program
started them; nothing reads them. SDK mode is never entered, because it switches heart rate and PPI off.
"""

from collections import Counter
from collections.abc import Generator, Iterable
from typing import Any, Final

from drivers.conversation import (
    Action,
    Context,
    Effect,
    Expect,
    Moment,
    NoAnswerError,
    Procedure,
    Read,
    RefusedError,
    Remember,
    Request,
    Run,
    Value,
)
from drivers.device import Quirk
from drivers.pmd_control import (
    ALREADY_IN_STATE,
    GET_SETTINGS,
    START,
    STOP,
    SUCCESS,
    Answer,
    PendingAnswer,
    Setting,
    Settings,
    choose_settings,
    describe_value,
    encode_settings,
    explain,
    learn_stream,
    parse_answer,
    parse_features,
    parse_stopped,
)
from drivers.pmd_frames import PPG_KINDS, decode_frame
from drivers.pmd_measurements import DEFAULT_STREAMS, MEASUREMENT_BITS, WITHOUT_RATE, Measurement, Stream, name_of
from drivers.readings import DecodeError, Reading, Status
from drivers.spec import Characteristic, DriverSpec

SERVICE: Final = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
CONTROL_POINT: Final = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA: Final = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"

STARTED: Final = (Measurement.ECG, Measurement.PPG, Measurement.PPI)
"""What the driver starts if the sensor offers it, in this order. See the module's docstring."""
MIN_PPG_RATE_HZ: Final = 25
"""The lowest rate that the analysis reads. The Polar 360 offers 22 Hz, at which it also fills a frame so slowly (84 samples in
3.8 s) that a missing one would look like a dead link."""
RESTARTS_WITHOUT_DATA: Final = 3
"""Restarts of a measurement that the sensor stops again before a frame came. More would only drain its battery; the silence of
the data characteristic then ends the connection."""

SILENT_AFTER_S: Final = 5.0
"""A full frame of an ECG holds 73 samples and arrives every 0.56 s, one of a PPG within a second; five seconds without one
exceed any normal radio loss. PPI have no such limit: they pause without skin contact."""
_EXPECTED: Final = frozenset({Measurement.ECG, Measurement.PPG})
_ANSWERS: Final = frozenset({CONTROL_POINT})
"""Frames of other measurements, which go on, are no progress of an answer."""

_REMOVE_BATTERY: Final = "it already runs and sends nothing: take the sensor's battery out for ten seconds and put it back"


class _PmdConversation:
    """Starts the measurements of a sensor, restarts those that it stops by itself, and stops all."""

    def __init__(self, context: Context) -> None:
        self._streams: dict[int, Stream] = dict(DEFAULT_STREAMS)
        self._pending: PendingAnswer | None = None
        self._started: set[int] = set()
        self._flowing: set[int] = set()
        """Measurements of which a frame came, also those that another program started."""
        self._restarts: Counter[int] = Counter()
        self._wants_acceleration = False
        """Whether the sensor offers its acceleration and was not asked for it yet."""
        self._unproven: set[int] = set(context.memory.get("adopted", ()))
        """Measurements that already ran when they were started, in this or an earlier connection, and sent nothing since."""

    def start(self, now: Moment) -> Procedure:
        """Start what the sensor offers of `STARTED`. A sensor that does not say what it offers is asked for each."""
        del now
        value = yield Read(CONTROL_POINT)
        offered = parse_features(value) if value else None
        self._wants_acceleration = offered is not None and Measurement.ACC in offered
        yield from self._start_each([item for item in STARTED if offered is None or item in offered])

    def receive(self, value: Value) -> Iterable[Effect]:
        """Decode a frame. Of the control point's values, those that no request waits for are described."""
        if value.characteristic != DATA:
            return self._receive_control(value.payload)
        readings = decode_frame(value.payload, self._streams)
        measurement = value.payload[0] & MEASUREMENT_BITS
        first = () if measurement in self._flowing else self._note_first_frame(measurement)
        return (*readings, *first, *self._expect_next(measurement))

    def stop(self) -> Procedure:
        """Stop every measurement that runs: a strap stays switched on until the last is stopped."""
        for measurement in sorted(self._started | self._flowing):
            try:
                yield from self._ask(bytes((STOP, measurement)))
            except (RefusedError, NoAnswerError):
                continue  # the others must be stopped all the same

    def _expect_next(self, measurement: int) -> tuple[Expect, ...]:
        """Expect a further frame of a measurement that this conversation has started: others share its characteristic."""
        is_expected = measurement in _EXPECTED and measurement in self._started
        return (Expect(name_of(measurement), SILENT_AFTER_S),) if is_expected else ()

    def _receive_control(self, payload: bytes) -> Iterable[Effect]:
        stopped = parse_stopped(payload)
        if stopped is not None:
            return self._restart(frozenset(stopped))
        if self._pending is not None:
            self._pending.collect(payload)
            return ()
        answer = parse_answer(payload)
        if answer is not None and answer.request in (GET_SETTINGS, START):
            self._learn(answer.measurement, _settings_of(answer))
        return describe_value(payload)

    def _note_first_frame(self, measurement: int) -> tuple[Effect, ...]:
        self._flowing.add(measurement)
        del self._restarts[measurement]
        if measurement == Measurement.ACC:
            return (*self._prove(measurement), *self._expect_unproven())
        if measurement == Measurement.ECG and measurement in self._started and self._wants_acceleration:
            self._wants_acceleration = False
            return (*self._prove(measurement), Run(self._start_acceleration()))
        return self._prove(measurement)

    def _expect_unproven(self) -> tuple[Expect, ...]:
        """Expect a frame of what was found running: once an acceleration comes, the characteristic does not fall silent."""
        unproven = self._unproven & self._started & _EXPECTED
        return tuple(Expect(name_of(measurement), SILENT_AFTER_S) for measurement in sorted(unproven))

    def _start_acceleration(self) -> Procedure:
        """Start the acceleration. Without it everything else goes on."""
        try:
            yield from self._start_one(Measurement.ACC)
        except (RefusedError, NoAnswerError) as error:
            yield Status("stream_trouble", str(error))

    def _prove(self, measurement: int) -> tuple[Remember, ...]:
        """Forget that a measurement sent nothing after it was found running."""
        if measurement not in self._unproven:
            return ()
        self._unproven.remove(measurement)
        return (self._remember(),)

    def _remember(self) -> Remember:
        return Remember({"adopted": sorted(self._unproven)})

    def _restart(self, stopped: frozenset[int]) -> Iterable[Effect]:
        """Restart those of the measurements that this conversation had started.

        Raises:
            DecodeError: it had started none of them.
        """
        names = ", ".join(name_of(measurement) for measurement in sorted(stopped))
        ours = stopped & self._started
        self._started -= stopped
        self._flowing -= stopped
        if not ours:
            raise DecodeError(f"control point: not an answer, but a report that measurements stopped which do not run: {names}")
        again = {measurement for measurement in ours if self._restarts[measurement] < RESTARTS_WITHOUT_DATA}
        self._restarts.update(again)
        # Where the acceleration alone would go on, the deadline of what is not restarted stays, and ends the connection.
        is_over = not (self._started | again) - {Measurement.ACC}
        ended = () if is_over else (Expect(name_of(measurement), None) for measurement in sorted(ours & _EXPECTED))
        read = sorted(again - {Measurement.ACC})
        restarts = [Run(self._start_each(read))] if read else []
        restarts += [Run(self._start_acceleration())] if Measurement.ACC in again else []
        return (Status("stream_stopped", names), *ended, *restarts)

    def _start_each(self, measurements: Iterable[int]) -> Procedure:
        """Start measurements; those that the sensor refuses cost the others nothing.

        Raises:
            RefusedError: none is running at the end.
        """
        troubles: list[str] = []
        for measurement in measurements:
            try:
                yield from self._start_one(measurement)
            except (RefusedError, NoAnswerError) as error:
                troubles.append(str(error))
        if not self._started - {Measurement.ACC}:
            raise RefusedError("; ".join(troubles) or "the sensor offers none of ECG, PPG and pulse-to-pulse intervals")
        for trouble in troubles:
            yield Status("stream_trouble", trouble)

    def _start_one(self, measurement: int) -> Procedure:
        """Stop a measurement that an earlier connection left running, choose its settings, start it."""
        if measurement == Measurement.PPI and not self._started:
            raise RefusedError(
                "PPI is not started alone: its first frame comes after 25 s, which looks like a dead link until then"
            )
        yield from self._ask(bytes((STOP, measurement)))
        chosen = yield from self._choose_settings(measurement)
        self._started.add(measurement)
        answer = yield from self._ask(bytes((START, measurement)) + encode_settings(chosen))
        # An acceleration that cannot be stopped is used as it is: nobody is asked for a battery because of it.
        is_adopted = answer.status == ALREADY_IN_STATE and measurement == Measurement.ACC
        if answer.status == SUCCESS or is_adopted:
            self._learn(measurement, _settings_of(answer))
            yield from self._prove(measurement)
            yield from self._expect_next(measurement)
        elif answer.status == ALREADY_IN_STATE:
            if measurement in self._unproven:
                yield Status("stream_trouble", f"{name_of(measurement)}: {_REMOVE_BATTERY}")
            self._unproven.add(measurement)
            self._flowing.discard(measurement)  # a frame that came before the answer proves nothing
            yield self._remember()
            if Measurement.ACC in self._flowing:
                yield from self._expect_unproven()
        else:
            self._started.remove(measurement)
            raise RefusedError(f"the sensor refuses to start its {name_of(measurement)}: {explain(answer.status)}")

    def _choose_settings(self, measurement: int) -> Generator[Action | Reading, Any, dict[int, int]]:
        if measurement == Measurement.PPI:
            return {}  # it has none
        answer = yield from self._ask(bytes((GET_SETTINGS, measurement)))
        if answer.status != SUCCESS:
            raise RefusedError(f"the sensor does not tell the settings of its {name_of(measurement)}: {explain(answer.status)}")
        offered = _settings_of(answer)
        chosen = choose_settings(measurement, offered)
        if measurement == Measurement.PPG and chosen.get(Setting.SAMPLE_RATE, MIN_PPG_RATE_HZ) < MIN_PPG_RATE_HZ:
            raise RefusedError(f"the sensor offers its PPG below the {MIN_PPG_RATE_HZ} Hz that the analysis needs")
        self._learn(measurement, {**offered, **{setting: (value,) for setting, value in chosen.items()}})
        return chosen

    def _learn(self, measurement: int, settings: Settings) -> None:
        self._streams[measurement] = learn_stream(self._streams.get(measurement, WITHOUT_RATE), settings)

    def _ask(self, request: bytes) -> Generator[Action | Reading, Any, Answer]:
        pending = self._pending = PendingAnswer(request)
        try:
            last = yield Request(CONTROL_POINT, request, pending.is_last, progress=_ANSWERS)
        finally:
            self._pending = None
        return pending.complete(last)


def _settings_of(answer: Answer) -> Settings:
    """The settings in an answer; none where it holds something else, because samples are worth more than their settings."""
    try:
        return answer.settings()
    except DecodeError:
        return {}


_QUIRKS: Final = (
    *(
        Quirk(
            "PPG settings say 135 Hz and the samples come at 55: KnownIssues.md, Verity Sense, issue 1, fixed in 2.1.0",
            models=("Sense",),
            firmware=firmware,
            rate_hz=dict.fromkeys(PPG_KINDS, 55.0),
        )
        for firmware in ("1.", "2.0.")
    ),
    Quirk(
        "PPG settings say 130 Hz and the samples come at 135: KnownIssues.md, OH1, issue 2",
        models=("OH1",),
        rate_hz=dict.fromkeys(PPG_KINDS, 135.0),
    ),
    Quirk(
        "the skin contact must not be trusted: PolarVeritySense.md, PolarOH1.md",
        models=("Sense", "OH1"),
        ignored=frozenset({"skin_contact"}),
    ),
)

DRIVER: Final = DriverSpec(
    name="polar_pmd",
    service=SERVICE,
    streams=(
        Characteristic(CONTROL_POINT, "indicate"),
        Characteristic(DATA, "notify", silent_after_s=SILENT_AFTER_S),
    ),
    quirks=_QUIRKS,
    converse=_PmdConversation,
)
