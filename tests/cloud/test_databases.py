"""Errors of a database do not show the values of a statement."""

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.databases import ON_BOTH

DATABASES = ON_BOTH


def test_an_error_does_not_show_the_values_of_its_statement(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError) as raised:
        connection.execute(text("SELECT * FROM nowhere WHERE value = :value"), {"value": "CANARY"})
    assert "nowhere" in str(raised.value)
    assert "CANARY" not in str(raised.value)
