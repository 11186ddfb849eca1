"""Installs a site on this machine, as root: accounts, folders, certificates, database, and the configuration of each service.

What exists stays: a second run changes only what is missing or was written by another version or for other options.
"""

import os
import pwd
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.signing_keys import PUBLIC_AUDIT_FILE, key_file
from cloud.site import database, layout
from cloud.site.authority import Authority
from cloud.site.identity import keep_identity
from cloud.site.layout import DATA, ETC, LOOPBACK, SERVICES, Service
from cloud.site.manager import UNITS, find_manager
from cloud.site.mosquitto import INGEST, OPENER, PAGE, Listener, write_broker_config
from cloud.site.postgresql import write_database_config
from cloud.site.public_ports import make_firewall, make_proxy_config
from cloud.site.supervise import make_supervisor_config, read_unit
from config.files import replacing
from config.identity import IDENTITY_FILE, ROOTS_FILE
from config.openssl import TLS_POLICY
from sync.signing import Use

PLAN_FILE: Final = ETC / "install.toml"
COMMAND: Final = Path("/usr/local/sbin/pulsegate-site")
SYSTEMD_UNITS: Final = Path("/etc/systemd/system")
_SCRIPT: Final = f"""\
#!/bin/sh
# Runs pulsegate-cloud for this site, as the clinic's account, on the clinic's folder and databases.
set -eu
set -a
. {layout.CLINIC_ENV}
set +a
exec setpriv --reuid {layout.CLINIC_USER} --regid {layout.CLINIC_USER} --init-groups -- \\
    {layout.PROGRAMS}/bin/pulsegate-cloud "$@"
"""
_USED_KEYS: Final = {
    INGEST: (key_file(DATA, Use.ACKNOWLEDGEMENT), DATA / PUBLIC_AUDIT_FILE),
    OPENER: (key_file(DATA, Use.RECEIPT), key_file(DATA, Use.AUDIT)),
}
"""The signing keys that a service has a copy of, in its own folder."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the operator chooses. `host`: the name by which hubs and browsers reach the site; `ssh_from`: networks."""

    host: str
    site: str
    country: str
    region: str
    ingests: int
    ssh_from: tuple[str, ...]
    revision: str = ""
    """The version of the programs: with another one, the services start again."""


DEFAULT_PLAN: Final = Plan("localhost", "Clinic", "DE", "Bayern", 2, ())
"""A site that only this machine reaches: enough to try it."""


def install(plan: Plan, units: Path, say: Say) -> bool:
    """Install the site and start it; returns whether anything was changed. `units` is the folder of the systemd units.

    Raises:
        ClinicError: a step failed. Run it again when the reason is gone: it goes on.
    """
    installer = _Installer(plan, units, say)
    for step in (
        installer.create_accounts,
        installer.create_folders,
        installer.create_authority,
        installer.issue_certificates,
        installer.copy_keys,
        installer.configure_broker,
        installer.configure_database,
        installer.configure_services,
        installer.configure_public_ports,
        installer.install_units,
        installer.create_roles,
        installer.start,
    ):
        step()
    return installer.is_changed


