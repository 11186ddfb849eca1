"""Was anything lost? What the strap says it sent, against what the clinic holds."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

EDGE_US: Final = 300_000
"""A gap's ends are the hub's estimate of the sensor's time, off by the transport delay: less than half a frame (0.56 s)."""


@dataclass(frozen=True, slots=True)
class SentFrame:
    """One frame that the strap handed to its radio: the time of its last sample (UTC), how many there are, and their CRC-32."""

    last_us: int
    samples: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Audit:
    """Samples sent while connected, and where they are. `unaccounted` and the two `twice` must be 0."""

    samples_sent: int
    samples_stored: int
    samples_in_gaps: int
    samples_unaccounted: int
    samples_stored_twice: int
    blocks_stored_twice: int
    blocks_missing: int

    @property
    def passed(self) -> bool:
        """Nothing lost without a record of it, nothing stored twice."""
        return not (self.samples_unaccounted or self.samples_stored_twice or self.blocks_stored_twice or self.blocks_missing)

    def figures(self) -> dict[str, int]:
        """All figures by name."""
        return asdict(self)


def audit(sent: Sequence[SentFrame], records: Iterable[Mapping[str, Any]], kind: str = "ecg") -> Audit:
    """Compares the strap's journal with the records that the clinic opened (`pulsegate-cloud open --json`)."""
    stored: Counter[tuple[int, int]] = Counter()
    starts: list[int] = []
    gaps: dict[int, int | None] = {}
    blocks_twice = blocks_missing = 0
    for record in records:
        match record.get("type"):
            case "waveform" if record["kind"] == kind:
                stored[record["samples_crc32"], record["n"]] += 1
                starts.append(record["at_us"])
            case "gap" if record["kind"] == kind:
                gaps[record["from_us"]] = record["to_us"] or gaps.get(record["from_us"])
            case "account":
                blocks_twice, blocks_missing = record["duplicate_blocks"], record["missing_blocks"]
            case _:
                pass
    expected = Counter((frame.crc32, frame.samples) for frame in sent)
    missing = [frame for frame in sent if not stored[frame.crc32, frame.samples]]
    closed = _closed(gaps, sorted(starts))
    in_gaps = [frame for frame in missing if _covered(frame, closed)]
    return Audit(
        samples_sent=sum(frame.samples for frame in sent),
        samples_stored=sum(frame.samples for frame in sent if stored[frame.crc32, frame.samples]),
        samples_in_gaps=sum(frame.samples for frame in in_gaps),
        samples_unaccounted=sum(frame.samples for frame in missing) - sum(frame.samples for frame in in_gaps),
        samples_stored_twice=sum(
            (count - expected[key]) * key[1] for key, count in stored.items() if count > expected[key] > 0
        ),
        blocks_stored_twice=blocks_twice,
        blocks_missing=blocks_missing,
    )


def _closed(gaps: Mapping[int, int | None], starts: Sequence[int]) -> list[tuple[int, float]]:
    """The gaps with their ends; one that is still open lasts until the next samples, whoever forgot to close it."""
    following = {start: next((at for at in starts if at > start), float("inf")) for start, end in gaps.items() if end is None}
    return [(start - EDGE_US, (following[start] if end is None else end) + EDGE_US) for start, end in gaps.items()]


def _covered(frame: SentFrame, gaps: Sequence[tuple[int, float]]) -> bool:
    return any(start <= frame.last_us <= end for start, end in gaps)
