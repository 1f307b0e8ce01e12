"""Held-out loss of a checkpoint in every mode at several context lengths, in nats a byte.

    python evaluate.py GRAPH WEIGHTS TEXT --context 512 8192
"""

import argparse

import torch
import torch.nn.functional as F

from data import read_split, windows
from graph import read_graph
from mossnet import Mamba, MossNet
from weights import load_weights


@torch.no_grad()
def held_out_loss(model, text, context, k):
    """Mean over every byte of the text but the first; the model starts afresh every `context` bytes."""
    total = sum(F.cross_entropy(model(inputs, k).flatten(0, 1), targets.flatten(), reduction="sum").double()
                for inputs, targets in windows(text, context))
    return (total / (len(text) - 1)).item()


def use_fast_scan(model):
    """Put the GPU's scan in the place of the plain one."""
    from scan import triton_scan
    for layer in model.layers:
        if isinstance(layer, Mamba):
            layer.scan = triton_scan


def load_model(graph_path, weights_path, device):
    model = MossNet(read_graph(graph_path)).to(device).eval()
    load_weights(model, weights_path)
    if device == "cuda":
        use_fast_scan(model)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph")
    parser.add_argument("weights")
    parser.add_argument("text")
    parser.add_argument("--context", type=int, nargs="+", default=[512, 8192])
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(args.graph, args.weights, device)
    _, held_out = read_split(args.text, device)
    for k in model.graph.modes:
        for context in args.context:
            loss = held_out_loss(model, held_out, context, k)
            print(f"top-{k} context {context}: {loss:.4f} nats a byte", flush=True)


if __name__ == "__main__":
    main()
