"""The page of a site, in a process of its own: it holds no key but that of its certificate."""

import asyncio
import contextlib
from collections.abc import Callable

from cloud.api.app import create_app
from cloud.api.feed import Feed
from cloud.api.request_times import count_requests
from cloud.page_server import make_page_server
from cloud.projections_database import open_projections
from cloud.services import logging_start_and_stop, run_until
from cloud.site import Kind
from cloud.site.authority import anchors_path, crl_path
from cloud.site.mosquitto import PAGE
from cloud.site_settings import SiteSettings
from cloud.sockets import listen
from cloud.staff_access import StaffAccess, keep_access
from cloud.store import Store
from config.tls import make_server_context


async def run_page_service(settings: SiteSettings, stop: asyncio.Event, print_line: Callable[[str], None]) -> None:
    """Serve page, API and live feed to persons with a staff certificate until `stop` is set.

    Raises:
        ClinicError: a database or the port cannot be used.
        TlsSetupError, PermanentError: as `cloud.services.run_ingest_service`.
    """
    own, crl = settings.page, crl_path(settings.public, Kind.STAFF)
    context = make_server_context(own.identity, anchors=anchors_path(settings.public, Kind.STAFF), crl=crl)
    access = StaffAccess(own.hosts, crl, context)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(listen(own.listen, own.port, "page.port of the settings")))
        store = stack.enter_context(contextlib.closing(Store.open(settings.store)))
        projections, of_feed = (open_projections(settings.projections) for _ in range(2))
        for engine in (projections, of_feed):
            stack.callback(engine.dispose)
        feed = Feed(of_feed)
        server = make_page_server(count_requests(create_app(store, projections, feed, access)), context)
        async with logging_start_and_stop(store, PAGE), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]))
            print_line(f"page listens on {own.listen}, port {own.port}, for https://{own.hosts[0]}/")
            await run_until(stop, feed.run(), keep_access(server, access, context, own.identity))
            server.should_exit = True
            await serving
