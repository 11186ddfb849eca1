"""The counts of the site's demo: it passes only if everything arrived."""

from dataclasses import replace

import pytest

from gateway.simulate.site_counts import CUT_SAMPLES, Counts, count_samples

WHOLE = Counts(
    sent=1000,
    received=1000,
    opened=1000,
    foreign=0,
    blocks=20,
    acknowledged=20,
    without_receipt=0,
    episodes=2,
    alerts=2,
    missed=0,
    unexpected=0,
)


def test_each_sample_counts_once() -> None:
    sent = [(11, 73), (12, 73), (12, 73), (13, 70)]
    assert count_samples(sent, [(12, 73), (11, 73), (12, 73)]) == (219, 0)
    assert count_samples(sent, [(13, 70), (13, 70)]) == (70, 70)
    assert count_samples(sent, [(13, 73)]) == (0, 73)


def test_passes_if_everything_arrived() -> None:
    assert WHOLE.passed
    assert WHOLE.format().endswith(": passed")
    assert replace(WHOLE, sent=1000 + CUT_SAMPLES).passed  # the strap was switched off while it sent


@pytest.mark.parametrize(
    "change",
    [
        {"sent": 1000 + CUT_SAMPLES + 1},
        {"sent": 999},
        {"received": 0, "opened": 0},
        {"opened": 999},
        {"foreign": 1},
        {"acknowledged": 19},
        {"blocks": 0, "acknowledged": 0},
        {"without_receipt": 1},
        {"episodes": 0},
        {"missed": 1},
        {"unexpected": 1},
    ],
    ids=str,
)
def test_fails_if_anything_is_missing(change: dict[str, int]) -> None:
    assert not replace(WHOLE, **change).passed
    assert replace(WHOLE, **change).format().endswith(": failed")
