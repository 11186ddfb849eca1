"""Fixtures for the tests of enrolment: a running site, and a hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enrolment.site_testbed import HubMachine, Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "clinic").serving() as site:
        yield site


@pytest.fixture
def hub(tmp_path: Path) -> HubMachine:
    return HubMachine(tmp_path / "data")


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "other-clinic", "Andere").serving() as site:
        yield site
