"""Conversations with Movesense sensors: subscriptions, refusals, packets in two parts, and the clock that wraps."""

import struct
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Context, Effect, Moment, Procedure, Read, RefusedError, Run, Value, Write
from drivers.decoding import ServiceDecoder
from drivers.millisecond_clock import MillisecondClock
from drivers.movesense import COMMAND, DATA, DRIVER, RESOURCES
from drivers.movesense_open_activity import DRIVER as OPEN_ACTIVITY
from drivers.movesense_open_ecg import DRIVER as OPEN_ECG
from drivers.movesense_open_ecg import VOLTAGE
from drivers.readings import Intervals, Quarantined, Status, Vital, Waveform
from drivers.spec import DriverSpec, uuid16

NOW = Moment(1_750_000_000_000_000)
MILLIVOLTS, COUNTS, HEART_RATE, IMU9, IMU6, ACC = 1, 2, 3, 4, 5, 6


class Client:
    """Runs a driver's conversation and keeps what it writes and reads."""

    def __init__(self, driver: DriverSpec, readable: dict[str, bytes] | None = None) -> None:
        assert driver.converse is not None
        self.conversation = driver.converse(Context())
        self._readable = readable or {}
        self._characteristic = driver.streams[0].uuid
        self.written: list[bytes] = []
        self.run(self.conversation.start(NOW))

    def run(self, procedure: Procedure) -> None:
        result = None
        try:
            while True:
                match procedure.send(result):
                    case Write(characteristic, payload):
                        assert characteristic == COMMAND
                        self.written.append(payload)
                        result = None
                    case Read(characteristic):
                        result = self._readable.get(characteristic)
                    case other:
                        pytest.fail(f"unexpected {other}")
        except StopIteration:
            pass

    def receive(self, payload: bytes) -> list[Effect]:
        """The readings of a notification; the procedures that it asks for have run."""
        readings: list[Effect] = []
        for effect in list(self.conversation.receive(Value(self._characteristic, payload, NOW))):
            if isinstance(effect, Run):
                self.run(effect.procedure)
            else:
                readings.append(effect)
        return readings

    def taken(self) -> list[bytes]:
        written, self.written = self.written, []
        return written


@pytest.fixture
def client() -> Client:
    return Client(DRIVER)


def result(reference: int, status: int) -> bytes:
    return bytes((1, reference)) + status.to_bytes(2, "little")


def ecg(stamp_ms: int, samples: Iterable[int] = range(16)) -> bytes:
    values = list(samples)
    return struct.pack(f"<I{len(values)}h", stamp_ms, *values)


def data(reference: int, packet: bytes) -> bytes:
    return bytes((2, reference)) + packet


def rest(reference: int, packet: bytes) -> bytes:
    return bytes((3, reference)) + packet


def ecg_wave(first_ms: int, samples: Iterable[int] = range(16)) -> Waveform:
    values = tuple(samples)
    return Waveform("ecg", values, 200.0, 0.001, first_ms * 1_000_000 + (len(values) - 1) * 5_000_000)


def test_ends_what_is_left_over_then_subscribes_and_ends_its_subscriptions(client: Client) -> None:
    unsubscribe = [bytes((2, reference)) for reference in range(1, 7)]
    subscribe = [b"\x01\x01Meas/Ecg/200/mV", b"\x01\x03Meas/HR", b"\x01\x04Meas/IMU9/52"]
    assert client.taken() == unsubscribe + subscribe
    client.run(client.conversation.stop())
    assert client.taken() == unsubscribe


def test_takes_the_next_best_resource_where_one_is_refused(client: Client) -> None:
    for reference in RESOURCES:
        assert client.receive(result(reference, 404)) == [], "the answer to the unsubscription"
    client.taken()
    assert client.receive(result(IMU9, 404)) == []
    assert client.receive(result(IMU6, 404)) == []
    assert client.taken() == [b"\x01\x05Meas/IMU6/52", b"\x01\x06Meas/Acc/52"]
    assert client.receive(result(ACC, 501)) == [Status("refused_stream", "Meas/Acc/52")]
    assert client.receive(result(HEART_RATE, 404)) == [Status("refused_stream", "Meas/HR")]
    assert client.receive(result(MILLIVOLTS, 404)) == []
    assert client.taken() == [b"\x01\x02Meas/ECG/200"]
    with pytest.raises(RefusedError, match=r"refuses to send Meas/ECG/200 \(status 404\)"):
        client.receive(result(COUNTS, 404))


