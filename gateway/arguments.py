"""The command line of `pulsegate`: its commands, their arguments and their help. Imports none of the code that they run."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from config.argument_types import parse_time
from config.terminal import escape_controls
from config.version import VERSION
from gateway.argument_types import parse_port, parse_positive_seconds, parse_rate, parse_speed

DEFAULT_CONFIG: Final = Path("/etc/pulsegate/pulsegate.toml")
DEFAULT_PORT: Final = 8600
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
SIMULATED: Final = (
    "strap",
    "cuff",
    "cuff-and",
    "cuff-medisana",
    "oximeter",
    "scale",
    "scale-broadcast",
    "thermometer",
    "watch",
    "armband",
    "heart-rate",
    "movesense",
)
"""The sensors of `pulsegate simulate`: `strap`, and those of `gateway.simulate.families`."""

NOT_A_DEVICE: Final = "pulsegate is not a certified medical device: never rely on it for diagnosis or in an emergency."


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="info",
        help="the least important messages to log; info: every change of state (default: %(default)s)",
    )
    parser.add_argument(
        "--watch-stdin", action="store_true", help="stop when standard input ends (the parent process has exited)"
    )


def _add_status_arguments(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _add_persons_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("answer", nargs="?", choices=("list", "yes", "no"), default="list", help="default: %(default)s")
    parser.add_argument("id", nargs="?", metavar="ID", help="the result, as pulsegate persons lists it")
    _add_config(parser)


def _add_consent_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=("show", "withdraw"),
        default="show",
        help="print what holds now, or withdraw it (default: show)",
    )
    _add_config(parser)


def _add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("verify", "show"), help="check the whole log, or print its rows, oldest first")
    parser.add_argument("--subject", metavar="NAME", help="show only rows about this patient's pseudonym")
    parser.add_argument(
        "--since", type=parse_time, metavar="TIME", help="show only rows since then, such as 2026-11-30T08:00:00Z"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: one object, or one a row")
    _add_config(parser)


def _add_backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write; an existing one is replaced")
    _add_config(parser)


def _add_init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="new settings file (default: %(default)s)")


def _add_enroll_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "code",
        nargs="?",
        metavar="CODE",
        help="the clinic's code. Without it, or with -, it is asked for: other users of this machine see arguments",
    )
    _add_config(parser)


def _add_erase_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--everything", action="store_true", required=True, help="say that you mean everything")
    _add_config(parser)


def _add_scan_arguments(parser: argparse.ArgumentParser) -> None:
    _add_radio(parser)
    parser.add_argument(
        "--seconds", type=parse_positive_seconds, default=10.0, help="duration of the scan (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list at the end instead of a table")


def _add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "sensor",
        nargs="?",
        metavar="ADDRESS|NAME",
        help="address, beginning of the advertised name, or name in the settings; without it, choose from a list",
    )
    chosen.add_argument("--list", action="store_true", help="list the bonds and the sensors in the settings that have them")
    chosen.add_argument("--remove", metavar="ADDRESS|NAME", help="remove the bond of a sensor")
    _add_config(parser)


def _add_record_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="new capture file; it contains unencrypted measurements")
    parser.add_argument(
        "--name",
        required=True,
        help="the beginning of the sensor's advertised name, as shown by pulsegate scan, or its address, with which a paired"
        " sensor is recorded through its pairing",
    )
    _add_radio(parser)
    parser.add_argument(
        "--seconds", type=parse_positive_seconds, default=60.0, help="duration of the recording (default: %(default)s)"
    )
    parser.add_argument(
        "--btsnoop", action="store_true", help="write a btsnoop file, which Wireshark opens, instead of pulsegate's own format"
    )


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seconds", type=parse_positive_seconds, help="stop after this many seconds of the script and check the results"
    )
    parser.add_argument(
        "--port", type=parse_port, default=DEFAULT_PORT, help="port of the clinician's page (default: %(default)s)"
    )
    _add_played_recording(parser)
    parser.add_argument("--home", action="store_true", help="add a cuff, an oximeter, a scale and a watch to the strap")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counters and alerts to this file at the end")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep all data in this folder (default: a temporary folder)")


def _add_simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sensors", nargs="+", choices=SIMULATED, metavar="SENSOR", help="one or more of " + ", ".join(SIMULATED)
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="folder for the virtual radio's socket (default: the first sensor's name)"
    )
    parser.add_argument(
        "--every",
        type=parse_positive_seconds,
        default=60.0,
        metavar="SECONDS",
        help="time between two measurements of a spot device (default: %(default)s)",
    )
    _add_played_recording(parser)


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=Path,
        help="recording (WFDB, EDF, CSV, JSON export), or capture (pulsegate, Bluetooth)",
    )
    parser.add_argument("--json", action="store_true", help="write JSON lines instead of a table")
    parser.add_argument(
        "--beats", action="store_true", help="with --json: also write each R peak, or each pulse of a pulse wave"
    )
    parser.add_argument(
        "--speed",
        type=parse_speed,
        default=None,
        metavar="max|X",
        help="replay at X times real time; max (default): as fast as possible",
    )
    parser.add_argument("--report", type=Path, metavar="OUT.html", help="write a report with trend, alerts and ECG strips")
    parser.add_argument("--force", action="store_true", help="replace an existing report without asking")
    parser.add_argument(
        "--as", dest="sensor", metavar="SENSOR", help="sensor name in the output, instead of the name in the file"
    )
    stated = parser.add_argument_group("what a file leaves open", "A note or an error says which of these a file needs.")
    stated.add_argument(
        "--signal", "--column", dest="signal", metavar="NAME|N", help="the signal or column to read, by name or number from 1"
    )
    stated.add_argument(
        "--unit", metavar="UNIT", help="unit of the samples: V, mV, uV, nV, or counts per millivolt such as 200/mV"
    )
    stated.add_argument(
        "--gatt", type=Path, metavar="MAP.json", help="characteristics by handle, for a Bluetooth capture without a discovery"
    )
    stated.add_argument("--rate", dest="rate_hz", type=parse_rate, metavar="HZ", help="samples per second")


def _add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=("qrs", "beats", "rhythm", "rr-af", "pulse"), help="what to score")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder that contains the databases or the records"
    )
    parser.add_argument(
        "--precision",
        choices=("int8", "fp32"),
        default="int8",
        help="the released models (int8), or the float models written by make train (fp32); default: %(default)s",
    )
    robustness = parser.add_argument_group("robustness (qrs, beats, rhythm)")
    robustness.add_argument("--noise", action="store_true", help="also score with noise at 24 to -6 dB")
    robustness.add_argument(
        "--noise-data",
        type=Path,
        metavar="DIR",
        help="folder with BW.mat, EM.mat and MA.mat (default: the folder noise inside or next to the --data folder)",
    )
    robustness.add_argument("--drop", action="store_true", help="also score with 1 to 20 %% of the packets lost")
    robustness.add_argument("--fs", action="store_true", help="also score at other sampling rates")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every figure instead of tables")


def _add_decode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("payload", metavar="HEX", help="the payload in hexadecimal digits")
    parser.add_argument(
        "--service", default="none", metavar="UUID", help="needed where several services have the characteristic"
    )
    parser.add_argument(
        "--characteristic",
        required=True,
        metavar="UUID",
        help='UUID of 4 digits (2A37), of 32, or its first 8; or "advertisement: service data UUID", "advertisement:'
        " manufacturer data COMPANY\"; the payload of the latter begins with the company's number",
    )
    parser.add_argument(
        "--model", default="", metavar="NAME", help="model number or advertised name, for the deviations of that model"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of a table")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="settings file (default: %(default)s)")


def _add_radio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--radio", default="bluetooth", help='"bluetooth", "bluetooth:hci1" or "virtual:SOCKET" (default: %(default)s)'
    )


def _add_played_recording(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="play this WFDB or CSV recording instead of the demo's script"
    )


class _Parser(argparse.ArgumentParser):
    """Reports bad usage in one line, as every other failure."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {escape_controls(message)}; see {self.prog} --help\n")


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]


