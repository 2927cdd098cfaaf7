"""Gradient matching: what images of a class do to a network's weights; pure functions, no data or I/O.

Letters: K classes, I images a class, N = K*I images, C channels, H x W pixels; a layer's weight has O rows
(one an output) of P numbers each. Images of one class stand together: image n belongs to class n // I.

    g_k = d/dw mean_{x in S_k} cross_entropy(network(x), k)
    D_k = sum over layers and rows o of 1 - <g_ko, h_ko> / (|g_ko| |h_ko| + eps)

with h_k the same gradient on real images. Weights of convolutions and linear layers count; biases and the
parameters of norms do not. Source: Zhao, Mopuri and Bilen 2021, arXiv:2006.05929, section 3.3, and the
authors' public code, which leaves vectors out and has that eps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from distill.networks import ConvNet

EPS = 1e-6
"""Added to the product of two rows' norms: rows of vanishing gradient count as fully apart."""


def matched_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights whose gradients are matched, layer by layer: O rows of P numbers, in whatever shape."""
    return [parameter for parameter in network.parameters() if parameter.dim() > 1]


def gradient_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """D_k of every class.

    Args:
        real: (K, O_l, P_l) a layer; a constant target.
        synthetic: of the same network, layers and classes.
    Returns:
        (K,), each between 0 and twice the number of rows, differentiable in `synthetic` only.
    Raises:
        ValueError: if the number of layers or a layer's shape differs.
    """
    if len(real) != len(synthetic) or not real:
        raise ValueError(f"real gradients have {len(real)} layers, synthetic ones {len(synthetic)}")
    layers = [_layer_distance(h, g) for h, g in zip(real, synthetic, strict=True)]
    return torch.stack(layers).sum(dim=0)


def _layer_distance(target: Tensor, source: Tensor) -> Tensor:
    """Two (K, O, P) to (K,)."""
    if target.shape != source.shape:
        raise ValueError(f"real gradients are {tuple(target.shape)}, synthetic {tuple(source.shape)}")
    target = target.detach()
    products = (target * source).sum(dim=2)
    lengths = torch.linalg.vector_norm(target, dim=2) * torch.linalg.vector_norm(source, dim=2)
    return torch.as_tensor((1.0 - products / (lengths + EPS)).sum(dim=1))


def weight_gradients(
    network: nn.Module, images: Tensor, label: int, weights: Sequence[Tensor]
) -> list[Tensor]:
    """g of one class, differentiated once: (1, O, P) a layer, without a graph.

    Args:
        network: (N, C, H, W) to logits, in whatever way it computes them.
        images: (N, C, H, W), all of class `label`.
        weights: see `matched_weights`; they require gradients.
    """
    targets = torch.full((len(images),), label, device=images.device)
    loss = F.cross_entropy(_wide(network(images)), targets)
    return [gradient.flatten(1)[None] for gradient in torch.autograd.grad(loss, weights)]


def class_gradients(network: ConvNet, images: Tensor, labels: Tensor) -> list[Tensor]:
    """g_k of K classes at once, differentiable in the images.

    One pass carries the images of all classes forward, and one the slopes at the layers' outputs back, since
    no layer mixes images; only the products of the two that make a weight's gradient are a class's own.

    Args:
        images: (K*I, C, H, W).
        labels: int64 (K,).
    Returns:
        (K, O, P) a layer, in the order of `matched_weights`; float32 or wider.
    """
    inputs, outputs, layers = [], [], []
    signal = images
    for layer in network.layers():
        before, signal = signal, layer(signal)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            inputs.append(before)
            outputs.append(signal)
            layers.append(layer)
    count = len(images) // len(labels)
    targets = labels.repeat_interleave(count)
    loss = F.cross_entropy(_wide(signal), targets, reduction="sum") / count
    slopes = torch.autograd.grad(loss, outputs, create_graph=True)
    return [
        torch.stack([_product(layer, *pair) for pair in zip(a.split(count), s.split(count), strict=True)])
        for layer, a, s in zip(layers, inputs, slopes, strict=True)
    ]


def _product(layer: nn.Conv2d | nn.Linear, signal: Tensor, slope: Tensor) -> Tensor:
    """A weight's gradient from what went into the layer and the slope at what came out: (O, P)."""
    signal, slope = _wide(signal), _wide(slope)
    if isinstance(layer, nn.Linear):
        return slope.mT @ signal
    padding = layer.padding
    assert not isinstance(padding, str)
    shape = layer.weight.shape
    gradient = conv2d_weight(signal, shape, slope, layer.stride, padding, layer.dilation, layer.groups)
    return torch.as_tensor(gradient).flatten(1)


def _wide(values: Tensor) -> Tensor:
    """At least float32: half precision is for the network's convolutions alone."""
    return values if values.dtype == torch.float64 else values.float()
