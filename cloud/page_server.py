"""The HTTP server of the clinic's page: uvicorn without signal handlers and logs of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

SHUTDOWN_TIMEOUT_S: Final = 1
"""Time for open requests and WebSockets to close at shutdown; uvicorn then cuts the remaining connections."""


class PageServer(uvicorn.Server):
    """Uvicorn without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_page_server(app: FastAPI) -> PageServer:
    """Return a server that `serve(sockets=[…])` runs until `should_exit` is set."""
    return PageServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="websockets-sansio",
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        )
    )
