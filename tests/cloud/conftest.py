"""Fixtures for the clinic's tests."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cloud.folder import ClinicFolder
from cloud.projections_database import open_projections
from cloud.signing_keys import SigningKeys
from cloud.store import Store
from tests.clinic_testbed import Clinic, Hub
from tests.cloud.audit_logs import Site
from tests.databases import Databases


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


@pytest.fixture
def hub(clinic: Clinic) -> Hub:
    return clinic.add_hub()


@pytest.fixture
def store(databases: Databases) -> Iterator[Store]:
    with closing(Store.open(databases.location("blocks"))) as store:
        yield store


@pytest.fixture
def engine(databases: Databases) -> Iterator[Engine]:
    engine = open_projections(databases.location("projections"))
    yield engine
    engine.dispose()


@pytest.fixture
def signing(tmp_path: Path) -> SigningKeys:
    folder = ClinicFolder(tmp_path / "site")
    folder.create()
    return folder.load_or_create_signing_keys()


@pytest.fixture
def site(databases: Databases, signing: SigningKeys) -> Iterator[Site]:
    with closing(Store.open(databases.location("blocks"))) as store:
        yield Site(databases, store, signing)
