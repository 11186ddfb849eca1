"""Writes the configuration of the site's broker, mosquitto, and applies a revocation to it while it runs.

It has two listeners. That of the hubs trusts only their issuing CA; a hub's name is its user name and its client id, so it can
neither use the topics of another hub nor end another's connection. That of the services trusts only theirs. A certificate of
one kind is therefore worth nothing at the other listener, whatever name it has.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cloud.errors import ClinicError
from cloud.site.authority import Authority
from cloud.site.certificates import Kind
from cloud.site.config_files import write_config_files
from config.endpoint import Endpoint
from config.identity import IDENTITY_FILE
from config.tls import SUITES
from sync.mqtt import Disconnected, MqttClient

PACKET_LIMIT_BYTES: Final = 96 * 1024
"""A message of 64 KiB, its topic and its properties, with room to spare. mosquitto has no limit by default."""
IN_FLIGHT_LIMIT: Final = 100
"""Messages on their way to one client: mosquitto's 20 would limit an ingest worker to 20 in each round trip."""
QUEUED_LIMIT: Final = 100_000
QUEUED_LIMIT_BYTES: Final = 512 * 1024 * 1024
"""What waits for one ingest worker. Above it mosquitto drops messages and says nothing; hubs send them again after a minute."""
CONFIG_FILE: Final = "mosquitto.conf"
PID_FILE: Final = "mosquitto.pid"
RELOAD_S: Final = 1.0
"""mosquitto looks for a signal ten times a second; until it has, it accepts what it accepted before (seen: 0.1 s)."""
_CONTROL_FILE: Final = "control.json"
"""Where the services' listener is, for `cut_connection`."""

INGEST: Final = "ingest"
OPENER: Final = "opener"
PAGE: Final = "page"
SERVICE_TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    INGEST: ("read pulsegate/v1/+/up/+", "write pulsegate/v1/+/down/ack"),
    OPENER: ("write pulsegate/v1/+/down/receipt", "write pulsegate/v1/+/down/command"),
    PAGE: ("write pulsegate/v1/+/down/config",),
}
"""What each service may do, by the name in its certificate. Other services may connect, and do nothing."""

_COMMON: Final = f"""\
# Written by pulsegate-cloud site configure-broker: it is replaced at the next run.
per_listener_settings true
# Only the clinic's acknowledgement after its commit counts. Hubs keep each block until then, so the broker stores nothing.
persistence false
max_packet_size {PACKET_LIMIT_BYTES}
max_inflight_messages {IN_FLIGHT_LIMIT}
max_queued_messages {QUEUED_LIMIT}
max_queued_bytes {QUEUED_LIMIT_BYTES}
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
log_type notice
log_type information
connection_messages true
log_timestamp_format %Y-%m-%dT%H:%M:%S
"""


@dataclass(frozen=True, slots=True)
class Listener:
    """An address on which the broker listens."""

    host: str
    port: int


def write_broker_config(
    folder: Path, authority: Authority, identity: Path, *, hubs: Listener, services: Listener, user: str
) -> Path:
    """Write mosquitto.conf and its access lists; returns the path to start `mosquitto -c` with.

    Args:
        folder: where to write; it is created if it is missing.
        authority: the site whose clients are accepted.
        identity: the folder of the broker's own identity.
        hubs: where hubs connect; reached from outside.
        services: where ingest, opener and page connect; private.
        user: the account that the broker runs as, if it is started by root.

    Raises:
        ClinicError: a file cannot be written.
    """
    folder, identity = folder.absolute(), identity.absolute()
    hubs_rights = "pattern write pulsegate/v1/%u/up/+\npattern read pulsegate/v1/%u/down/+\n"
    services_rights = "".join(
        f"user {name}\n" + "".join(f"topic {topic}\n" for topic in topics) for name, topics in SERVICE_TOPICS.items()
    )
    control = {"identity": str(identity), "region": authority.name.country, **asdict(services)}
    files = {
        _CONTROL_FILE: json.dumps(control),
        "hubs.acl": hubs_rights,
        "services.acl": services_rights,
        CONFIG_FILE: _COMMON
        + f"pid_file {folder / PID_FILE}\nuser {user}\n"
        + _describe_listener(folder, authority, identity, hubs, Kind.HUBS)
        + _describe_listener(folder, authority, identity, services, Kind.SERVICES),
    }
    write_config_files(folder, files, "broker")
    return folder / CONFIG_FILE


def _describe_listener(folder: Path, authority: Authority, identity: Path, listener: Listener, kind: Kind) -> str:
    pem = identity / IDENTITY_FILE
    lines = (
        f"\nlistener {listener.port} {listener.host}",
        "tls_version tlsv1.3",
        f"ciphers_tls1.3 {':'.join(sorted(SUITES, reverse=True))}",
        f"certfile {pem}",
        f"keyfile {pem}",
        f"cafile {authority.anchors_file(kind)}",
        f"crlfile {authority.crl_file(kind)}",
        "require_certificate true",
        "use_identity_as_username true",
        f"acl_file {folder / f'{kind}.acl'}",
        # Otherwise a hub could take the client id of another, which ends the other's connection.
        *(["use_username_as_clientid true"] if kind == Kind.HUBS else []),
    )
    return "\n".join(lines) + "\n"


def load_control(folder: Path) -> Endpoint:
    """Return the listener of the services, with the broker's own identity, as `write_broker_config` noted it.

    Raises:
        ClinicError: the note is missing or damaged.
    """
    path = folder / _CONTROL_FILE
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return Endpoint(note["host"], note["port"], Path(note["identity"]), note["region"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClinicError(f"cannot read {path} ({error}): run pulsegate-cloud site configure-broker again") from error


def reload_broker(folder: Path) -> None:
    """Let the running broker read certificates, access lists and revocation lists again. Connections stay open.

    It has taken effect after `RELOAD_S`.

    Raises:
        ClinicError: it does not run, or belongs to another user.
    """
    path = folder / PID_FILE
    try:
        os.kill(int(path.read_text(encoding="ascii")), signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise ClinicError(f"cannot reload the broker named in {path} ({error}): start it, or run as its user") from error


async def cut_connection(broker: Endpoint, hub: str) -> None:
    """End the connection of a hub at the broker: a client of the same id takes its place and leaves.

    If the hub was revoked, wait for `RELOAD_S` after `reload_broker` first, so that it is refused when it comes back.

    Args:
        broker: the listener of the services, with the identity of one.
        hub: the hub's name.

    Raises:
        ClinicError: the broker refuses the connection, or does not answer.
    """
    client = MqttClient(broker, client_id=hub, subscriptions=())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run())
        event = await client.receive()
        running.cancel()
    if isinstance(event, Disconnected):
        raise ClinicError(f"cannot end the connection of {hub}: {event.reason}")
