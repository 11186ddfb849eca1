"""Confidence intervals of counted proportions and rates."""

from collections.abc import Callable
from math import exp, lgamma, log, sqrt
from typing import Final

Z_95: Final = 1.959964
"""97.5 % quantile of the normal distribution, for two-sided intervals of 95 %."""


def wilson_interval(count: int, total: int) -> tuple[float, float] | None:
    """Returns the 95 % interval of a proportion as fractions (Wilson 1927); None for a total of 0."""
    if not total:
        return None
    share, square = count / total, Z_95**2
    centre = share + square / (2 * total)
    half = Z_95 * sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(0.0, (centre - half) / (1 + square / total)), min(1.0, (centre + half) / (1 + square / total))


def poisson_interval(count: int) -> tuple[float, float]:
    """Returns the exact 95 % interval of the mean of a Poisson count (Garwood 1936); from 0 with 97.5 % if the count is 0."""
    low = 0.0 if count == 0 else _solve(lambda mean: _poisson_cdf(count - 1, mean) - 0.975, count)
    return low, _solve(lambda mean: _poisson_cdf(count, mean) - 0.025, count)


def poisson_upper(count: int) -> float:
    """Returns the one-sided 95 % upper bound of the mean of a Poisson count: 3.0 for a count of 0."""
    return _solve(lambda mean: _poisson_cdf(count, mean) - 0.05, count)


def _poisson_cdf(count: int, mean: float) -> float:
    return sum(exp(k * log(mean) - mean - lgamma(k + 1)) for k in range(count + 1))


def _solve(falling: Callable[[float], float], count: int) -> float:
    """Returns where a function that falls with the mean crosses 0, by bisection."""
    low, high = 1e-9, 10.0 + 3.0 * count
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
