"""The contexts of clients and servers against servers and clients that they must accept or refuse."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloud.site import Authority, Kind
from cloud.site.certificates import ISSUING_LIFE_S, LIFE_S, Signer, SiteName, make_issuing, make_key, make_leaf, make_root
from config.endpoint import Endpoint
from config.identity import write_identity
from config.tls import (
    PeerError,
    TlsSetupError,
    explain_failure,
    load_identity,
    load_revoked,
    make_client_context,
    make_endpoint_context,
    make_server_context,
    read_roots,
)
from tests.mosquitto import make_identity, now_s
from tests.tls_probe import check_tls_policy
from tests.tls_server import greet, run_tls_server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("tls") / "site", "Testklinik", "DE", "Bayern", now_s())


@pytest.fixture(scope="module")
def server_identity(authority: Authority) -> Path:
    return make_identity(authority, authority.folder.parent / "server", Kind.SERVICES, "page")


@pytest.fixture(scope="module")
def hub_identity(authority: Authority) -> Path:
    return make_identity(authority, authority.folder.parent / "hub", Kind.HUBS, "hub-1")


@pytest.fixture
def port(server_identity: Path) -> Iterator[int]:
    with run_tls_server(make_server_context(server_identity)) as port:
        yield port


def refusal(context: ssl.SSLContext, port: int, name: str = "localhost") -> str:
    with pytest.raises(ssl.SSLError) as refused:
        greet(context, port, name)
    return explain_failure(refused.value)


def client(authority: Authority, region: str = "DE", **options: object) -> ssl.SSLContext:
    return make_client_context(authority.roots.decode(), region, **options)  # type: ignore[arg-type]


@contextmanager
def server_in(country: str, folder: Path) -> Iterator[tuple[int, str]]:
    """A server of a well-made site in any country; yields its port and the root."""
    name, key, leaf_key = SiteName("Site", country, "Somewhere"), make_key(), ec.generate_private_key(ec.SECP256R1())
    root = make_root(name.with_common_name("root 1"), key, now_s())
    issuing_key = make_key()
    issuing, _ = make_issuing(Kind.SERVICES, name.with_common_name("services 1"), issuing_key, Signer(root, key), now_s())
    signer = Signer(issuing, issuing_key)
    leaf = make_leaf(Kind.SERVICES, name.with_common_name("page"), leaf_key.public_key(), ["localhost"], signer, now_s())
    pem, roots, issuing_pem = (certificate.public_bytes(Encoding.PEM) for certificate in (leaf, root, issuing))
    write_identity(folder, leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), pem + issuing_pem, roots)
    with run_tls_server(make_server_context(folder)) as port:
        yield port, roots.decode()


class TestClient:
    def test_a_server_of_the_site_is_accepted_by_name_and_address(self, authority: Authority, port: int) -> None:
        assert greet(client(authority), port) == greet(client(authority), port, "127.0.0.1") == b"hello"

    def test_another_name_is_refused(self, authority: Authority, port: int) -> None:
        for name in ("page", "example.org", "127.0.0.2", "::1"):
            assert refusal(client(authority), port, name).startswith("has a certificate for another name: set host to")

    def test_another_site_is_refused(self, port: int, tmp_path: Path) -> None:
        other = Authority.create(tmp_path, "Testklinik", "DE", "Bayern", now_s())
        assert refusal(client(other), port).startswith("has a certificate of another site")

    def test_a_public_ca_is_not_trusted(self, authority: Authority) -> None:
        assert [authority_["subject"] for authority_ in client(authority).get_ca_certs()] == [
            (
                (("countryName", "DE"),),
                (("stateOrProvinceName", "Bayern"),),
                (("organizationName", "Testklinik"),),
                (("commonName", "root 1"),),
            )
        ]

    @pytest.mark.parametrize(("country", "region"), [("US", "DE"), ("AT", "DE"), ("CH", "AT")])
    def test_another_country_than_that_of_the_settings_is_refused(self, tmp_path: Path, country: str, region: str) -> None:
        with server_in(country, tmp_path) as (port, roots):
            reason = refusal(make_client_context(roots, region), port)
        assert reason == f"is in {country}, and region is {region}: check host and region; the server is not used"

    def test_the_country_of_the_settings_is_accepted(self, tmp_path: Path) -> None:
        with server_in("AT", tmp_path) as (port, roots):
            assert greet(make_client_context(roots, "AT"), port) == b"hello"

    @pytest.mark.parametrize("region", ["US", "CH", "GB", "de", ""])
    def test_a_region_outside_the_eu_and_the_eea_makes_no_context(self, authority: Authority, region: str) -> None:
        with pytest.raises(TlsSetupError, match="is not allowed: set it to the code of a country of the EU or the EEA"):
            client(authority, region)

    @pytest.mark.parametrize(
        ("shift_s", "reason"),
        [
            (LIFE_S[Kind.SERVICES] + 10, "has a certificate that expired on"),
            (ISSUING_LIFE_S + 10, "has a certificate that expired on"),
            (-3600, "has a certificate that is not valid before"),
            (-now_s(), "has a certificate that is not valid before"),
        ],
        ids=["after the service's life", "after the issuer's life", "an hour before", "in 1970"],
    )
    def test_validity_is_that_of_the_given_clock(self, authority: Authority, port: int, shift_s: int, reason: str) -> None:
        assert refusal(client(authority, now_s=lambda: now_s() + shift_s), port).startswith(reason)

    def test_a_certificate_of_the_past_is_valid_by_a_clock_of_the_past(self, tmp_path: Path) -> None:
        """As a hub that got its time from the site: the computer's own clock, which OpenSSL would use, is years off."""
        then_s = now_s() - 10 * ISSUING_LIFE_S
        past = Authority.create(tmp_path / "site", "Testklinik", "DE", "Bayern", then_s)
        identity = make_identity(past, tmp_path / "server", Kind.SERVICES, "page", at_s=then_s)
        with run_tls_server(make_server_context(identity)) as port:
            assert greet(client(past, now_s=lambda: then_s), port) == b"hello"
            assert refusal(client(past), port).startswith("has a certificate that expired on")

    def test_an_expired_issuing_ca_is_refused_although_the_leaf_is_valid(self, authority: Authority, tmp_path: Path) -> None:
        """Our CA never issues such a leaf; a stolen key of an old issuing CA could."""
        late_s, generation = now_s() + ISSUING_LIFE_S + 10, authority.folder / "1"
        key = ec.generate_private_key(ec.SECP256R1())
        signer = authority._trusted()[0].load(Kind.SERVICES)
        name = authority.name.with_common_name("page")
        renamed = Signer(make_root(signer.certificate.subject, signer.key, late_s), signer.key)
        leaf = make_leaf(Kind.SERVICES, name, key.public_key(), ["localhost"], renamed, late_s)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = leaf.public_bytes(Encoding.PEM) + (generation / "services.pem").read_bytes()
        write_identity(tmp_path, pem, chain, authority.roots)
        with run_tls_server(make_server_context(tmp_path)) as port:
            assert refusal(client(authority, now_s=lambda: late_s), port).startswith("has a certificate that expired on")

    @pytest.mark.parametrize("kind", [Kind.HUBS, Kind.STAFF])
    def test_clients_of_the_site_cannot_pose_as_its_server(self, authority: Authority, tmp_path: Path, kind: Kind) -> None:
        with run_tls_server(make_server_context(make_identity(authority, tmp_path, kind, "localhost"))) as port:
            assert refusal(client(authority), port) == "has a certificate that is not for servers: check host and port"

    def test_a_server_of_tls_1_2_is_refused(self, authority: Authority, server_identity: Path) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.load_cert_chain(server_identity / "identity.pem")
        with run_tls_server(old) as port:
            assert refusal(client(authority), port) == "speaks no TLS 1.3: update it; nothing older is used"

    def test_asyncio_makes_the_same_checks(self, authority: Authority, port: int) -> None:
        async def connect(region: str) -> bytes:
            context = client(authority, region)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            greeting = await reader.readexactly(5)
            writer.close()
            await writer.wait_closed()
            return greeting

        assert asyncio.run(connect("DE")) == b"hello"
        with pytest.raises(PeerError, match="is in DE, and region is AT"):
            asyncio.run(connect("AT"))

    def test_both_roots_are_trusted_during_a_rotation(self, tmp_path: Path) -> None:
        site = Authority.create(tmp_path / "site", "Testklinik", "DE", "Bayern", now_s())
        old_client, old_server = client(site), make_identity(site, tmp_path / "old", Kind.SERVICES, "page")
        site.rotate_root(now_s())
        new_server = make_identity(site, tmp_path / "new", Kind.SERVICES, "page")
        for identity in (old_server, new_server):
            with run_tls_server(make_server_context(identity)) as port:
                assert greet(old_client, port) == greet(client(site), port) == b"hello"
        with run_tls_server(make_server_context(new_server)) as port:
            assert refusal(client(site, "AT"), port).startswith("is in DE")


