"""The metrics of the service levels (`docs/slo.md`), which each service counts and `cloud.metrics_server` shows.

No label names a patient, a hub or a person: each label has a few fixed values.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from cloud.store.stored_blocks import StoredBlock
from sync.records import AlertRecord, Record

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0)
"""Limits of the histograms' buckets; those of the service levels, 1, 2 and 10 s, are among them."""
_US_PER_S: Final = 1_000_000

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

INGEST_MESSAGES: Final = Counter(
    "pulsegate_ingest_messages", "Messages of hubs that were handled.", ["outcome"], registry=REGISTRY
)
INGEST_BLOCKS: Final = Counter("pulsegate_ingest_blocks", "Blocks that ingest committed as new.", registry=REGISTRY)
INGEST_SECONDS: Final = Histogram(
    "pulsegate_ingest_seconds",
    "Time from the receipt of messages to the end of their commits.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
INGEST_WAITING: Final = Gauge("pulsegate_ingest_waiting_messages", "Messages that wait in ingest.", registry=REGISTRY)
INGEST_PAUSES: Final = Counter("pulsegate_ingest_pauses", "Groups of messages whose hubs have to pause.", registry=REGISTRY)
OPENED_BLOCKS: Final = Counter(
    "pulsegate_opener_blocks", "Blocks that were taken to be opened.", ["lane", "outcome"], registry=REGISTRY
)
ALERT_RECEIVED_SECONDS: Final = Histogram(
    "pulsegate_alert_received_seconds",
    "Time from a hub's decision to the receipt of the alert, by both clocks.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
ALERT_OPENED_SECONDS: Final = Histogram(
    "pulsegate_alert_opened_seconds",
    "Time from the receipt of an alert to the commit of the projections.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
ALERT_SHOWN_SECONDS: Final = Histogram(
    "pulsegate_alert_shown_seconds",
    "Time from the receipt of an alert to its message to the open pages.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
HUBS: Final = Gauge("pulsegate_hubs", "Hubs that have a patient, by what is wrong with them.", ["state"], registry=REGISTRY)
PAGE_SECONDS: Final = Histogram(
    "pulsegate_page_request_seconds",
    "Time to the start of the page's answer.",
    ["status"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
CONNECTIONS: Final = Counter(
    "pulsegate_connections", "Connections and failed attempts.", ["server", "outcome"], registry=REGISTRY
)


def note_ingest(handled_s: float, n_answered: int, n_unanswered: int, n_blocks: int, waiting: int, *, is_pause: bool) -> None:
    """Count a group of messages that ingest has handled."""
    INGEST_SECONDS.observe(handled_s)
    INGEST_MESSAGES.labels("acknowledged").inc(n_answered)
    INGEST_MESSAGES.labels("not-acknowledged").inc(n_unanswered)
    INGEST_BLOCKS.inc(n_blocks)
    INGEST_WAITING.set(waiting)
    INGEST_PAUSES.inc(is_pause)


def note_alerts(block: StoredBlock, records: Iterable[Record]) -> None:
    """Count how long alerts took from the hub's decision to here. Records that end an alert say nothing of that."""
    for record in records:
        if isinstance(record, AlertRecord) and record.end_us is None:
            ALERT_RECEIVED_SECONDS.observe(max(0, block.received_us - record.decided_us) / _US_PER_S)


def note_opened(block: StoredBlock, now_us: int, *, is_opened: bool) -> None:
    """Count a block that the opener took, once the projections have committed."""
    lane = block.position[0]
    OPENED_BLOCKS.labels(lane, "opened" if is_opened else "not-opened").inc()
    if lane == "alert" and is_opened:
        ALERT_OPENED_SECONDS.observe(max(0, now_us - block.received_us) / _US_PER_S)


def note_shown(received_us: int, now_us: int) -> None:
    """Count an alert that was sent to the open pages."""
    ALERT_SHOWN_SECONDS.observe(max(0, now_us - received_us) / _US_PER_S)
