"""Handshakes with a port by OpenSSL's own client, which may offer what our processes never do."""

import os
import subprocess
from pathlib import Path

from config.identity import IDENTITY_FILE


def handshake(port: int, *options: str, identity: Path | None = None) -> str:
    """Return "ok", or how the server refuses a client that offers this."""
    certificate = () if identity is None else ("-cert", str(identity / IDENTITY_FILE), "-key", str(identity / IDENTITY_FILE))
    command = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options, *certificate)
    environment = {**os.environ, "OPENSSL_CONF": "/dev/null"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, env=environment, check=False
    )
    if done.returncode == 0:
        return "ok"
    return next((line.split(":")[5] for line in done.stderr.splitlines() if "alert" in line), done.stderr)


def check_tls_policy(port: int, *options: str, identity: Path | None = None) -> None:
    """Check that a port takes what BSI TR-02102-2 lists, and nothing else."""
    for allowed in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"):
        assert handshake(port, *options, "-ciphersuites", allowed, identity=identity) == "ok"
    refused = handshake(port, *options, "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", identity=identity)
    assert "handshake failure" in refused
    assert "protocol version" in handshake(port, *options, "-tls1_2", identity=identity)
