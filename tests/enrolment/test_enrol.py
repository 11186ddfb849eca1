"""A hub enrols by a code, and renews: with real TLS, on clocks of the test's."""

import contextlib
import socket
import threading
import time
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.errors import ClinicError
from cloud.registry import load_hub
from cloud.site import Kind
from config.tls import make_client_context, make_server_context
from gateway.enrolment.identity import SiteRecord
from gateway.enrolment.site_client import SiteError
from sync.registration import Registration
from tests.enrolment.site_testbed import DAY_S, NOW_S, HubMachine, Site


def certificate_of(hub: HubMachine) -> x509.Certificate:
    return x509.load_pem_x509_certificates((hub.folder / "identity.pem").read_bytes())[0]


def test_a_hub_enrols_and_has_all_it_needs_to_send(site: Site, hub: HubMachine) -> None:
    record = hub.enrol(site.invite())

    assert record == SiteRecord.load(hub.folder)
    assert (record.hub, record.subject, record.brokers) == ("hub-1", "subject-1", [["mqtt.example", 8883, "DE"]])
    assert 6.9 * DAY_S < record.until_s - NOW_S <= 7 * DAY_S
    assert certificate_of(hub).subject.rfc4514_string().startswith("CN=hub-1")
    assert (hub.folder / "identity.pem").stat().st_mode & 0o777 == 0o600
    assert (hub.folder / "roots.pem").read_bytes() == site.authority.roots
    registration = Registration.load(hub.folder / "registration.toml", "hub-1")
    assert list(registration.recipients) == ["subject-1"]
    assert registration.acknowledgement == site.folder.load_or_create_signing_keys().acknowledgement.public
    known = load_hub(site.folder.hubs / "hub-1.toml")
    assert known.device == hub.device.public
    assert site.paths == ["/v2/roots", "/v2/time", "/v2/enrol"]


def test_the_certificate_is_accepted_by_a_server_of_the_site_for_hubs(tmp_path: Path, hub: HubMachine) -> None:
    with Site(tmp_path / "clinic", now_s=int(time.time())).serving() as site:
        hub.enrol(site.invite())
    anchors, crl = site.authority.anchors_file(Kind.HUBS), site.authority.crl_file(Kind.HUBS)
    server = make_server_context(site.folder.path / "enrolment" / "tls", anchors=anchors, crl=crl)
    client = make_client_context(site.authority.roots.decode(), "DE", identity=hub.folder)
    names: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.closing(server.wrap_socket(listener.accept()[0], server_side=True)) as accepted:
                names.append(dict(part for (part, *_) in (accepted.getpeercert() or {})["subject"])["commonName"])
                accepted.sendall(b"welcome")

        thread = threading.Thread(target=serve)
        thread.start()
        with client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="127.0.0.1") as connection:
            assert connection.recv(7) == b"welcome"
        thread.join()

    assert names == ["hub-1"]


def test_the_device_key_never_leaves_the_hub_and_each_certificate_has_a_key_of_its_own(site: Site, hub: HubMachine) -> None:
    hub.enrol(site.invite())
    first = certificate_of(hub)
    hub.renew()
    second = certificate_of(hub)

    keys = [certificate.public_key() for certificate in (first, second)]
    assert keys[0] != keys[1]
    assert hub.device.public.key not in keys
    private = hub.device.to_bytes()
    files = [path for path in site.folder.path.rglob("*") if path.is_file()]
    assert [path for path in files if private in path.read_bytes() or private.hex() in path.read_text("latin-1")] == []


