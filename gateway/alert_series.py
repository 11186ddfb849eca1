"""One alert and the episodes that it is about: how many there were, how long they lasted, and whether they become worse."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from config.limits import Limits
from models.findings import Finding
from reporting.result import LATEST_KEY
from sync.records import EPISODES_KEY, LENGTH_KEY, LONGEST_KEY, AlertRecord

ALWAYS_ALONE: Final = frozenset({"vf", "asystole"})
"""Kinds of which every episode has an alert of its own, as has a sustained ventricular tachycardia."""
SUSTAINED_VT: Final = "vt.sustained"
"""The key of the alert about a sustained ventricular tachycardia; the key of the others is their kind."""
END_KNOWN_S: Final = 5.0
"""The end of an episode is known at the latest so long after it: 1.5 s until a beat is labelled, and 3 s without a beat. An
episode that has not ended has lasted at least until then."""
COUNTED_US: Final = 300_000_000
"""Episodes are counted over 5 min: at 12 an hour there is one in this time on average."""
COUNTED_AN_HOUR: Final = 12
MAX_COUNTED: Final = 600
"""Episodes in 5 min: two a second is the limit of any rule."""
RATE_STEP_BPM: Final = 0.1
"""Rates are rounded to this: a rule that compared them before must not be contradicted."""
AN_HOUR_KEY: Final = "an_hour"
SERIES_NUMBERS: Final = (EPISODES_KEY, LENGTH_KEY, LONGEST_KEY, AN_HOUR_KEY, LATEST_KEY)
"""What an alert about several episodes measures of them all: their number, the length of the latest so far and that of the
longest, how many an hour came in the last 5 min, and, while none lasts, the end of the latest in seconds after the alert's
onset."""
LONGER_REASON: Final = "worse.longer"
FASTER_REASON: Final = "worse.faster"
SLOWER_REASON: Final = "worse.slower"
MORE_OFTEN_REASON: Final = "worse.more_often"
"""The reason keys of an alert that was raised again because its episodes became worse."""


class Phase(StrEnum):
    """The state of an alert. It is open while `ONGOING`, `LOST` or `BETWEEN`.

    Attributes:
        ONGOING: an episode lasts.
        LOST: an episode lasted when the signal was lost; whether it goes on is not known.
        BETWEEN: an episode has ended, and the next is expected, as it was not the first.
        ENDED: it has ended; an episode that begins soon opens it again.
        CLOSED: the clinic closed it.
    """

    ONGOING = "ongoing"
    LOST = "lost"
    BETWEEN = "between"
    ENDED = "ended"
    CLOSED = "closed"


OPEN_PHASES: Final = frozenset({Phase.ONGOING, Phase.LOST, Phase.BETWEEN})


@dataclass(slots=True)
class Series:
    """The episodes of one kind that one alert is about. The field names are keys of the saved state.

    Attributes:
        alert: the alert as it was last sent, without its strip.
        episode: the kind that identifies the latest episode (`Finding.episode`).
        onset_s: the latest episode's onset in stream seconds; None after a restart, when the stream has begun anew.
        onset_us: the same in UTC.
        last_us: the end of the latest episode, or when its signal was lost; its onset while it lasts.
        before: `last_us` and `longest_s` before the latest episode.
        length_s: how long the latest episode has lasted.
        marks: reason keys of the first finding, which stay.
        reasons: those of the findings of the latest episode.
        worse: why the alert was last raised again.
        is_cut: whether only the signal ended the latest episode, so that the next may be its continuation.
        is_ongoing: whether the latest episode has not ended; also of an alert that was closed.
        is_latched: whether the signal was lost in an episode of high priority: the alert does not end with an episode any more.
        episodes: how many there were.
        longest_s: the longest of them.
        told_s, told_bpm, told_number: the longest episode, the worst rate, and the largest number of episodes in 5 min when the
            alert was last raised, which was in the episode that began at `told_us`.
        is_length_told: whether it was raised in the latest episode because this is longer.
        recent_us: the onsets of the last 5 min.
        closed_us: when the clinic closed the alert.
    """

    alert: AlertRecord
    episode: str
    onset_s: float | None
    onset_us: int
    last_us: int
    phase: Phase = Phase.ONGOING
    before: tuple[int, float] = (0, 0.0)
    length_s: float = 0.0
    marks: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    worse: str | None = None
    is_cut: bool = False
    is_ongoing: bool = True
    is_latched: bool = False
    episodes: int = 1
    longest_s: float = 0.0
    told_s: float = 0.0
    told_bpm: float | None = None
    told_number: int = 1
    told_us: int = 0
    is_length_told: bool = False
    recent_us: list[int] = field(default_factory=list)
    closed_us: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the alert is open at the clinic."""
        return self.phase in OPEN_PHASES

    @property
    def waits(self) -> bool:
        """Whether time alone can change the alert of a stream without a rhythm."""
        if self.phase in (Phase.ONGOING, Phase.CLOSED):
            return self.is_ongoing and self.episodes > 1
        return self.phase is Phase.BETWEEN

    def is_episode(self, finding: Finding, onset_us: int) -> bool:
        """Return whether a finding is about the latest episode, which has not ended."""
        kind, onset_s = finding.episode
        same_onset = onset_us == self.onset_us if self.onset_s is None else onset_s == self.onset_s
        return self.is_ongoing and kind == self.episode and same_onset

    def begin_episode(self, finding: Finding, onset_us: int) -> None:
        """Process the onset of an episode. One that follows a loss of the signal is the same as before."""
        if self.episodes == 1 or self.is_length_told:
            self.tell()
        self.is_length_told = False
        self.episodes += not self.is_cut
        self.before = self.last_us, self.longest_s
        self.episode, self.onset_s, self.onset_us, self.last_us = finding.episode[0], finding.onset_s, onset_us, onset_us
        self.length_s = self.length_s if self.is_cut else 0.0
        self.is_ongoing, self.is_cut, self.reasons = True, False, ()
        self.recent_us = [*(at for at in self.recent_us if 0 <= onset_us - at < COUNTED_US), onset_us][-MAX_COUNTED:]

    def drop_episode(self) -> None:
        """Remove the latest episode, because it gets an alert of its own."""
        self.episodes -= 1
        self.is_ongoing, self.length_s = False, 0.0
        self.recent_us = self.recent_us[:-1]
        self.last_us, self.longest_s = self.before

    def end_episode(self, end_us: int, *, is_cut: bool) -> None:
        """Process the end of the latest episode; `is_cut` if only its signal ended."""
        self.is_ongoing, self.is_cut, self.last_us = False, is_cut, max(self.onset_us, end_us)

    def measure(self, until_us: int, pause_s: float = 0.0) -> None:
        """Update the lengths: the latest episode has lasted at least until then, or its pause has."""
        self.length_s = max(self.length_s, pause_s, (until_us - self.onset_us) / 1e6)
        self.longest_s = max(self.longest_s, self.length_s)

    def tell(self) -> None:
        """Note that the alert was raised with what is known of its episodes."""
        self.told_s, self.told_bpm = self.longest_s, _worst_rate(self.alert, self.told_bpm)
        self.told_number = max(self.told_number, len(self.recent_us))
        self.told_us = self.onset_us

    def find_worsening(self, limits: Limits, rate_bpm: float | None = None) -> str | None:
        """Return the reason to raise the alert again: how its episodes are worse than those told; None if they are not.

        The length of one episode is a reason once: that it goes on is visible. That of the first is none. A rate is one in the
        first episode, too, while that lasts.
        """
        if self.episodes == 1:
            return self._find_worse_rate(limits, rate_bpm) if self.is_ongoing else None
        if not self.is_length_told and self.told_s > 0 and self.longest_s >= limits.worse_length.value * self.told_s:
            return LONGER_REASON
        worse_rate = self._find_worse_rate(limits, rate_bpm)
        if worse_rate:
            return worse_rate
        is_counted = self.onset_us - self.told_us >= COUNTED_US
        if is_counted and len(self.recent_us) >= limits.worse_number.value * self.told_number:
            return MORE_OFTEN_REASON
        return None

    def _find_worse_rate(self, limits: Limits, rate_bpm: float | None) -> str | None:
        ratio = limits.worse_rate.value
        if rate_bpm is None or self.told_bpm is None:
            return None
        if self.alert.kind == "bradycardia":
            return SLOWER_REASON if (rate_bpm - RATE_STEP_BPM) * ratio <= self.told_bpm else None
        return FASTER_REASON if rate_bpm + RATE_STEP_BPM >= ratio * self.told_bpm else None

    def numbers(self) -> dict[str, float]:
        """Return what an alert about several episodes measures of them all."""
        if self.episodes == 1:
            return {}
        numbers = {
            EPISODES_KEY: float(self.episodes),
            LENGTH_KEY: round(self.length_s, 1),
            LONGEST_KEY: round(self.longest_s, 1),
            AN_HOUR_KEY: float(len(self.recent_us) * COUNTED_AN_HOUR),
        }
        latest = (
            {}
            if self.phase in (Phase.ONGOING, Phase.LOST)
            else {LATEST_KEY: round((self.last_us - self.alert.onset_us) / 1e6, 3)}
        )
        return numbers | latest

    def state(self) -> dict[str, Any]:
        """Return what `load_series` restores it from, ready for JSON. Nothing in it changes later."""
        return {name: getattr(self, name) for name in Series.__slots__} | {"alert": alert_state(self.alert)}


