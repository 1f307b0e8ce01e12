"""What PyTorch takes for a model's products: a table for bench/gpu.sh.

usage: products.py TITLE TOP_K TOKENS...    on stdin, of each product: launches, n_in, n_out, experts (products.awk)

16-bit floats. A product of experts is one batched product, every expert with as many rows as the next, which chosen
ones never have; nothing is gathered, gated or added, and results are 16 bits. Weights come in turn, so that no cache
has them. Each is captured 20 times in a CUDA graph; medians of 7.
"""
import sys

import torch

N_CAPTURED, N_ROUNDS, N_WEIGHTS = 20, 7, 8


def random_halves(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.float16) * 0.1


def microseconds(launch):
    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(N_CAPTURED):
            launch()
    rounds = []
    for _ in range(N_ROUNDS + 1):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        rounds.append(begin.elapsed_time(end) / N_CAPTURED * 1e3)
    return sorted(rounds[1:])[N_ROUNDS // 2]


def product(n_rows, n_in, n_out, n_experts):
    rows, out = random_halves(n_experts, n_rows, n_in), random_halves(n_experts, n_rows, n_out)
    weights = [random_halves(n_experts, n_in, n_out) for _ in range(N_WEIGHTS)]
    turn = 0

    def launch():
        nonlocal turn
        turn = (turn + 1) % N_WEIGHTS
        torch.bmm(rows, weights[turn], out=out)

    return microseconds(launch)


def main():
    title, top_k, lengths = sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3:]]
    products = [[int(word) for word in line.split()] for line in sys.stdin]
    totals = [0.0] * len(lengths)
    print(f"\n### {title}, top-{top_k}: us a launch (TFLOP/s)\n")
    print("| launches | columns in | out | experts |" + "".join(f" {n} tokens |" for n in lengths))
    print("|---:|---:|---:|---:|" + "---:|" * len(lengths))
    for launches, n_in, n_out, n_experts in products:
        cells = []
        for i, n_tokens in enumerate(lengths):
            n_rows = max(1, n_tokens * top_k // n_experts) if n_experts > 1 else n_tokens
            us = product(n_rows, n_in, n_out, n_experts)
            totals[i] += launches * us
            cells.append(f" {us:.1f} ({2e-6 * n_rows * n_experts * n_in * n_out / us:.0f}) |")
        print(f"| {launches} | {n_in} | {n_out} | {n_experts} |" + "".join(cells), flush=True)
    print("| all | | | |" + "".join(f" {total:.0f} |" for total in totals))


main()
