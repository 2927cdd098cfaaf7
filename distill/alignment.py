"""The losses of CAFE: aligned features and telling classes apart; pure functions, no model, data or I/O.

Letters: K classes, M real images a class, D_l numbers a feature of layer l, D those of the last.
Images of one class stand together: image n belongs to class n // M.

    L_f = sum over classes k and layers l of || mean_{T_k} f_l - mean_{S_k} f_l ||^2
    L_d = sum over classes k of mean_{x in T_k} cross_entropy(<f_L(x), c_j / sqrt(D)> over classes j, k),
          c_j = mean_{S_j} f_L

Source: Wang et al. 2022 (CAFE), arXiv:2203.01531, section 3: layer-wise feature alignment and the
discrimination loss, in which means of synthetic features classify the real images. There L_d is a mean over
all real images, which is this divided by K, and products are not divided by sqrt(D): undivided, they are so
large at some thousand numbers a feature that the softmax of an untrained network is that of a maximum.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def alignment_loss(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """L_f of each class.

    Args:
        real: class means, (K, D_l) a layer; a constant target.
        synthetic: of the same network, layers and classes.
    Returns:
        (K,), not negative, differentiable in `synthetic` only.
    Raises:
        ValueError: if the number of layers or a layer's shape differs.
    """
    shapes = [[tuple(layer.shape) for layer in side] for side in (real, synthetic)]
    if shapes[0] != shapes[1] or not real:
        raise ValueError(f"real means are {shapes[0]}, synthetic ones {shapes[1]}")
    layers = [(t.detach() - s).square().sum(dim=1) for t, s in zip(real, synthetic, strict=True)]
    return torch.stack(layers).sum(dim=0)


def discrimination_loss(features: Tensor, centres: Tensor) -> Tensor:
    """L_d of each class: how badly the means of synthetic features classify real images.

    Args:
        features: f_L of the real images, (K*M, D); a constant.
        centres: c, the means of the synthetic images' f_L, (K, D).
    Returns:
        (K,), positive, differentiable in `centres` only.
    Raises:
        ValueError: if the images do not divide into classes of equal size.
    """
    classes, width = centres.shape
    if len(features) % classes:
        raise ValueError(f"{len(features)} images do not divide into {classes} classes of equal size")
    labels = torch.arange(classes, device=centres.device).repeat_interleave(len(features) // classes)
    logits = features.detach() @ centres.t() / math.sqrt(width)
    return F.cross_entropy(logits, labels, reduction="none").view(classes, -1).mean(dim=1)
