"""`pulsegate-cloud user`: an operator gives persons certificates, lists and revokes them."""

import re
import shutil
import stat
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key, pkcs12

from cloud.cli import main
from cloud.site import Authority, Kind
from cloud.site.certificates import LIFE_S
from tests.site.staff_page import make_site

Run = Callable[..., str]
PASSWORD = re.compile(r"password of the file: ((?:[a-z2-9]{5}-){4}[a-z2-9]{5})\n")


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    shutil.copytree(make_site(), tmp_path / "clinic" / "site")
    return tmp_path / "clinic"


@pytest.fixture
def run(clinic: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(command: str, *arguments: object, status: int = 0) -> str:
        assert main(["user", command, "--data", str(clinic), *map(str, arguments)]) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run_command


def test_a_person_gets_a_file_for_a_browser(run: Run, tmp_path: Path, clinic: Path) -> None:
    """OpenSSL's own program reads it, too: the file is as RFC 7292 says."""
    out = tmp_path / "dr-may.p12"
    printed = run("add", "dr-may", "--out", out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    found = PASSWORD.search(printed)
    assert found is not None
    key, leaf, issuers = pkcs12.load_key_and_certificates(out.read_bytes(), found[1].encode())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert leaf is not None
    assert key.public_key() == leaf.public_key()
    assert leaf.subject.rfc4514_string() == "CN=dr-may,O=Testklinik,ST=Bayern,C=DE"
    assert [one.subject.rfc4514_string().partition(",")[0] for one in issuers] == ["CN=staff 1"]
    (issued,) = Authority.load(clinic / "site").list_issued(Kind.STAFF)
    assert (issued.serial, issued.name, issued.expires_s - issued.issued_s) == (
        leaf.serial_number,
        "dr-may",
        LIFE_S[Kind.STAFF],
    )
    command = ["openssl", "pkcs12", "-in", str(out), "-nodes", "-passin", "stdin"]
    pem = subprocess.run(command, input=found[1], capture_output=True, text=True, check=True, timeout=30).stdout
    assert load_pem_private_key(pem.encode(), None).public_key() == key.public_key()
    assert pem.count("BEGIN CERTIFICATE") == 2


def test_every_file_has_a_password_of_its_own(run: Run, tmp_path: Path) -> None:
    first, second = (PASSWORD.search(run("add", "dr-may", "--out", tmp_path / f"{n}.p12")) for n in "ab")
    assert first is not None
    assert second is not None
    assert first[1] != second[1]
    with pytest.raises(ValueError, match="Invalid password"):
        pkcs12.load_key_and_certificates((tmp_path / "a.p12").read_bytes(), second[1].encode())


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request.pem"
    options = ("-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=admin")
    command = ["openssl", "req", *options, "-keyout", str(tmp_path / "own.key"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return path


def test_a_request_is_signed_for_the_name_that_the_operator_gives(run: Run, tmp_path: Path, request_file: Path) -> None:
    printed = run("add", "dr-may", "--csr", request_file, "--out", tmp_path / "dr-may.pem")
    assert "password" not in printed
    leaf, issuer = x509.load_pem_x509_certificates((tmp_path / "dr-may.pem").read_bytes())
    own = load_pem_private_key((tmp_path / "own.key").read_bytes(), None)
    assert leaf.public_key() == own.public_key()
    assert "CN=dr-may" in leaf.subject.rfc4514_string()
    leaf.verify_directly_issued_by(issuer)


def test_a_damaged_or_forged_request_is_refused(run: Run, tmp_path: Path, request_file: Path) -> None:
    csr = ("--csr", request_file, "--out", tmp_path / "out.pem")
    der = bytearray(x509.load_pem_x509_csr(request_file.read_bytes()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    request_file.write_text(
        f"-----BEGIN CERTIFICATE REQUEST-----\n{b64encode(der).decode()}\n-----END CERTIFICATE REQUEST-----\n"
    )
    assert "is not signed by" in run("add", "dr-may", *csr, status=1)
    request_file.write_text("none")
    assert "no certificate request in PEM" in run("add", "dr-may", *csr, status=1)
    request_file.unlink()
    assert "check the path" in run("add", "dr-may", *csr, status=1)
    assert not (tmp_path / "out.pem").exists()
    assert run("list") == ""


def test_persons_are_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    for name in ("dr-may", "dr-roth"):
        run("add", name, "--out", tmp_path / f"{name}.p12")
    run("add", "dr-may", "--out", tmp_path / "renewed.p12")
    assert [line.split()[:2] for line in run("list").splitlines()] == [
        ["dr-may", "valid"],
        ["dr-roth", "valid"],
        ["dr-may", "valid"],
    ]
    assert "revoked 2 certificates of dr-may" in run("revoke", "dr-may")
    assert [line.split()[1] for line in run("list").splitlines()] == ["revoked", "valid", "revoked"]
    serial = run("list").splitlines()[1].split()[-1]
    assert "revoked 1" in run("revoke", serial)


def test_failures_are_one_line_that_says_what_to_do(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert "give the path of a new file" in run("add", "dr-may", "--out", tmp_path / "there", status=1)
    assert "give 1 to 64 letters" in run("add", "dr may", "--out", tmp_path / "new", status=1)
    for out in (tmp_path / "none" / "new", tmp_path / "there" / "new", tmp_path / ("x" * 300)):
        for csr in ((), ("--csr", tmp_path / "request.pem")):
            failed = run("add", "dr-may", "--out", out, *csr, status=1)
            assert "the path" in failed
            assert failed.count("\n") == 1
    assert run("list") == "", "no certificate is issued that nobody gets"
    assert "no valid certificate of staff" in run("revoke", "nobody", status=1)
    assert "--password" in run("add", "dr-may", "--out", tmp_path / "new", "--password", "x", status=2)
