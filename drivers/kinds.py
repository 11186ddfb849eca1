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
    an oximeter measures, because that may be continuous too: there, a reading with an origin was measured on demand.
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
    Kind("height", "Body height", "8302-2", Mdc("MDC_LEN_BODY_ACTUAL", 188740), "m", is_spot=True),
    Kind("bmi", "Body mass index", "39156-5", Mdc("MDC_RATIO_MASS_BODY_LEN_SQ", 188752), "kg/m2", is_spot=True),
    Kind("body_fat", "Percentage of body fat", "41982-0", Mdc("MDC_BODY_FAT", 188748), "%", is_spot=True),
    Kind("basal_metabolism", "Basal metabolism in a day", None, None, "kJ", is_spot=True),
    Kind("muscle_percentage", "Percentage of muscle", None, None, "%", is_spot=True),
    Kind("muscle_mass", "Muscle mass", "73964-9", None, "kg", is_spot=True),
    Kind("fat_free_mass", "Fat-free mass", None, Mdc("MDC_MASS_BODY_FAT_FREE", 188756), "kg", is_spot=True),
    Kind("soft_lean_mass", "Soft lean mass", None, Mdc("MDC_MASS_BODY_SOFT_LEAN", 188760), "kg", is_spot=True),
    Kind("body_water_mass", "Body water mass", None, Mdc("MDC_BODY_WATER", 188764), "kg", is_spot=True),
    Kind("impedance", "Impedance of the body", None, None, "Ohm", is_spot=True),
    Kind("heart_rate_fast", "Heart rate, fast average of a broadcast", None, None, "/min"),
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
    # The FHIR guide for personal health devices gives the pulse of a cuff the general LOINC code of the heart rate.
    Kind("pulse_rate_cuff", "Pulse rate by cuff", "8867-4", Mdc("MDC_PULS_RATE_NON_INV", 149546), "/min", is_spot=True),
    Kind("cuff_pressure", "Pressure in the cuff", None, Mdc("MDC_PRESS_CUFF", 150300), "mm[Hg]"),
    Kind("cuff_pressure_details", "Pressure in the cuff: time, pulse rate and user", None, None, ""),
    Kind("cuff_status", "Status of a blood pressure measurement without a result", None, None, ""),
    Kind("blood_pressure_status", "Blood pressure status with reserved bits", None, None, ""),
    Kind("blood_pressure_flags", "Blood pressure flags with reserved bits", None, None, ""),
    Kind("blood_pressure_feature", "Blood pressure features", None, None, ""),
    Kind("blood_pressure_record", "Segment of a stored blood pressure", None, None, ""),
    Kind("temperature_intermediate", "Body temperature, not final", None, None, "Cel"),
    Kind("temperature_intermediate_details", "Body temperature, not final: time and site", None, None, ""),
    Kind("temperature_site", "Site of the temperature", None, None, ""),
    Kind("measurement_interval", "Interval of the measurements", None, None, "s"),
    Kind("sensor_time", "Sensor's clock", None, None, ""),
    Kind("sensor_clock_offset_s", "Sensor's clock minus the hub's", None, None, "s"),
    Kind("sensor_clock_written", "Sensor's clock was set by the hub", None, None, ""),
    Kind("system_id", "System ID (EUI-64)", None, Mdc("MDC_ATTR_SYS_ID", 67972), ""),
    # The fast and the slow averages have no codes of their own: those of SpO2 and pulse rate mean the normal average.
    Kind("spo2_fast", "Oxygen saturation, fast average", None, None, "%"),
    Kind("spo2_slow", "Oxygen saturation, slow average", None, None, "%"),
    Kind("pulse_rate_fast", "Pulse rate, fast average", None, None, "/min"),
    Kind("pulse_rate_slow", "Pulse rate, slow average", None, None, "/min"),
    Kind("pulse_amplitude", "Pulse amplitude index", None, Mdc("MDC_SAT_O2_QUAL", 150320), "%"),
    Kind("no_signal", "Continuous measurement without a signal", None, None, ""),
    Kind("oximeter_status", "Status of a measurement without a result", None, None, ""),
    Kind("oximeter_features", "Oximeter: features", None, None, ""),
    Kind("oximeter_measurement_status_supported", "Oximeter: measurement status that it can report", None, None, ""),
    Kind("oximeter_device_status_supported", "Oximeter: device status that it can report", None, None, ""),
    Kind("record_access", "Access to stored records", None, None, ""),
    Kind("sensor_time_fraction_256", "Sensor's clock: fraction of the second in 1/256 s", None, None, ""),
    Kind("sensor_time_weekday", "Sensor's clock: day of the week, 1 is Monday", None, None, ""),
    Kind("sensor_time_adjusted", "Sensor's clock: why it was last adjusted", None, None, ""),
    Kind("sensor_utc_offset", "Sensor's time zone: standard time minus UTC", None, None, "min"),
    Kind("sensor_dst_offset", "Sensor's daylight saving time", None, None, "min"),
    Kind("placeholder", "Result without measured values", None, None, ""),
    Kind("features", "Features of the sensor", None, None, ""),
    Kind("weight_resolution", "Resolution of weights and masses", None, None, ""),
    Kind("height_resolution", "Resolution of heights", None, None, ""),
    Kind("user_control", "User control point of a scale", None, None, ""),
    Kind("user_index", "Current user of a scale", None, None, ""),
    Kind("change_increment", "Change counter of the user data", None, None, ""),
    Kind("date_of_birth", "Date of birth of a scale's user", None, None, ""),
    Kind("gender", "Gender of a scale's user", None, None, ""),
    Kind("broadcast_frame", "Counter and state of a broadcast heart rate", None, None, ""),
    Kind("pnp_id", "Numbers of vendor, product and version (PnP ID)", None, None, ""),
    Kind("sensor_time_reference", "Sensor's clock: where its time comes from", None, None, ""),
    Kind("system_id_filler", "System ID, a pattern that identifies nothing", None, None, ""),
    Kind("rr_padding", "R-R interval of 0, padding of the frame", None, None, "ms"),
    Kind("rr_implausible", "R-R interval outside 0.2 to 4 s", None, None, "ms"),
    Kind("steps", "Steps", "55423-8", None, "{steps}"),
    Kind("motion_x", "Motion of the wearer, x", None, None, "[g]"),
    Kind("motion_y", "Motion of the wearer, y", None, None, "[g]"),
    Kind("motion_z", "Motion of the wearer, z", None, None, "[g]"),
    *(Kind(f"acc_{axis}", f"Acceleration, {axis} axis", None, None, "m[g]", is_waveform=True) for axis in "xyz"),
    *(Kind(f"gyro_{axis}", f"Angular rate, {axis} axis", None, None, "deg/s", is_waveform=True) for axis in "xyz"),
    *(Kind(f"mag_{axis}", f"Magnetic field, {axis} axis", None, None, "G", is_waveform=True) for axis in "xyz"),
    Kind("unidentified_x", "Signal of an unknown quantity, x", None, None, "", is_waveform=True),
    Kind("unidentified_y", "Signal of an unknown quantity, y", None, None, "", is_waveform=True),
    Kind("unidentified_z", "Signal of an unknown quantity, z", None, None, "", is_waveform=True),
    Kind("refused_stream", "Stream that the sensor refuses", None, None, ""),
    Kind("foreign_subscription", "Subscription of another client, by its reference", None, None, ""),
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
_CONTINUOUS: Final = frozenset(kind.name for kind in _ALL if not kind.is_spot and not kind.is_waveform)

NOT_MEASURED: Final = frozenset(
    {"implausible", "no_pulse_found", "demonstration", "testing", "calibration_ongoing", "unavailable", "invalid"}
)
"""Flags of a number that is no measurement of a person: nobody has this value, there was no pulse to count, or the sensor says
so. It is stored and sent, but no alarm, no figure and no display takes it for a value."""


def unit_of(kind: str) -> str:
    """The UCUM unit of a kind; "" for one without a unit, or that is not known."""
    return KINDS[kind].ucum if kind in KINDS else ""


def is_continuous(kind: str) -> bool:
    """Whether a sensor may measure a vital sign of this kind by itself, over and over. A kind that is not known is not."""
    return kind in _CONTINUOUS
