"""The published script of the simulated heart: which rhythm plays when, and therefore what must be found.

A script is a list of segments that repeats for ever. Every segment begins and ends with a beat, so the onset of an episode is
its first beat and a pause is exactly as long as it says. Scripts are TOML files beside this module (`scripts/*.toml`).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, Literal, get_args

Rhythm = Literal["sinus", "af", "svt", "bradycardia", "pause"]
"""Sinus rhythm, atrial fibrillation, supraventricular tachycardia, sinus bradycardia, sinus arrest."""

_ALERTS: Final[Mapping[Rhythm, str]] = {"af": "af", "svt": "tachycardia", "bradycardia": "bradycardia", "pause": "pause"}
"""The kind of alert that each rhythm must raise; sinus rhythm raises none."""

DECISION_S: Final[Mapping[str, float]] = {"af": 51.0, "tachycardia": 13.0, "bradycardia": 16.0, "pause": 6.0}
"""Seconds from an episode's onset to its alert, at the latest.

af: some 30 intervals until AF outweighs the sinus beats before it (20 s at 100/min), then the 30 s that an episode must last.
tachycardia, bradycardia: the rate must hold for 10 s, and one or three slow beats more until their median has turned.
pause: the 3 s that make one, and the beat that ends it. Each with 2 s for the beat detector's look-ahead and the frame.
"""


_FOLDER: Final = files("gateway.simulate").joinpath("scripts")


class ScriptError(ValueError):
    """A script that can't be played. The message names the script, the segment and what is allowed."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of one rhythm. `pvc_s` and `pac_s` are where premature ventricular and atrial beats fall, from its onset."""

    rhythm: Rhythm
    duration_s: float
    rate_bpm: float
    pvc_s: tuple[float, ...] = ()
    pac_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.rhythm not in get_args(Rhythm):
            raise ScriptError(f"rhythm {self.rhythm!r} is none of {', '.join(get_args(Rhythm))}")
        if not 0 < self.duration_s <= 3600:
            raise ScriptError(f"duration_s {self.duration_s} is not within 0 … 3600")
        if not 20 <= self.rate_bpm <= 250:
            raise ScriptError(f"rate_bpm {self.rate_bpm} is not within 20 … 250")
        if any(not 0 < at < self.duration_s for at in self.pvc_s + self.pac_s):
            raise ScriptError(f"a premature beat lies outside the segment's {self.duration_s} s")


@dataclass(frozen=True, slots=True)
class Episode:
    """What must be found: an alert of `kind` from `onset_s` to `end_s`, in seconds of the script."""

    kind: str
    onset_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """Segments in the order in which they play; after the last comes the first again."""

    name: str
    seed: int
    segments: tuple[Segment, ...] = field(repr=False)

    @property
    def period_s(self) -> float:
        return sum(segment.duration_s for segment in self.segments)

    def episodes(self) -> tuple[Episode, ...]:
        """The episodes of one period, by onset."""
        found: list[Episode] = []
        onset = 0.0
        for segment in self.segments:
            end = onset + segment.duration_s
            if segment.rhythm in _ALERTS:
                found.append(Episode(_ALERTS[segment.rhythm], round(onset, 6), round(end, 6)))
            onset = end
        return tuple(found)


def expected(script: Script, seconds: float) -> tuple[Episode, ...]:
    """The episodes that must have raised an alert within the first `seconds` of the script: those begun `DECISION_S` before."""
    period = script.period_s
    repeats = int(seconds // period) + 1
    shifted = (
        Episode(episode.kind, round(episode.onset_s + turn * period, 6), round(episode.end_s + turn * period, 6))
        for turn in range(repeats)
        for episode in script.episodes()
    )
    return tuple(episode for episode in shifted if episode.onset_s + DECISION_S[episode.kind] <= seconds)


def script_names() -> tuple[str, ...]:
    """The published scripts."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml")))


def load_script(name: str) -> Script:
    """A published script by its name.

    Raises:
        ScriptError: there is none of that name, or it is malformed.
    """
    if name not in script_names():
        raise ScriptError(f"no script {name!r}: choose one of {', '.join(script_names())}")
    return parse(name, _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Script:
    """A script from its TOML text.

    Raises:
        ScriptError: it is not TOML, or a key is missing, unknown or out of range.
    """
    try:
        table = tomllib.loads(text)
        segments = tuple(_segment(number, entry) for number, entry in enumerate(table["segment"], 1))
        return Script(name, int(table["seed"]), segments)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ScriptError) as error:
        raise ScriptError(f"script {name}: {error}") from error


def _segment(number: int, entry: Mapping[str, Any]) -> Segment:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    try:
        return Segment(**values)
    except (TypeError, ScriptError) as error:
        raise ScriptError(f"segment {number}: {error}") from error
