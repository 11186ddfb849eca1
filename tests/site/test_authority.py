"""The site's certification authority: what it issues, revokes and rotates. OpenSSL's command verifies the chains."""

import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud.errors import ClinicError
from cloud.site import Authority, Kind
from cloud.site.authority import ROOT_OVERLAP_S
from cloud.site.certificates import BACKDATE_S, CRL_LIFE_S, ISSUING_LIFE_S, LIFE_S

NOW_S = 1_800_000_000
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Authority.create(tmp_path_factory.mktemp("authority") / "site", "Praxis am Markt", "DE", "Bayern", NOW_S).folder


@pytest.fixture
def authority(template: Path, tmp_path: Path) -> Authority:
    """A copy of a new site: to make the keys and sync them to the disk takes longer."""
    return Authority.load(shutil.copytree(template, tmp_path / "site"))


def split(chain: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(chain)


def verify(folder: Path, trusted: bytes, chain: bytes, *options: str, at_s: int = NOW_S) -> str:
    """Run `openssl verify` on the first certificate of a chain; returns "OK" or the first error."""
    leaf, *rest = [f"{part}-----END CERTIFICATE-----\n" for part in chain.decode().split("-----END CERTIFICATE-----\n")[:-1]]
    for name, text in (("trusted", trusted.decode()), ("leaf", leaf), ("rest", "".join(rest))):
        (folder / f"{name}.pem").write_text(text)
    files = ("-CAfile", folder / "trusted.pem", "-untrusted", folder / "rest.pem", folder / "leaf.pem")
    command = ["openssl", "verify", "-x509_strict", "-attime", str(at_s), *options, *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return "OK"
    return next(line for line in result.stderr.splitlines() if line.startswith("error ")).split(": ", 1)[1]


def anchors(authority: Authority, kind: Kind) -> bytes:
    return authority.anchors_file(kind).read_bytes()


def test_a_certificate_names_its_owner_and_the_country_of_the_site(authority: Authority, tmp_path: Path) -> None:
    chain = authority.issue_service("broker", ["clinic.example", "192.0.2.1", "2001:db8::1"], KEY, NOW_S)
    leaf, issuing = split(chain)
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "broker"
    assert issuing.subject.rfc4514_string() == "CN=services 1,O=Praxis am Markt,ST=Bayern,C=DE"
    assert leaf.issuer == issuing.subject
    for option in ("-verify_hostname", "clinic.example"), ("-verify_ip", "192.0.2.1"), ("-verify_ip", "2001:db8::1"):
        assert verify(tmp_path, authority.roots, chain, *option, "-purpose", "sslserver") == "OK"
    assert verify(tmp_path, authority.roots, chain, "-verify_hostname", "other.example") == "hostname mismatch"


def test_hubs_and_staff_cannot_be_servers(authority: Authority, tmp_path: Path) -> None:
    for chain in (authority.issue_hub("hub-1", KEY, NOW_S), authority.issue_staff("mara", KEY, NOW_S)):
        assert verify(tmp_path, authority.roots, chain, "-purpose", "sslclient") == "OK"
        assert verify(tmp_path, authority.roots, chain, "-purpose", "sslserver") == "unsuitable certificate purpose"


@pytest.mark.parametrize("kind", Kind)
def test_an_anchor_accepts_its_own_kind_only(authority: Authority, tmp_path: Path, kind: Kind) -> None:
    chains = {
        Kind.HUBS: authority.issue_hub("same", KEY, NOW_S),
        Kind.STAFF: authority.issue_staff("same", KEY, NOW_S),
        Kind.SERVICES: authority.issue_service("same", [], KEY, NOW_S),
    }
    for other, chain in chains.items():
        result = verify(tmp_path, anchors(authority, kind), chain, "-purpose", "sslclient")
        assert (result == "OK") == (other == kind), result


@pytest.mark.parametrize("kind", Kind)
def test_a_certificate_is_valid_for_the_life_of_its_kind(authority: Authority, kind: Kind) -> None:
    issue = {
        Kind.HUBS: lambda: authority.issue_hub("a", KEY, NOW_S),
        Kind.STAFF: lambda: authority.issue_staff("a", KEY, NOW_S),
        Kind.SERVICES: lambda: authority.issue_service("a", ["a"], KEY, NOW_S),
    }[kind]
    leaf = split(issue())[0]
    assert leaf.not_valid_after_utc.timestamp() == NOW_S + LIFE_S[kind]
    assert leaf.not_valid_before_utc.timestamp() == NOW_S - BACKDATE_S


def test_a_certificate_ends_with_its_issuing_ca(authority: Authority) -> None:
    end_s = NOW_S + ISSUING_LIFE_S
    leaf, issuing = split(authority.issue_hub("hub-1", KEY, end_s - 3600))
    assert leaf.not_valid_after_utc == issuing.not_valid_after_utc
    with pytest.raises(ClinicError, match="the issuing CA for hubs has expired: run pulsegate-cloud site rotate-root"):
        authority.issue_hub("hub-1", KEY, end_s)


def test_keys_are_readable_by_their_owner_only(authority: Authority) -> None:
    keys = [*authority.folder.rglob("*.key"), authority.folder / "certificates.db"]
    assert len(keys) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in authority.public.iterdir()} == {0o644}


class TestRevocation:
    def check(self, authority: Authority, folder: Path, chain: bytes, at_s: int = NOW_S) -> str:
        lists = authority.crl_file(Kind.HUBS)
        return verify(folder, anchors(authority, Kind.HUBS), chain, "-crl_check", "-CRLfile", str(lists), at_s=at_s)

    def test_all_certificates_of_a_name_are_revoked(self, authority: Authority, tmp_path: Path) -> None:
        older, newer = (authority.issue_hub("hub-1", KEY, NOW_S) for _ in range(2))
        other = authority.issue_hub("hub-2", KEY, NOW_S)
        assert authority.revoke(Kind.HUBS, "hub-1", NOW_S) == 2
        results = [self.check(authority, tmp_path, chain) for chain in (older, newer, other)]
        assert results == ["certificate revoked", "certificate revoked", "OK"]

    def test_one_certificate_is_revoked_by_its_serial_number(self, authority: Authority, tmp_path: Path) -> None:
        lost, kept = (authority.issue_hub("hub-1", KEY, NOW_S) for _ in range(2))
        assert authority.revoke(Kind.HUBS, f"{split(lost)[0].serial_number:X}", NOW_S) == 1
        assert [self.check(authority, tmp_path, chain) for chain in (lost, kept)] == ["certificate revoked", "OK"]

    def test_a_name_is_revoked_until_it_gets_a_new_certificate(self, authority: Authority) -> None:
        assert not authority.is_revoked(Kind.HUBS, "hub-1")
        authority.issue_hub("hub-1", KEY, NOW_S)
        authority.revoke(Kind.HUBS, "hub-1", NOW_S)
        assert authority.is_revoked(Kind.HUBS, "hub-1")
        authority.issue_hub("hub-1", KEY, NOW_S + 1)
        assert not authority.is_revoked(Kind.HUBS, "hub-1")

    def test_another_kind_of_the_same_name_is_not_revoked(self, authority: Authority) -> None:
        authority.issue_hub("same", KEY, NOW_S)
        authority.issue_staff("same", KEY, NOW_S)
        authority.revoke(Kind.STAFF, "same", NOW_S)
        assert not authority.is_revoked(Kind.HUBS, "same")

    def test_an_unknown_or_expired_certificate_cannot_be_revoked(self, authority: Authority) -> None:
        authority.issue_hub("hub-1", KEY, NOW_S)
        for name, at_s in (("hub-2", NOW_S), ("hub-1", NOW_S + LIFE_S[Kind.HUBS])):
            with pytest.raises(ClinicError, match=f"no valid certificate of hubs has the name or serial number '{name}'"):
                authority.revoke(Kind.HUBS, name, at_s)

    def test_a_list_expires_and_is_written_again(self, authority: Authority, tmp_path: Path) -> None:
        chain = authority.issue_hub("hub-1", KEY, NOW_S + CRL_LIFE_S)
        late_s = NOW_S + CRL_LIFE_S + 1
        assert self.check(authority, tmp_path, chain, late_s) == "CRL has expired"
        authority.write_crls(late_s)
        assert self.check(authority, tmp_path, chain, late_s) == "OK"

    def test_the_number_of_a_list_grows_even_if_the_clock_is_set_back(self, authority: Authority) -> None:
        def number() -> int:
            crl = x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes())
            return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

        before = number()
        authority.write_crls(NOW_S - 1000)
        assert number() > before

    def test_a_list_is_later_than_the_one_of_the_same_second_and_valid_at_once(self, authority: Authority) -> None:
        """Of two lists with one time a running server uses the first: what was revoked last would stay in."""
        times = [int(x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes()).last_update_utc.timestamp())]
        for _ in range(3):
            authority.write_crls(NOW_S)
            times.append(int(x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes()).last_update_utc.timestamp()))
        assert times == [NOW_S - BACKDATE_S + n for n in range(4)]
        authority.write_crls(NOW_S - 2 * BACKDATE_S)
        crl = x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes())
        assert crl.last_update_utc.timestamp() == NOW_S - 2 * BACKDATE_S

    def test_two_processes_write_their_lists_one_after_the_other(self, authority: Authority) -> None:
        """Otherwise the first to read the ledger could replace the newer lists, and what was just revoked would be let in."""
        authority.issue_hub("hub-1", KEY, NOW_S)
        other = threading.Thread(target=authority.revoke, args=(Kind.HUBS, "hub-1", NOW_S))
        with authority._ledger.writing_lists(NOW_S):
            other.start()
            other.join(0.2)
            assert other.is_alive()
            assert not authority.is_revoked(Kind.HUBS, "hub-1")
        other.join()
        assert len(x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes())) == 1

    def test_what_has_expired_leaves_the_list(self, authority: Authority) -> None:
        authority.issue_hub("hub-1", KEY, NOW_S)
        authority.revoke(Kind.HUBS, "hub-1", NOW_S)
        assert len(x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes())) == 1
        authority.write_crls(NOW_S + LIFE_S[Kind.HUBS])
        assert len(x509.load_pem_x509_crl(authority.crl_file(Kind.HUBS).read_bytes())) == 0