def test_accepted_subscriptions_need_nothing_more(client: Client) -> None:
    client.taken()
    for status in (200, 200):
        for reference in RESOURCES:
            assert client.receive(result(reference, status)) == []
    assert client.taken() == []


def test_older_firmware_answers_only_that_it_has_no_slot_with_the_high_byte_first(client: Client) -> None:
    client.taken()
    assert client.receive(bytes((1, IMU9, 0x01, 0xFB))) == []
    assert client.taken() == [b"\x01\x05Meas/IMU6/52"]


def test_a_result_that_concerns_nobody_is_ignored(client: Client) -> None:
    client.taken()
    assert client.receive(result(99, 404)) == []
    assert client.taken() == []


def test_ends_a_subscription_of_another_client(client: Client) -> None:
    client.taken()
    readings = client.receive(data(77, struct.pack("<I3f", 1000, 1.0, -0.5, 9.81)))
    assert readings[-1] == Status("foreign_subscription", 77)
    assert [wave.kind for wave in readings if isinstance(wave, Waveform)] == [f"unidentified_{axis}" for axis in "xyz"]
    assert client.taken() == [b"\x02\x4d"]
    assert client.receive(result(77, 404)) == []


@pytest.mark.parametrize("cut", range(4, 36))
def test_joins_a_packet_that_was_split_anywhere(client: Client, cut: int) -> None:
    packet = ecg(1000)
    assert client.receive(data(MILLIVOLTS, packet[:cut])) == []
    assert client.receive(rest(MILLIVOLTS, packet[cut:])) == [ecg_wave(1000)]
    assert client.receive(data(MILLIVOLTS, ecg(1080))) == [ecg_wave(1080)]


def test_packets_of_several_resources_may_be_split_at_once(client: Client) -> None:
    packet = ecg(1000)
    motion = struct.pack("<I36f", 1000, *[1.0] * 36)
    assert client.receive(data(MILLIVOLTS, packet[:20])) == []
    assert client.receive(data(IMU9, motion[:100])) == []
    assert client.receive(rest(MILLIVOLTS, packet[20:])) == [ecg_wave(1000)]
    assert len(client.receive(rest(IMU9, motion[100:]))) == 9


def test_a_sensor_with_smaller_packets_is_decoded_one_packet_late(client: Client) -> None:
    assert client.receive(data(MILLIVOLTS, ecg(1000, range(8)))) == []
    assert client.receive(data(MILLIVOLTS, ecg(1040, range(8)))) == [ecg_wave(1000, range(8))]
    assert client.receive(data(MILLIVOLTS, ecg(1080))) == [ecg_wave(1040, range(8)), ecg_wave(1080)]


def test_a_packet_whose_rest_is_lost_is_kept_raw_and_costs_no_other() -> None:
    decoder = ServiceDecoder(DRIVER, Context())
    begun = data(MILLIVOLTS, ecg(1000)[:21])
    assert decoder.decode(DATA, begun).readings == ()
    kept, decoded = decoder.decode(DATA, data(MILLIVOLTS, ecg(1080))).readings
    assert kept == Quarantined(DATA, begun, "samples: 17 bytes are not a whole number of 2-byte samples (at least one)")
    assert decoded == ecg_wave(1080)


def test_a_packet_that_is_too_long_costs_no_other() -> None:
    decoder = ServiceDecoder(DRIVER, Context())
    assert decoder.decode(DATA, data(MILLIVOLTS, ecg(1000)[:20])).readings == ()
    too_long = data(MILLIVOLTS, ecg(1080) + b"\0")
    assert [type(reading) for reading in decoder.decode(DATA, too_long).readings] == [Quarantined]
    assert decoder.decode(DATA, rest(MILLIVOLTS, ecg(1000)[20:])).readings == (ecg_wave(1000),)


def test_a_joined_packet_that_is_invalid_is_kept_whole() -> None:
    decoder = ServiceDecoder(DRIVER, Context())
    decoder.decode(DATA, data(MILLIVOLTS, ecg(1000)[:20]))
    (kept,) = decoder.decode(DATA, rest(MILLIVOLTS, b"\0")).readings
    assert isinstance(kept, Quarantined)
    assert kept.payload == data(MILLIVOLTS, ecg(1000)[:20] + b"\0")


