"""Train a byte-level MossNet in the paper's top-3 / top-2 cycles; the best held-out average of the weights is kept.

    python train.py GRAPH TEXT OUT_FOLDER [options]

writes OUT_FOLDER/weights.safetensors (matrices bfloat16) and OUT_FOLDER/log.jsonl, one line an evaluation.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from data import add_noise, random_batch, read_split
from evaluate import held_out_loss, use_fast_scan
from graph import read_graph
from init import init_weights
from mossnet import MossNet
from weights import is_vector, save_weights


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph")
    parser.add_argument("text")
    parser.add_argument("out")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end the schedule by then at the latest")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--cycle", type=int, nargs="+", default=[6, 4], help="steps in each mode, in the graph's order")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--noise", type=float, default=0.0, help="share of input bytes replaced")
    parser.add_argument("--balance", type=float, default=0.001, help="weight of the load-balancing loss")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations")
    parser.add_argument("--seed", type=int, default=1)
    switch = {"action": argparse.BooleanOptionalAction, "default": True}
    parser.add_argument("--compile", **switch, help="torch.compile the layers, on a GPU")
    parser.add_argument("--replay", **switch, help="replay steps as CUDA graphs, on a GPU")
    return parser.parse_args()


class Trainer:
    """The model, its optimiser and its running average; one step a call."""

    def __init__(self, args, graph, text):
        self.args, self.text, self.device = args, text, text.device
        self.model = MossNet(graph, args.dropout).to(self.device)
        init_weights(self.model)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        if self.device.type == "cuda":
            use_fast_scan(self.model)
            use_fast_scan(self.average)
            for layer in self.model.layers if args.compile else ():
                layer.compile()
        named = list(self.model.named_parameters())
        self.params = [p for _, p in named]
        self.lr = torch.zeros((), device=self.device)
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for name, p in named if not is_vector(name)], "weight_decay": args.decay},
             {"params": [p for name, p in named if is_vector(name)], "weight_decay": 0.0}],
            lr=self.lr, betas=(0.9, 0.99), fused=True, capturable=self.device.type == "cuda")
        self.replays = {}

    def loss(self, k):
        inputs, targets = random_batch(self.text, self.args.batch, self.args.context)
        inputs = add_noise(inputs, self.text, self.args.noise)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model(inputs, k)
        loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        balance = [m.balance for m in self.model.modules() if getattr(m, "balance", None) is not None]
        return loss + self.args.balance * sum(balance), loss.detach()

    def plain_step(self, k):
        total, loss = self.loss(k)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        torch._foreach_lerp_(list(self.average.parameters()), self.params, 1 - self.args.ema)
        return loss

    def capture(self, k):
        """Record a whole step as a CUDA graph, after a few plain ones have compiled and allocated everything."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.plain_step(k)
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.plain_step(k)
        self.replays[k] = graph, loss

    def step(self, k):
        if self.device.type != "cuda" or not self.args.replay:
            return self.plain_step(k)
        if k not in self.replays:
            self.capture(k)
        graph, loss = self.replays[k]
        graph.replay()
        return loss

    @torch.no_grad()
    def restart_average(self):
        torch._foreach_copy_(list(self.average.parameters()), self.params)

    def rounded_average(self):
        """The averaged model as its checkpoint will hold it: matrices rounded to bfloat16."""
        rounded = copy.deepcopy(self.average)
        for name, p in rounded.named_parameters():
            if not is_vector(name):
                p.data = p.data.bfloat16().float()
        return rounded


def schedule(args):
    """Yields (step, share of the learning rate, is it the last): linear warm-up, then half a cosine down to zero."""
    begin = time.time()
    step = progress = 0
    while progress < 1:
        step += 1
        progress = max(step / args.steps, (time.time() - begin) / args.seconds)
        yield step, min(step / args.warmup, 1) * (1 + math.cos(math.pi * min(progress, 1))) / 2, progress >= 1


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    graph = read_graph(args.graph)
    text, held_out = read_split(args.text, device)
    trainer = Trainer(args, graph, text)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    log = open(out / "log.jsonl", "w", encoding="utf-8")
    modes = [k for k, steps in zip(graph.modes, args.cycle) for _ in range(steps)]
    best, begin = math.inf, time.time()
    for step, share, last in schedule(args):
        trainer.lr.fill_(args.lr * share)
        loss = trainer.step(modes[step % len(modes)])
        if step == args.warmup:
            trainer.restart_average()
        if step % args.every and not last:
            continue
        model = trainer.rounded_average()
        row = {"step": step, "seconds": round(time.time() - begin, 1), "train": round(loss.item(), 4)}
        for k in graph.modes:
            row[f"top-{k}"] = round(held_out_loss(model, held_out, args.context, k), 4)
        worst = max(row[f"top-{k}"] for k in graph.modes)
        if worst < best:
            best = worst
            save_weights(model, out / "weights.safetensors")
        log.write(json.dumps(row) + "\n")
        log.flush()


if __name__ == "__main__":
    main()
