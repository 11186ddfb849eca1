"""Checks of samples, for `tests.drivers.device_fields`: of waveforms, of Polar's frames and their times."""

from datetime import UTC, datetime
from typing import Any, Final

from drivers.readings import SENSOR_NS_LIMIT, TICKS_PER_SECOND, Intervals, Vital
from tests.drivers.field_checks import Check, Found, is_close, text

POLAR_EPOCH_S: Final = datetime(2000, 1, 1, tzinfo=UTC).timestamp()


def check_samples(found: Found, expected: list[Any], _vector: dict[str, Any]) -> bool:
    """Samples of one waveform each, in runs where one is invalid; or of several by axis, channel or name."""
    if None in expected:
        runs = "".join("x" if sample is None else "." for sample in expected).split("x")
        sent = [sample for wave in found.waves for sample in wave.samples]
        return sent == [s for s in expected if s is not None] and len(found.waves) == sum(bool(run) for run in runs)
    return all(check_sample(found, i, sample) for i, sample in enumerate(expected))


def check_sample(found: Found, index: int, expected: Any) -> bool:
    if isinstance(expected, dict):
        return all(check_named_sample(found, index, name, value) for name, value in expected.items())
    if isinstance(expected, list):
        return [wave.samples[index] for wave in found.waves] == expected
    if found.waves:
        return found.waves[0].samples[index] == expected
    return any(is_close(value, expected) for value in found.values("air_pressure", "sensor_temperature", "skin_temperature"))


SAMPLE_KINDS: Final = {
    **{"uV_14bit": "ecg", "uV_18bit": "ecg", "over_sampling": "ecg_oversampling", "skin_contact": "ecg_contact"},
    **{"impedance": "ecg_impedance", "data0": "ecg_raw", "data1": "bioimpedance", "status": "ecg_status"},
    **{"ecg_tag": "ecg_tag", "pace_tag": "pace_tag"},
}
STATUS_KINDS: Final = {
    **{"num_int": "ppg_integrations", "gain1": "ppg_gain_1", "gain2": "ppg_gain_2", "operation_mode": "ppg_operation_mode"},
}


def check_named_sample(found: Found, index: int, name: str, expected: Any) -> bool:
    """A part of a sample: of an ECG or of a PP interval, or a setting of the optics."""
    if name in STATUS_KINDS:
        written = ", ".join(map(str, expected)) if isinstance(expected, list) else str(expected)
        return found.texts(STATUS_KINDS[name]) == [written]
    if name in SAMPLE_KINDS:
        return [wave.samples[index] for wave in found.waves if wave.kind == SAMPLE_KINDS[name]] == [expected]
    return check_interval_part(found, index, name, expected)


def check_interval_part(found: Found, index: int, name: str, expected: Any) -> bool:
    sent = {
        "pp_ms": found.ticks(but=("pp_error",)),
        "error_ms": [tick for r in found.readings if isinstance(r, Intervals) and r.kind == "pp_error" for tick in r.ticks],
    }
    rates = [r for r in found.readings if isinstance(r, Vital) and r.kind == "heart_rate"]
    match name:
        case "pp_ms" | "error_ms":
            return abs(sent[name][index] * 1000 / TICKS_PER_SECOND - expected) <= 0.5
        case "heart_rate_bpm":
            return rates[index].value == expected
        case "blocker":
            return ("body_movement" in rates[index].flags) == expected
        case "contact":
            # The contact bit is unreliable where it is not supported: KnownIssues.md of the vendor's SDK.
            return expected in found.values("skin_contact") or not expected
        case "contact_supported":
            return ("skin_contact" in found.kinds) or not expected
    raise KeyError(f"no check for the part {name} of a sample")


def check_channels_at(index: int) -> Check:
    return lambda found, expected, _vector: [wave.samples[index] for wave in found.waves] == expected


def check_count(found: Found, expected: int, _vector: dict[str, Any]) -> bool:
    """The number of samples; a frame of single values or settings has one."""
    counts = {len(wave.samples) for wave in found.waves} or {len(found.ticks(but=("pp_error",))) or 1}
    return counts == {expected}


def check_polar_time(found: Found, expected: int, _vector: dict[str, Any]) -> bool:
    """The time of waveforms. One that no sensor's clock reads is left out; values and settings have none."""
    times = {wave.last_ns for wave in found.waves}
    is_left_out = expected >= SENSOR_NS_LIMIT and "invalid" in found.texts("sensor_clock")
    return times <= {None if is_left_out else expected}


def check_polar_date(found: Found, expected: str, _vector: dict[str, Any]) -> bool:
    at_s = datetime.fromisoformat(expected).replace(tzinfo=UTC).timestamp() - POLAR_EPOCH_S
    return all(wave.last_ns is not None and abs(wave.last_ns / 1e9 - at_s) < 1e-5 for wave in found.waves)


POLAR_KINDS: Final = {
    **{"ECG": "ecg", "PPG": "ppg", "ACC": "acc", "PPI": "pp", "GYRO": "gyro", "MAG": "mag"},
    **{"PRESSURE": "air_pressure", "TEMPERATURE": "sensor_temperature", "SKIN_TEMP": "skin_temperature"},
}


def check_polar_type(found: Found, expected: str, vector: dict[str, Any]) -> bool:
    if "op" in vector["expect"]:
        return text("control_measurement")(found, expected, vector)
    return any(kind.startswith(POLAR_KINDS[expected]) for kind in found.kinds)
