"""The certification authority of a site, in one folder. Only the owner can read its private keys and its list.

folder/site.toml          name, country and region of the site
folder/certificates.db    what was issued and revoked (`cloud.site.ledger`)
folder/GENERATION/        root.pem, root.key, and for each kind KIND.pem, KIND.key and KIND-anchor.pem; from the second
                          generation on also root-cross.pem, this root signed by the one before
folder/public/            what servers read: roots.pem, and for each kind KIND-anchors.pem and KIND-crl.pem
"""

import contextlib
import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from cloud.errors import ClinicError
from cloud.site.certificates import (
    Kind,
    Signer,
    SiteName,
    cross_sign,
    end_s_of,
    make_crl,
    make_issuing,
    make_key,
    make_leaf,
    make_root,
)
from cloud.site.ledger import Issued, Ledger
from config.endpoint import is_host
from config.files import replacing
from config.regions import ALLOWED_REGION, is_allowed_region
from sync.key_files import PUBLIC_MODE, KeyFileError, check_private_file, create_secret_file
from sync.wire import is_name

ROOT_OVERLAP_S: Final = 365 * 24 * 3600
"""Time from a new root to the end of the one before: a hub that was off for months still trusts one of the site's roots."""
ALLOWED_NAME: Final = "1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
_TEXT: Final = re.compile(r"[\w .,'-]{1,64}")
"""Site and region: 64 characters is the limit of a name in a certificate (RFC 5280, upper bounds). No quotes: TOML holds it."""
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)
"""BSI TR-02102-1 recommends both."""
_SITE_FILE: Final = "site.toml"


