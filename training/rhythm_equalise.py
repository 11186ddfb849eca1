"""Equalises the channel ranges of `ecg_rhythm` before quantization, without changing what the network computes.

An int8 activation has one scale for all channels, so a low channel next to a high one loses its detail. With a ReLU, a channel
can be divided by any positive number if the next layer's weights for it are multiplied by the same number (Nagel et al.,
Data-Free Quantization Through Weight Equalization and Bias Correction, 2019; Xiao et al., SmoothQuant, 2023).
"""

import copy
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.rhythm_net import RhythmNet

MIGRATION_STRENGTH: Final = 0.65
"""How much of the range moves from the activations to the weights: at 0 the activations stay as they are, at 1 their ranges
become equal."""

_MIN_RANGE: Final = 1e-2
"""Least range of a channel, as a share of the highest one."""


def equalise_channels(network: RhythmNet, features: NDArray[np.float32], strength: float = MIGRATION_STRENGTH) -> RhythmNet:
    """Return a network that computes the same with other weights. The ranges are those of these windows, (n, 2, 3750)."""
    equalised: RhythmNet = copy.deepcopy(network).eval()
    maxima = _channel_maxima(equalised, torch.from_numpy(features))
    sources: list[tuple[Any, list[Any]]] = [(equalised.stem_norm, [])]
    with torch.no_grad():
        for index, block in enumerate(equalised.blocks):
            norm, shortcut = sources[-1]
            _rescale(maxima[2 * index], norm, shortcut, [block.first.weight, block.shortcut.weight], strength)
            _rescale(maxima[2 * index + 1], block.first_norm, [], [block.second.weight], strength)
            sources.append((block.second_norm, [block.shortcut.weight]))
        mean, maximum = equalised.hidden.weight.chunk(2, 1)
        _rescale(maxima[-1], *sources[-1], [mean[:, :, None], maximum[:, :, None]], strength)
    return equalised


def _channel_maxima(network: RhythmNet, features: Any) -> list[Any]:
    """Return the maximum of every channel after every ReLU, (channels,) each: the stem's, then each block's inner and last."""
    maxima: list[Any] = []

    def record(x: Any) -> Any:
        maxima.append(x.amax((0, 2, 3)))
        return x

    with torch.inference_mode():
        x = record(torch.relu(network.stem_norm(network.stem(features[:, :, None]))))
        for block in network.blocks:
            inner = record(torch.relu(block.first_norm(block.first(x))))
            x = record(torch.relu(block.second_norm(block.second(inner)) + block.shortcut(x)))
    return [maximum.clone() for maximum in maxima]


def _rescale(maxima: Any, norm: nn.Module, shortcut: Sequence[Any], next_weights: Sequence[Any], strength: float) -> None:
    """Divide the output of `norm` and `shortcut` per channel, and multiply the corresponding columns of the next weights."""
    scale = channel_scales(maxima, next_weights, strength)
    for tensor in (norm.weight, norm.bias):
        tensor.div_(scale)
    for weight in shortcut:
        weight.div_(scale[:, None, None])
    for weight in next_weights:
        weight.mul_(scale[None, :, None])


def channel_scales(maxima: Any, next_weights: Sequence[Any], strength: float) -> Any:
    """Return the divisor of each channel, (channels,).

    Args:
        maxima: largest value of each channel, (channels,).
        next_weights: the weights that read them, (n, channels, width) each.
        strength: see `MIGRATION_STRENGTH`.
    """
    largest = torch.stack([weight.abs().amax((0, 2)) for weight in next_weights]).amax(0)
    return _with_floor(maxima) ** strength / _with_floor(largest) ** (1 - strength)


def _with_floor(values: Any) -> Any:
    return values.clamp(min=_MIN_RANGE * float(values.max()))
