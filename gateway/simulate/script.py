"""Scripts of simulated ECGs: which rhythm plays when, and which alerts it must raise.

A script is a list of segments that repeats. Every segment begins and ends with a beat: the onset of an episode is its first
beat, and a pause lasts exactly as long as its segment. Built-in scripts are TOML files beside this module (`scripts/*.toml`).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, Literal, get_args

Rhythm = Literal["sinus", "af", "svt", "bradycardia", "pause"]
"""Sinus rhythm, atrial fibrillation, supraventricular tachycardia, sinus bradycardia, sinus arrest."""

_ALERT_KINDS: Final[Mapping[Rhythm, str]] = {"af": "af", "svt": "tachycardia", "bradycardia": "bradycardia", "pause": "pause"}
"""The kind of alert that each rhythm must raise; sinus rhythm raises none."""

MAX_ALERT_DELAY_S: Final[Mapping[str, float]] = {"af": 51.0, "tachycardia": 13.0, "bradycardia": 16.0, "pause": 6.0}
"""The longest time in seconds from an episode's onset to its alert. Each includes 2 s for the beat detector and the frame.

af: some 30 intervals until AF outweighs the sinus beats before it (20 s at 100/min), then 30 s for the evidence of an episode.
tachycardia, bradycardia: the rate must persist for 10 s, then one or three more beats pass until the median follows.
pause: the 3 s that define one, and the beat that ends it.
"""


_FOLDER: Final = files("gateway.simulate").joinpath("scripts")


class ScriptError(ValueError):
    """The script cannot be played. The message names the script, the segment and what is allowed."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one rhythm. `pvc_s` and `pac_s` are the times of premature ventricular and atrial beats after its onset."""

    rhythm: Rhythm
    duration_s: float
    rate_bpm: float
    pvc_s: tuple[float, ...] = ()
    pac_s: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.rhythm not in get_args(Rhythm):
            raise ScriptError(f"rhythm {self.rhythm!r} is not one of {', '.join(get_args(Rhythm))}")
        if not 0 < self.duration_s <= 3600:
            raise ScriptError(f"duration_s {self.duration_s} is not within 0 … 3600")
        if not 20 <= self.rate_bpm <= 250:
            raise ScriptError(f"rate_bpm {self.rate_bpm} is not within 20 … 250")
        if any(not 0 < at_s < self.duration_s for at_s in self.pvc_s + self.pac_s):
            raise ScriptError(f"a premature beat is outside the segment's {self.duration_s} s")


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode that must raise an alert of `kind`; `onset_s` and `end_s` are seconds since the start of the script."""

    kind: str
    onset_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """Segments in the order in which they play. After the last, the script repeats from the first."""

    name: str
    seed: int
    segments: tuple[Segment, ...] = field(repr=False)

    @property
    def period_s(self) -> float:
        return sum(segment.duration_s for segment in self.segments)

    def episodes(self) -> tuple[Episode, ...]:
        """Return the episodes of one period, by onset."""
        episodes: list[Episode] = []
        onset_s = 0.0
        for segment in self.segments:
            end_s = onset_s + segment.duration_s
            if segment.rhythm in _ALERT_KINDS:
                episodes.append(Episode(_ALERT_KINDS[segment.rhythm], round(onset_s, 6), round(end_s, 6)))
            onset_s = end_s
        return tuple(episodes)


def expected_episodes(script: Script, seconds: float) -> tuple[Episode, ...]:
    """Return the episodes that must have raised an alert `seconds` after the script's start."""
    begun = begun_episodes(script, seconds)
    return tuple(episode for episode in begun if episode.onset_s + MAX_ALERT_DELAY_S[episode.kind] <= seconds)


def begun_episodes(script: Script, seconds: float) -> tuple[Episode, ...]:
    """Return the episodes that may have raised an alert `seconds` after the script's start."""
    period_s = script.period_s
    repeats = int(seconds // period_s) + 1
    shifted = (
        Episode(episode.kind, round(episode.onset_s + index * period_s, 6), round(episode.end_s + index * period_s, 6))
        for index in range(repeats)
        for episode in script.episodes()
    )
    return tuple(episode for episode in shifted if episode.onset_s <= seconds)


def script_names() -> tuple[str, ...]:
    """Return the names of the built-in scripts, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml")))


def load_script(name: str) -> Script:
    """Load a built-in script by its name.

    Raises:
        ScriptError: there is no script of that name, or it is malformed.
    """
    if name not in script_names():
        raise ScriptError(f"no script {name!r}: choose one of {', '.join(script_names())}")
    return parse_script(name, _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8"))


def parse_script(name: str, text: str) -> Script:
    """Parse a script from its TOML text.

    Raises:
        ScriptError: it is not TOML, or a key is missing, unknown or out of range.
    """
    try:
        table = tomllib.loads(text)
        segments = tuple(_parse_segment(number, entry) for number, entry in enumerate(table["segment"], 1))
        return Script(name, int(table["seed"]), segments)
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ScriptError) as error:
        raise ScriptError(f"script {name}: {error}") from error


def _parse_segment(number: int, entry: Mapping[str, Any]) -> Segment:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    try:
        return Segment(**values)
    except (TypeError, ScriptError) as error:
        raise ScriptError(f"segment {number}: {error}") from error
