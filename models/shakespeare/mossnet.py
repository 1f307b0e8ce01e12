"""MossNet in plain PyTorch: the graph's numerics as equations, to train with and to check compilers against.

Shapes: b sequences of t tokens, d = d_model, c = d_inner, n = d_state, r = dt_rank, e experts, f = d_ff.
Weights are [out, in], expert stacks [e, out, in]; state_dict() holds exactly the names and shapes of the file format.
Every expert is computed and the gates of those not chosen are zero: slow but plain, and the gradient is the same.
Equation numbers are those of arXiv 2510.26182.
"""

import torch
import torch.nn.functional as F
from torch import nn


class MossNet(nn.Module):
    """tokens [b, t] -> logits [b, t, vocab]."""

    def __init__(self, graph, dropout=0.0):
        super().__init__()
        self.graph = graph
        self.embed = nn.Embedding(graph.vocab_size, graph.d_model)
        self.layers = nn.ModuleList(LAYERS[layer.op](graph, layer, dropout) for layer in graph.layers)
        self.norm_f = RMSNorm(graph.d_model, graph.norm_eps)
        if not graph.tie_embeddings:
            self.lm_head = nn.Linear(graph.d_model, graph.vocab_size, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, k=None):
        """k: experts used per token, one of graph.modes; None is the default mode."""
        k = self.graph.modes[0] if k is None else k
        x = self.dropout(self.embed(tokens))
        for layer in self.layers:
            x = x + self.dropout(layer(layer.norm(x), layer.top_k or k))  # the residual stream stays float32
        head = self.embed.weight if self.graph.tie_embeddings else self.lm_head.weight
        return F.linear(self.norm_f(x), head)


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class Router(nn.Module):
    """x [b, t, in] -> gates [b, t, e], zero for the experts not chosen (Eq. 7)."""

    def __init__(self, experts, size, renormalize):
        super().__init__()
        self.renormalize = renormalize
        self.weight = nn.Parameter(torch.empty(experts, size))
        self.balance = None

    def forward(self, x, k):
        with torch.autocast(x.device.type, enabled=False):
            p = F.softmax(F.linear(x.to(self.weight.dtype), self.weight), dim=-1)
        chosen = is_chosen(p, k)
        if self.training:  # load-balancing loss of Switch Transformers, Eqs. 4 to 6 there; 1 when even
            experts = p.shape[-1]
            share = chosen.to(p.dtype).mean((0, 1)) / k
            self.balance = experts * (share * p.mean((0, 1))).sum()
        gates = p * chosen
        return gates / gates.sum(-1, keepdim=True) if self.renormalize else gates


def is_chosen(p, k):
    """The k largest of p [..., e], equal values to the lower index: expert i is in when fewer than k beat it."""
    index = torch.arange(p.shape[-1], device=p.device)
    rival, own = p[..., None, :], p[..., :, None]
    beats = (rival > own) | ((rival == own) & (index[None, :] < index[:, None]))
    return beats.sum(-1) < k


class Always(nn.Module):
    """The router of a dense layer: one expert, gate 1."""

    balance = None

    def forward(self, x, k):
        return x.new_ones(*x.shape[:-1], 1)


def make_router(experts, size, graph):
    return Router(experts, size, graph.renormalize) if experts > 1 else Always()


class Experts(nn.Module):
    """A stack of projections, weight [e, out, in], with a bias [e, out] on request."""

    def __init__(self, experts, n_out, n_in, bias=False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, n_out, n_in))
        if bias:
            self.bias = nn.Parameter(torch.empty(experts, n_out))

    def each(self, x):
        """x [b, t, in] -> every expert's own output [b, t, e, out]."""
        return torch.einsum("bti,eoi->bteo", x, self.weight)

    def sum(self, x):
        """x [b, t, e, in] -> the sum of the experts' outputs [b, t, out]."""
        return torch.einsum("btei,eoi->bto", x, self.weight)

    def mix(self, x, gates):
        """MoE(x; W) = sum_i g_i (x W_i^T): x [b, t, in] -> [b, t, out]."""
        return self.sum(gates.to(x.dtype)[..., None] * x[..., None, :])


class Mamba(nn.Module):
    """Selective state space layer with experts in all three groups of projections. u [b, t, d] -> [b, t, d]."""

    def __init__(self, graph, layer, dropout):
        super().__init__()
        d, e, c, n = graph.d_model, layer.experts, layer.d_inner, layer.d_state
        self.top_k, self.zoh, self.sizes = layer.top_k, graph.zoh, [layer.dt_rank, n, n]
        self.norm = RMSNorm(d, graph.norm_eps)
        self.in_router = make_router(e, d, graph)
        self.ssm_router = make_router(e, c, graph)
        self.out_router = make_router(e, c, graph)
        self.in_proj = Experts(e, 2 * c, d)
        self.conv1d = CausalConv(c, layer.d_conv)
        self.x_proj = Experts(e, layer.dt_rank + 2 * n, c)
        self.dt_proj = Experts(e, c, layer.dt_rank, bias=True)
        self.A_log = nn.Parameter(torch.empty(c, n))
        self.D = nn.Parameter(torch.empty(c))
        self.out_proj = Experts(e, d, c)
        self.dropout = nn.Dropout(dropout)
        self.scan = selective_scan  # a trainer may put an equal, faster one here

    def forward(self, u, k):
        x, z = self.in_proj.mix(u, self.in_router(u, k)).chunk(2, dim=-1)  # x, z [b, t, c]
        x = F.silu(self.conv1d(x))
        dt, B, C = self.ssm(x, self.ssm_router(x, k))
        y = self.scan(x, dt, -torch.exp(self.A_log), B, C, self.zoh) + self.D * x
        y = self.dropout(y * F.silu(z))
        return self.out_proj.mix(y, self.out_router(y, k))

    def ssm(self, x, gates):
        """The token's own parameters, mixed over experts (Eqs. 11, 12): dt [b, t, c], B and C [b, t, n]."""
        own = self.x_proj.each(x) * gates.to(x.dtype)[..., None]  # the gate is linear through dt_proj, so it goes first
        delta, B, C = own.split(self.sizes, dim=-1)  # [b, t, e, ...]
        dt = F.softplus(self.dt_proj.sum(delta) + gates @ self.dt_proj.bias)
        return dt, B.sum(-2), C.sum(-2)