@dataclass(frozen=True, slots=True)
class _Generation:
    """The folder of one root and its issuing CAs."""

    number: int
    path: Path

    def load(self, name: str) -> Signer:
        key_path = self.path / f"{name}.key"
        check_private_file(key_path)
        try:
            key = load_pem_private_key(key_path.read_bytes(), None)
        except ValueError as error:
            raise KeyFileError(f"{key_path} is damaged: restore it from a backup") from error
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Signer(x509.load_pem_x509_certificate(self.read(name)), key)

    def read(self, name: str) -> bytes:
        return (self.path / f"{name}.pem").read_bytes()

    def save(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        if key is not None:
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            create_secret_file(self.path / f"{name}.key", pem)
        _write_public(self.path / f"{name}.pem", certificate.public_bytes(Encoding.PEM))


class Authority:
    """Issues and revokes the certificates of one site."""

    def __init__(self, folder: Path, name: SiteName) -> None:
        """Use `create` or `load`."""
        self.folder, self.name = folder.absolute(), name
        self.public = self.folder / "public"
        self._ledger = Ledger(self.folder / "certificates.db")

    @classmethod
    def create(cls, folder: Path, site: str, country: str, region: str, now_s: int) -> Self:
        """Create the root and the issuing CAs of a new site.

        Raises:
            ClinicError: the folder holds a site, the country is outside the EU and the EEA, a name is not allowed, or a file
                cannot be written.
        """
        if (folder / _SITE_FILE).exists():
            raise ClinicError(f"{folder} holds a site already: choose another folder")
        if not is_allowed_region(country):
            raise ClinicError(f"country {country!r} is not allowed: give {ALLOWED_REGION}")
        for what, text in (("site", site), ("region", region)):
            if not _TEXT.fullmatch(text):
                raise ClinicError(f"{what} {text!r} is not allowed: give 1 to 64 letters, digits, spaces and .,'-")
        authority = cls(folder, SiteName(site, country, region))
        with _reporting_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            authority.public.mkdir(mode=0o755, exist_ok=True)
            folder.chmod(0o711)  # the broker's user reads `public`
            authority._add_generation(1, now_s)
            settings = f'site = "{site}"\ncountry = "{country}"\nregion = "{region}"\n'
            with replacing(folder / _SITE_FILE, durable=True) as draft:
                draft.write_text(settings, encoding="utf-8")
        authority.write_crls(now_s)
        return authority

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the site in a folder.

        Raises:
            ClinicError: there is none, or its file cannot be read.
        """
        path = folder / _SITE_FILE
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(folder, SiteName(settings["site"], settings["country"], settings["region"]))
        except FileNotFoundError as error:
            raise ClinicError(f"there is no site in {folder}: create it with pulsegate-cloud site init") from error
        except (OSError, ValueError, KeyError) as error:
            raise ClinicError(f"cannot read {path} ({error}): restore it from a backup") from error

    @property
    def roots(self) -> bytes:
        """The roots that others trust, newest first, as PEM: one, or two while a new root replaces an older one."""
        return (self.public / "roots.pem").read_bytes()

    def fingerprints(self) -> list[bytes]:
        """Return the SHA-256 digests of `roots`, newest first."""
        return [root.fingerprint(hashes.SHA256()) for root in x509.load_pem_x509_certificates(self.roots)]

    def issue_hub(self, hub: str, public_key: ec.EllipticCurvePublicKey, now_s: int) -> bytes:
        """Return a client certificate of a hub and its chain as PEM: the leaf first, without the root.

        Raises:
            ClinicError: the name or the key is not allowed, or the issuing CA has expired.
            KeyFileError: the key of the issuing CA is missing, damaged or readable by others.
        """
        return self._issue(Kind.HUBS, hub, public_key, (), now_s)

    def issue_staff(self, user: str, public_key: ec.EllipticCurvePublicKey, now_s: int) -> bytes:
        """Return a client certificate of a person, as `issue_hub` does."""
        return self._issue(Kind.STAFF, user, public_key, (), now_s)

    def issue_service(self, name: str, hosts: Sequence[str], public_key: ec.EllipticCurvePublicKey, now_s: int) -> bytes:
        """Return a certificate of a service that is reached at `hosts`, names or IP addresses, as `issue_hub` does."""
        for host in hosts:
            if not is_host(host):
                raise ClinicError(f"host {host!r} is not allowed: give a host name or an IP address")
        return self._issue(Kind.SERVICES, name, public_key, hosts, now_s)

    def revoke(self, kind: Kind, name_or_serial: str, now_s: int) -> int:
        """Revoke all certificates of a name, or the one with this serial number in hexadecimal; returns how many it were.

        The revocation lists are written, too; servers must then read them again, and cut connections that are open.

        Raises:
            ClinicError: no such certificate is valid, or a file cannot be written.
        """
        n = self._ledger.revoke(kind, name_or_serial, now_s)
        if n == 0:
            raise ClinicError(f"no valid certificate of {kind} has the name or serial number {name_or_serial!r}: check it")
        self.write_crls(now_s)
        return n

    def is_revoked(self, kind: Kind, name: str) -> bool:
        """Whether the latest certificate of a name was revoked; it may have expired since. False if there was none."""
        issued = self._ledger.list_issued(kind, name)
        return bool(issued) and issued[-1].revoked_s is not None

    def list_revoked_names(self, kind: Kind, now_s: int) -> list[str]:
        """Return the names whose latest certificate was revoked and has not expired."""
        latest = {issued.name: issued for issued in self._ledger.list_issued(kind)}
        return sorted(name for name, one in latest.items() if one.revoked_s is not None and one.expires_s > now_s)

    def list_issued(self, kind: Kind | None = None, name: str | None = None) -> list[Issued]:
        """Return the certificates that were issued, oldest first, of one kind and name if they are given."""
        return self._ledger.list_issued(kind, name)

    def write_crls(self, now_s: int) -> None:
        """Write the revocation list of each kind to the folder `public`. They expire after `CRL_LIFE_S`: repeat this daily.

        Raises:
            ClinicError: a file cannot be written.
            KeyFileError: the key of an issuing CA is missing, damaged or readable by others.
        """
        with self._ledger.writing_lists(now_s) as (number, written_s), _reporting_os_errors(self.folder):
            for kind in Kind:
                lists = [
                    make_crl(one.load(kind), self._ledger.list_revoked(kind, one.number, now_s), number, written_s)
                    for one in self._trusted()
                ]
                _write_public(self.crl_file(kind), b"".join(crl.public_bytes(Encoding.PEM) for crl in lists))

    def anchors_file(self, kind: Kind) -> Path:
        """The trust anchors of a server that accepts clients of this kind only."""
        return anchors_path(self.public, kind)

    def crl_file(self, kind: Kind) -> Path:
        """The revocation lists for `anchors_file`."""
        return crl_path(self.public, kind)

    def rotate_root(self, now_s: int) -> None:
        """Create a new root with new issuing CAs. The one before stays trusted until `retire_root`.

        Certificates are issued by the new issuing CAs from now on; their chain leads to both roots.

        Raises:
            ClinicError: two roots are trusted already, or a file cannot be written.
        """
        *older, newest = self._trusted()
        if older:
            raise ClinicError("two roots are trusted already: retire the older one first (pulsegate-cloud site retire-root)")
        with _reporting_os_errors(self.folder):
            self._add_generation(newest.number + 1, now_s)
        self.write_crls(now_s)

    def retire_root(self, now_s: int) -> None:
        """Trust only the newest root from now on, and delete the keys of the one before.

        Raises:
            ClinicError: there is only one root, or the newest is too young.
        """
        *older, newest = self._trusted()
        if not older:
            raise ClinicError("only one root is trusted: create a new one first (pulsegate-cloud site rotate-root)")
        root = x509.load_pem_x509_certificate(newest.read("root"))
        age_s = now_s - int(root.not_valid_before_utc.timestamp())
        if age_s < ROOT_OVERLAP_S:
            days = (ROOT_OVERLAP_S - age_s) // 86400 + 1
            raise ClinicError(f"the new root is too young: hubs that were off may not know it; wait {days} more days")
        with _reporting_os_errors(self.folder):
            for one in older:
                for key in one.path.glob("*.key"):
                    key.unlink()
            self._write_trust()
        self.write_crls(now_s)

    def _issue(self, kind: Kind, name: str, public_key: ec.EllipticCurvePublicKey, hosts: Sequence[str], now_s: int) -> bytes:
        if not is_name(name):
            raise ClinicError(f"name {name!r} is not allowed: give {ALLOWED_NAME}")
        if not isinstance(public_key.curve, _CURVES):
            raise ClinicError(f"the key of {name} is on the curve {public_key.curve.name}: use P-256 or P-384")
        *older, newest = self._trusted()
        with _reporting_os_errors(self.folder):
            issuer = newest.load(kind)
            if end_s_of(issuer.certificate) <= now_s:
                raise ClinicError(f"the issuing CA for {kind} has expired: run pulsegate-cloud site rotate-root")
            leaf = make_leaf(kind, self.name.with_common_name(name), public_key, hosts, issuer, now_s)
            self._ledger.add(Issued(leaf.serial_number, kind, name, newest.number, now_s, end_s_of(leaf)))
            cross = newest.read("root-cross") if older else b""
            return leaf.public_bytes(Encoding.PEM) + newest.read(kind) + cross

    def _trusted(self) -> list[_Generation]:
        """The generations whose keys are there, oldest first."""
        folders = [path for path in self.folder.iterdir() if path.name.isdecimal() and (path / "root.key").exists()]
        return sorted((_Generation(int(path.name), path) for path in folders), key=lambda one: one.number)

    def _add_generation(self, number: int, now_s: int) -> None:
        older = self._trusted()
        new = _Generation(number, self.folder / str(number))
        if new.path.exists():  # an attempt that did not finish: nothing was issued by it
            shutil.rmtree(new.path)
        new.path.mkdir(mode=0o700)
        key = make_key()
        root = make_root(self.name.with_common_name(f"root {number}"), key, now_s)
        for kind in Kind:
            name, issuing_key = self.name.with_common_name(f"{kind} {number}"), make_key()
            issuing, anchor = make_issuing(kind, name, issuing_key, Signer(root, key), now_s)
            new.save(kind, issuing, issuing_key)
            new.save(f"{kind}-anchor", anchor)
        for one in older:
            new.save("root-cross", cross_sign(root, one.load("root")))
        new.save("root", root, key)  # last: with this key the generation counts
        self._write_trust()

    def _write_trust(self) -> None:
        generations = self._trusted()[::-1]
        _write_public(self.public / "roots.pem", b"".join(one.read("root") for one in generations))
        for kind in Kind:
            _write_public(self.anchors_file(kind), b"".join(one.read(f"{kind}-anchor") for one in generations))


def anchors_path(public: Path, kind: Kind) -> Path:
    """Return the file of trust anchors in a folder `public`."""
    return public / f"{kind}-anchors.pem"


def crl_path(public: Path, kind: Kind) -> Path:
    """Return the file of revocation lists in a folder `public`."""
    return public / f"{kind}-crl.pem"


def _write_public(path: Path, content: bytes) -> None:
    with replacing(path, durable=True, mode=PUBLIC_MODE) as draft:
        draft.write_bytes(content)


@contextlib.contextmanager
def _reporting_os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ClinicError(
            f"cannot use the site's folder {folder} ({error}): check that you run as the clinic's user"
        ) from error
