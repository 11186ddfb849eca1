"""Channels of `ecg_rhythm` brought to like ranges before quantization, without any change of what the network computes.

An int8 activation has one scale for all of its channels: a channel that stays low next to a high one loses its detail. A ReLU
lets a channel be divided by any positive number, if the next layer's weights for it are multiplied by the same (Nagel et al.,
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

SHARE: Final = 0.65
"""How much of the trouble the weights take over: at 0 the activations stay as they are, at 1 their channels become alike."""

_LEAST: Final = 1e-2
"""Of the highest channel: lower ones count as this high."""


def equalised(network: RhythmNet, features: NDArray[np.float32], share: float = SHARE) -> RhythmNet:
    """The same function with other weights; ranges are taken from these windows, (n, 2, 3750)."""
    out: RhythmNet = copy.deepcopy(network).eval()
    highest = _highest(out, torch.from_numpy(features))
    sources: list[tuple[Any, list[Any]]] = [(out.stem_norm, [])]
    with torch.no_grad():
        for place, block in enumerate(out.blocks):
            norm, past = sources[-1]
            _shift(highest[2 * place], norm, past, [block.first.weight, block.past.weight], share)
            _shift(highest[2 * place + 1], block.first_norm, [], [block.second.weight], share)
            sources.append((block.second_norm, [block.past.weight]))
        mean, top = out.hidden.weight.chunk(2, 1)
        _shift(highest[-1], *sources[-1], [mean[:, :, None], top[:, :, None]], share)
    return out


def _highest(network: RhythmNet, features: Any) -> list[Any]:
    """Of every channel behind every ReLU, (channels,) each: the stem's, then each block's inner and last."""
    tops: list[Any] = []

    def kept(x: Any) -> Any:
        tops.append(x.amax((0, 2, 3)))
        return x

    with torch.inference_mode():
        x = kept(torch.relu(network.stem_norm(network.stem(features[:, :, None]))))
        for block in network.blocks:
            inner = kept(torch.relu(block.first_norm(block.first(x))))
            x = kept(torch.relu(block.second_norm(block.second(inner)) + block.past(x)))
    return [top.clone() for top in tops]


def _shift(highest: Any, norm: nn.Module, past: Sequence[Any], following: Sequence[Any], share: float) -> None:
    """Divide what `norm` and `past` give, channel by channel, and multiply the columns of the weights that follow."""
    scale = scales(highest, following, share)
    for tensor in (norm.weight, norm.bias):
        tensor.div_(scale)
    for weight in past:
        weight.div_(scale[:, None, None])
    for weight in following:
        weight.mul_(scale[None, :, None])


def scales(highest: Any, following: Sequence[Any], share: float) -> Any:
    """What the channels are divided by, (channels,): `highest` (channels,) of them, and the weights (n, channels, width) that
    read them.
    """
    largest = torch.stack([weight.abs().amax((0, 2)) for weight in following]).amax(0)
    return _floored(highest) ** share / _floored(largest) ** (1 - share)


def _floored(values: Any) -> Any:
    return values.clamp(min=_LEAST * float(values.max()))
