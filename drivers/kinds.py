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
)

KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _ALL}
"""Every kind a driver may yield, by name."""


def is_continuous(kind: str) -> bool:
    """Whether a sensor may measure a vital sign of this kind by itself, over and over. A kind that is not known is not."""
    return kind in KINDS and not KINDS[kind].is_spot and not KINDS[kind].is_waveform
