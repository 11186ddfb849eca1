"""The operator's commands about enrolment: invite a hub, list and cancel invitations, run the enrolment service."""

import argparse
import asyncio
import io
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import segno

from cloud.argument_types import parse_address
from cloud.audit_actors import operator
from cloud.audit_log import logging_in
from cloud.cli_keys import folder_of
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.subjects import check_consents
from config.files import create_private_file
from config.process import stop_on_signals, watching_stdin
from config.settings import IDENTIFIER
from sync.audit import Action, AuditEvent, Category, object_id

AddCommand = Callable[..., argparse.ArgumentParser]
AddOptions = Callable[[argparse.ArgumentParser], None]


def add_enrolment_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the commands to the parser."""
    invite = add_command("invite", "make a code by which one hub enrols for one patient, once, within 24 hours")
    add_data_options(invite)
    invite.add_argument("--hub", required=True, metavar="NAME", help="the hub's name; one that is known gets its new device")
    invite.add_argument("--subject", required=True, metavar="NAME", help="the patient's pseudonym")
    invite.add_argument(
        "--address", required=True, type=parse_address, metavar="HOST:PORT", help="where hubs reach your enrolment service"
    )
    invite.add_argument("--svg", type=Path, metavar="FILE", help="also write the QR code to this new file, for printing")
    invite.set_defaults(run=lambda options: _run_invite(folder_of(options), options))

    list_ = add_command("invitations", "list all invitations, and whether they were used")
    add_data_options(list_)
    list_.set_defaults(run=lambda options: _run_list(folder_of(options)))

    cancel = add_command("cancel-invitation", "end an invitation that was not used")
    add_data_options(cancel)
    cancel.add_argument("id", metavar="ID", help="the invitation, as pulsegate-cloud invitations lists it")
    cancel.set_defaults(run=lambda options: _run_cancel(folder_of(options), options.id))

    serve = add_command("enrolment", "run the service where hubs enrol, renew their certificates and ask for the time")
    add_data_options(serve)
    serve.add_argument("--listen", default="127.0.0.1", metavar="IP", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8443, help="port to listen on; 0: a free one (default: %(default)s)")
    serve.add_argument(
        "--host",
        action="append",
        required=True,
        dest="hosts",
        metavar="NAME",
        help="name or IP address by which hubs reach this service, as in their invitations; may be repeated",
    )
    serve.add_argument(
        "--broker",
        action="append",
        required=True,
        type=parse_address,
        dest="brokers",
        metavar="HOST:PORT",
        help="the broker that hubs send to; may be repeated, the preferred one first",
    )
    serve.add_argument(
        "--watch-stdin", action="store_true", help="stop when standard input ends, as it does when the parent process exits"
    )
    serve.set_defaults(run=lambda options: _run_serve(folder_of(options), options))


def _run_invite(folder: ClinicFolder, options: argparse.Namespace) -> int:
    from cloud.enrolment.service import invitations_of
    from cloud.site import Authority
    from sync.invitation import Invitation

    if not (IDENTIFIER.fullmatch(options.hub) and IDENTIFIER.fullmatch(options.subject)):
        raise ClinicError("a hub and a subject have names of 1 to 64 letters, digits, '_' and '-': correct the options")
    if options.subject in KeyStore(folder.keys).erased():
        raise ClinicError(f"{options.subject} was erased: give the patient another pseudonym")
    check_consents(folder, options.subject)
    host, port = options.address
    code = Invitation.generate(host, port, Authority.load(folder.site).fingerprints()[0])
    rows = code.rows()
    picture = segno.make("\n".join(rows), error="m", micro=False)
    if options.svg is not None:
        _write_picture(picture, options.svg)
    event = AuditEvent(operator(), Action.INVITE, Category.REGISTRATION, options.subject, (object_id("hub", options.hub),))
    with logging_in(folder, event):
        stored = invitations_of(folder).add(code, options.hub, options.subject, int(time.time()))
    picture.terminal(sys.stdout, compact=True)
    _print("\n".join(rows))
    _print(f"\nValid once, until {_format_time(stored.expires_s)}. Give the code to the patient only, and keep no copy.")
    _print("On the hub: pulsegate enroll")
    return 0


def _write_picture(picture: segno.QRCode, path: Path) -> None:
    content = io.BytesIO()
    picture.save(content, kind="svg", scale=4)
    try:
        create_private_file(path, content.getvalue().decode())
    except OSError as error:
        raise ClinicError(f"cannot write the picture {path} ({error.strerror}): give the path of a new file") from error


def _run_list(folder: ClinicFolder) -> int:
    from cloud.enrolment.service import invitations_of

    now_s = int(time.time())
    for found in invitations_of(folder).list():
        until = _format_time(found.expires_s)
        _print(f"{found.id}  {found.state(now_s):9}  {until}  hub {found.hub}, subject {found.subject}")
    return 0


def _run_cancel(folder: ClinicFolder, id_: str) -> int:
    from cloud.enrolment.service import invitations_of

    event = AuditEvent(operator(), Action.CANCEL_INVITATION, Category.REGISTRATION, None, (object_id("invitation", id_),))
    with logging_in(folder, event):
        cancelled = invitations_of(folder).cancel(id_)
    _print(f"cancelled the invitation of hub {cancelled.hub}")
    return 0


def _run_serve(folder: ClinicFolder, options: argparse.Namespace) -> int:
    from cloud.enrolment.server import EnrolmentOptions, run_enrolment

    async def serve() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        with watching_stdin(stop.set) if options.watch_stdin else nullcontext():
            await run_enrolment(
                folder, EnrolmentOptions(options.listen, options.port, options.hosts, options.brokers), stop, _print
            )

    asyncio.run(serve())
    return 0


def _format_time(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