class TestRotation:
    def test_two_roots_overlap(self, authority: Authority, tmp_path: Path) -> None:
        old_roots, old_chain = authority.roots, authority.issue_service("broker", ["a.example"], KEY, NOW_S)
        authority.rotate_root(NOW_S)
        new_chain = authority.issue_service("broker", ["a.example"], KEY, NOW_S)
        assert split(new_chain)[1].subject.rfc4514_string().startswith("CN=services 2,")
        roots_now = split(authority.roots)
        assert [root.subject.rfc4514_string()[:9] for root in roots_now] == ["CN=root 2", "CN=root 1"]
        for roots in (old_roots, authority.roots):
            for chain in (old_chain, new_chain):
                assert verify(tmp_path, roots, chain) == "OK"

    def test_clients_of_both_generations_are_accepted_and_can_be_revoked(self, authority: Authority, tmp_path: Path) -> None:
        old = authority.issue_hub("hub-1", KEY, NOW_S)
        authority.rotate_root(NOW_S)
        new = authority.issue_hub("hub-2", KEY, NOW_S)
        crl = ("-crl_check", "-CRLfile", str(authority.crl_file(Kind.HUBS)))
        for name, chain in (("hub-1", old), ("hub-2", new)):
            assert verify(tmp_path, anchors(authority, Kind.HUBS), chain, *crl) == "OK"
            authority.revoke(Kind.HUBS, name, NOW_S)
            assert verify(tmp_path, anchors(authority, Kind.HUBS), chain, *crl) == "certificate revoked"

    def test_a_retired_root_is_no_longer_trusted(self, authority: Authority, tmp_path: Path) -> None:
        old_chain = authority.issue_service("broker", ["a.example"], KEY, NOW_S)
        authority.rotate_root(NOW_S)
        with pytest.raises(ClinicError, match="two roots are trusted already"):
            authority.rotate_root(NOW_S)
        with pytest.raises(
            ClinicError, match="the new root is too young: hubs that were off may not know it; wait 365 more days"
        ):
            authority.retire_root(NOW_S)
        later_s = NOW_S + ROOT_OVERLAP_S
        authority.retire_root(later_s)
        assert len(split(authority.roots)) == 1
        assert not list((authority.folder / "1").glob("*.key"))
        chain = authority.issue_service("broker", ["a.example"], KEY, later_s)
        assert len(split(chain)) == 2
        assert verify(tmp_path, authority.roots, chain, at_s=later_s) == "OK"
        assert verify(tmp_path, authority.roots, old_chain) == "unable to get local issuer certificate"

    def test_an_attempt_that_did_not_finish_is_repeated(self, authority: Authority) -> None:
        (authority.folder / "2").mkdir()
        (authority.folder / "2" / "hubs.key").write_text("half")
        assert len(split(authority.roots)) == 1
        authority.rotate_root(NOW_S)
        assert len(split(authority.roots)) == 2

    def test_a_single_root_is_not_retired(self, authority: Authority) -> None:
        with pytest.raises(ClinicError, match="only one root is trusted"):
            authority.retire_root(NOW_S + ROOT_OVERLAP_S)


