"""OpenSSL's configuration allows AES-GCM only in every process of ours, and a process in which it does not gets no context."""

import subprocess
import sys

import pytest

PROGRAM = """
{before}
import {package}.cli
import ssl
from config.tls import ClientContext, SUITES, make_client_context
context = ClientContext(ssl.PROTOCOL_TLS_CLIENT)
print(*sorted(suite["name"] for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.3"))
try:
    make_client_context("", "DE")
except Exception as error:
    print(error)
"""
CHACHA = "TLS_CHACHA20_POLY1305_SHA256"


def run(package: str, before: str = "", environment: dict[str, str] | None = None) -> tuple[str, str]:
    command = [sys.executable, "-c", PROGRAM.format(package=package, before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    suites, error = done.stdout.splitlines()
    return suites, error


@pytest.mark.parametrize(("package", "environment"), [("gateway", {}), ("cloud", {"OPENSSL_CONF": "/dev/null"})])
def test_a_command_offers_aes_gcm_only_whatever_its_environment_says(package: str, environment: dict[str, str]) -> None:
    suites, error = run(package, environment=environment)
    assert suites == "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384"
    assert error.startswith("the roots of the site are damaged")


@pytest.mark.parametrize("earlier", ["hashlib", "ssl"])
def test_a_process_that_loaded_openssl_earlier_makes_no_context(earlier: str) -> None:
    """To import `hashlib` is enough: OpenSSL reads its configuration then, and only then."""
    suites, error = run("gateway", f"import {earlier}", {})
    assert CHACHA in suites
    assert error.startswith(f"OpenSSL offers {CHACHA}, which BSI TR-02102-2 does not list: another package loaded OpenSSL")
    advice = error.rpartition("OPENSSL_CONF=")[2]
    assert CHACHA not in run("gateway", f"import {earlier}", {"OPENSSL_CONF": advice})[0]
