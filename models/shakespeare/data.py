"""The text as bytes: nine tenths to train on, the last tenth held out."""

from pathlib import Path

import torch


def read_split(path, device):
    """-> training bytes, held-out bytes, both uint8 on the device."""
    text = torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint8).to(device)
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def random_batch(text, size, context):
    """`size` windows anywhere in the text -> inputs and the bytes that follow them, both [size, context]."""
    start = torch.randint(len(text) - context, (size, 1), device=text.device)
    window = text[start + torch.arange(context + 1, device=text.device)].long()
    return window[:, :-1], window[:, 1:]


def add_noise(tokens, text, share):
    """Replace a share of the inputs by bytes drawn from the text at large, which keeps a model from reciting it."""
    if share == 0:
        return tokens
    other = text[torch.randint(len(text), tokens.shape, device=text.device)].long()
    return torch.where(torch.rand(tokens.shape, device=text.device) < share, other, tokens)


def windows(text, context, batch_tokens=1 << 16):
    """Cut the text into windows in order, so that every byte but the first is predicted once.

    Yields inputs and targets [b, context]; the last window is shorter.
    """
    inputs, targets = text[:-1].long(), text[1:].long()
    whole = len(inputs) // context
    step = max(1, batch_tokens // context)
    for i in range(0, whole, step):
        span = slice(i * context, min(i + step, whole) * context)
        yield inputs[span].view(-1, context), targets[span].view(-1, context)
    if len(inputs) > whole * context:
        yield inputs[None, whole * context:], targets[None, whole * context:]
