"""First weights of a model to train."""

import math

import torch

from mossnet import Mamba


@torch.no_grad()
def init_weights(model):
    """Gates start near 1/E each, so expert stacks start larger by as much as the mean of k gates is smaller."""
    graph = model.graph
    depth = math.sqrt(2 * len(graph.layers))
    for name, p in model.named_parameters():
        experts = p.shape[0] if p.dim() == 3 else 1
        boost = experts / math.sqrt(min(experts, max(graph.modes))) / 2 if experts > 1 else 1.0
        if name.endswith("norm.weight") or name.endswith("norm_f.weight"):
            p.fill_(1.0)
        elif name == "embed.weight" or name.endswith("router.weight"):
            p.normal_(std=0.02)
        elif p.dim() >= 2:
            p.normal_(std=boost / math.sqrt(3 * p.shape[-1]))
        if name.endswith(("out_proj.weight", "o_proj.weight", "down_proj.weight")):
            p.div_(depth)
    for layer in model.layers:
        if isinstance(layer, Mamba):
            init_mamba(layer, max(graph.modes))


def init_mamba(layer, k):
    """Mamba's own start: decays 1 to n, and Delta spread over 0.001 to 0.1."""
    channels, states = layer.A_log.shape
    layer.A_log.copy_(torch.arange(1, states + 1, device=layer.A_log.device).float().log().expand(channels, -1))
    layer.D.fill_(1.0)
    layer.conv1d.bias.zero_()
    delta = torch.exp(torch.empty(channels).uniform_(math.log(0.001), math.log(0.1)))
    experts = layer.dt_proj.bias.shape[0]
    gate_sum = min(k, experts) / experts
    layer.dt_proj.bias.copy_((delta + torch.log(-torch.expm1(-delta))).expand(experts, -1) / gate_sum)
