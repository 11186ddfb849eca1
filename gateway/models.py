"""The released models that the agent runs, or why it runs on rules alone.

All or none: models that do not belong together must not be mixed, and a hub that someone has tampered with is no place to
choose from what is left. A refusal is seen in the log, in `pulsegate status` and, as a technical alert, by the clinic.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from config.files import replacing
from config.version import VERSION
from gateway.alerts import PRIORITIES
from models.inference.models import Models
from models.inference.pinned_keys import PINNED
from models.inference.release import RELEASED, Release, ReleaseError, open_release
from models.inference.session import ModelError
from sync.records import AlertRecord

log = logging.getLogger(__name__)

SEEN_FILE: Final = "models.json"
"""Beside the buffer: the number of the newest release that this hub has run."""
ALERT_KIND: Final = "models_refused"
ALERT_SENSOR: Final = "hub"
"""The alert is about no sensor."""
STATE_NAME: Final = "models"
"""Of the alert that goes on, in the buffer's state."""

_CLASSES: Final[Mapping[str, str]] = {
    "rr_af": "RrAf",
    "ecg_rhythm": "EcgRhythm",
    "ecg_beat": "EcgBeat",
    "ecg_quality": "EcgQuality",
    "ppg_quality": "PpgQuality",
    "ecg_qrs": "EcgQrs",
}
"""Of each model, the class in `models.inference.<model>`; loaded only where the release has the model."""


@dataclass(frozen=True, slots=True)
class LoadedModels(Models):
    """The models of one release, for all pipelines of a process; None where the release has none of the kind.

    Attributes:
        release: its number; None where it was refused.
        refused: why, one line each; empty where all is well.
        cause: the first refusal in one word: altered, older, agent, unusable.
        measured: numbers behind it, for the alert.
    """

    release: int | None = None
    refused: tuple[str, ...] = ()
    cause: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)

    def status(self) -> dict[str, object]:
        """What `pulsegate status` says of them."""
        if self.refused:
            return {"release": None, "running": "rules alone", "refused": list(self.refused)}
        return {"release": self.release, "running": list(self.names)}


def load_models(
    data: Path | None = None, folder: Path = RELEASED, keys: Mapping[str, str] = PINNED, agent: str = VERSION
) -> LoadedModels:
    """The release's models, all of them, or none and why; never an exception for what is wrong with them.

    Args:
        data: the agent's folder, where the newest release that ever ran is remembered; None to remember none.
        folder: of the release.
        keys: that may have signed it.
        agent: the version of this agent.
    """
    try:
        seen = newest_seen(data) if data else 0
        release = open_release(folder, keys=keys, newest_seen=seen, agent=agent)
    except ReleaseError as error:
        return _refusal([error])
    models: dict[str, Any] = {}
    errors: list[ModelError] = []
    for name in _CLASSES:
        if f"{name}.onnx" in release.files:
            try:
                models[name] = _build(name, release)
            except ModelError as error:
                errors.append(error)
    if errors:
        return _refusal(errors)
    if data and release.number > seen:
        _remember(data, release.number)
    return LoadedModels(**models, release=release.number)


def _build(name: str, release: Release) -> Any:
    """One model, built from the very bytes that were verified."""
    verified = release.bytes(f"{name}.onnx")
    try:
        model = getattr(import_module(f"models.inference.{name}"), _CLASSES[name])
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{name} is not known to this pulsegate. Update pulsegate.") from error
    return model(verified)


def _refusal(errors: list[ReleaseError] | list[ModelError]) -> LoadedModels:
    refused = tuple(str(error) for error in errors)
    log.warning("models refused: %s Going on with rules alone.", " ".join(refused))
    first = errors[0]
    if isinstance(first, ReleaseError):
        return LoadedModels(refused=refused, cause=first.cause, measured=first.measured)
    return LoadedModels(refused=refused, cause="unusable")


def newest_seen(data: Path) -> int:
    """The number of the newest release that the hub with this data folder has run; 0 if none.

    Raises:
        ReleaseError: the file is damaged. An unknown number must not let an old release pass.
    """
    path = data / SEEN_FILE
    try:
        stated = json.loads(path.read_bytes()[:100])["newest_release"]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError("altered", f"{path} cannot be read. Delete it once the installed models are the newest.") from error
    if type(stated) is not int:
        raise ReleaseError("altered", f"{path} states no number. Delete it once the installed models are the newest.")
    return stated


def _remember(data: Path, number: int) -> None:
    """On the disk when it returns. A hub that cannot write goes on with its models: the buffer will say what is wrong."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(data / SEEN_FILE, durable=True) as draft:
            draft.write_text(json.dumps({"newest_release": number}) + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("cannot remember model release %d in %s (%s)", number, data, error.strerror)


def technical_alert(
    loaded: LoadedModels, left: Mapping[str, Any] | None, now_us: int
) -> tuple[tuple[AlertRecord, ...], Mapping[str, Any]]:
    """At a start: what the clinic is to be told of the models, and the state to store under `STATE_NAME` with it.

    An alert goes on over restarts until the models run again. `left` is the state that the last start left.
    """
    ongoing = (left or {}).get("alert")
    known = replace(AlertRecord(**ongoing), reasons=tuple(ongoing["reasons"])) if ongoing else None
    reasons = (f"{ALERT_KIND}.criterion", f"{ALERT_KIND}.{loaded.cause}")
    if not loaded.refused:
        ended = (replace(known, end_us=max(known.onset_us, now_us), decided_us=now_us),) if known else ()
        return ended, {"alert": None}
    if known and known.reasons == reasons:
        return (), {"alert": asdict(known)}
    onset_us = known.onset_us if known else now_us
    alert = AlertRecord(
        id=hashlib.sha256(f"{ALERT_SENSOR}|{ALERT_KIND}|{onset_us}".encode()).hexdigest()[:24],
        sensor=ALERT_SENSOR,
        kind=ALERT_KIND,
        priority=PRIORITIES[ALERT_KIND],
        onset_us=onset_us,
        end_us=None,
        decided_us=now_us,
        source="agent",
        reasons=reasons,
        measured=loaded.measured or None,
    )
    return (alert,), {"alert": asdict(alert)}
