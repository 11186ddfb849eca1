"""`pulsegate-cloud export` and `retention`: give a patient's data out, and delete what was kept for its time."""

import argparse
import sys
import time
from pathlib import Path

from cloud.audit_actors import operator
from cloud.audit_log import AuditLog
from cloud.block_reader import BlockReader
from cloud.cli_keys import AddCommand, AddOptions, folder_of
from cloud.clock import now_us
from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.projections_database import open_projections
from cloud.registry import Registry
from cloud.retention import DEFAULT_RETENTION_DAYS, MIN_RETENTION_DAYS, delete_expired
from cloud.store.expiry import has_blocks
from cloud.subject_export import MANIFEST, Manifest, Sources, export_subject
from cloud.subjects import check_name, opened_store
from config.terminal import escape_controls
from sync.audit import Action, AuditEvent, Category, Purpose


def add_subject_commands(add_command: AddCommand, add_data_options: AddOptions) -> None:
    """Add the commands to the parser."""
    export = add_command("export", "write everything that the clinic holds of a patient to files, for the patient")
    add_data_options(export)
    export.add_argument("--subject", required=True, metavar="NAME", help="the patient's pseudonym")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder, which only its owner may read")
    export.set_defaults(run=lambda options: _run_export(folder_of(options), options))

    retention = add_command("retention", "delete what was kept for its time, except under a hold; the opener does it every day")
    add_data_options(retention)
    retention.add_argument(
        "--days",
        type=_parse_days,
        default=DEFAULT_RETENTION_DAYS,
        metavar="N",
        help="days from the last data of a patient on (default: %(default)s, ten years)",
    )
    retention.set_defaults(run=lambda options: _run_retention(folder_of(options), options.days))


def _run_export(folder: ClinicFolder, options: argparse.Namespace) -> int:
    subject, out = options.subject, options.out
    check_name(subject)
    with opened_store(folder) as store:
        registry, keys = Registry(folder.hubs, time.monotonic), KeyStore(folder.keys)
        _check_known(store.erased_subjects() | keys.erased(), subject)
        assigned = {found.subject for hub in registry.hubs() for found in registry.assignments(hub)}
        with store.transaction() as connection:
            if subject not in assigned and not has_blocks(connection, subject):
                raise ClinicError(f"nothing is known of {subject}: pulsegate-cloud hubs lists the patients with a hub")
        if out.exists():
            raise ClinicError(f"{out} exists: give a new folder with --out")
        event = AuditEvent(operator(), Action.EXPORT, Category.ALL_RECORDS, subject, purpose=Purpose.SUBJECT_REQUEST)
        engine = open_projections(folder.projections)
        try:
            with AuditLog(store, now_us).logging(event):
                reader = BlockReader(store, registry, keys)
                manifest = export_subject(Sources(store, engine, registry, reader), subject, out, now_us())
        finally:
            engine.dispose()
    return _report(manifest, out)


def _check_known(erased: frozenset[str], subject: str) -> None:
    if subject in erased:
        raise ClinicError(f"{subject} was erased: nothing is left but the rows of the audit log (pulsegate-cloud audit show)")


def _report(manifest: Manifest, out: Path) -> int:
    n = sum(manifest.records.values())
    _print(f"wrote {n} records of {manifest.opened} blocks to {out}; {MANIFEST} has the digest of each file")
    if manifest.is_complete:
        return 0
    sys.stderr.write(
        f"pulsegate-cloud: {manifest.unopened.total()} of {manifest.blocks} blocks could not be opened, and "
        f"{manifest.kept_aside} more are kept aside: unopened.jsonl says why\n"
    )
    return 1


def _run_retention(folder: ClinicFolder, days: int) -> int:
    with opened_store(folder) as store:
        engine = open_projections(folder.projections)
        try:
            n = delete_expired(store, engine, days, operator(), now_us())
        finally:
            engine.dispose()
    _print(f"deleted {n} blocks that were kept for {days} days")
    return 0


def _parse_days(text: str) -> int:
    if not text.isdecimal() or int(text) < MIN_RETENTION_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days: give {MIN_RETENTION_DAYS} or more")
    return int(text)


def _print(line: str) -> None:
    sys.stdout.write(escape_controls(line) + "\n")
