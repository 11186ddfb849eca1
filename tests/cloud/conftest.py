"""Fixtures for the clinic's tests."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cloud.store import Store
from cloud.tables import open_projections
from sync.seal import ClinicKeyPair
from tests.cloud.synthetic import Hub


@pytest.fixture(scope="session")
def clinic_keys() -> ClinicKeyPair:
    return ClinicKeyPair.generate()


@pytest.fixture
def hub(clinic_keys: ClinicKeyPair) -> Hub:
    return Hub(clinic_keys.public)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "blocks.db")) as store:
        yield store


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_projections(tmp_path / "projections.db")
    yield engine
    engine.dispose()