_COMMANDS: Final = (
    _Command("run", "run the agent", "Connects to the sensors and sends their readings to the clinic.", _add_run_arguments),
    _Command(
        "status",
        "show what the agent is doing",
        "Shows the states and counters of the running agent. Exits with 1 if it is not running.",
        _add_status_arguments,
    ),
    _Command(
        "persons",
        "say whose a result is that may be another person's",
        "Lists the results that a shared cuff or scale may have measured on another person; they are not sent. With yes ID the "
        "result becomes the patient's; with no ID it is deleted.",
        _add_persons_arguments,
    ),
    _Command(
        "consent",
        "show or withdraw the patient's consent",
        "Shows whether the patient consents, or withdraws the consent: then no sensor is connected, nothing is stored or sent, "
        "and what was not sent is deleted. The clinic records it when the hub next reaches it; ask it to consent again.",
        _add_consent_arguments,
    ),
    _Command(
        "backup",
        "copy the buffer to a file, also while the agent runs",
        "Copies the buffer, sealed as it is; without hub.key nobody can open the copy. To restore: stop the agent, put FILE in "
        "place of buffer.db in the data folder, and delete buffer.db-wal and buffer.db-shm there.",
        _add_backup_arguments,
    ),
    _Command(
        "init",
        "write a commented settings file to edit",
        "Writes a commented settings file with random names for hub and patient. Never overwrites a file.",
        _add_init_arguments,
    ),
    _Command(
        "check-config",
        "check the settings without starting the agent",
        "Checks the settings file, the registration and the data folder as pulsegate run does. Changes nothing.",
        _add_config,
    ),
    _Command(
        "enroll",
        "enrol this hub at its clinic by a code",
        "Enrols this hub by a code of the clinic: creates its device key, which never leaves it, compares the clinic's root "
        "certificate with the code, and gets a certificate. Prints the settings to set, or writes them where there are none.",
        _add_enroll_arguments,
    ),
    _Command(
        "renew",
        "take a new certificate from the clinic",
        "Takes a new certificate and the time from the clinic, also if the present certificate has expired. The running agent "
        "does this by itself.",
        _add_config,
    ),
    _Command(
        "erase",
        "destroy everything that this hub holds",
        "Destroys the keys, the readings, the pairings and the certificate of this hub. It cannot be undone: readings that the "
        "clinic has not received are lost. Asks for the hub's name first. The agent must not run meanwhile.",
        _add_erase_arguments,
    ),
    _Command(
        "identity",
        "create this hub's key, and name the file to take to the clinic",
        "Creates the hub's device key unless it exists, and prints the path of its public key. Take that file to the clinic "
        "and register the hub by it: pulsegate-cloud register.",
        _add_config,
    ),
    _Command(
        "scan",
        "list the Bluetooth LE devices in range",
        "Lists every Bluetooth LE device that advertises in range: its address, signal, name and services, the driver that"
        " would serve it, and whether it is paired.",
        _add_scan_arguments,
    ),
    _Command(
        "pair",
        "pair a sensor with this hub, step by step",
        "Tells what to do at the sensor, pairs with it, proves the pairing by a second connection, and keeps its address, so"
        " that no other device of the same name is taken for it. The agent must not run meanwhile.",
        _add_pair_arguments,
    ),
    _Command(
        "doctor",
        "check what the agent needs of this machine",
        "Checks adapter, permissions, BlueZ, other pairing programs, broker, clock, disk, data folder, registration and models,"
        " and says what to do. Exits with 1 if a check failed. Changes nothing.",
        _add_status_arguments,
    ),
    _Command(
        "audit",
        "check or print the hub's audit log",
        "Checks that no row of the hub's audit log was changed, removed or inserted, or prints its rows. "
        "Exits with 1 if something was found. docs/audit-log.md explains the rows.",
        _add_audit_arguments,
    ),
    _Command(
        "record",
        "record a sensor's payloads to a file",
        "Records the payloads of one sensor byte for byte, for pulsegate replay.",
        _add_record_arguments,
    ),
    _Command(
        "demo",
        "run a virtual strap, the agent and the clinic on this machine",
        "Runs the agent and the clinic with a virtual chest strap that plays a scripted ECG.",
        _add_demo_arguments,
    ),
    _Command(
        "simulate",
        "run virtual sensors that scan, record and run can use",
        "Runs virtual sensors on a virtual radio. The strap plays the demo's script or a recording; the others measure now and "
        "then.",
        _add_simulate_arguments,
    ),
    _Command(
        "replay",
        "run recordings through the agent's pipeline",
        "Runs recorded files and captures through the same pipeline as live sensors, as fast as possible. "
        "docs/replay.md lists the formats.",
        add_replay_arguments,
    ),
    _Command(
        "decode",
        "decode one payload of a sensor",
        "Decodes one payload as the agent does and prints its readings. Exits with 1 if it cannot be decoded.",
        _add_decode_arguments,
    ),
    _Command(
        "evaluate",
        "score the models on annotated recordings",
        "Scores the QRS detector and the models by the rules of EC57 and of the CinC Challenge 2017. "
        "docs/evaluation.md explains the results.",
        _add_evaluate_arguments,
    ),
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` in its result is the name of the chosen one."""
    parser = _Parser(prog="pulsegate", description="The agent on a cardiac patient's hub.", epilog=NOT_A_DEVICE)
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_arguments(commands.add_parser(command.name, help=command.help, description=command.description))
    return parser
