"""The MossNet graph file (format mossnet-graph/1): JSON in, a flat list of layers with every default filled in out.

Only as strict as a trainer needs: an unknown key is refused, sizes are not range-checked.
"""

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layer:
    """One layer. `experts` is 1 for a dense layer; `top_k` is None when the model's mode decides."""

    op: str
    experts: int = 1
    top_k: int | None = None
    # mamba
    d_inner: int = 0
    d_state: int = 0
    d_conv: int = 0
    dt_rank: int = 0
    # attention
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    window: int | None = None
    rope_theta: float = 0.0
    # mlp
    d_ff: int = 0


@dataclass(frozen=True)
class Graph:
    name: str
    vocab_size: int
    d_model: int
    norm_eps: float
    tie_embeddings: bool
    renormalize: bool
    zoh: bool
    modes: tuple[int, ...]  # experts used per token in each mode; the first is the default
    layers: list[Layer] = field(default_factory=list)


MODEL_KEYS = {"format", "name", "vocab_size", "d_model", "norm_eps", "tie_embeddings",
              "experts", "top_k", "renormalize", "discretization", "layers"}
LAYER_KEYS = {
    "mamba": {"op", "experts", "top_k", "d_inner", "d_state", "d_conv", "dt_rank"},
    "attention": {"op", "heads", "kv_heads", "head_dim", "window", "rope_theta"},
    "mlp": {"op", "experts", "top_k", "d_ff"},
}


def auto_top_k(experts):
    """The paper's C.4 rule."""
    return max(1, min(2, experts // 4))


def read_graph(path):
    with open(path, encoding="utf-8") as file:
        return parse_graph(json.load(file))


def parse_graph(doc):
    refuse_unknown(doc, MODEL_KEYS, "the model")
    if doc["format"] != "mossnet-graph/1":
        raise ValueError(f"unknown format {doc['format']!r}")
    discretization = doc.get("discretization", "euler")
    if discretization not in ("euler", "zoh"):
        raise ValueError(f"unknown discretization {discretization!r}")
    experts = doc.get("experts", 1)
    top_k = doc.get("top_k", 1)
    if top_k == "auto":
        top_k = auto_top_k(experts)
    modes = tuple(top_k) if isinstance(top_k, list) else (top_k,)
    layers = [parse_layer(item, doc["d_model"], experts) for item in flatten(doc["layers"])]
    for layer in layers:
        for k in (modes if layer.top_k is None else (layer.top_k,)):
            if layer.experts > 1 and k > layer.experts:
                raise ValueError(f"top_k {k} of {layer.experts} experts")
    return Graph(name=doc.get("name", ""), vocab_size=doc["vocab_size"], d_model=doc["d_model"],
                 norm_eps=doc.get("norm_eps", 1e-5), tie_embeddings=doc.get("tie_embeddings", False),
                 renormalize=doc.get("renormalize", False), zoh=discretization == "zoh",
                 modes=modes, layers=layers)


def flatten(items):
    """Unroll {repeat, of} groups, which nest, in order."""
    for item in items:
        if "op" in item:
            yield item
            continue
        refuse_unknown(item, {"repeat", "of"}, "a group")
        for _ in range(item["repeat"]):
            yield from flatten(item["of"])


def parse_layer(item, d_model, model_experts):
    op = item["op"]
    refuse_unknown(item, LAYER_KEYS[op], op)
    if op == "attention":
        heads = item["heads"]
        kv_heads = item.get("kv_heads", heads)
        if heads % kv_heads:
            raise ValueError(f"{heads} heads are not a multiple of {kv_heads} kv_heads")
        return Layer(op, heads=heads, kv_heads=kv_heads, head_dim=item.get("head_dim", d_model // heads),
                     window=item.get("window"), rope_theta=item.get("rope_theta", 10000.0))
    experts = item.get("experts", model_experts)
    top_k = item.get("top_k")
    if top_k == "auto":
        top_k = auto_top_k(experts)
    if op == "mlp":
        return Layer(op, experts, top_k, d_ff=item["d_ff"])
    return Layer(op, experts, top_k, d_inner=item.get("d_inner", 2 * d_model), d_state=item.get("d_state", 16),
                 d_conv=item.get("d_conv", 4), dt_rank=item.get("dt_rank", -(-d_model // 16)))


def refuse_unknown(doc, known, where):
    unknown = sorted(set(doc) - known)
    if unknown:
        raise ValueError(f"unknown keys in {where}: {', '.join(unknown)}")
