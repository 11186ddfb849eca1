"""No answer about one patient holds a value of another, whatever their hubs, sensors, ids and times have in common."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from cloud.alert_requests import AlertRequest, add_request
from cloud.api.app import create_app
from cloud.api.feed import Feed
from cloud.audit_actors import LOOPBACK
from cloud.projections_database import open_projections
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from cloud.store.commands import StoredCommand, add_command
from sync.records import (
    AlertRecord,
    BeatsRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    Strip,
    VitalRecord,
    WaveformRecord,
)
from sync.wire import Lane
from tests.clinic_testbed import Clinic
from tests.cloud.synthetic import START_US, times

Json = dict[str, Any]
KEY: Final = ("subject", "hub", "sensor")


@dataclass(frozen=True)
class Stream:
    """The data of one patient's sensor. All its numbers and texts contain `mark`, which no other stream has."""

    subject: str
    hub: str
    sensor: str
    mark: int

    @property
    def alert_ids(self) -> tuple[str, str]:
        """The first is that of other patients' alerts too: a hub derives it from sensor, kind and onset."""
        return f"id-of-{self.sensor}", f"id-{self.mark}"

    def records(self) -> Iterator[tuple[Lane, Record]]:
        mark, sensor, now = self.mark, self.sensor, times(START_US + self.mark)
        samples = np.full(5, mark, np.int32)
        yield "wave", WaveformRecord(sensor, "ecg", now, 130.0, 1.0, samples)
        yield "wave", GapRecord(sensor, "ecg", START_US + mark, None, mark, f"reason {mark}")
        for kind in ("battery", "skin_contact", "model"):
            yield "vital", StatusRecord(sensor, kind, now, f"{kind} {mark}")
        yield "vital", VitalRecord(sensor, "heart_rate", now, float(mark))
        yield "vital", IntervalsRecord(sensor, "rr", now, (mark,))
        yield "vital", BeatsRecord(sensor, "ecg", START_US + mark, START_US + 2 * mark, (), ())
        yield "vital", FindingRecord(sensor, f"kind {mark}", START_US + mark, None, f"source {mark}")
        yield "vital", QuarantinedRecord(sensor, f"{mark}", now, b"", f"reason {mark}")
        strip = Strip(START_US + mark, 125.0, 1.0, samples, (START_US + mark,))
        for id_ in self.alert_ids:
            measured = {"rate_bpm": float(mark)}
            at_us = START_US + mark
            yield (
                "alert",
                AlertRecord(
                    id_, sensor, f"kind {mark}", "high", at_us, None, at_us, f"rule {mark}", (f"{mark}",), None, measured, strip
                ),
            )


@st.composite
def clinics(draw: st.DrawFn) -> list[Stream]:
    """Some patients with some hubs, which they may share one after the other, and sensors of the same names."""
    names = st.tuples(st.sampled_from(["anna", "bert", "cleo"]), st.sampled_from(["hub-1", "hub-2"]), st.sampled_from("ab"))
    keys = draw(st.lists(names, min_size=2, max_size=6, unique=True))
    return [Stream(*key, mark=1000 * (n + 1) + 37) for n, key in enumerate(keys)]


