"""Counts the page's requests for the metrics, apart from them: commands without a page must not load the web server."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.metrics import PAGE_SECONDS


def count_requests(app: ASGIApp) -> ASGIApp:
    """Return the application with its requests counted."""

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began_s = time.monotonic()

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                PAGE_SECONDS.labels(f"{message['status'] // 100}xx").observe(time.monotonic() - began_s)
            await send(message)

        await app(scope, receive, note)

    return counting