def test_the_secret_of_a_code_is_stored_nowhere(site: Site, hub: HubMachine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    code = site.invite()
    hub.enrol(code)
    with pytest.raises(SiteError):
        HubMachine(hub.data / "other").enrol(code)

    written = [path for path in (*site.folder.path.rglob("*"), *hub.data.rglob("*")) if path.is_file()]
    secrets = [code.secret, code.secret.hex().encode(), "".join(code.rows()).encode()[:60]]
    assert [path for path in written for secret in secrets if secret in path.read_bytes()] == []
    assert code.secret.hex() not in caplog.text
    assert str(code.secret) not in caplog.text


def test_a_hub_renews_before_and_after_its_certificate_expired(site: Site, hub: HubMachine) -> None:
    first = hub.enrol(site.invite())
    for seconds in (5 * DAY_S, 30 * DAY_S):
        site.pass_time(seconds)
        hub.pass_time(seconds)
        renewed = hub.renew()

        assert renewed.until_s - site.now_s == first.until_s - NOW_S
        assert certificate_of(hub).not_valid_after_utc.timestamp() == renewed.until_s


def test_a_hub_that_was_off_for_60_days_and_boots_in_1970_renews(site: Site, hub: HubMachine) -> None:
    hub.enrol(site.invite())
    site.pass_time(60 * DAY_S)
    hub.reboot(wall_s=100.0)
    assert hub.clock.now_s() is None
    assert hub.clock.verification_s() == 0.0

    record = hub.renew()

    assert record.from_s <= site.now_s < record.until_s
    assert hub.clock.now_s() == site.now_s
    hub.pass_time(3600)
    assert hub.clock.now_s() == site.now_s + 3600


def test_a_hub_enrols_with_a_clock_at_1970(site: Site, hub: HubMachine) -> None:
    hub.wall_s = 0.0

    hub.enrol(site.invite())

    assert hub.clock.now_s() == NOW_S


def test_the_roots_of_a_rotation_reach_the_hub_and_the_new_one_alone_is_enough_later(site: Site, hub: HubMachine) -> None:
    hub.enrol(site.invite())
    site.authority.rotate_root(site.now_s)
    site.pass_time(5 * DAY_S)
    hub.renew()
    assert (hub.folder / "roots.pem").read_bytes() == site.authority.roots
    assert len(x509.load_pem_x509_certificates(site.authority.roots)) == 2

    for _ in range(2):
        site.pass_time(200 * DAY_S)
        hub.renew()
    site.authority.retire_root(site.now_s)
    (site.folder.path / "enrolment" / "tls" / "identity.pem").unlink()
    site.pass_time(DAY_S)
    hub.renew()

    assert (hub.folder / "roots.pem").read_bytes() == site.authority.roots
    assert len(x509.load_pem_x509_certificates(site.authority.roots)) == 1


def test_a_code_made_after_a_rotation_names_the_new_root(site: Site, hub: HubMachine) -> None:
    site.authority.rotate_root(site.now_s)
    site.pass_time(0)

    assert hub.enrol(site.invite()).hub == "hub-1"


def test_a_new_device_enrols_under_the_name_of_an_old_one_whose_key_is_kept(site: Site, hub: HubMachine) -> None:
    hub.enrol(site.invite())
    site.pass_time(DAY_S)
    second = HubMachine(hub.data / "second")
    second.enrol(site.invite())

    known = load_hub(site.folder.hubs / "hub-1.toml")
    assert known.device == second.device.public
    assert [(former.key, former.until_s) for former in known.former_keys] == [(hub.device.public, NOW_S + DAY_S)]
    with pytest.raises(SiteError, match="does not know"):
        hub.renew()


def test_a_hub_that_enrols_anew_keeps_its_device_key_and_gets_the_next_subject(site: Site, hub: HubMachine) -> None:
    hub.enrol(site.invite())
    site.pass_time(DAY_S)
    record = hub.enrol(site.invite(subject="subject-2"))

    known = load_hub(site.folder.hubs / "hub-1.toml")
    assert record.subject == "subject-2"
    assert known.former_keys == ()
    assert [(found.subject, found.from_s, found.to_s) for found in known.assignments] == [
        ("subject-1", NOW_S, NOW_S + DAY_S),
        ("subject-2", NOW_S + DAY_S, None),
    ]
    registration = tomllib.loads((hub.folder / "registration.toml").read_text())
    assert [subject["name"] for subject in registration["subject"]] == ["subject-2", "subject-1"]


def test_after_the_site_failed_in_the_middle_the_same_code_works_for_the_same_device(
    site: Site, hub: HubMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code counts as used by then."""
    code = site.invite()
    with monkeypatch.context() as patch:
        patch.setattr("cloud.enrolment.service.enrol_hub", _fail)
        with pytest.raises(SiteError, match="cannot answer now"):
            hub.enrol(code)

    assert hub.enrol(code).hub == "hub-1"
    assert isinstance(certificate_of(hub).public_key(), ec.EllipticCurvePublicKey)


def _fail(*_: object) -> None:
    raise ClinicError("the disk is full")
