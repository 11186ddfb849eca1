"""Loads the released models, or states why the agent runs with its rules alone.

Either all models of a release are loaded or none. Models of different releases must not be mixed. If one file of a
release was altered, its other files cannot be trusted either. A refusal is reported in the log, in `pulsegate status` and to
the clinic as a technical alert.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from config.files import replacing
from config.version import VERSION
from gateway.hub_alerts import end_hub_alert, hub_alert_state, load_hub_alert, make_hub_alert
from models.inference.models import Models
from models.inference.pinned_keys import PINNED_KEYS
from models.inference.release import RELEASE_DIR, Release, ReleaseError, open_release
from models.inference.session import ModelError
from sync.records import AlertRecord

log = logging.getLogger(__name__)

NEWEST_RELEASE_FILE: Final = "models.json"
"""The file in the data folder that holds the number of the newest release that this hub has run."""
ALERT_KIND: Final = "models_refused"
ALERT_STATE_KEY: Final = "models"
"""The key in the buffer's state under which an ongoing alert is stored."""

_MODEL_CLASSES: Final[Mapping[str, str]] = {
    "rr_af": "RrAf",
    "ecg_rhythm": "EcgRhythm",
    "ecg_beat": "EcgBeat",
    "ecg_quality": "EcgQuality",
    "ppg_quality": "PpgQuality",
    "ecg_qrs": "EcgQrs",
    "ecg_organised": "EcgOrganised",
}
"""The class of each model in `models.inference.<model>`; imported only if the release contains the model."""


@dataclass(frozen=True, slots=True)
class LoadedModels(Models):
    """The models of one release, shared by all pipelines of a process; None for a model that the release does not contain.

    Attributes:
        release: the number of the release; None if it was refused.
        refused: the reasons for a refusal, one line each; empty if the release was accepted.
        cause: the first reason in one word: altered, older, agent or unusable.
        measured: the numbers behind the first reason, for the alert.
    """

    release: int | None = None
    refused: tuple[str, ...] = ()
    cause: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)

    def status(self) -> dict[str, object]:
        """The entry about the models in `pulsegate status`."""
        if self.refused:
            return {"release": None, "running": "rules alone", "refused": list(self.refused)}
        return {"release": self.release, "running": list(self.names)}


def load_models(
    data: Path | None = None, folder: Path = RELEASE_DIR, keys: Mapping[str, str] = PINNED_KEYS, agent: str = VERSION
) -> LoadedModels:
    """Loads all models of a release, or none and the reasons. A faulty release does not raise an exception.

    Args:
        data: the agent's data folder, where the newest release that has run is stored; None to store nothing.
        folder: the folder of the release.
        keys: the public keys that may have signed the release.
        agent: the version of this agent.
    """
    try:
        newest = read_newest_release(data) if data else 0
        release = open_release(folder, keys=keys, newest_seen=newest, agent=agent)
    except ReleaseError as error:
        return _refuse([error])
    models: dict[str, Any] = {}
    errors: list[ModelError] = []
    for name in _MODEL_CLASSES:
        if f"{name}.onnx" in release.files:
            try:
                models[name] = _build_model(name, release)
            except ModelError as error:
                errors.append(error)
    if errors:
        return _refuse(errors)
    if data and release.number > newest:
        _store_newest_release(data, release.number)
    return LoadedModels(**models, release=release.number)


def _build_model(name: str, release: Release) -> Any:
    """Builds one model from the bytes that were verified."""
    verified = release.read_file(f"{name}.onnx")
    try:
        model = getattr(import_module(f"models.inference.{name}"), _MODEL_CLASSES[name])
    except (ImportError, AttributeError) as error:
        raise ModelError(f"this version of pulsegate does not know the model {name}. Update pulsegate.") from error
    return model(verified)


def replace_models(models: Models, folder: Path) -> Models:
    """Returns the models with those that a folder holds in their place, unsigned, for an evaluation: `ecg_beat.onnx` and so on.

    Raises:
        ModelError: the folder holds no model, or a damaged one.
        OSError: a file cannot be read.
    """
    found = {name: folder / f"{name}.onnx" for name in _MODEL_CLASSES if (folder / f"{name}.onnx").exists()}
    if not found:
        raise ModelError(f"{folder} holds no model such as ecg_beat.onnx")
    own = {
        name: getattr(import_module(f"models.inference.{name}"), _MODEL_CLASSES[name])(path.read_bytes())
        for name, path in found.items()
    }
    kept = {name: getattr(models, name) for name in _MODEL_CLASSES}
    return Models(**{**kept, **own})


def _refuse(errors: list[ReleaseError] | list[ModelError]) -> LoadedModels:
    refused = tuple(str(error) for error in errors)
    log.warning("models refused: %s Continuing with rules alone.", " ".join(refused))
    first = errors[0]
    if isinstance(first, ReleaseError):
        return LoadedModels(refused=refused, cause=first.cause, measured=first.measured)
    return LoadedModels(refused=refused, cause="unusable")


def read_newest_release(data: Path) -> int:
    """The number of the newest release that the hub with this data folder has run; 0 if it has run none.

    Raises:
        ReleaseError: the file is damaged. With an unknown number, an old release must not be accepted.
    """
    path = data / NEWEST_RELEASE_FILE
    try:
        newest = json.loads(path.read_bytes()[:100])["newest_release"]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError("altered", f"cannot read {path}. Delete it once the installed models are the newest.") from error
    if type(newest) is not int:
        raise ReleaseError("altered", f"{path} does not contain a number. Delete it once the installed models are the newest.")
    return newest


def _store_newest_release(data: Path, number: int) -> None:
    """Stores the number durably. If the disk cannot be written, the models still run; the buffer will report the fault."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(data / NEWEST_RELEASE_FILE, durable=True) as draft:
            draft.write_text(json.dumps({"newest_release": number}) + "\n", encoding="utf-8")
    except OSError as error:
        log.warning("cannot store the number of model release %d in %s: %s", number, data, error.strerror)


def update_refusal_alert(
    loaded: LoadedModels, saved: Mapping[str, Any] | None, now_us: int
) -> tuple[tuple[AlertRecord, ...], Mapping[str, Any]]:
    """Raises, updates or ends the alert that the models were refused; called once at each start.

    The alert stays ongoing across restarts until the models run again.

    Args:
        loaded: the models, or why they were refused.
        saved: the state that was stored at the previous start; None at the first.
        now_us: the time of the decision, in microseconds since 1970.

    Returns:
        The records for the clinic, and the state to store with them under `ALERT_STATE_KEY`.
    """
    known = load_hub_alert(saved)
    if not loaded.refused:
        return ((end_hub_alert(known, now_us),) if known else ()), hub_alert_state(None)
    alert = make_hub_alert(
        ALERT_KIND,
        "agent",
        now_us=now_us,
        onset_us=known.onset_us if known else None,
        reasons=(f"{ALERT_KIND}.{loaded.cause}",),
        measured=loaded.measured or None,
    )
    if known and known.reasons == alert.reasons:
        return (), hub_alert_state(known)
    return (alert,), hub_alert_state(alert)
