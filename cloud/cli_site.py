"""The operator's commands about the site: its certification authority, the certificates of its services, and its broker."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.argument_types import parse_address
from cloud.audit_actors import operator
from cloud.audit_log import logging_in
from cloud.cli_keys import folder_of
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.site import Authority, Kind
from cloud.site.mosquitto import RELOAD_S, Listener, cut_connection, load_control, reload_broker, write_broker_config
from cloud.site.postgresql import write_database_config
from config.identity import write_identity
from config.openssl import TLS_POLICY
from sync.audit import Action, AuditEvent, Category, object_id

AddCommand = Callable[..., argparse.ArgumentParser]
AddOptions = Callable[[argparse.ArgumentParser], None]

BROKER_USER: Final = "mosquitto"
"""The account of Debian's package."""


def add_site_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the commands to the parser of `pulsegate-cloud site`."""

    def add(name: str, summary: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        command = add_command(name, summary)
        add_data_options(command)
        command.set_defaults(run=run)
        return command

    init = add("init", "create the certification authority of a new site", _run_init)
    init.add_argument("--site", required=True, metavar="NAME", help="name of the site, as it stands in certificates")
    init.add_argument("--country", required=True, metavar="CODE", help="its country in the EU or the EEA, such as DE")
    init.add_argument("--region", required=True, metavar="NAME", help="the region in this country, such as Bayern")
    issue = add("issue-service", "write a new key and certificate of a service, in place of those before", _run_issue)
    issue.add_argument("--name", required=True, help="name of the service: broker, ingest, opener, page, database, …")
    issue.add_argument(
        "--host", action="append", default=[], help="host name or address by which the service is reached; may be repeated"
    )
    issue.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for identity.pem and roots.pem")
    revoke = add("revoke", "revoke certificates, and refuse them at the broker at once", _run_revoke)
    revoke.add_argument("kind", type=Kind, choices=list(Kind), help="hubs, staff or services")
    revoke.add_argument("name", metavar="NAME", help="whose certificates, or the serial number of one in hexadecimal")
    _add_broker_option(revoke)
    _add_broker_option(
        add(
            "crl",
            "write the revocation lists again, and cut revoked hubs; do this hourly: the lists expire after 7 days",
            _run_crl,
        )
    )
    add("rotate-root", "create a new root beside the present one; both are trusted until retire-root", _run_rotate)
    add("retire-root", "trust only the newest root, a year after rotate-root at the earliest", _run_retire)
    add("show", "show the site, its roots and the latest certificate of each name", _run_show)
    configure = add("configure-broker", "write the configuration of mosquitto", _run_configure)
    configure.add_argument("--hubs", type=_parse_listener, required=True, metavar="HOST:PORT", help="where hubs connect")
    configure.add_argument(
        "--services", type=_parse_listener, required=True, metavar="HOST:PORT", help="where ingest, opener and page connect"
    )
    configure.add_argument("--user", default=BROKER_USER, help="account of the broker (default: %(default)s)")
    database = add("configure-database", "write what PostgreSQL needs for TLS", _run_configure_database)
    for command, service in ((configure, "broker"), (database, "database")):
        command.add_argument(
            "--identity", type=Path, required=True, metavar="DIR", help=f"what issue-service wrote for the {service}"
        )
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the configuration")


def _add_broker_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker", type=Path, metavar="DIR", help="what configure-broker wrote: the running broker reads the lists again"
    )


def _run_init(options: argparse.Namespace) -> int:
    folder = ClinicFolder(options.data)
    folder.create()
    Authority.create(folder.site, options.site, options.country, options.region, _now_s())
    _print(f"created the site {options.site} in {folder.site}: back this folder up, and keep the copy offline")
    return 0


def _run_issue(options: argparse.Namespace) -> int:
    authority, key = _load(options), ec.generate_private_key(ec.SECP256R1())
    with _logging(options, Action.ISSUE_CERTIFICATE, object_id("service", options.name)):
        chain = authority.issue_service(options.name, options.host, key.public_key(), _now_s())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        write_identity(options.out, pem, chain, authority.roots)
    except OSError as error:
        raise ClinicError(f"cannot write to {options.out} ({error.strerror}): choose a folder that you can write to") from error
    _print(f"wrote the identity of {options.name} to {options.out}: it is valid for 90 days")
    return 0


def _run_revoke(options: argparse.Namespace) -> int:
    authority = _load(options)
    # a renewal at the same moment must not outlive it
    with folder_of(options).issuing(), _logging(options, Action.REVOKE, object_id(options.kind, options.name)):
        n = authority.revoke(options.kind, options.name, _now_s())
    _print(f"revoked {n} certificates of {options.name}")
    if options.broker is None:
        _print("running servers accept them until they read the lists again: name the broker with --broker")
        return 0
    reload_broker(options.broker)
    _cut_revoked(authority, options.broker)
    _print("the broker refuses them from now on; open connections of revoked hubs were cut")
    if options.kind == Kind.SERVICES:
        _print("restart the broker, and the database, to end open connections of the service")
    return 0


def _logging(options: argparse.Namespace, action: Action, *objects: str) -> AbstractContextManager[None]:
    return logging_in(folder_of(options), AuditEvent(operator(), action, Category.CERTIFICATES, None, objects))


def _run_crl(options: argparse.Namespace) -> int:
    authority = _load(options)
    authority.write_crls(_now_s())
    if options.broker is not None:
        reload_broker(options.broker)
        _cut_revoked(authority, options.broker)
    return 0


def _cut_revoked(authority: Authority, broker: Path) -> None:
    """Cut all revoked hubs, not only the latest: an earlier attempt may have failed."""
    endpoint = load_control(broker)
    time.sleep(RELOAD_S)
    for hub in authority.list_revoked_names(Kind.HUBS, _now_s()):
        asyncio.run(cut_connection(endpoint, hub))


def _run_rotate(options: argparse.Namespace) -> int:
    authority = _load(options)
    with _logging(options, Action.ROTATE_ROOT):
        authority.rotate_root(_now_s())
    _print("created a new root: issue new certificates for all services, and restart the broker and the page")
    return 0


def _run_retire(options: argparse.Namespace) -> int:
    authority = _load(options)
    with _logging(options, Action.RETIRE_ROOT):
        authority.retire_root(_now_s())
    _print("the older root is no longer trusted, and its keys are deleted: restart the broker and the page")
    return 0


def _run_show(options: argparse.Namespace) -> int:
    authority = _load(options)
    name = authority.name
    _print(f"site {name.site}, {name.region}, {name.country}")
    for fingerprint in authority.fingerprints():
        _print(f"root {fingerprint.hex()}")
    latest = {(issued.kind, issued.name): issued for issued in authority.list_issued()}
    for (kind, owner), issued in sorted(latest.items()):
        state = (
            "revoked" if issued.revoked_s is not None else f"valid until {datetime.fromtimestamp(issued.expires_s, UTC):%F %R}Z"
        )
        _print(f"{kind} {owner} {issued.serial:x} {state}")
    return 0


def _run_configure(options: argparse.Namespace) -> int:
    path = write_broker_config(
        options.out, _load(options), options.identity, hubs=options.hubs, services=options.services, user=options.user
    )
    _print(f"wrote {path}: start the broker with mosquitto -c {path}")
    return 0


def _run_configure_database(options: argparse.Namespace) -> int:
    path = write_database_config(options.out, _load(options), options.identity)
    _print(f"wrote {path}: include it in postgresql.conf, and start PostgreSQL with OPENSSL_CONF={TLS_POLICY}")
    return 0


def _load(options: argparse.Namespace) -> Authority:
    return Authority.load(ClinicFolder(options.data).site)


def _parse_listener(text: str) -> Listener:
    return Listener(*parse_address(text))


def _now_s() -> int:
    return int(time.time())


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
