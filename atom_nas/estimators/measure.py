"""What a network costs, read without training it."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def network_costs(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, float]:
    """Trainable parameters, and floating point operations of one image's forward pass.

    A multiplication and an addition count as two operations; only convolutions and matrix products count,
    as usual in the field. The network is left as it was.

    Args:
        network: on the CPU.
        image_shape: (C, H, W).
    """
    parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    training = network.training
    network.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, *image_shape))
    network.train(training)
    return {"parameters": float(parameters), "flops": float(counter.get_total_flops())}
