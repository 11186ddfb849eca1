"""Channels of `rr_af` brought to like ranges before quantization, without any change of what the network computes.

See `training.rhythm_equal`, which does it for a network of another build.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.rhythm_equal import scales
from training.rr_net import POOLED, RrNet


def equalised(network: RrNet, features: NDArray[np.float32], share: float) -> RrNet:
    """The same function with other weights; ranges are taken from these windows, (n, 6, 64).

    `share`: how much of the trouble the weights take over, see `rhythm_equal.SHARE`.
    """
    out: RrNet = copy.deepcopy(network).eval()
    highest = _highest(out, torch.from_numpy(features))
    mean, top = out.hidden.weight.chunk(2, 1)
    readers = [*([layer.weight] for layer in out.convolutions[1:]), [mean[:, :, None], top[:, :, None]]]
    with torch.no_grad():
        for layer, peaks, following in zip(out.convolutions, highest, readers, strict=True):
            scale = scales(peaks, following, share)
            layer.weight.div_(scale[:, None, None])
            layer.bias.div_(scale)
            for weight in following:
                weight.mul_(scale[None, :, None])
    return out


def _highest(network: RrNet, features: Any) -> list[Any]:
    """Of every channel behind every ReLU, (channels,) each."""
    tops = []
    with torch.inference_mode():
        x = features
        for place, layer in enumerate(network.convolutions):
            x = torch.relu(layer(x))
            tops.append(x.amax((0, 2)).clone())
            if place in POOLED:
                x = nn.functional.max_pool1d(x, 2)
    return tops
