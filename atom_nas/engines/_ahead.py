"""What all workers need, loaded once, by the process that they are forked from.

The first use of an optimizer makes torch load its compiler, some 800 modules: in each worker that took a
second and 120 MiB. Nothing here starts a thread or looks for a GPU, which a fork would not survive.
"""

import torch

import atom_nas.engines._worker  # noqa: F401

torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0).zero_grad()
