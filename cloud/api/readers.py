"""What every route to data takes: whose data its viewer may see, and who the viewer is."""

from typing import Annotated

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from cloud.scope import EVERY_SUBJECT, Scope
from cloud.validate import MAX_NAME_CHARS
from sync.audit import Actor


async def choose_scope() -> Scope:
    """Return whose data the viewer of this connection may see: as long as the page has no log-in, every subject's."""
    return EVERY_SUBJECT


async def choose_reader(connection: HTTPConnection) -> Actor:
    """Return who the viewer of this connection is, for the audit log; `SecurityMiddleware` has found out."""
    reader: Actor = connection.state.reader
    return reader


Name = Annotated[str, Query(min_length=1, max_length=MAX_NAME_CHARS)]
ViewerScope = Annotated[Scope, Depends(choose_scope)]
Reader = Annotated[Actor, Depends(choose_reader)]
"""Every route to data takes both."""