@given(clinics(), st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_no_answer_and_no_live_message_about_one_patient_holds_a_value_of_another(streams: list[Stream], random: Any) -> None:
    with TemporaryDirectory() as folder, closing(Store.open(Path(folder) / "blocks.db")) as store:
        engine, clinic = open_projections(Path(folder) / "projections.db"), Clinic(Path(folder))
        feed = Feed(engine)
        _send(store, clinic, streams, random)
        messages = asyncio.run(_open_and_collect(store, engine, clinic, feed))
        _ask_and_command(store, engine, streams)
        app = create_app(store, engine, feed)
        reading = [route for route in app.routes if isinstance(route, APIRoute) and "GET" in route.methods]
        routes = {route.path: _as_loopback(route.endpoint) for route in reading}
        assert {path for path in routes if path.startswith("/api/")} == set(ROUTES)
        for path, ask in ROUTES.items():
            for answer in ask(routes[path], streams):
                check(answer, streams)
        engine.dispose()
    assert {message["type"] for message in messages} == {"alert", "patient", "ecg", "vital", "sensor"}
    for message in messages:
        assert "subject" in message
        check(message, streams)


def _send(store: Store, clinic: Clinic, streams: list[Stream], random: Any) -> None:
    """Commit the records in blocks of one stream and lane, in random order."""
    names = dict.fromkeys((one.subject, one.hub) for one in streams)
    hubs = {  # a hub that goes to the next patient begins a new epoch
        (subject, hub): clinic.add_hub(hub, subject, n + 1) for n, (subject, hub) in enumerate(names)
    }
    lanes: tuple[Lane, ...] = ("alert", "vital", "wave")
    pending = [(one, lane) for one in streams for lane in lanes]
    random.shuffle(pending)
    for stream, lane in pending:
        records = [record for lane_of_record, record in stream.records() if lane_of_record == lane]
        hubs[stream.subject, stream.hub].send(store, lane, *records)


def _ask_and_command(store: Store, engine: Engine, streams: list[Stream]) -> None:
    """Let a reader ask for something, and another command the hub, for each stream."""
    at_s = START_US // 1_000_000
    for one in streams:
        request = AlertRequest(
            f"request-{one.mark}", one.subject, one.hub, f"id-{one.mark}", "close_alert", "dr-may", "staff", 1
        )
        command = StoredCommand(one.hub, one.mark, "restart", one.subject, at_s, at_s + 1, b"", f"operator-{one.mark}")
        with engine.begin() as projections, store.transaction() as connection:
            add_request(projections, request)
            add_command(connection, command)


async def _open_and_collect(store: Store, engine: Engine, clinic: Clinic, feed: Feed) -> list[Json]:
    opener, messages = clinic.opener(store, engine), []
    opener.check_databases()
    async with feed.register_viewer(EVERY_SUBJECT) as viewer:
        while opener.open_batch() is not None:
            await feed.send_changes()
            while not viewer.queue.empty():
                messages.append(viewer.queue.get_nowait())
    return messages


def _as_loopback(endpoint: Any) -> Any:
    return partial(endpoint, reader=LOOPBACK) if "reader" in signature(endpoint).parameters else endpoint


Ask = Callable[[Any, list[Stream]], Iterator[Json]]


def _of_each_item(name: str) -> Ask:
    def ask(endpoint: Any, _streams: list[Stream]) -> Iterator[Json]:
        answer = endpoint(scope=EVERY_SUBJECT)
        items = answer.pop(name)
        assert items
        assert all("subject" in item for item in items)
        yield from items
        assert not any(isinstance(value, str) for value in answer.values())

    return ask


def _of_each_stream(**parameters: Any) -> Ask:
    def ask(endpoint: Any, streams: list[Stream]) -> Iterator[Json]:
        for stream in streams:
            answer = endpoint(scope=EVERY_SUBJECT, **{name: getattr(stream, name) for name in KEY}, **parameters)
            assert tuple(answer[name] for name in KEY) == (stream.subject, stream.hub, stream.sensor)
            yield answer

    return ask


def _of_each_alert(endpoint: Any, streams: list[Stream]) -> Iterator[Json]:
    for stream in streams:
        for id_ in stream.alert_ids:
            answer = endpoint(scope=EVERY_SUBJECT, subject=stream.subject, hub=stream.hub, id_=id_)
            assert answer["strip"]["mv"] == [float(stream.mark)] * 5
            yield answer


def _of_each_command(endpoint: Any, streams: list[Stream]) -> Iterator[Json]:
    for subject in {one.subject for one in streams}:
        answer = endpoint(scope=EVERY_SUBJECT, subject=subject)
        assert len(answer["commands"]) == 2 * sum(one.subject == subject for one in streams)
        yield from ({"subject": subject, **command} for command in answer["commands"])


def _of_each_hub(endpoint: Any, _streams: list[Stream]) -> Iterator[Json]:
    """What is known of hubs names its patient; a hub that only sent blocks has no status."""
    answer = endpoint(scope=EVERY_SUBJECT)
    assert all("subject" in hub for hub in answer["hubs"])
    yield from answer["hubs"]


def _of_everybody(endpoint: Any, _streams: list[Stream]) -> Iterator[Json]:
    """The counters are totals of the clinic: numbers only."""
    assert not re.search("anna|bert|cleo|hub-", str(endpoint(scope=EVERY_SUBJECT)))
    return iter(())


WINDOW: Final = {"from_us": START_US - 10_000_000, "to_us": START_US + 10_000_000}
ROUTES: Final[dict[str, Ask]] = {
    "/api/patients": _of_each_item("patients"),
    "/api/alerts": _of_each_item("alerts"),
    "/api/alerts/{id_:path}": _of_each_alert,
    "/api/sensors": _of_each_item("sensors"),
    "/api/ecg": _of_each_stream(**WINDOW),
    "/api/judged": _of_each_stream(**WINDOW),
    "/api/vitals": _of_each_stream(kind="heart_rate", **WINDOW),
    "/api/hubs": _of_each_hub,
    "/api/commands": _of_each_command,
    "/api/counters": _of_everybody,
}


def check(answer: Json, streams: list[Stream]) -> None:
    """Every value in it belongs to the patient, hub and sensor that it names."""
    named = {name: answer[name] for name in KEY if name in answer}
    allowed = {one.mark for one in streams if all(getattr(one, name) == value for name, value in named.items())}
    found = set().union(*(marks_in(leaf, {one.mark for one in streams}) for leaf in leaves(answer)))
    assert found <= allowed, f"{named} with {found - allowed}"
    if "sensor" in answer:
        assert found, f"no value in {answer}"


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def marks_in(leaf: Any, marks: set[int]) -> set[int]:
    """The marks that a number equals, as a value or as a time of the data, or that a text contains."""
    if isinstance(leaf, str):
        return {int(digits) for digits in re.findall(r"\d+", leaf)} & marks
    if isinstance(leaf, int | float) and not isinstance(leaf, bool):
        return {int(leaf), int(leaf) - START_US, int(leaf) - START_US - WAVEFORM_US} & marks
    return set()


WAVEFORM_US: Final = round(5 / 130.0 * 1e6)
