"""A site with a running broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.site import Authority
from tests.mosquitto import Broker, now_s, run_broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("site")
    with run_broker(folder, new_authority(folder)) as running:
        yield running


def new_authority(folder: Path) -> Authority:
    return Authority.create(folder / "site", "Testklinik", "DE", "Bayern", now_s())