class _Installer:
    """The steps, in their order. `is_changed`: a running service must start again."""

    def __init__(self, plan: Plan, units: Path, say: Say) -> None:
        self._plan, self._units, self._say = plan, units, say
        self.is_changed = False

    def create_accounts(self) -> None:
        for user in layout.OWN_USERS:
            if not _has_account(user):
                command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
                database.run([*command, "--home-dir", "/nonexistent", user], f"create the account {user}")
                self._say(f"created the account {user}")

    def create_folders(self) -> None:
        # Other accounts pass through to `hubs` and `site/public`; keys and lists are closed to them by their own modes.
        _make_folder(DATA, layout.CLINIC_USER, 0o711)
        _make_folder(DATA / "hubs", layout.CLINIC_USER, 0o2750, group=layout.INGEST_USER)
        _make_folder(DATA / "keys", layout.CLINIC_USER, 0o700)
        _make_folder(ETC, "root", 0o755)
        _make_folder(layout.BROKER, layout.BROKER_USER, 0o755)
        _make_folder(layout.DATABASE, layout.DATABASE_USER, 0o700)
        _make_folder(layout.LOGS, "root", 0o700)
        for service in SERVICES:
            _make_folder(service.folder, service.user, 0o700)

    def create_authority(self) -> None:
        plan = self._plan
        if (DATA / "site" / "site.toml").exists():
            name = Authority.load(DATA / "site").name
            if (name.site, name.country, name.region) != (plan.site, plan.country, plan.region):
                raise ClinicError(
                    f"this is the site {name.site}, {name.region}, {name.country} already: it cannot get another name; "
                    "leave out SITE, COUNTRY and REGION"
                )
            return
        with _acting_as(layout.CLINIC_USER):
            Authority.create(DATA / "site", plan.site, plan.country, plan.region, _now_s())
        self._say(f"created the site {plan.site}, {plan.region}, {plan.country}: back up {DATA}, and keep the copy offline")

    def issue_certificates(self) -> None:
        authority = Authority.load(DATA / "site")
        for service in SERVICES:
            if keep_certificate(authority, service, self._plan.host):
                self._change(f"issued the certificate of {service.name}, for 90 days")

    def copy_keys(self) -> None:
        with _acting_as(layout.CLINIC_USER):
            ClinicFolder(DATA).load_or_create_signing_keys()
        for service in SERVICES:
            for source in _USED_KEYS.get(service.name, ()):
                self._put(service.folder / source.name, source.read_text(encoding="ascii"), service.user, 0o600)

    def configure_broker(self) -> None:
        authority, folder = Authority.load(DATA / "site"), layout.BROKER
        before = _contents(folder, "*.conf", "*.acl")
        write_broker_config(
            folder,
            authority,
            ETC / layout.BROKER_NAME,
            hubs=Listener(LOOPBACK, layout.HUBS_PORT),
            services=Listener(LOOPBACK, layout.SERVICES_PORT),
            user=layout.BROKER_USER,
        )
        if _contents(folder, "*.conf", "*.acl") != before:
            self._change(f"configured the broker in {folder}")

    def configure_database(self) -> None:
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        if not programs and not database.BINARIES.exists():
            raise ClinicError("PostgreSQL is not installed: run make site, which installs it")
        if not database.BINARIES.exists():
            database.BINARIES.symlink_to(programs[-1])
        folder = database.CONFIG_FOLDER
        before = _contents(folder, "*.conf")
        write_database_config(folder, Authority.load(DATA / "site"), folder)
        self._put(ETC / "openssl.cnf", TLS_POLICY.read_text(encoding="utf-8"), "root", 0o644)
        if _contents(folder, "*.conf") != before:
            self._change(f"configured the database in {folder}")
        if database.create_cluster(as_user(layout.DATABASE_USER)):
            self._change(f"created the database's files in {layout.DATABASE}")

    def configure_services(self) -> None:
        for service in SERVICES:
            if service.name in {INGEST, OPENER, PAGE}:
                text = make_settings(service, self._plan)
                self._put(service.folder / layout.SITE_FILE, text, service.user, 0o600)
        clinic = next(service for service in SERVICES if service.name == layout.CLINIC)
        self._put(layout.CLINIC_ENV, make_environment(clinic, self._plan), "root", 0o644)
        self._put(COMMAND, _SCRIPT, "root", 0o755)

    def configure_public_ports(self) -> None:
        has_ipv6 = Path("/proc/net/if_inet6").exists()
        users = [pwd.getpwnam(user).pw_uid for user in layout.ALL_USERS]
        for name, text, check in (
            ("haproxy.cfg", make_proxy_config(has_ipv6=has_ipv6), ["haproxy", "-q", "-c", "-f"]),
            ("firewall.nft", make_firewall(users, self._plan.ssh_from), ["nft", "-c", "-f"]),
        ):
            self._put(ETC / name, text, "root", 0o644)
            database.run([*check, str(ETC / name)], f"use {ETC / name}")

    def install_units(self) -> None:
        self._put(ETC / "revision", self._plan.revision + "\n", "root", 0o644)
        for path in sorted(self._units.glob("pulsegate*.*")):
            self._put(SYSTEMD_UNITS / path.name, path.read_text(encoding="utf-8"), "root", 0o644)
        units = [read_unit(SYSTEMD_UNITS / f"{name}.service") for name in UNITS]
        text = make_supervisor_config(units, self._plan.ingests)
        self._put(ETC / "supervisord.conf", text, "root", 0o600)
        save_plan(self._plan)

    def create_roles(self) -> None:
        """Create roles, databases and tables.

        Passwords are set each time: files that were restored on a new machine have those of the old one.
        """
        scripts = [database.make_roles_script(SERVICES)]
        for service in SERVICES:
            if service.databases:
                path = service.folder / layout.PASSWORD_FILE
                if not path.exists():
                    self._put(path, database.make_password_line(service, database.make_password()), service.user, 0o600)
                scripts.append(database.make_password_script(service, database.read_password(path)))
        with database.running(as_user(layout.DATABASE_USER)) as run_script:
            run_script("".join(scripts))
            self._migrate_databases()

    def _migrate_databases(self) -> None:
        """Create the tables, or add what this version needs while the services of the version before go on."""
        lines = database.run([str(COMMAND), "migrate"], "migrate the databases").splitlines()
        for line in lines if lines != ["nothing to migrate"] else []:
            self._say(line)

    def start(self) -> None:
        find_manager().start(self._plan.ingests, must_restart=self.is_changed)

    def _put(self, path: Path, text: str, user: str, mode: int) -> None:
        """Write a file that is missing or different."""
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        verb = "replaced" if path.exists() else "created"
        with replacing(path, mode=mode) as draft:
            draft.write_text(text, encoding="utf-8")
            shutil.chown(draft, user, user)
        self._change(f"{verb} {path}")

    def _change(self, line: str) -> None:
        self.is_changed = True
        self._say(line)


