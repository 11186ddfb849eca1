"""The arguments of the commands that write, replay, decode and score recordings."""

import argparse
from pathlib import Path

from gateway.argument_types import parse_positive_seconds, parse_rate, parse_speed


def add_radio(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--radio", default="bluetooth", help='"bluetooth", "bluetooth:hci1" or "virtual:SOCKET" (default: %(default)s)'
    )


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="new capture file; it contains unencrypted measurements")
    parser.add_argument(
        "--name",
        required=True,
        help="the beginning of the sensor's advertised name, as shown by pulsegate scan, or its address, with which a paired"
        " sensor is recorded through its pairing",
    )
    add_radio(parser)
    parser.add_argument(
        "--seconds", type=parse_positive_seconds, default=60.0, help="duration of the recording (default: %(default)s)"
    )
    parser.add_argument(
        "--btsnoop", action="store_true", help="write a btsnoop file, which Wireshark opens, instead of pulsegate's own format"
    )


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
    parser.add_argument(
        "--context",
        dest="contexts",
        action="append",
        default=[],
        metavar="NAME",
        help="what is known of the heart, as in the settings: known_af, paced, bundle_branch_block or age_years=71",
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


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=("qrs", "beats", "rhythm", "rr-af", "pulse", "alerts"), help="what to score")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder that contains the databases or the records"
    )
    parser.add_argument(
        "--precision",
        choices=("int8", "fp32"),
        default="int8",
        help="the released models (int8), or the float models written by make train (fp32); default: %(default)s",
    )
    robustness = parser.add_argument_group("robustness (qrs, beats, rhythm; alerts: --noise)")
    robustness.add_argument(
        "--noise",
        action="store_true",
        help="also score with noise at 24 to -6 dB (alerts: moving electrodes and muscles, 0 and -6)",
    )
    robustness.add_argument(
        "--noise-data",
        type=Path,
        metavar="DIR",
        help="folder with BW.mat, EM.mat and MA.mat (default: the folder noise inside or next to the --data folder)",
    )
    parser.add_argument(
        "--models",
        type=Path,
        metavar="DIR",
        help="alerts and rr-af: models of a cross-validation, folds.json and a folder for each fold",
    )
    robustness.add_argument("--drop", action="store_true", help="also score with 1 to 20 %% of the packets lost")
    robustness.add_argument("--fs", action="store_true", help="also score at other sampling rates")
    alerts = parser.add_argument_group("alerts")
    alerts.add_argument(
        "--databases", nargs="+", default=[], metavar="NAME", help="only these folders in the --data folder, such as cudb vfdb"
    )
    alerts.add_argument(
        "--strips", type=Path, metavar="DIR", help="draw each high alert outside the marked episodes as an SVG in this folder"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with every figure instead of tables")


def add_decode_arguments(parser: argparse.ArgumentParser) -> None:
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
