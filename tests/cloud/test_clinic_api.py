"""The page's interface: REST responses, rejected requests, and messages on the WebSocket."""

import asyncio
import json
from typing import Any

import pytest
import websockets
from sqlalchemy import Engine

from cloud.api import alert_queries, queries
from cloud.api.app import select_language
from cloud.api.counters import read_counters
from cloud.api.feed import RESYNC, Feed
from cloud.changes import SensorKey
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from gateway.recorder import COMMIT_INTERVAL_S
from sync.records import StatusRecord
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.running_clinic import RunningClinic, next_message, run_in_clinic
from tests.cloud.synthetic import RATE_HZ, START_US, alert, counts, ecg_mv, heart_rate, strip, times, waveform

Json = dict[str, Any]

STRAP = SensorKey("subject-1", "hub-1", "strap-1")
ABOUT_STRAP = "subject=subject-1&hub=hub-1&sensor=strap-1"


async def wait_opened(clinic: RunningClinic, blocks: int) -> None:
    while (await clinic.json("/api/counters"))["blocks"]["opened"] < blocks:
        await asyncio.sleep(0.01)


def test_rest_routes_return_the_projected_records(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    mv = ecg_mv([0.5, 1.5], 2.0)
    hub.send(store, "alert", alert(strip=strip(START_US, [0.5, 1.3], 2.0)))
    hub.send(store, "wave", waveform(START_US, counts(mv[:130])), waveform(START_US + 1_000_000, counts(mv[130:])))
    hub.send(store, "vital", heart_rate(START_US, 72.5), StatusRecord("strap-1", "skin_contact", times(START_US), True))

    async def test(clinic: RunningClinic) -> None:
        await wait_opened(clinic, 3)
        listed = await clinic.json("/api/alerts")
        assert listed["revision"] == 1
        assert [(one["kind"], one["has_strip"], "strip" in one) for one in listed["alerts"]] == [("tachycardia", True, False)]
        assert listed["alerts"][0]["measured"] == {"rate_bpm": 150.0, "limit_bpm": 131}
        assert [listed["alerts"][0][name] for name in ("subject", "hub", "sensor")] == list(STRAP)
        changed = await clinic.json("/api/alerts?after_revision=1")
        assert (changed["alerts"], changed["complete"]) == ([], True)
        assert (await clinic.json("/api/patients"))["patients"] == [
            {"subject": "subject-1", "ongoing": {"high": 0, "medium": 1, "low": 0}}
        ]

        about_alert = f"{listed['alerts'][0]['id']}?subject=subject-1&hub=hub-1"
        shown = (await clinic.json(f"/api/alerts/{about_alert}"))["strip"]
        assert shown["rate_hz"] == RATE_HZ
        assert shown["mv"] == [round(value, 3) for value in (counts(ecg_mv([0.5, 1.3], 2.0)) * 0.001).tolist()]
        assert (await clinic.get("/api/alerts/none?subject=subject-1&hub=hub-1"))[0] == 404
        assert (await clinic.get("/api/alerts?cursor=none"))[0] == 422

        answer = await clinic.json("/api/sensors")
        assert [(one["sensor"], one["samples"], one["skin_contact"]) for one in answer["sensors"]] == [("strap-1", 260, True)]

        cut = (await clinic.json(f"/api/ecg?{ABOUT_STRAP}&from_us={START_US + 500_000}&to_us={START_US + 1_100_000}"))[
            "segments"
        ]
        assert [segment["start_us"] for segment in cut] == [START_US + 500_000, START_US + 1_000_000]
        assert [len(segment["mv"]) for segment in cut] == [65, 13]
        assert cut[0]["mv"] == [round(value, 3) for value in (counts(mv[65:130]) * 0.001).tolist()]

        vitals = await clinic.json(f"/api/vitals?{ABOUT_STRAP}&kind=heart_rate")
        assert vitals["vitals"] == [{"at_us": START_US, "value": 72.5}]
        assert vitals["latest"] == {"at_us": START_US, "received_us": START_US, "value": 72.5, "position": [1, 1]}
        assert (await clinic.json("/api/counters"))["blocks"] == {
            "stored": 3,
            "quarantined": 0,
            "conflicts": 0,
            "opened": 3,
            "unopened": 0,
            "unopened_reasons": {},
        }
        assert (await clinic.get(f"/api/ecg?{ABOUT_STRAP}&from_us=x&to_us=1"))[0] == 422

    run_in_clinic(store, engine, clinic, test)


def test_a_sensor_that_sends_every_ten_seconds_is_not_shown_as_silent() -> None:
    assert queries.SILENT_AFTER_US >= (COMMIT_INTERVAL_S + 2) * 1e6  # the way to the page may take 2 s on a slow link


def test_counters_are_of_one_moment(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks arrive and are opened while the counters are read."""
    read, arrivals = queries.read_counters, iter(range(3))
    opener = clinic.opener(store, engine)

    def read_while_blocks_arrive(engine: Engine, scope: Scope) -> Json:
        counters = read(engine, scope)
        if (second := next(arrivals, None)) is not None:
            hub.send(store, "vital", heart_rate(START_US + second, 60.0))
            while opener.open_batch() is not None:
                pass
        return counters

    monkeypatch.setattr(queries, "read_counters", read_while_blocks_arrive)

    blocks = read_counters(store, engine, EVERY_SUBJECT)["blocks"]
    assert (blocks["stored"], blocks["opened"]) == (3, 3)


def test_every_response_has_strict_security_headers(store: Store, engine: Engine, clinic: Clinic) -> None:
    async def test(clinic: RunningClinic) -> None:
        for path in ("/", "/static/js/main.js", "/api/alerts", "/nowhere"):
            _, headers, _ = await clinic.get(path)
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "script-src 'self';" in policy
            assert "unsafe" not in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert not {"server", "x-powered-by", "via"} & headers.keys()
        assert (await clinic.get("/api/alerts"))[1]["cache-control"] == "no-store"
        for path in ("/docs", "/redoc", "/openapi.json", "/static/../app.py", "/static/%2e%2e/%2e%2e/api/app.py"):
            assert (await clinic.get(path))[0] == 404

    run_in_clinic(store, engine, clinic, test)


def test_what_is_only_read_takes_no_other_method(store: Store, engine: Engine, clinic: Clinic) -> None:
    async def test(clinic: RunningClinic) -> None:
        for path in ("/", "/static/js/main.js", "/api/alerts"):
            for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
                status, _, _ = await clinic.request(method, path)
                assert (method, status) == (method, 403)  # not from the page itself
                status, _, _ = await clinic.request(method, path, b"{}", origin=f"http://127.0.0.1:{clinic.port}")
                assert (method, status) == (method, 405)

    run_in_clinic(store, engine, clinic, test)


def test_rejects_host_names_other_than_loopback(store: Store, engine: Engine, clinic: Clinic) -> None:
    async def test(clinic: RunningClinic) -> None:
        for host in ("evil.example", f"evil.example:{clinic.port}", "127.0.0.1.evil.example", "", "[::1"):
            status, _, body = await clinic.get("/api/alerts", Host=host)
            assert (status, body) == (421, "this page is served on loopback names only")
        for host in (f"127.0.0.1:{clinic.port}", f"localhost:{clinic.port}", f"[::1]:{clinic.port}"):
            assert (await clinic.get("/api/alerts", Host=host))[0] == 200

    run_in_clinic(store, engine, clinic, test)


def test_rejects_a_websocket_from_another_origin(store: Store, engine: Engine, clinic: Clinic) -> None:
    async def test(clinic: RunningClinic) -> None:
        for origin in ("https://evil.example", "null", f"http://localhost:{clinic.port}", "http://127.0.0.1"):
            with pytest.raises(websockets.InvalidStatus) as rejected:
                await clinic.websocket(origin=origin)
            assert rejected.value.response.status_code == 403
        async with clinic.websocket() as viewer:
            assert json.loads(await viewer.recv())["type"] == "beat"

    run_in_clinic(store, engine, clinic, test)


def test_serves_the_page_in_the_language_of_the_browser(store: Store, engine: Engine, clinic: Clinic) -> None:
    async def test(clinic: RunningClinic) -> None:
        _, _, page = await clinic.get("/", **{"Accept-Language": "fr-CH, de;q=0.8"})
        assert '<html lang="fr">' in page

    run_in_clinic(store, engine, clinic, test)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "en"),
        ("de-DE,de;q=0.9,en;q=0.8", "de"),
        ("it, es;q=0.5, en;q=0.4", "es"),
        ("en;q=0.3, fr;q=0.9", "fr"),
        ("de;q=0", "en"),
        ("*", "en"),
        ("de;q=nonsense, es", "es"),
    ],
)
def test_selects_the_preferred_language_of_accept_language(accept: str, expected: str) -> None:
    assert select_language(accept) == expected


def test_the_websocket_sends_alerts_with_strips_ecg_vitals_and_sensors(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    async def test(clinic: RunningClinic) -> None:
        async with clinic.websocket() as viewer:
            hub.send(store, "alert", alert(strip=strip(START_US, [0.5, 1.3], 2.0)))
            hub.send(store, "wave", waveform(START_US, counts(ecg_mv([0.5], 1.0))), heart_rate(START_US, 72.0))
            clinic.opener.wake()
            raised = await next_message(viewer, "alert")
            assert (raised["kind"], raised["priority"], len(raised["strip"]["beats_us"])) == ("tachycardia", "medium", 2)
            assert raised["published_us"] > START_US
            live = await next_message(viewer, "ecg")
            assert (live["sensor"], live["start_us"], live["rate_hz"], len(live["mv"])) == ("strap-1", START_US, RATE_HZ, 130)
            assert (await next_message(viewer, "vital"))["value"] == 72.0
            assert (await next_message(viewer, "sensor"))["samples"] == 130

    run_in_clinic(store, engine, clinic, test)


def test_a_slow_viewer_loses_its_queue_and_gets_a_resync_message(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.api.feed.QUEUE_MESSAGES", 4)
    open_all(store, engine, clinic)

    async def test() -> None:
        feed = Feed(engine)
        async with feed.register_viewer(EVERY_SUBJECT) as slow:
            for second in range(3):  # two messages each
                hub.send(store, "vital", heart_rate(START_US + second, 60.0))
                open_all(store, engine, clinic)
                await feed.send_changes()
            assert slow.queue.qsize() == 3
            assert feed.statistics().dropped == 4
            assert (await feed.next_message(slow))["type"] == "resync"
            assert (await feed.next_message(slow))["at_us"] == START_US + 2
        assert feed.statistics().viewers == 0

    asyncio.run(test())


def test_a_long_backlog_is_replaced_by_a_resync_message(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    open_all(store, engine, clinic)

    async def test() -> None:
        feed = Feed(engine)
        async with feed.register_viewer(EVERY_SUBJECT) as viewer:
            for second in range(50):
                hub.send(store, "wave", waveform(START_US + second, counts(ecg_mv([0.5], 1.0))))
            open_all(store, engine, clinic)
            await feed.send_changes()
            assert viewer.queue.get_nowait() == RESYNC
            assert viewer.queue.empty()

    asyncio.run(test())


def test_an_error_inside_shows_nothing_of_itself(
    store: Store, engine: Engine, clinic: Clinic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CANARY")

    async def test(clinic: RunningClinic) -> None:
        status, headers, body = await clinic.get("/api/patients")
        assert (status, body) == (500, "Internal Server Error")
        assert "default-src 'none'" in headers["content-security-policy"]
        with pytest.raises(websockets.InvalidStatus):
            await clinic.websocket()

    monkeypatch.setattr(alert_queries, "list_patients", fail)
    monkeypatch.setattr(Feed, "register_viewer", fail)
    run_in_clinic(store, engine, clinic, test)
    assert caplog.text.count("a request of the page failed: RuntimeError in fail, line ") == 2
    assert "CANARY" not in caplog.text


def test_an_error_after_the_answer_began_ends_the_connection_and_shows_nothing(
    store: Store, engine: Engine, clinic: Clinic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(clinic: RunningClinic) -> None:
        clinic.feed.next_message = fail  # type: ignore[method-assign]
        async with clinic.websocket() as viewer:
            await viewer.wait_closed()
            assert viewer.close_code == 1011

    async def fail(_viewer: object) -> str:
        raise LookupError("CANARY")

    run_in_clinic(store, engine, clinic, test)
    assert "a request of the page failed: LookupError in fail, line " in caplog.text
    assert "CANARY" not in caplog.text