class TestServer:
    @pytest.fixture
    def make_context(self, authority: Authority, server_identity: Path) -> Callable[..., ssl.SSLContext]:
        files = {"anchors": authority.anchors_file(Kind.HUBS), "crl": authority.crl_file(Kind.HUBS)}
        return lambda **options: make_server_context(server_identity, **files, **options)

    def test_suites_and_versions(self, make_context: Callable[..., ssl.SSLContext], hub_identity: Path) -> None:
        with run_tls_server(make_context()) as port:
            check_tls_policy(port, identity=hub_identity)

    def test_clients_of_the_right_kind_are_accepted(
        self, authority: Authority, make_context: Callable[..., ssl.SSLContext], hub_identity: Path, tmp_path: Path
    ) -> None:
        with run_tls_server(make_context()) as port:
            assert greet(client(authority, identity=hub_identity), port) == b"hello"
            assert refusal(client(authority), port) == "asks for a certificate: enrol first"
            staff = make_identity(authority, tmp_path / "staff", Kind.STAFF, "hub-1")
            assert "of another site or purpose" in refusal(client(authority, identity=staff), port)
            expired = make_identity(authority, tmp_path / "a", Kind.HUBS, "hub-1", at_s=now_s() - LIFE_S[Kind.HUBS] - 1)
            assert "which has expired" in refusal(client(authority, identity=expired), port)

    def test_a_certificate_can_be_optional_but_not_wrong(
        self, authority: Authority, make_context: Callable[..., ssl.SSLContext], hub_identity: Path, tmp_path: Path
    ) -> None:
        staff = make_identity(authority, tmp_path, Kind.STAFF, "hub-1")
        with run_tls_server(make_context(is_required=False)) as port:
            assert greet(client(authority), port) == greet(client(authority, identity=hub_identity), port) == b"hello"
            assert "of another site or purpose" in refusal(client(authority, identity=staff), port)

    def test_revoked_clients_are_refused_after_the_lists_are_loaded_again(
        self, authority: Authority, make_context: Callable[..., ssl.SSLContext], tmp_path: Path
    ) -> None:
        identity = make_identity(authority, tmp_path, Kind.HUBS, "hub-lost")
        context = make_context()
        with run_tls_server(context) as port:
            assert greet(client(authority, identity=identity), port) == b"hello"
            authority.revoke(Kind.HUBS, "hub-lost", now_s())
            load_revoked(context, authority.crl_file(Kind.HUBS))
            assert "which was revoked" in refusal(client(authority, identity=identity), port)

    def test_a_renewed_certificate_is_used_without_a_restart(self, authority: Authority, tmp_path: Path) -> None:
        identity = make_identity(authority, tmp_path, Kind.SERVICES, "page", at_s=now_s() - LIFE_S[Kind.SERVICES] - 1)
        context = make_server_context(identity)
        with run_tls_server(context) as port:
            assert "expired" in refusal(client(authority), port)
            make_identity(authority, tmp_path, Kind.SERVICES, "page")
            load_identity(context, identity)
            assert greet(client(authority), port) == b"hello"


