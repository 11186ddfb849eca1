"""Scales: units, the packets of one result, and the readings of one weighing."""

from datetime import datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.body_composition import decode_measurement as decode_composition
from drivers.conversation import Context, Moment, Write
from drivers.device import DeviceInformation
from drivers.kinds import KINDS
from drivers.readings import Origin, Quarantined, Reading, Status, Vital
from drivers.registry import load_drivers
from drivers.spec import uuid16
from drivers.weighing import BODY_KINDS, JOIN_WITHIN_S, WeighingJoiner, height_m, mass_kg
from drivers.weight_scale import DRIVER
from drivers.weight_scale import decode_measurement as decode_weight

WEIGHT: Final = bytes.fromhex("0E783EEA07050C12353601EE002607")
COMPOSITION: Final = bytes.fromhex("9803C200DF1A9701CC2FCA21A811")
STUB: Final = bytes.fromhex("9803000096230000000000000000")
"""Captures of a BF720 and a BF788 (ble-scale-sync issues/168 and 229)."""
TIMES: Final = st.binary(min_size=7, max_size=7)


def origins(readings: tuple[Reading, ...]) -> set[Origin | None]:
    return {reading.origin for reading in readings if isinstance(reading, Vital | Status)}


def values(readings: tuple[Reading, ...]) -> dict[str, float]:
    return {reading.kind: reading.value for reading in readings if isinstance(reading, Vital)}


@given(raw=st.integers(1, 0xFFFE))
def test_every_weight_is_the_decimal_on_the_display(raw: int) -> None:
    (kilograms,) = values(decode_weight(b"\x00" + raw.to_bytes(2, "little"))).values()
    assert f"{kilograms:.3f}" == f"{raw * 5 // 1000}.{raw * 5 % 1000:03}"
    (pounds,) = values(decode_weight(b"\x01" + raw.to_bytes(2, "little"))).values()
    assert abs(pounds / 0.45359237 - raw / 100) <= 0.005 / 0.45359237 + 1e-9
    assert pounds == round(pounds, 2)


def test_units_at_their_ends() -> None:
    assert (mass_kg(0xFFFE, is_imperial=False), mass_kg(10_000, is_imperial=True)) == (327.67, 45.36)
    assert (height_m(1830, is_imperial=False), height_m(720, is_imperial=True)) == (1.83, 1.829)


@pytest.mark.parametrize("feature", ["BF010000", "8F000000", "07000000"])
def test_the_resolution_of_the_features_does_not_change_a_weight(feature: str) -> None:
    registry = load_drivers()
    registry.decode(uuid16(0x2A9E), bytes.fromhex(feature))
    assert values(registry.decode(uuid16(0x2A9D), WEIGHT))["weight"] == 79.96


@given(time=TIMES, user=st.integers(0, 255), first=st.integers(1, 999), second=st.integers(1, 0xFFFE))
def test_two_packets_of_one_result_have_one_group(time: bytes, user: int, first: int, second: int) -> None:
    identity = time + bytes((user,))
    one = decode_composition(b"\x06\x10" + first.to_bytes(2, "little") + identity)
    two = decode_composition(b"\x06\x14\xff\xff" + identity + second.to_bytes(2, "little"))
    assert len(origins(one + two)) == 1
    assert not any(isinstance(reading, Status) for reading in one + two)
    assert values(one + two) == {"body_fat": first / 10, "weight": second * 5 / 1000}
    other = decode_composition(b"\x06\x14\xff\xff" + time + bytes((user ^ 1,)) + second.to_bytes(2, "little"))
    assert origins(other).isdisjoint(origins(one))


def test_two_packets_without_a_user_have_one_group() -> None:
    time = bytes.fromhex("EA07050C123536")
    one = decode_composition(b"\x02\x10\xc8\x00" + time)
    two = decode_composition(b"\x02\x14\x00\x00" + time + b"\xb0\x36")
    assert len(origins(one + two)) == 1


@given(raws=st.lists(st.integers(0, 0xFFFF), min_size=9, max_size=9), fat=st.integers(0, 0xFFFF))
def test_what_a_scale_could_not_measure_is_not_a_value(raws: list[int], fat: int) -> None:
    readings = decode_composition(b"\xf8\x0f" + b"".join(raw.to_bytes(2, "little") for raw in [fat, *raws]))
    found = values(readings)
    assert all(KINDS[kind].is_spot for kind in found)
    assert 0xFFFF / 10 not in (found.get("body_fat"), found.get("impedance"))
    measured = [fat, *raws[1:7]]
    assert ("body_fat" in found) == (fat != 0xFFFF and any(raw not in (0, 0xFFFF) for raw in measured))