def keep_certificate(authority: Authority, service: Service, host: str) -> bool:
    """Issue the certificate of a service if it is missing or due, and give it to its account; returns whether it did."""
    hosts = [LOOPBACK, host] if service.is_public else [LOOPBACK]
    if not keep_identity(authority, service.folder, service.name, sorted(set(hosts)), _now_s()):
        return False
    for name in (ROOTS_FILE, IDENTITY_FILE):
        shutil.chown(service.folder / name, service.user, service.user)
    return True


def keep_certificates(authority: Authority, host: str) -> None:
    """Issue the certificates of all services that are due."""
    for service in SERVICES:
        keep_certificate(authority, service, host)


def load_plan() -> Plan | None:
    """Return the plan of the last run; None if there was none.

    Raises:
        ClinicError: its file is damaged.
    """
    try:
        values = tomllib.loads(PLAN_FILE.read_text(encoding="utf-8"))
        networks = tuple(values.pop("ssh_from"))
        return Plan(ssh_from=networks, **values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClinicError(f"cannot read {PLAN_FILE} ({error}): delete it, and give HOST and the others again") from error


def save_plan(plan: Plan) -> None:
    """Note the plan for the next run, and for `site keep`."""
    networks = ", ".join(f'"{network}"' for network in plan.ssh_from)
    text = (
        f'host = "{plan.host}"\nsite = "{plan.site}"\ncountry = "{plan.country}"\nregion = "{plan.region}"\n'
        f'ingests = {plan.ingests}\nssh_from = [{networks}]\nrevision = "{plan.revision}"\n'
    )
    with replacing(PLAN_FILE, mode=0o644) as draft:
        draft.write_text(text, encoding="utf-8")


def as_user(user: str) -> Sequence[str]:
    """Return the words before a command that run it as another account."""
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--")


def _make_url(service: Service, name: str, plan: Plan) -> str:
    place = f"{LOOPBACK}:{layout.DATABASE_PORT}"
    return f"postgresql://{service.name}@{place}/{name}?identity={service.folder}&region={plan.country}"


def make_settings(service: Service, plan: Plan) -> str:
    """Return the settings file of one service. Each service has its own, with its own role of the database."""
    return f"""\
# Written by pulsegate-cloud site install: it is replaced at the next run.
data = "{DATA}"
public = "{DATA / "site" / "public"}"

[databases]
store = "{_make_url(service, layout.STORE, plan)}"
projections = "{_make_url(service, layout.PROJECTIONS, plan)}"

[broker]
host = "{LOOPBACK}"
port = {layout.SERVICES_PORT}
region = "{plan.country}"

[ingest]
identity = "{ETC / INGEST}"
key = "{ETC / INGEST / "acknowledgement.key"}"
audit_key = "{ETC / INGEST / PUBLIC_AUDIT_FILE}"

[opener]
identity = "{ETC / OPENER}"
key = "{ETC / OPENER / "receipt.key"}"
audit_key = "{ETC / OPENER / "audit.key"}"

[page]
identity = "{ETC / PAGE}"
hosts = ["{plan.host}"]
listen = "{LOOPBACK}"
port = {layout.PAGE_PORT}
"""


def make_environment(clinic: Service, plan: Plan) -> str:
    """Return the variables of the operator's commands, of enrolment and of `site keep`. They hold no secret."""
    return (
        f"# Written by pulsegate-cloud site install: it is replaced at the next run.\n"
        f"PULSEGATE_HOST={plan.host}\nPULSEGATE_CLINIC={DATA}\n"
        f"PULSEGATE_STORE='{_make_url(clinic, layout.STORE, plan)}'\n"
        f"PULSEGATE_PROJECTIONS='{_make_url(clinic, layout.PROJECTIONS, plan)}'\n"
        f"PGPASSFILE={clinic.folder / layout.PASSWORD_FILE}\n"
    )


def _has_account(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _make_folder(path: Path, user: str, mode: int, group: str | None = None) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.chown(path, user, group or user)
    path.chmod(mode)


def _contents(folder: Path, *patterns: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for pattern in patterns for path in folder.glob(pattern)}


@contextmanager
def _acting_as(user: str) -> Iterator[None]:
    """Create files as another account."""
    account = pwd.getpwnam(user)
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def _now_s() -> int:
    return int(time.time())
