"""The commented settings file that `pulsegate init` writes: every setting, with its environment variable and its meaning."""

import json
import re
import secrets
from collections.abc import Mapping
from typing import Final

_SAMPLE: Final = """\
# Settings of the pulsegate agent. An environment variable, where one is named, takes precedence over the line.
# Relative paths of `data` and `registration` begin at this file's folder.
#
# To set up this hub: run `pulsegate enroll` with a code of the clinic, edit this file, and run `pulsegate check-config`. For a
# clinic on this computer: edit this file, run `pulsegate identity`, register the file that it names there with
# `pulsegate-cloud register`, and bring the file that this writes to `registration` below.

hub = "hub-{hub}"             # PULSEGATE_HUB: the name of this device, different from every other hub of the clinic
subject = "subject-{subject}"     # PULSEGATE_SUBJECT: the patient's pseudonym, never a name; the clinic must have registered it
data = "/var/lib/pulsegate"       # PULSEGATE_DATA: folder of the buffer, the keys and the status file
radio = "bluetooth"               # PULSEGATE_RADIO: "bluetooth", "bluetooth:hci1" (a certain adapter) or "virtual:SOCKET"
#                                   A list, as ["bluetooth:hci0", "bluetooth:hci1"]: the next is used while the first is gone
upload = "evidence"               # waveforms that are sent: "all", "evidence" (alerts, and a strip an hour) or "none" (alerts)
#                                   The others stay on this hub for a week

[clinic]
host = "127.0.0.1"                # PULSEGATE_CLINIC_HOST: the MQTT broker; without `identity` only 127.0.0.1 or ::1
port = 1883                       # PULSEGATE_CLINIC_PORT: the broker's port
registration = "registration.toml"   # PULSEGATE_CLINIC_REGISTRATION: the file that the clinic wrote for this hub
# identity = "identity"           # PULSEGATE_CLINIC_IDENTITY: folder of the certificate for TLS, which pulsegate enroll writes
# region = "DE"                   # PULSEGATE_CLINIC_REGION: the clinic's country, in the EU or the EEA; others are refused

# One [[sensor]] table for each sensor. `pulsegate scan` lists the sensors in range, `pulsegate pair` pairs one with this hub.
[[sensor]]
name = "strap"                    # your name for the sensor, shown in logs and on pages
advertised_name = "Polar H10"     # the beginning of the name that the sensor advertises
# address = "A0:9E:1A:00:00:01"   # or, in place of advertised_name, its Bluetooth address
# broadcast = true                # a scale or band that only advertises its values: the hub listens and never connects
# user = 1                        # the patient's number at a cuff or scale that has users; other results are dropped
# consent_code_file = "scale.code"  # a file of yours alone (chmod 600) with the code that the scale shows for this user

# Servers beside the clinic's that this hub may connect to, for "mail", "object-storage" or "error-reports"; others are refused.
# [[endpoint]]
# use = "error-reports"
# host = "reports.clinic.example"
# port = 443
# region = "DE"

# Limits for this patient, where they differ from the defaults. config/*_limits.py list all of them, with units and sources.
# [limits]
# tachycardia_rate = 140          # beats a minute

# What is known of this patient's heart, so that the same signal is judged as it must be. What is absent is not known.
# [contexts]
# known_af = true                 # atrial fibrillation is known
# paced = true                    # the patient has a pacemaker
# bundle_branch_block = true      # wide QRS complexes are known to be conducted
# age_years = 71                  # from 0 to 130
"""


def make_sample() -> str:
    """Return the settings with a random hub and subject, so that no two patients share the names of a sample."""
    return _SAMPLE.format(hub=secrets.token_hex(4), subject=secrets.token_hex(4))


def fill_sample(values: Mapping[str, str | int]) -> str:
    """Return the sample with values of hub, subject and clinic: the first line of each name gets its value."""
    text = make_sample()
    for name, value in values.items():
        begin, end = next(re.finditer(rf"^(# )?{name} = \S+", text, re.MULTILINE)).span()
        text = f"{text[:begin]}{name} = {format_value(value)}{text[end:]}"
    return text


def format_value(value: str | int) -> str:
    """Return a value as TOML writes it."""
    return str(value) if isinstance(value, int) else json.dumps(value)
