"""The loss audit: compares what the strap sent with what the clinic has stored."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

GAP_TOLERANCE_US: Final = 300_000
"""A gap's ends are the hub's estimate of sensor time. They are off by the transport delay: less than half a frame (0.56 s)."""


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A frame that the strap handed to its radio: the time of its last sample (UTC), its number of samples, their CRC-32."""

    last_us: int
    samples: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Audit:
    """How many of the samples that the strap sent while connected are stored, in gaps or missing, and counts of blocks.

    `samples_unaccounted`, both `…_twice` and `blocks_missing` must be 0.
    """

    samples_sent: int
    samples_stored: int
    samples_in_gaps: int
    samples_unaccounted: int
    samples_stored_twice: int
    blocks_stored_twice: int
    blocks_missing: int

    @property
    def passed(self) -> bool:
        """Whether every loss is recorded and nothing is stored twice."""
        return not (self.samples_unaccounted or self.samples_stored_twice or self.blocks_stored_twice or self.blocks_missing)

    def counts(self) -> dict[str, int]:
        """Return all counts by name."""
        return asdict(self)


def audit(sent: Sequence[SentFrame], records: Iterable[Mapping[str, Any]], kind: str = "ecg") -> Audit:
    """Compare the strap's journal with the records that the clinic opened (`pulsegate-cloud open --json`)."""
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
    spans = _gap_spans(gaps, sorted(starts))
    in_gaps = [frame for frame in missing if _is_in_gap(frame, spans)]
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


def _gap_spans(gaps: Mapping[int, int | None], starts: Sequence[int]) -> list[tuple[int, float]]:
    """Return start and end of each gap, widened by the tolerance, in µs. An open gap ends at the next stored samples."""
    following = {start: next((at for at in starts if at > start), float("inf")) for start, end in gaps.items() if end is None}
    return [
        (start - GAP_TOLERANCE_US, (following[start] if end is None else end) + GAP_TOLERANCE_US) for start, end in gaps.items()
    ]


def _is_in_gap(frame: SentFrame, spans: Sequence[tuple[int, float]]) -> bool:
    return any(start <= frame.last_us <= end for start, end in spans)
