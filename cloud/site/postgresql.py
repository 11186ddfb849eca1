"""Writes the part of PostgreSQL's configuration that lets in services of the site, by TLS, with password and certificate.

PostgreSQL 15 cannot choose the suites of TLS 1.3: start it with OPENSSL_CONF naming `config/openssl.cnf`.
"""

from pathlib import Path
from typing import Final

from cloud.site.authority import Authority
from cloud.site.certificates import Kind
from cloud.site.config_files import write_config_files
from config.identity import IDENTITY_FILE

CONFIG_FILE: Final = "pulsegate.conf"
HBA_FILE: Final = "pg_hba.conf"
HBA: Final = """\
# Written by pulsegate-cloud site configure-database. The socket: this computer only; PostgreSQL's own account is known by it.
# The network: by TLS, with both factors.
local   all postgres peer
local   all all     scram-sha-256
hostssl all all all scram-sha-256 clientcert=verify-ca
"""


_LOG: Final = {
    "log_connections": "on",
    "log_line_prefix": "%m [%p] %r ",  # time, process, address and port
    "log_timezone": "UTC",
    # No statement and no value is logged. Errors of statements quote values, so only the service that made one logs its type.
    "log_min_messages": "log",
    "log_statement": "none",
    "log_error_verbosity": "terse",
    "log_min_duration_statement": -1,
}


def write_database_config(folder: Path, authority: Authority, identity: Path) -> Path:
    """Write pulsegate.conf, for `include` in postgresql.conf, and pg_hba.conf; returns the path of the first.

    Args:
        folder: where to write; it is created if it is missing.
        authority: the site whose services are accepted.
        identity: the folder of the server's own identity, which belongs to PostgreSQL's account.

    Raises:
        ClinicError: a file cannot be written.
    """
    folder, pem = folder.absolute(), identity.absolute() / IDENTITY_FILE
    settings = {
        "ssl": "on",
        "ssl_min_protocol_version": "TLSv1.3",
        "ssl_cert_file": pem,
        "ssl_key_file": pem,
        "ssl_ca_file": authority.anchors_file(Kind.SERVICES),
        "ssl_crl_file": authority.crl_file(Kind.SERVICES),
        "password_encryption": "scram-sha-256",
        "hba_file": folder / HBA_FILE,
        **_LOG,
    }
    files = {HBA_FILE: HBA, CONFIG_FILE: "".join(f"{name} = '{value}'\n" for name, value in settings.items())}
    write_config_files(folder, files, "database")
    return folder / CONFIG_FILE
