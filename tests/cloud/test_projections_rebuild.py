"""Projections of an older version, which do not say whose data a row holds, are rebuilt from the blocks."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import inspect, select

from cloud import tables
from cloud.projections_database import open_projections
from cloud.store import Store
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, heart_rate

SCHEMA_3 = """
CREATE TABLE cursors (name VARCHAR NOT NULL, block_id INTEGER NOT NULL, PRIMARY KEY (name));
CREATE TABLE counters (name VARCHAR NOT NULL, value INTEGER NOT NULL, PRIMARY KEY (name));
CREATE TABLE unopened (
    block_id INTEGER NOT NULL, hub VARCHAR NOT NULL, epoch INTEGER NOT NULL, lane VARCHAR NOT NULL, seq INTEGER NOT NULL,
    reason VARCHAR NOT NULL, detail VARCHAR NOT NULL, PRIMARY KEY (block_id));
CREATE TABLE alerts (
    hub VARCHAR NOT NULL, id VARCHAR NOT NULL, revision INTEGER NOT NULL, sensor VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    priority VARCHAR NOT NULL, onset_us INTEGER NOT NULL, end_us INTEGER, decided_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL, source VARCHAR NOT NULL, reasons VARCHAR NOT NULL, probability FLOAT, measured VARCHAR,
    strip_start_us INTEGER, strip_rate_hz FLOAT, strip_scale FLOAT, strip_samples BLOB, strip_beats_us VARCHAR,
    strip_labels VARCHAR, PRIMARY KEY (hub, id));
CREATE TABLE vitals (
    id INTEGER NOT NULL, hub VARCHAR NOT NULL, sensor VARCHAR NOT NULL, kind VARCHAR NOT NULL, at_us INTEGER NOT NULL,
    value FLOAT NOT NULL, flags VARCHAR NOT NULL, PRIMARY KEY (id));
CREATE TABLE intervals (
    id INTEGER NOT NULL, hub VARCHAR NOT NULL, sensor VARCHAR NOT NULL, kind VARCHAR NOT NULL, at_us INTEGER NOT NULL,
    ticks VARCHAR NOT NULL, PRIMARY KEY (id));
CREATE TABLE waveforms (
    id INTEGER NOT NULL, hub VARCHAR NOT NULL, sensor VARCHAR NOT NULL, kind VARCHAR NOT NULL, start_us INTEGER NOT NULL,
    end_us INTEGER NOT NULL, sensor_ns INTEGER, rate_hz FLOAT NOT NULL, scale FLOAT NOT NULL, n INTEGER NOT NULL,
    samples BLOB NOT NULL, PRIMARY KEY (id));
CREATE TABLE gaps (
    hub VARCHAR NOT NULL, sensor VARCHAR NOT NULL, kind VARCHAR NOT NULL, from_us INTEGER NOT NULL, to_us INTEGER,
    missing INTEGER, reason VARCHAR NOT NULL, from_sensor_ns INTEGER, to_sensor_ns INTEGER,
    PRIMARY KEY (hub, sensor, kind, from_us));
CREATE TABLE findings (
    id INTEGER NOT NULL, hub VARCHAR NOT NULL, sensor VARCHAR NOT NULL, kind VARCHAR NOT NULL, onset_us INTEGER NOT NULL,
    end_us INTEGER, source VARCHAR NOT NULL, probability FLOAT, inconclusive VARCHAR, measured VARCHAR, PRIMARY KEY (id));
CREATE TABLE sensors (
    hub VARCHAR NOT NULL, sensor VARCHAR NOT NULL, last_data_us INTEGER NOT NULL, samples INTEGER NOT NULL,
    undecodable INTEGER NOT NULL, PRIMARY KEY (hub, sensor));
CREATE TABLE statuses (
    hub VARCHAR NOT NULL, sensor VARCHAR NOT NULL, kind VARCHAR NOT NULL, at_us INTEGER NOT NULL, value VARCHAR NOT NULL,
    PRIMARY KEY (hub, sensor, kind));
CREATE INDEX alerts_by_revision ON alerts (revision);
CREATE INDEX vitals_by_time ON vitals (sensor, kind, at_us);
CREATE INDEX intervals_by_time ON intervals (sensor, at_us);
CREATE INDEX waveforms_by_time ON waveforms (sensor, kind, start_us);
CREATE INDEX findings_by_time ON findings (sensor, onset_us);
PRAGMA user_version = 3;
"""
DATA_3 = """
INSERT INTO cursors VALUES ('alerts', 2), ('rest', 2);
INSERT INTO counters VALUES ('opened', 1);
INSERT INTO unopened VALUES (1, 'hub-1', 1, 'vital', 1, 'no key', 'its data key has not arrived');
INSERT INTO vitals VALUES (1, 'hub-1', 'strap-1', 'heart_rate', 1790000000000001, 62.0, '[]');
"""


def test_version_3_is_rebuilt_with_the_patient_of_each_row(tmp_path: Path, store: Store, hub: Hub, clinic: Clinic) -> None:
    for i in range(3):
        hub.send(store, "vital", heart_rate(START_US + i, 61.0 + i))
    path = tmp_path / "projections.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(SCHEMA_3 + DATA_3)

    engine = open_projections(path)
    open_all(store, engine, clinic)
    with engine.connect() as connection:
        rows = connection.execute(select(tables.vitals.c.subject, tables.vitals.c.value)).all()
    assert sorted(rows) == [("subject-1", 61.0), ("subject-1", 62.0), ("subject-1", 63.0)]
    engine.dispose()


def test_a_rebuilt_database_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.executescript(SCHEMA_3)
    schemas = []
    for name in ("old.db", "new.db"):
        engine = open_projections(tmp_path / name)
        inspector = inspect(engine)
        schemas.append({table: str(inspector.get_columns(table)) for table in inspector.get_table_names()})
        engine.dispose()
    assert schemas[0] == schemas[1]
