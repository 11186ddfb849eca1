"""The command line of `pulsegate`: its commands, their arguments and their help. Imports none of the code that they run."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from config.argument_types import parse_time
from config.terminal import escape_controls
from config.version import VERSION
from gateway.argument_types import parse_port, parse_positive_seconds
from gateway.recording_arguments import (
    add_decode_arguments,
    add_evaluate_arguments,
    add_radio,
    add_record_arguments,
    add_replay_arguments,
)

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

HUB_KEY_PLACES: Final = ("file", "credential", "passphrase")
"""`gateway.hub_key.Place`."""

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


def _add_renew_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hub-key-stdin",
        action="store_true",
        help="read the hub key (32 bytes) from standard input; the agent gives it to its own renewals",
    )
    _add_config(parser)


def _add_keys_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list the keys of this hub; no secret is printed")
    listing.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    rotate = actions.add_parser("rotate", help="seal with a new data key from now on, also while the agent runs")
    move = actions.add_parser("move", help="change where the hub key lies; the agent must not run meanwhile")
    move.add_argument(
        "place", choices=HUB_KEY_PLACES, help="a plain file, or the file sealed under a systemd credential or passphrase"
    )
    for parser_of_action in (listing, rotate, move):
        _add_config(parser_of_action)


def _add_erase_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--everything", action="store_true", required=True, help="say that you mean everything")
    _add_config(parser)


def _add_scan_arguments(parser: argparse.ArgumentParser) -> None:
    add_radio(parser)
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


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="settings file (default: %(default)s)")


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
        _add_renew_arguments,
    ),
    _Command(
        "keys",
        "list this hub's keys, change the data key, or move the hub key",
        "Lists the keys of this hub with purpose, place and life; lets the agent change to a new data key; or changes where"
        " the hub key lies. docs/keys.md explains every key.",
        _add_keys_arguments,
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
        add_record_arguments,
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
        add_decode_arguments,
    ),
    _Command(
        "evaluate",
        "score the models on annotated recordings",
        "Scores the QRS detector and the models by the rules of EC57 and of the CinC Challenge 2017. "
        "docs/evaluation.md explains the results.",
        add_evaluate_arguments,
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
