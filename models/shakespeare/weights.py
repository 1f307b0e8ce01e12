"""Models to and from safetensors files."""

import torch
from safetensors.torch import load_file, save_file

VECTORS = ("norm.weight", "norm_f.weight", "router.weight", "conv1d.weight", "conv1d.bias",
           "dt_proj.bias", ".A_log", ".D")


def is_vector(name):
    """True for the small tensors that stay float32 in a checkpoint: norms, routers, conv, dt bias, A_log and D."""
    return name.endswith(VECTORS)


def save_weights(model, path, matrix_dtype=torch.bfloat16, vector_dtype=torch.float32):
    """Write every tensor, rounded to the dtype of its kind."""
    save_file({name: tensor.detach().cpu().to(vector_dtype if is_vector(name) else matrix_dtype).contiguous()
               for name, tensor in model.state_dict().items()}, path)


def load_weights(model, path):
    """Read every tensor into the model, in the model's own dtype; names and shapes must match exactly."""
    stored = load_file(path)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    if wanted != found:
        raise ValueError(f"{path} does not fit the graph: {sorted(wanted.items() ^ found.items())}")
    model.load_state_dict(stored)