class TestFiles:
    def test_an_identity_that_others_may_read_is_refused(self, authority: Authority, tmp_path: Path) -> None:
        path = make_identity(authority, tmp_path, Kind.HUBS, "hub-1") / "identity.pem"
        path.chmod(0o640)
        with pytest.raises(TlsSetupError, match=r"identity\.pem is accessible to other users: run chmod 600 on it"):
            client(authority, identity=tmp_path)

    def test_missing_and_damaged_files_are_named(self, authority: Authority, server_identity: Path, tmp_path: Path) -> None:
        with pytest.raises(TlsSetupError, match=r"cannot read .*identity\.pem \(No such file"):
            client(authority, identity=tmp_path)
        with pytest.raises(TlsSetupError, match=r"cannot read .*roots\.pem"):
            read_roots(tmp_path)
        write_identity(tmp_path, b"", b"no certificate", b"")
        with pytest.raises(TlsSetupError, match=r"identity\.pem holds no key with its certificate"):
            client(authority, identity=tmp_path)
        with pytest.raises(TlsSetupError, match="the roots of the site are damaged"):
            make_client_context("", "DE")
        anchors = authority.anchors_file(Kind.HUBS)
        with pytest.raises(TlsSetupError, match="cannot read the revocation lists"):
            make_server_context(server_identity, anchors=anchors, crl=tmp_path / "missing.pem")

    def test_a_key_of_another_certificate_is_refused(self, authority: Authority, tmp_path: Path) -> None:
        one, other = (make_identity(authority, tmp_path / name, Kind.HUBS, name) / "identity.pem" for name in "ab")
        key, mark, _ = one.read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
        one.write_bytes(key + mark + other.read_bytes().partition(mark)[2])
        with pytest.raises(TlsSetupError, match="holds no key with its certificate"):
            client(authority, identity=tmp_path / "a")

    def test_a_configured_server_has_a_context_if_it_has_an_identity(self, hub_identity: Path) -> None:
        assert make_endpoint_context(Endpoint("127.0.0.1", 1883)) is None
        context = make_endpoint_context(Endpoint("example.org", 8883, hub_identity, "DE"))
        assert context is not None
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
