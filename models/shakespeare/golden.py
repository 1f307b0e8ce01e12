"""Tiny graphs with weights, tokens and the logits they must give, for checking a compiler against mossnet.py.

    python golden.py OUT_FOLDER

writes OUT_FOLDER/<name>/{graph.json, weights.safetensors, tokens.txt, logits_k<K>.f32}, one logits file a mode.
Logits are computed in float64 from the stored, rounded weights and written as little-endian float32 [t, vocab].
"""

import itertools
import json
import math
import sys
from pathlib import Path

import torch

from golden_graphs import CASES
from graph import parse_graph
from mossnet import MossNet, Router
from weights import load_weights, save_weights

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
MIN_GAP = 2e-3  # between the last expert chosen and the first left out, relative: float32 must route the same


def main(out):
    for name, case in CASES.items():
        folder = Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        write_case(folder, name, case)
        print(f"{name}: {sum(f.stat().st_size for f in folder.iterdir())} bytes")


def write_case(folder, name, case):
    """Try seeds until no token is routed on a near tie, then keep the files of that seed."""
    doc = {"format": "mossnet-graph/1", "name": name, **case["graph"]}
    graph = parse_graph(doc)
    for seed in itertools.count(1):
        generator = torch.Generator().manual_seed(seed)
        model = MossNet(graph).double().eval()
        fill(model, generator, case.get("twins", ()), case.get("gain", 1.8))
        save_weights(model, folder / "weights.safetensors", DTYPES[case["matrices"]], DTYPES[case["vectors"]])
        load_weights(model, folder / "weights.safetensors")
        tokens = torch.randint(graph.vocab_size, (1, case["tokens"]), generator=generator)
        if min(router_gap(model, tokens, k) for k in graph.modes) >= MIN_GAP:
            break
    (folder / "graph.json").write_text(json.dumps(doc, indent=1) + "\n")
    (folder / "tokens.txt").write_text(",".join(str(t) for t in tokens[0].tolist()) + "\n")
    for k in graph.modes:
        with torch.no_grad():
            logits = model(tokens, k)[0]
        assert logits.isfinite().all()
        (folder / f"logits_k{k}.f32").write_bytes(logits.float().numpy().astype("<f4").tobytes())


def fill(model, generator, twins, gain):
    """Random weights that make every term count: gates far from even, decays from slow to fast, no tensor trivial."""
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if name.endswith(("norm.weight", "norm_f.weight")):
            tensor.copy_(1 + 0.2 * noise)
        elif name.endswith("router.weight"):
            tensor.copy_(noise * 2 / math.sqrt(tensor.shape[-1]))
            for low, high in twins:
                tensor[high] = tensor[low]
        elif name.endswith("A_log"):
            tensor.copy_(torch.arange(1, tensor.shape[1] + 1).log() + 0.3 * noise)
        elif name.endswith("dt_proj.bias"):
            tensor.copy_(1.5 * noise - 1)
        elif name.endswith(".D"):
            tensor.copy_(1 + 0.5 * noise)
        elif name.endswith("conv1d.bias"):
            tensor.copy_(0.3 * noise)
        elif name == "embed.weight":
            tensor.copy_(noise)
        else:  # a matrix, or the conv taps: keep the scale of what flows through, gates of 1/2 or less made up for
            tensor.copy_(noise * gain / math.sqrt(tensor.shape[-1]))


def router_gap(model, tokens, k):
    """The smallest relative step from the last chosen to the first rejected probability, exact ties apart."""
    gaps = [1.0]

    def watch(router, inputs, _):
        x, k = inputs
        p = torch.softmax(x @ router.weight.T, dim=-1).sort(dim=-1, descending=True).values
        if k < p.shape[-1]:
            gap = 1 - p[..., k] / p[..., k - 1]
            gaps.extend(gap[gap > 0].tolist())

    hooks = [m.register_forward_hook(watch) for m in model.modules() if isinstance(m, Router)]
    with torch.no_grad():
        model(tokens, k)
    for hook in hooks:
        hook.remove()
    return min(gaps)


if __name__ == "__main__":
    main(sys.argv[1])
