"""Equalises the channel ranges of `rr_af` before quantization, without changing what the network computes.

See `training.rhythm_equalise`, which does the same for a network of another structure.
"""

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.rhythm_equalise import channel_scales
from training.rr_net import POOLED, RrNet


def equalise_channels(network: RrNet, features: NDArray[np.float32], strength: float) -> RrNet:
    """Return a network that computes the same with other weights. The ranges are those of these windows, (n, 6, 64).

    `strength`: how much of the range moves to the weights, see `rhythm_equalise.MIGRATION_STRENGTH`.
    """
    equalised: RrNet = copy.deepcopy(network).eval()
    maxima = _channel_maxima(equalised, torch.from_numpy(features))
    mean, maximum = equalised.hidden.weight.chunk(2, 1)
    next_layers = [*([layer.weight] for layer in equalised.convolutions[1:]), [mean[:, :, None], maximum[:, :, None]]]
    with torch.no_grad():
        for layer, layer_maxima, next_weights in zip(equalised.convolutions, maxima, next_layers, strict=True):
            scale = channel_scales(layer_maxima, next_weights, strength)
            layer.weight.div_(scale[:, None, None])
            layer.bias.div_(scale)
            for weight in next_weights:
                weight.mul_(scale[None, :, None])
    return equalised


def _channel_maxima(network: RrNet, features: Any) -> list[Any]:
    """Return the maximum of every channel after every ReLU, (channels,) each."""
    maxima = []
    with torch.inference_mode():
        x = features
        for index, layer in enumerate(network.convolutions):
            x = torch.relu(layer(x))
            maxima.append(x.amax((0, 2)).clone())
            if index in POOLED:
                x = nn.functional.max_pool1d(x, 2)
    return maxima
