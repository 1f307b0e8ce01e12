"""The selective scan as a pair of Triton kernels, equal to mossnet.selective_scan with euler, for training on a GPU.

One program walks one sequence for BLOCK channels with the state [BLOCK, n] in registers. The forward keeps every state
in memory, so that the backward reads s_{t-1} instead of inverting the recurrence.
"""

import torch
import triton
import triton.language as tl

BLOCK = 16  # channels a program


@triton.jit
def forward_kernel(x, dt, A, B, C, y, states, T, c: tl.constexpr, n: tl.constexpr, BLOCK: tl.constexpr):
    """x, dt, y [b, T, c]; A [c, n]; B, C [b, T, n]; states [b, T + 1, c, n], the empty one first."""
    row = tl.program_id(0).to(tl.int64) * T
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = tl.arange(0, n)
    cell = channel[:, None] * n + place[None, :]
    inside = channel < c
    decay = tl.load(A + cell, mask=inside[:, None], other=0.0)
    state = tl.zeros([BLOCK, n], tl.float32)
    states += tl.program_id(0).to(tl.int64) * (T + 1) * c * n
    tl.store(states + cell, state, mask=inside[:, None])
    for t in range(T):
        at = row + t
        x_t = tl.load(x + at * c + channel, mask=inside, other=0.0)
        dt_t = tl.load(dt + at * c + channel, mask=inside, other=0.0)
        B_t = tl.load(B + at * n + place)
        C_t = tl.load(C + at * n + place)
        state = tl.exp(dt_t[:, None] * decay) * state + (dt_t * x_t)[:, None] * B_t[None, :]
        tl.store(y + at * c + channel, tl.sum(state * C_t[None, :], axis=1), mask=inside)
        tl.store(states + (t + 1) * c * n + cell, state, mask=inside[:, None])


@triton.jit
def backward_kernel(x, dt, A, B, C, states, dy, dx, ddt, dA, dB, dC, T, blocks,
                    c: tl.constexpr, n: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients; dA [b, c, n] is one share a sequence, dB and dC [b, blocks, T, n] one share a program."""
    row = tl.program_id(0).to(tl.int64) * T
    share = (tl.program_id(0).to(tl.int64) * blocks + tl.program_id(1)) * T
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = tl.arange(0, n)
    cell = channel[:, None] * n + place[None, :]
    inside = channel < c
    decay = tl.load(A + cell, mask=inside[:, None], other=0.0)
    grad = tl.zeros([BLOCK, n], tl.float32)  # of the loss by s_t
    grad_A = tl.zeros([BLOCK, n], tl.float32)
    states += tl.program_id(0).to(tl.int64) * (T + 1) * c * n
    state = tl.load(states + T * c * n + cell, mask=inside[:, None], other=0.0)
    for i in range(T):
        t = T - 1 - i
        at = row + t
        before = tl.load(states + t * c * n + cell, mask=inside[:, None], other=0.0)
        x_t = tl.load(x + at * c + channel, mask=inside, other=0.0)
        dt_t = tl.load(dt + at * c + channel, mask=inside, other=0.0)
        dy_t = tl.load(dy + at * c + channel, mask=inside, other=0.0)
        B_t = tl.load(B + at * n + place)
        C_t = tl.load(C + at * n + place)
        grad += dy_t[:, None] * C_t[None, :]
        tl.store(dC + (share + t) * n + place, tl.sum(dy_t[:, None] * state, axis=0))
        tl.store(dB + (share + t) * n + place, tl.sum(grad * (dt_t * x_t)[:, None], axis=0))
        through_B = tl.sum(grad * B_t[None, :], axis=1)
        kept = tl.exp(dt_t[:, None] * decay) * grad  # of the loss by s_{t-1}
        through_decay = kept * before
        tl.store(dx + at * c + channel, through_B * dt_t, mask=inside)
        tl.store(ddt + at * c + channel, through_B * x_t + tl.sum(through_decay * decay, axis=1), mask=inside)
        grad_A += through_decay * dt_t[:, None]
        grad = kept
        state = before
    tl.store(dA + tl.program_id(0) * c * n + cell, grad_A, mask=inside[:, None])


@torch.library.custom_op("mossnet::scan_forward", mutates_args=())
def scan_forward(x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
                 C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    (b, T, c), n = x.shape, A.shape[1]
    y = torch.empty_like(x)
    states = x.new_empty(b, T + 1, c, n)
    forward_kernel[(b, triton.cdiv(c, BLOCK))](x, dt, A, B, C, y, states, T, c, n, BLOCK, num_warps=1)
    return y, states


@scan_forward.register_fake
def _(x, dt, A, B, C):
    (b, T, c), n = x.shape, A.shape[1]
    return torch.empty_like(x), x.new_empty(b, T + 1, c, n)


@torch.library.custom_op("mossnet::scan_backward", mutates_args=())
def scan_backward(x: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor,
                  states: torch.Tensor, dy: torch.Tensor) -> list[torch.Tensor]:
    (b, T, c), n = x.shape, A.shape[1]
    blocks = triton.cdiv(c, BLOCK)
    dx, ddt = torch.empty_like(x), torch.empty_like(x)
    dA = x.new_empty(b, c, n)
    dB, dC = (x.new_empty(b, blocks, T, n) for _ in range(2))
    backward_kernel[(b, blocks)](x, dt, A, B, C, states, dy, dx, ddt, dA, dB, dC, T, blocks, c, n, BLOCK, num_warps=1)
    return [dx, ddt, dA.sum(0), dB.sum(1), dC.sum(1)]


@scan_backward.register_fake
def _(x, dt, A, B, C, states, dy):
    return [torch.empty_like(a) for a in (x, dt, A, B, C)]


def keep_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[1])


def run_backward(ctx, dy, _):
    return tuple(scan_backward(*ctx.saved_tensors, dy.contiguous()))


scan_forward.register_autograd(run_backward, setup_context=keep_inputs)


def triton_scan(x, dt, A, B, C, zoh=False):
    """Same arguments and result as mossnet.selective_scan; float32, n a power of two, euler only."""
    assert not zoh
    return scan_forward(*(a.float().contiguous() for a in (x, dt, A, B, C)))[0]