class TestRefusals:
    def test_a_site_outside_the_eu_and_the_eea(self, tmp_path: Path) -> None:
        for country in ("US", "CH", "GB", "de", ""):
            with pytest.raises(ClinicError, match="give the code of a country of the EU or the EEA"):
                Authority.create(tmp_path, "a", country, "b", NOW_S)

    def test_a_second_site_in_the_same_folder(self, authority: Authority) -> None:
        with pytest.raises(ClinicError, match="holds a site already"):
            Authority.create(authority.folder, "a", "DE", "b", NOW_S)

    def test_a_folder_without_a_site(self, tmp_path: Path) -> None:
        with pytest.raises(ClinicError, match="create it with pulsegate-cloud site init"):
            Authority.load(tmp_path)

    @pytest.mark.parametrize("name", ["", "a/b", "+", "a b", "ä", "a" * 65, "a\n"])
    def test_names_that_are_no_part_of_a_topic(self, authority: Authority, name: str) -> None:
        with pytest.raises(ClinicError, match="is not allowed: give 1 to 64 letters"):
            authority.issue_hub(name, KEY, NOW_S)

    @pytest.mark.parametrize("host", ["", "*.example", "a b", "-a", "a..b", "fe80::1%eth0", "a\n"])
    def test_hosts_that_are_no_hosts(self, authority: Authority, host: str) -> None:
        with pytest.raises(ClinicError, match="give a host name or an IP address"):
            authority.issue_service("broker", [host], KEY, NOW_S)

    def test_a_key_on_another_curve(self, authority: Authority) -> None:
        with pytest.raises(ClinicError, match="curve secp256k1: use P-256 or P-384"):
            authority.issue_hub("hub-1", ec.generate_private_key(ec.SECP256K1()).public_key(), NOW_S)

    def test_texts_that_would_end_a_string_of_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(ClinicError, match="site 'a\"' is not allowed"):
            Authority.create(tmp_path, 'a"', "DE", "b", NOW_S)


def test_a_loaded_site_is_the_created_one(authority: Authority) -> None:
    loaded = Authority.load(authority.folder)
    assert (loaded.name, loaded.roots) == (authority.name, authority.roots)
    assert len(split(loaded.issue_hub("hub-1", KEY, NOW_S))) == 2
    assert [(one.kind, one.name) for one in authority.list_issued()] == [(Kind.HUBS, "hub-1")]