@given(
    payloads=st.lists(
        st.builds(lambda kind, ref, end: bytes((kind, ref)) + end, st.integers(0, 4), st.integers(0, 7), st.binary(max_size=60))
    )
)
def test_what_it_keeps_is_bounded_whatever_arrives(payloads: list[bytes]) -> None:
    decoder = ServiceDecoder(DRIVER, Context())
    for payload in payloads:
        decoder.decode(DATA, payload)
    kept = vars(decoder.conversation)["_begun"]
    assert set(kept) <= set(RESOURCES)
    assert all(len(packet) < RESOURCES[reference].size for reference, packet in kept.items())


def test_time_goes_on_after_the_counter_wraps(client: Client) -> None:
    stamps = (2**32 - 80, 0, 80)
    last = [
        wave.last_ns for stamp in stamps for wave in client.receive(data(MILLIVOLTS, ecg(stamp))) if isinstance(wave, Waveform)
    ]
    assert [later - earlier for earlier, later in pairwise(last)] == [80_000_000, 80_000_000]  # type: ignore[operator]  # every wave has a time


@given(start=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(-10_000, 2**31 - 1), max_size=20))
def test_the_clock_follows_every_step_of_less_than_half_its_range(start: int, steps: list[int]) -> None:
    clock, time_ms = MillisecondClock(), start
    assert clock.continue_ms(start) == start
    for step in steps:
        time_ms += step
        assert clock.continue_ms(time_ms % 2**32) == time_ms


def test_heart_rate_and_intervals_are_converted_and_checked(client: Client) -> None:
    sent = struct.pack("<f4H", 66.5, 904, 0, 100, 500)
    assert client.receive(data(HEART_RATE, sent)) == [
        Vital("heart_rate", 66.5, ("zero_interval",)),
        Intervals("rr", (926,)),
        Intervals("rr_padding", (0,)),
        Intervals("rr_implausible", (102,)),
        Intervals("rr", (512,)),
    ]
    assert client.receive(data(HEART_RATE, struct.pack("<f", 0.0))) == [Vital("heart_rate", 0.0, ("no_pulse_found",))]
    assert client.receive(data(HEART_RATE, struct.pack("<f", -1.0))) == [Vital("heart_rate", -1.0, ("implausible",))]


@pytest.mark.parametrize(("driver", "interval"), [(OPEN_ECG, 0x2A21), (OPEN_ACTIVITY, 0x2BE3)], ids=["ecg", "activity"])
@pytest.mark.parametrize(
    ("sent", "interval_ms"), [(b"\x02\x00", 2), (b"\x08\x00", 8), (b"\x00\x00", 4), (b"\xff\xff", 4), (None, 4)]
)
def test_the_open_firmware_tells_its_rate(driver: DriverSpec, interval: int, sent: bytes | None, interval_ms: int) -> None:
    client = Client(driver, {uuid16(interval): sent} if sent is not None else {})
    assert client.written == []
    assert client.receive(struct.pack("<I4h", 10_000, 5, 6, -32768, 7)) == [
        Waveform("ecg", (5, 6), 1000 / interval_ms, 0.001, (10_000 - 2 * interval_ms) * 1_000_000),
        Waveform("ecg", (7,), 1000 / interval_ms, 0.001, 10_000_000_000),
    ]


@given(samples=st.lists(st.sampled_from([-32768, -1, 5]), min_size=1, max_size=20))
def test_an_invalid_sample_of_the_open_firmware_is_a_gap_of_its_length(samples: list[int]) -> None:
    decoder = ServiceDecoder(OPEN_ECG, Context())
    readings = decoder.decode(VOLTAGE, struct.pack(f"<I{len(samples)}h", 10_000, *samples)).readings
    placed: dict[int, int] = {}
    for wave in readings:
        assert isinstance(wave, Waveform)
        assert wave.last_ns is not None
        last = len(samples) - 1 - (10_000_000_000 - wave.last_ns) // 4_000_000
        placed |= {last - len(wave.samples) + 1 + i: sample for i, sample in enumerate(wave.samples)}
    assert placed == {i: sample for i, sample in enumerate(samples) if sample != -32768}
