"""The kinds of readings, one row each, with their LOINC and IEEE 11073-10101 (MDC) codes and UCUM units."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mdc:
    """A term of the IEEE 11073-10101 nomenclature; `code` is context-free: partition * 65536 + term code."""

    reference: str
    code: int


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of reading.

    `loinc` and `mdc` are None where the terminology has no term for it. `ucum` is the unit in which values are shown and
    exported ("" for text and yes/no). Intervals are shown in ms but stored in ticks of 1/1024 s. `is_spot` says that a person
    measures it on demand: its sensor sends it once and may then delete it, so the hub stores it at once. It is not set for what
    an oximeter measures, because that may be continuous too.
    """

    name: str
    title: str
    loinc: str | None
    mdc: Mdc | None
    ucum: str
    is_spot: bool = False
    is_waveform: bool = False


_ALL: Final = (
    Kind("heart_rate", "Heart rate", "8867-4", Mdc("MDC_ECG_HEART_RATE", 147842), "/min"),
    # LOINC 80404-7 is the intervals' standard deviation (SDNN), not an interval.
    Kind("rr", "R-R interval", "8637-1", Mdc("MDC_ECG_TIME_PD_RR_GL", 147240), "ms"),
    Kind("rr_filler", "R-R interval, constant filled in by the sensor", None, None, "ms"),
    Kind("ecg", "ECG", "11524-6", Mdc("MDC_ECG_ELEC_POTL", 131328), "mV", is_waveform=True),
    Kind("energy", "Energy expended", "41981-2", Mdc("MDC_HF_ENERGY", 8454263), "kJ"),
    Kind("systolic", "Systolic blood pressure", "8480-6", Mdc("MDC_PRESS_BLD_NONINV_SYS", 150021), "mm[Hg]", is_spot=True),
    Kind("diastolic", "Diastolic blood pressure", "8462-4", Mdc("MDC_PRESS_BLD_NONINV_DIA", 150022), "mm[Hg]", is_spot=True),
    Kind("mean_pressure", "Mean blood pressure", "8478-0", Mdc("MDC_PRESS_BLD_NONINV_MEAN", 150023), "mm[Hg]", is_spot=True),
    Kind("spo2", "Oxygen saturation by pulse oximetry", "59408-5", Mdc("MDC_PULS_OXIM_SAT_O2", 150456), "%"),
    Kind("pulse_rate", "Pulse rate by pulse oximetry", "8889-8", Mdc("MDC_PULS_OXIM_PULS_RATE", 149530), "/min"),
    Kind("weight", "Body weight", "29463-7", Mdc("MDC_MASS_BODY_ACTUAL", 188736), "kg", is_spot=True),
    Kind("temperature", "Body temperature", "8310-5", Mdc("MDC_TEMP_BODY", 150364), "Cel", is_spot=True),
    Kind("battery", "Battery level", None, Mdc("MDC_ATTR_VAL_BATT_CHARGE", 67996), "%"),
    Kind("skin_contact", "Skin contact", None, None, ""),
    Kind("sensor_location", "Sensor location", None, None, ""),
    Kind("manufacturer", "Manufacturer", None, Mdc("MDC_ID_MODEL_MANUFACTURER", 531970), ""),
    Kind("model", "Model number", None, Mdc("MDC_ID_MODEL_NUMBER", 531969), ""),
    Kind("serial", "Serial number", None, Mdc("MDC_ID_PROD_SPEC_SERIAL", 531972), ""),
    Kind("hardware", "Hardware revision", None, Mdc("MDC_ID_PROD_SPEC_HW", 531974), ""),
    Kind("software", "Software revision", None, Mdc("MDC_ID_PROD_SPEC_SW", 531975), ""),
    Kind("firmware", "Firmware revision", None, Mdc("MDC_ID_PROD_SPEC_FW", 531976), ""),
    Kind("setup_failed", "Driver whose set-up the sensor refused", None, None, ""),
    Kind("failed_measurement", "Measurement without a result", None, None, ""),
    Kind("system_id", "System ID (EUI-64)", None, Mdc("MDC_ATTR_SYS_ID", 67972), ""),
    Kind("ppg", "Pulse wave (PPG)", None, Mdc("MDC_PULS_OXIM_PLETH", 150452), "", is_waveform=True),
    *(
        Kind(f"ppg_{number}", f"Pulse wave (PPG), channel {number}", None, None, "", is_waveform=True)
        for number in range(2, 25)
    ),
    *(Kind(f"ppg_red_{number}", f"PPG, red channel {number}", None, None, "", is_waveform=True) for number in range(1, 9)),
    *(Kind(f"ppg_green_{number}", f"PPG, green channel {number}", None, None, "", is_waveform=True) for number in range(2, 7)),
    *(Kind(f"ppg_ir_{number}", f"PPG, infrared channel {number}", None, None, "", is_waveform=True) for number in range(1, 7)),
    Kind("ppg_ambient", "PPG, ambient light", None, None, "", is_waveform=True),
    Kind("ppg_status", "PPG, status bits of the channels", None, None, "", is_waveform=True),
    Kind("ppg_integrations", "PPG, integrations of each time slot", None, None, ""),
    Kind("ppg_gain_1", "PPG, gain of channel 1 in each time slot", None, None, ""),
    Kind("ppg_gain_2", "PPG, gain of channel 2 in each time slot", None, None, ""),
    Kind("ppg_operation_mode", "PPG, operation mode of the optics", None, None, ""),
    Kind("ppg_sport", "PPG, number of the recorded sport", None, None, ""),
    Kind("ecg_raw", "ECG in the sensor's own unit", None, None, "", is_waveform=True),
    Kind("ecg_oversampling", "ECG, oversampling", None, None, "", is_waveform=True),
    Kind("ecg_contact", "ECG, skin contact as coded by the sensor", None, None, "", is_waveform=True),
    Kind("ecg_impedance", "ECG, contact impedance as coded by the sensor", None, None, "", is_waveform=True),
    Kind("ecg_tag", "ECG, tag of the sensor", None, None, "", is_waveform=True),
    Kind("pace_tag", "ECG, pacing tag of the sensor", None, None, "", is_waveform=True),
    Kind("ecg_status", "ECG, status of the sensor", None, None, "", is_waveform=True),
    Kind("bioimpedance", "Bioimpedance in the sensor's own unit", None, None, "", is_waveform=True),
    *(Kind(f"acc_{axis}", f"Acceleration, {axis} axis", None, None, "m[g]", is_waveform=True) for axis in "xyz"),
    *(Kind(f"gyro_{axis}", f"Angular rate, {axis} axis", None, None, "deg/s", is_waveform=True) for axis in "xyz"),
    *(Kind(f"mag_{axis}", f"Magnetic field, {axis} axis", None, None, "G", is_waveform=True) for axis in "xyz"),
    *(
        Kind(f"{sensor}_raw_{axis}", f"{title}, {axis} axis, in the sensor's own unit", None, None, "", is_waveform=True)
        for sensor, title in (("acc", "Acceleration"), ("gyro", "Angular rate"), ("mag", "Magnetic field"))
        for axis in "xyz"
    ),
    Kind("mag_calibration", "Magnetometer's calibration (0 unknown, 1 poor, 2 ok, 3 good)", None, None, "", is_waveform=True),
    Kind("pp", "Pulse-to-pulse interval", None, None, "ms"),
    Kind("pp_void", "Pulse-to-pulse interval, void by movement or without contact", None, None, "ms"),
    Kind("pp_error", "Expected error of the pulse-to-pulse interval", None, None, "ms"),
    Kind("skin_temperature", "Skin temperature", "39106-0", Mdc("MDC_TEMP_SKIN", 150388), "Cel"),
    Kind("sensor_temperature", "Temperature of the sensor", None, None, "Cel"),
    Kind("air_pressure", "Air pressure", None, None, "hPa"),
    Kind("sensor_clock", "Sensor's clock", None, None, ""),
    Kind("stream_stopped", "Measurement that the sensor stopped", None, None, ""),
    Kind("stream_trouble", "Trouble with a measurement of the sensor", None, None, ""),
    Kind("offered_measurement", "Measurement that the sensor offers", None, None, ""),
    Kind("offered_sample_rate", "Sample rate that the sensor offers", None, None, "Hz"),
    Kind("offered_resolution", "Resolution that the sensor offers", None, None, "bit"),
    Kind("offered_range", "Range that the sensor offers, in the unit of the measurement", None, None, ""),
    Kind("offered_range_milliunits", "Range that the sensor offers, in thousandths of the unit", None, None, ""),
    Kind("offered_channels", "Number of channels that the sensor offers", None, None, ""),
    Kind("conversion_factor", "Factor from samples to units", None, None, ""),
    Kind("control_request", "Request that the sensor answered", None, None, ""),
    Kind("control_measurement", "Measurement of the answered request", None, None, ""),
    Kind("control_status", "Sensor's answer", None, None, ""),
    Kind("control_more", "Whether the sensor's answer continues", None, None, ""),
    Kind("control_parameters", "Parameters of the sensor's answer, hexadecimal", None, None, ""),
)

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _ALL}
"""Every kind a driver may yield, by name."""


def is_continuous(kind: str) -> bool:
    """Whether a sensor may measure a vital sign of this kind by itself, over and over. A kind that is not known is not."""
    return kind in KINDS and not KINDS[kind].is_spot and not KINDS[kind].is_waveform
