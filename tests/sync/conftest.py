"""An outbox in a folder of the test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.outbox import Outbox
from tests.sync.outboxes import open_at

OpenOutbox = Callable[..., Outbox]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def open_outbox(path: Path) -> Iterator[OpenOutbox]:
    outboxes: list[Outbox] = []

    def open_one(**changes: Any) -> Outbox:
        outboxes.append(open_at(path, **changes))
        return outboxes[-1]

    yield open_one
    for outbox in outboxes:
        outbox.close()