def alert_state(alert: AlertRecord) -> dict[str, Any]:
    """Return the fields of an alert without a strip, ready for JSON."""
    return {name: getattr(alert, name) for name in AlertRecord.__slots__}


def load_series(saved: Mapping[str, Any]) -> Series:
    """Restore what `Series.state` returned, in a new stream."""
    alert: dict[str, Any] = {**saved["alert"], "reasons": tuple(saved["alert"]["reasons"])}
    restored: dict[str, Any] = {
        **saved,
        "alert": AlertRecord(**alert),
        "phase": Phase(saved["phase"]),
        **{name: tuple(saved[name]) for name in ("marks", "reasons", "before")},
        "onset_s": None,
    }
    return Series(**restored)


def _worst_rate(alert: AlertRecord, told_bpm: float | None) -> float | None:
    rate_bpm = (alert.measured or {}).get("rate_bpm")
    if rate_bpm is None or told_bpm is None:
        return told_bpm if rate_bpm is None else rate_bpm
    return min(rate_bpm, told_bpm) if alert.kind == "bradycardia" else max(rate_bpm, told_bpm)


def of_one_episode(measured: Mapping[str, float] | None) -> dict[str, float]:
    """Return what an alert measured without the numbers about several episodes."""
    return {name: value for name, value in (measured or {}).items() if name not in SERIES_NUMBERS}
