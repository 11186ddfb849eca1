"""The `pulsegate` command. Exit status: 0 done, 1 failed, 2 bad usage. A failure is reported in one line that says what to do.

Each command imports the code that it runs, so `--help` and `status` start without numpy and onnxruntime.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from config.origin import OriginError, check_package_folders
from config.program import protect_process
from config.settings import SettingsError, load_settings
from config.terminal import escape_controls, log_to_terminal
from gateway.arguments import build_parser
from gateway.errors import RadioError
from sync.errors import SyncError


class CommandError(Exception):
    """A command cannot do what it was asked to. The message says why and what to do."""


EXPECTED_ERRORS: Final = (CommandError, SyncError, SettingsError, OriginError, RadioError)
"""Errors whose message is meant for the user. Commands whose code raises others convert them to `CommandError`."""

log = logging.getLogger(__name__)


def run_program() -> int:
    """Runs the command of this process."""
    protect_process()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    arguments = build_parser().parse_args(argv)
    log_to_terminal(getattr(arguments, "log_level", "info"), dict.fromkeys(("bumble", "bleak", "asyncio"), "ERROR"))
    try:
        check_package_folders()
        return COMMANDS[arguments.command](arguments)
    except KeyboardInterrupt:
        return 130
    except EXPECTED_ERRORS as error:
        return _report_failure(error)
    except ExceptionGroup as group:
        from config.process import leaf_errors

        expected, other = group.split(EXPECTED_ERRORS)
        if expected is None or other is not None:
            raise
        return _report_failure(leaf_errors(expected)[0])


def _keep_files_private() -> None:
    """Let only the owner read what this process creates: the buffer, bonds, logs and journals, by whichever library."""
    os.umask(0o077)


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from config.process import watching_stdin
    from gateway.app import Agent, make_mqtt_transport
    from gateway.clock import SystemClock
    from gateway.enrolment.site_clock import Clocks, EnrolledHubClock, SiteClock
    from gateway.hub_key import unlock_hub_key
    from gateway.models import load_models
    from gateway.radio import open_radio
    from gateway.renewal import renew_by_process
    from gateway.startup import check_startup, load_agent_settings, prepare_data_folder

    settings = load_agent_settings(arguments.config, os.environ)
    hub_key = unlock_hub_key(settings.data)
    check_startup(settings, hub_key)
    _keep_files_private()
    prepare_data_folder(settings.data)
    models, identity = load_models(settings.data), settings.clinic.broker.identity
    clock = SystemClock() if identity is None else EnrolledHubClock(SiteClock(identity, Clocks.of_system()))
    renew = partial(renew_by_process, arguments.config, hub_key)
    make_transport = partial(make_mqtt_transport, hub_key=hub_key)
    agent = Agent(settings, clock, open_radio, make_transport, models, renew=renew, hub_key=hub_key)

    async def run_until_stopped() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        with watching_stdin(stop.set) if arguments.watch_stdin else contextlib.nullcontext():
            await agent.run(stop)

    asyncio.run(run_until_stopped())
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from gateway.clock import SystemClock
    from gateway.status import STALE_AFTER_S, read_status

    settings = load_settings(arguments.config, os.environ)
    try:
        status = read_status(settings.data)
    except FileNotFoundError as error:
        raise CommandError(
            f"there is no status in {settings.data}, the agent has never run there: start it with pulsegate run"
        ) from error
    except (OSError, ValueError) as error:
        raise CommandError(
            f"cannot read the status in {settings.data}: {error}; run pulsegate status as the agent's user"
        ) from error
    now_us = SystemClock().wall_us()
    if arguments.json:
        print(json.dumps(dict(status), indent=1))
    else:
        from rich.console import Console

        from gateway.status_table import make_status_table

        Console(highlight=False).print(make_status_table(status, now_us))
    age_s = (now_us - status["at_us"]) / 1e6
    if age_s > STALE_AFTER_S:
        raise CommandError(f"this status is {age_s:.0f} s old, the agent is not running: start it with pulsegate run")
    return 0


def _persons(arguments: argparse.Namespace) -> int:
    from gateway.persons import describe, leave_answer, read_questions

    settings = load_settings(arguments.config, os.environ)
    questions = read_questions(settings.data, settings.subject)
    if arguments.answer == "list":
        print("\n".join(map(describe, questions)) or "no result waits for an answer")
        return 0
    if arguments.id not in {question.held.id for question in questions}:
        raise CommandError(f"no result {arguments.id or ''} waits for an answer: give an ID that pulsegate persons lists")
    leave_answer(settings.data, arguments.id, is_patient=arguments.answer == "yes")
    print("the agent carries this out within seconds if it is running, otherwise after its next start")
    return 0


def _consent(arguments: argparse.Namespace) -> int:
    from gateway.commands.consent import consent

    return consent(load_settings(arguments.config, os.environ), arguments.action)


def _backup(arguments: argparse.Namespace) -> int:
    from sync.outbox.backup import back_up

    settings = load_settings(arguments.config, os.environ)
    size = back_up(settings.data / "buffer.db", arguments.file)
    print(f"{size} bytes written to {arguments.file}; it can be opened only with {settings.data / 'hub.key'}: keep that apart")
    return 0


def _init(arguments: argparse.Namespace) -> int:
    from config.files import create_private_file
    from config.sample import make_sample

    path: Path = arguments.config
    try:
        create_private_file(path, make_sample())
    except OSError as error:
        if path.exists():
            raise CommandError(
                f"{path} exists and is not overwritten: edit it, or choose another file with --config"
            ) from error
        raise CommandError(
            f"cannot write {path} ({error.strerror}): choose a file in a folder that you can write to with --config"
        ) from error
    print(f"settings written to {path}: edit them, then run pulsegate identity --config {path}")
    return 0


def _check_config(arguments: argparse.Namespace) -> int:
    from gateway.hub_key import unlock_hub_key
    from gateway.startup import check_startup

    settings = load_settings(arguments.config, os.environ)
    check_startup(settings, unlock_hub_key(settings.data))
    sensors = ", ".join(sensor.name for sensor in settings.sensors)
    print(f"{arguments.config} is valid: hub {settings.hub}, data folder {settings.data}, sensors {sensors}")
    return 0


def _identity(arguments: argparse.Namespace) -> int:
    from gateway.commands.identity import run_identity

    _keep_files_private()
    return run_identity(load_settings(arguments.config, os.environ))


def _audit(arguments: argparse.Namespace) -> int:
    from gateway.commands.audit import audit

    return audit(load_settings(arguments.config, os.environ), arguments)


def _enroll(arguments: argparse.Namespace) -> int:
    from gateway.commands.enroll import run_enroll

    _keep_files_private()
    return run_enroll(arguments.config, arguments.code, os.environ)


def _renew(arguments: argparse.Namespace) -> int:
    from gateway.commands.enroll import run_renew
    from gateway.hub_key import read_hub_key, unlock_hub_key

    _keep_files_private()
    settings = load_settings(arguments.config, os.environ)
    hub_key = read_hub_key(sys.stdin.buffer) if arguments.hub_key_stdin else unlock_hub_key(settings.data)
    return run_renew(settings, hub_key)


def _keys(arguments: argparse.Namespace) -> int:
    from gateway.commands.keys import run_keys

    _keep_files_private()
    return run_keys(load_settings(arguments.config, os.environ), arguments)


def _erase(arguments: argparse.Namespace) -> int:
    from gateway.commands.erase import erase_everything

    return erase_everything(load_settings(arguments.config, os.environ), input)


def _scan(arguments: argparse.Namespace) -> int:
    from gateway.commands.scan import scan

    return scan(arguments.radio, arguments.seconds, as_json=arguments.json)


def _pair(arguments: argparse.Namespace) -> int:
    from gateway.commands.pair import PairError, pair
    from gateway.startup import check_data_folder, prepare_data_folder

    settings = load_settings(arguments.config, os.environ)
    check_data_folder(settings.data)
    _keep_files_private()
    prepare_data_folder(settings.data)
    try:
        return pair(settings, arguments.sensor, is_list=arguments.list, removed=arguments.remove)
    except PairError as error:
        raise CommandError(str(error)) from error


def _doctor(arguments: argparse.Namespace) -> int:
    from gateway.commands.doctor import doctor

    return doctor(load_settings(arguments.config, os.environ), as_json=arguments.json)


def _record(arguments: argparse.Namespace) -> int:
    import asyncio

    from config.settings import ADDRESS, SensorSettings
    from drivers.registry import load_drivers
    from gateway.clock import SystemClock
    from gateway.radio import open_radio
    from gateway.replay.record import record

    name: str = arguments.name
    is_address = ADDRESS.fullmatch(name.upper())

    async def run() -> int:
        sensor = SensorSettings(name, name.upper()) if is_address else SensorSettings(name, advertised_name=name)
        async with open_radio(arguments.radio) as radio:
            drivers, clock, as_btsnoop = load_drivers(), SystemClock(), arguments.btsnoop
            return await record(sensor, radio, drivers, clock, arguments.file, arguments.seconds, as_btsnoop=as_btsnoop)

    try:
        payloads = asyncio.run(run())
    except OSError as error:
        raise CommandError(
            f"cannot write {arguments.file} ({error.strerror}): choose a new file in a folder that you can write to"
        ) from error
    if not payloads:
        raise CommandError(
            f"nothing came from a sensor named {name}: check that it is worn, in range and not connected to another device"
        )
    print(f"{payloads} payloads written to {arguments.file}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from gateway.simulate.demo import DemoOptions, run_demo
    except ImportError as error:
        raise CommandError(f"the demo needs the extras sim and clinic ({error.name} is missing): run make setup") from error
    _keep_files_private()
    options = DemoOptions(
        arguments.seconds, arguments.port, arguments.record, arguments.json, data=arguments.data, home=arguments.home
    )
    return run_demo(options)


def _simulate(arguments: argparse.Namespace) -> int:
    try:
        from captures import RecordingError
        from gateway.simulate.heart import from_script
        from gateway.simulate.script import load_script
        from gateway.simulate.standalone import run_standalone
        from gateway.simulate.strap import ecg_from_file
    except ImportError as error:
        raise CommandError(f"the simulator needs the extra sim ({error.name} is missing): run make setup") from error
    try:
        ecg = ecg_from_file(arguments.record) if arguments.record else from_script(load_script("demo"))
    except RecordingError as error:
        raise CommandError(str(error)) from error
    _keep_files_private()
    folder = arguments.folder or Path(arguments.sensors[0])
    try:
        run_standalone(folder, arguments.sensors, ecg, arguments.every)
    except OSError as error:
        raise CommandError(f"cannot use {folder} ({error.strerror}): choose a folder that you can write to") from error
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from gateway.replay.run import replay

    return replay(arguments)


def _decode(arguments: argparse.Namespace) -> int:
    from drivers.readings import Quarantined
    from drivers.registry import load_drivers
    from gateway.decode import UsageError, decode_payload, make_table, parse_hex, reading_as_json

    try:
        payload = parse_hex(arguments.payload)
        readings = decode_payload(load_drivers(), arguments.service, arguments.characteristic, payload, arguments.model)
    except UsageError as error:
        _report_failure(error)
        return 2
    if arguments.json:
        for reading in readings:
            print(json.dumps(reading_as_json(reading)))
    elif readings:
        print(make_table(readings))
    reasons = [reading.reason for reading in readings if isinstance(reading, Quarantined)]
    if reasons:
        raise CommandError(f"cannot decode the payload: {'; '.join(reasons)}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from evaluation.command import evaluate
    from evaluation.records import EvaluationError
    from gateway.replay.alert_player import make_alert_run
    from models.inference.session import ModelError

    try:
        return evaluate(arguments, make_alert_run(arguments.models))
    except (EvaluationError, ModelError) as error:
        raise CommandError(str(error)) from error


COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "run": _run,
    "status": _status,
    "persons": _persons,
    "consent": _consent,
    "backup": _backup,
    "init": _init,
    "check-config": _check_config,
    "enroll": _enroll,
    "renew": _renew,
    "erase": _erase,
    "keys": _keys,
    "identity": _identity,
    "audit": _audit,
    "scan": _scan,
    "pair": _pair,
    "doctor": _doctor,
    "record": _record,
    "demo": _demo,
    "simulate": _simulate,
    "replay": _replay,
    "decode": _decode,
    "evaluate": _evaluate,
}


def _report_failure(error: BaseException) -> int:
    print(f"pulsegate: {escape_controls(' '.join(str(error).split()))}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(run_program())
