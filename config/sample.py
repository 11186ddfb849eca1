"""The commented settings file that `pulsegate init` writes: every setting, with its environment variable and its meaning."""

import secrets
from typing import Final

_SAMPLE: Final = """\
# Settings of the pulsegate agent. Check them with: pulsegate check-config
# An environment variable, where one is named, takes precedence over the line. Relative paths begin at this file's folder.

hub = "hub-{hub}"             # PULSEGATE_HUB: the name of this device, different from every other hub of the clinic
subject = "subject-{subject}"     # PULSEGATE_SUBJECT: the patient's pseudonym, never a name
data = "/var/lib/pulsegate"       # PULSEGATE_DATA: folder of the buffer, the keys and the status file
radio = "bluetooth"               # PULSEGATE_RADIO: "bluetooth" or "virtual:SOCKET" (a simulated radio)

[clinic]
host = "127.0.0.1"                # PULSEGATE_CLINIC_HOST: the MQTT broker; this version allows only this machine
port = 1883                       # PULSEGATE_CLINIC_PORT
registration = "registration.toml"   # PULSEGATE_CLINIC_REGISTRATION: the clinic's keys, for which readings are encrypted.
# Take the file that `pulsegate identity` names to the clinic, and bring the file that `pulsegate-cloud register` writes there.

# One [[sensor]] table for each sensor. `pulsegate scan` lists the sensors in range.
[[sensor]]
name = "strap"                    # your name for the sensor, shown in logs and on pages
advertised_name = "Polar H10"     # the beginning of the name that the sensor advertises
# address = "A0:9E:1A:00:00:01"   # or, in place of advertised_name, its Bluetooth address

# Limits for this patient, where they differ from the defaults. config/limits.py lists all of them, with units and sources.
# [limits]
# tachycardia_rate = 140          # beats a minute
"""


def make_sample() -> str:
    """Return the settings with a random hub and subject, so that no two patients share the names of a sample."""
    return _SAMPLE.format(hub=secrets.token_hex(4), subject=secrets.token_hex(4))
