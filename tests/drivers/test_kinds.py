"""Checks of the codes of the kinds: check digits, partitions and units."""

import re

import pytest

from drivers.kinds import KINDS, Kind

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


@every_kind
def test_loinc_codes_end_in_their_check_digit(kind: Kind) -> None:
    """LOINC Users' Guide, appendix C: the Luhn digit of the number before the hyphen."""
    if kind.loinc is None:
        return
    number, digit = re.fullmatch(r"(\d+)-(\d)", kind.loinc).groups()  # type: ignore[union-attr]  # no match fails the test
    doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(number))]
    assert (sum(map(int, "".join(map(str, doubled)))) + int(digit)) % 10 == 0


@every_kind
def test_mdc_codes_lie_in_the_partition_that_their_reference_names(kind: Kind) -> None:
    """IEEE 11073-10101: infrastructure 1 (MDC_ATTR), SCADA 2 (signals), device 8 (MDC_ID), health and fitness 129 (MDC_HF)."""
    if kind.mdc is None:
        return
    signals = ("MDC_ECG", "MDC_PRESS", "MDC_PULS", "MDC_MASS", "MDC_TEMP", "MDC_SAT", "MDC_LEN", "MDC_RATIO", "MDC_BODY")
    partitions = {"MDC_ATTR": 1, "MDC_ID": 8, "MDC_HF": 129} | dict.fromkeys(signals, 2)
    group = "_".join(kind.mdc.reference.split("_")[:2])
    assert group in partitions, f"{kind.name}: add the partition of {group} (the code // 65536) to this test"
    assert kind.mdc.code >> 16 == partitions[group], (
        f"{kind.name}: the code is partition * 65536 + term, RTMMS column CF_CODE10"
    )


@every_kind
def test_every_kind_has_a_title_and_is_listed_by_its_name(kind: Kind) -> None:
    assert KINDS[kind.name] is kind
    assert kind.title


@pytest.mark.parametrize(
    ("kind", "term"),
    [
        ("systolic", 18949),
        ("diastolic", 18950),
        ("mean_pressure", 18951),
        ("spo2", 19384),
        ("pulse_rate", 18458),
        ("weight", 57664),
        ("temperature", 19292),
        ("pulse_rate_cuff", 18474),
        ("cuff_pressure", 19228),
        ("pulse_amplitude", 19248),
        ("height", 57668),
        ("bmi", 57680),
        ("body_fat", 57676),
        ("fat_free_mass", 57684),
        ("soft_lean_mass", 57688),
        ("body_water_mass", 57692),
    ],
)
def test_vital_kinds_have_the_codes_of_the_ieee_device_specialisations(kind: str, term: int) -> None:
    """IEEE 11073-10407 (blood pressure), -10404 (oximeter), -10408 (thermometer), -10415 (scale), -10420 (body composition)."""
    mdc = KINDS[kind].mdc
    assert mdc is not None
    assert mdc.code == 2 * 65536 + term


def test_numbers_have_units() -> None:
    units = {"heart_rate": "/min", "rr": "ms", "ecg": "mV", "energy": "kJ", "battery": "%"}
    units |= {"systolic": "mm[Hg]", "diastolic": "mm[Hg]", "mean_pressure": "mm[Hg]", "spo2": "%", "pulse_rate": "/min"}
    units |= {"weight": "kg", "temperature": "Cel", "temperature_intermediate": "Cel", "measurement_interval": "s"}
    units |= {"pulse_rate_cuff": "/min", "cuff_pressure": "mm[Hg]"}
    units |= {"weight": "kg", "temperature": "Cel"}
    units |= {"spo2_fast": "%", "spo2_slow": "%", "pulse_rate_fast": "/min", "pulse_rate_slow": "/min", "pulse_amplitude": "%"}
    units |= {"sensor_clock_offset_s": "s", "sensor_utc_offset": "min", "sensor_dst_offset": "min"}
    units |= {"weight": "kg", "temperature": "Cel", "height": "m", "bmi": "kg/m2", "body_fat": "%", "muscle_percentage": "%"}
    units |= dict.fromkeys(("muscle_mass", "fat_free_mass", "soft_lean_mass", "body_water_mass"), "kg")
    units |= {"basal_metabolism": "kJ", "impedance": "Ohm", "heart_rate_fast": "/min"}
    assert {name: KINDS[name].ucum for name in units} == units
