"""The `pulsegate` command. Exit status 0, 1 or 2: done, failed, bad usage; a failure is one line that says what to do."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from captures import RecordingError
from config.origin import OriginError, check_origin
from config.process import leaf_errors, watching_stdin
from config.settings import SettingsError, load
from gateway.clock import SystemClock
from gateway.radio import RadioError
from models.inference.session import ModelError
from sync.errors import SyncError

DEFAULT_CONFIG: Final = Path("/etc/pulsegate/pulsegate.toml")
DEFAULT_PORT: Final = 8600

NOT_A_DEVICE: Final = "pulsegate is not a certified medical device: never rely on it for diagnosis or in an emergency."


class CommandError(Exception):
    """A command cannot do what it was asked to. The message says why and what to do."""


EXPECTED: Final = (CommandError, SyncError, SettingsError, OriginError, RadioError, RecordingError)

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("bumble", "bleak", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        check_origin()
        return command(arguments)
    except KeyboardInterrupt:
        return 130
    except EXPECTED as error:
        return _failed(error)
    except ExceptionGroup as group:
        expected, other = group.split(EXPECTED)
        if expected is None or other is not None:
            raise
        return _failed(leaf_errors(expected)[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pulsegate", description="The agent on a cardiac patient's hub.", epilog=NOT_A_DEVICE)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="run the agent", description="Connects the sensors and brings their readings to the clinic."
    )
    run.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="settings file (default: %(default)s)")
    run.add_argument("--watch-stdin", action="store_true", help="end when standard input ends, as it does when the parent dies")
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="what the agent is doing", description="Prints the agent's counters as JSON.")
    status.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="settings file (default: %(default)s)")
    status.set_defaults(command=_status)

    scan = commands.add_parser("scan", help="list the sensors in range", description="Lists what advertises nearby.")
    scan.add_argument("--radio", default="bluetooth", help='"bluetooth" or "virtual:SOCKET" (default: %(default)s)')
    scan.add_argument("--seconds", type=_positive, default=10.0, help="how long to listen (default: %(default)s)")
    scan.set_defaults(command=_scan)

    record = commands.add_parser("record", help="write what a sensor sends into a file", description=_RECORD)
    record.add_argument("file", type=Path, help="new capture file; it holds measurements in clear")
    record.add_argument("--name", required=True, help="the start of the sensor's advertised name, as pulsegate scan shows it")
    record.add_argument("--radio", default="bluetooth", help='"bluetooth" or "virtual:SOCKET" (default: %(default)s)')
    record.add_argument("--seconds", type=_positive, default=60.0, help="how long to record (default: %(default)s)")
    record.set_defaults(command=_record)

    demo = commands.add_parser(
        "demo",
        help="virtual watch, agent and clinic on this machine",
        description="A virtual chest strap plays a published script.",
    )
    demo.add_argument("--seconds", type=_positive, help="end after so many seconds of the script, and check what was found")
    demo.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port of the clinician's page (default: %(default)s)")
    demo.add_argument("--record", type=Path, metavar="FILE", help="play this WFDB or CSV recording in place of the script")
    demo.add_argument("--json", type=Path, metavar="FILE", help="write counters and alerts there at the end")
    demo.add_argument("--data", type=Path, metavar="DIR", help="keep all data in this folder (default: a temporary one)")
    demo.set_defaults(command=_demo)

    simulate = commands.add_parser("simulate", help="a virtual strap to scan for, record and run with", description=_SIMULATE)
    simulate.add_argument("folder", type=Path, help="folder for the virtual radio's socket and the strap's journal")
    simulate.add_argument("--record", type=Path, metavar="FILE", help="play this WFDB or CSV recording in place of the script")
    simulate.set_defaults(command=_simulate)

    replay = commands.add_parser("replay", help="run recordings through the agent's pipeline", description=_REPLAY)
    _add_replay_arguments(replay)
    replay.set_defaults(command=_replay)

    evaluate = commands.add_parser("evaluate", help="score the models on annotated recordings", description=_EVALUATE)
    _add_evaluate_arguments(evaluate)
    evaluate.set_defaults(command=_evaluate)
    return parser


_RECORD: Final = "Records one sensor byte for byte, for pulsegate replay."
_SIMULATE: Final = "Plays the demo's script, or a recording, as a virtual chest strap on a virtual radio."
_REPLAY: Final = "Runs WFDB, CSV and pulsegate capture files through the same pipeline as live sensors, as fast as it goes."
_EVALUATE: Final = (
    "Scores detector and models by the rules of EC57 and the CinC Challenge 2017; docs/evaluation.md says how to read it."
)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: give a number from 0 (a free one) to 65535")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    from gateway.app import Agent, mqtt_carrier
    from gateway.models import load_models
    from gateway.radio import open_radio

    settings = load(arguments.config, os.environ)
    agent = Agent(settings, SystemClock(), open_radio, mqtt_carrier, load_models(settings.data))

    async def until_stopped() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        with watching_stdin(stop.set) if arguments.watch_stdin else contextlib.nullcontext():
            await agent.run(stop)

    asyncio.run(until_stopped())
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from gateway.app import STALE_STATUSES, STATUS_S, status_of

    settings = load(arguments.config, os.environ)
    try:
        status = status_of(settings.data)
    except (OSError, ValueError) as error:
        raise CommandError(f"the agent has never run with {settings.data}: start it with pulsegate run ({error})") from error
    print(json.dumps(dict(status), indent=1))
    age_s = (SystemClock().wall_us() - status["at_us"]) / 1e6
    if age_s > STALE_STATUSES * STATUS_S:
        raise CommandError(f"this was {age_s:.0f} s ago, the agent does not run any more: start it with pulsegate run")
    return 0


def _scan(arguments: argparse.Namespace) -> int:
    from gateway.radio import open_radio

    async def scan() -> None:
        async with open_radio(arguments.radio) as radio:
            for device, advertisement in await radio.scan(arguments.seconds):
                name = advertisement.local_name or device.name or "(no name)"
                print(f"{device.address}  {advertisement.rssi:>4} dBm  {name}")

    asyncio.run(scan())
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from config.settings import SensorSettings
    from drivers.registry import load_drivers
    from gateway.radio import open_radio
    from gateway.replay.record import record

    async def run() -> int:
        sensor = SensorSettings("recorded", advertised_name=arguments.name)
        async with open_radio(arguments.radio) as radio:
            return await record(sensor, radio, load_drivers(), SystemClock(), arguments.file, arguments.seconds)

    try:
        payloads = asyncio.run(run())
    except OSError as error:
        raise CommandError(f"cannot write {arguments.file} ({error.strerror}): name a new file in a folder of yours") from error
    if not payloads:
        raise CommandError(f"no sensor named {arguments.name} was heard: is it worn, near, and not connected elsewhere?")
    print(f"{payloads} payloads in {arguments.file}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from gateway.simulate.demo import DemoOptions, run_demo
    except ImportError as error:
        raise CommandError(f"the demo needs the extras sim and clinic ({error.name} is missing): run make setup") from error
    options = DemoOptions(arguments.seconds, arguments.port, arguments.record, arguments.json, data=arguments.data)
    return run_demo(options)


def _simulate(arguments: argparse.Namespace) -> int:
    try:
        from gateway.simulate.alone import start
        from gateway.simulate.heart import from_script
        from gateway.simulate.script import load_script
        from gateway.simulate.strap import heart_of
    except ImportError as error:
        raise CommandError(f"the simulator needs the extra sim ({error.name} is missing): run make setup") from error
    heart = heart_of(arguments.record) if arguments.record else from_script(load_script("demo"))
    try:
        start(arguments.folder, heart)
    except OSError as error:
        raise CommandError(f"cannot use {arguments.folder} ({error.strerror}): name a folder of yours") from error
    return 0


def _add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    from gateway.replay.run import add_arguments

    add_arguments(parser)


def _replay(arguments: argparse.Namespace) -> int:
    from gateway.replay.run import replay

    return replay(arguments)


def _add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=("qrs", "beats", "rhythm", "rr-af", "pulse"), help="what to score")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the databases, or of records")
    parser.add_argument(
        "--precision",
        choices=("int8", "fp32"),
        default="int8",
        help="the released models, or the float ones that make train left",
    )
    ladders = parser.add_argument_group("ladders (qrs, beats, rhythm)")
    ladders.add_argument("--noise", action="store_true", help="also with noise at 24 to -6 dB")
    ladders.add_argument(
        "--noise-data", type=Path, metavar="DIR", help="with BW.mat, EM.mat, MA.mat (default: noise in or beside DATA)"
    )
    ladders.add_argument("--drop", action="store_true", help="also with 1 to 20 %% of the packets lost")
    ladders.add_argument("--fs", action="store_true", help="also at other sampling rates")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every figure, not tables")


def _evaluate(arguments: argparse.Namespace) -> int:
    from evaluation.command import evaluate
    from evaluation.records import EvaluationError

    try:
        return evaluate(arguments)
    except (EvaluationError, ModelError) as error:
        raise CommandError(str(error)) from error


def _failed(error: BaseException) -> int:
    print(f"pulsegate: {' '.join(str(error).split())}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