class CausalConv(nn.Module):
    """Depthwise over time, x [b, t, c]; the last tap multiplies the current token."""

    def __init__(self, channels, taps):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, taps))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x):
        taps = self.weight.shape[1]
        past = F.pad(x, (0, 0, taps - 1, 0))
        return sum(past[:, j:j + x.shape[1]] * self.weight[:, j] for j in range(taps)) + self.bias


def selective_scan(x, dt, A, B, C, zoh=False):
    """s_t = Abar_t s_{t-1} + Bbar_t x_t (Eq. 8), y_t = C_t . s_t.

    x, dt [b, t, c]; A [c, n], negative; B, C [b, t, n] -> y [b, t, c]. Abar = exp(dt A); Bbar = dt B (euler) or
    (dt A)^-1 (exp(dt A) - 1) dt B (zoh, Eq. 6).
    """
    state = x.new_zeros(x.shape[0], *A.shape)  # [b, c, n]
    out = []
    for t in range(x.shape[1]):
        step = dt[:, t, :, None] * A
        gain = torch.expm1(step) / A if zoh else dt[:, t, :, None]
        state = torch.exp(step) * state + gain * B[:, t, None, :] * x[:, t, :, None]
        out.append((state * C[:, t, None, :]).sum(-1))
    return torch.stack(out, dim=1)


class Attention(nn.Module):
    """Grouped-query attention, causal, sliding window, rotary. u [b, t, d] -> [b, t, d]."""

    top_k = None

    def __init__(self, graph, layer, dropout):
        super().__init__()
        d, self.head_dim = graph.d_model, layer.head_dim
        self.heads, self.kv_heads, self.window, self.theta = layer.heads, layer.kv_heads, layer.window, layer.rope_theta
        self.norm = RMSNorm(d, graph.norm_eps)
        self.q_proj = nn.Linear(d, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(d, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, d, bias=False)

    def forward(self, u, k):
        b, t, _ = u.shape
        query = self.rotate(self.q_proj(u).view(b, t, self.heads, self.head_dim))
        key = self.rotate(self.k_proj(u).view(b, t, self.kv_heads, self.head_dim))
        value = self.v_proj(u).view(b, t, self.kv_heads, self.head_dim)
        group = self.heads // self.kv_heads  # query head h reads key head h // group
        key, value = (a.repeat_interleave(group, dim=2).transpose(1, 2) for a in (key, value))
        y = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=self.mask(t, u.device))
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))

    def mask(self, t, device):
        """True where token i (row) may read token j: the last `window` tokens, itself included."""
        age = torch.arange(t, device=device)[:, None] - torch.arange(t, device=device)[None, :]
        return (age >= 0) & (age < (self.window or t))

    def rotate(self, x):
        """Rotary position, halves rotated: x [b, t, heads, head_dim]; pair i turns by t theta^(-2i / head_dim)."""
        if self.theta == 0:
            return x
        t, half = x.shape[1], self.head_dim // 2
        kind = {"device": x.device, "dtype": self.norm.weight.dtype}
        rate = self.theta ** (-torch.arange(half, **kind) / half)
        angle = (torch.arange(t, **kind)[:, None] * rate)[:, None, :]  # [t, 1, half]
        cos, sin = angle.cos(), angle.sin()
        x1, x2 = x[..., :half], x[..., half:]
        return torch.cat([x1 * cos - x2 * sin, x2 * cos + x1 * sin], dim=-1).to(x.dtype)


class Mlp(nn.Module):
    """Gated MLP experts: E_i(u) = (silu(u gate_i^T) * (u up_i^T)) down_i^T. u [b, t, d] -> [b, t, d]."""

    def __init__(self, graph, layer, dropout):
        super().__init__()
        d, e, f = graph.d_model, layer.experts, layer.d_ff
        self.top_k = layer.top_k
        self.norm = RMSNorm(d, graph.norm_eps)
        self.router = make_router(e, d, graph)
        self.gate_proj = Experts(e, f, d)
        self.up_proj = Experts(e, f, d)
        self.down_proj = Experts(e, d, f)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u, k):
        gates = self.router(u, k)
        hidden = self.dropout(F.silu(self.gate_proj.each(u)) * self.up_proj.each(u))  # [b, t, e, f]
        return self.down_proj.sum(hidden * gates.to(hidden.dtype)[..., None])


LAYERS = {"mamba": Mamba, "attention": Attention, "mlp": Mlp}