def test_body_composition_gets_the_origin_of_the_weight_before_it() -> None:
    joiner = WeighingJoiner()
    weight = joiner.join(decode_weight(WEIGHT), 100.0)
    body = joiner.join(decode_composition(COMPOSITION), 103.0)
    assert origins(weight) == origins(body)
    (origin,) = origins(body)
    assert origin
    assert (origin.measured, origin.user) == (datetime(2026, 5, 12, 18, 53, 54), 1)  # noqa: DTZ001  the scale's local time
    assert values(body) == values(decode_composition(COMPOSITION))


@pytest.mark.parametrize("composition", [STUB, bytes.fromhex("0000FFFF")], ids=["placeholder", "failed"])
def test_body_composition_without_values_gets_the_origin_of_its_weight_too(composition: bytes) -> None:
    joiner = WeighingJoiner()
    weight = joiner.join(decode_weight(WEIGHT), 0.0)
    assert origins(joiner.join(decode_composition(composition), 0.5)) == origins(weight)


def test_stored_weighings_are_joined_one_by_one() -> None:
    joiner = WeighingJoiner()
    older = bytes.fromhex("0EF03CEA07050B12353601EE002607")
    joined = [
        origins(joiner.join(readings, at_s))
        for at_s, readings in enumerate(
            (decode_weight(older), decode_composition(STUB), decode_weight(WEIGHT), decode_composition(COMPOSITION))
        )
    ]
    assert joined[0] == joined[1]
    assert joined[2] == joined[3]
    assert joined[0] != joined[2]


@pytest.mark.parametrize(
    ("composition", "after_s"),
    [
        (COMPOSITION, JOIN_WITHIN_S + 0.1),
        (bytes.fromhex("0200C800EA07050C123400"), 1.0),
        (bytes.fromhex("0400C80002"), 1.0),
    ],
    ids=["too late", "with a time of its own", "of a user of its own"],
)
def test_body_composition_of_another_weighing_keeps_its_own_origin(composition: bytes, after_s: float) -> None:
    joiner = WeighingJoiner()
    joiner.join(decode_weight(WEIGHT), 0.0)
    assert joiner.join(decode_composition(composition), after_s) == decode_composition(composition)


def test_body_composition_is_not_joined_with_a_failed_weight_or_none() -> None:
    joiner = WeighingJoiner()
    joiner.join(decode_weight(bytes.fromhex("00FFFF")), 0.0)
    assert joiner.join(decode_composition(COMPOSITION), 1.0) == decode_composition(COMPOSITION)


def test_other_readings_pass_a_joiner_unchanged() -> None:
    joiner = WeighingJoiner()
    joiner.join(decode_weight(WEIGHT), 0.0)
    others = (Vital("heart_rate", 60), Status("battery", 50), Quarantined("2a9c", b"", "why"))
    assert [joiner.join((other,), 1.0) for other in others] == [(other,) for other in others]


def test_only_a_weight_gives_its_origin() -> None:
    joiner = WeighingJoiner()
    joiner.join((Vital("systolic", 120, (), Origin(1)),), 0.0)
    assert joiner.join(decode_composition(COMPOSITION), 1.0) == decode_composition(COMPOSITION)


@pytest.mark.parametrize("device", [DeviceInformation(model="XMTZC05HM"), DeviceInformation(name="MIBFS")])
def test_the_layout_of_xiaomi_is_decoded_for_its_models_only(device: DeviceInformation) -> None:
    payload = bytes.fromhex("02A4B2070101023A38FDFFF03C")
    assert values(load_drivers().decode(uuid16(0x2A9C), payload, device)) == {"weight": 78.0}
    (kept,) = load_drivers().decode(uuid16(0x2A9C), payload)
    assert isinstance(kept, Quarantined)
    assert values(load_drivers().decode(uuid16(0x2A9C), COMPOSITION, DeviceInformation(model="BF720")))["body_fat"] == 19.4


def test_the_kinds_of_body_composition_are_stored_at_once() -> None:
    assert all(KINDS[kind].is_spot for kind in BODY_KINDS)


def test_a_scale_of_and_is_bonded_first_and_given_the_local_time() -> None:
    assert any(
        quirk.bonds_first and quirk.applies_to(DeviceInformation(name="A&D_UC-352BLE_001122")) for quirk in DRIVER.quirks
    )
    assert DRIVER.converse
    steps = list(DRIVER.converse(Context()).start(Moment(1_778_612_034_000_000, 7200)))
    assert Write(uuid16(0x2A08), bytes.fromhex("EA07050C143536")) in steps
