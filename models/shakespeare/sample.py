"""Text from a checkpoint, one byte at a time; every byte reads the whole text again, which is slow but plain.

    python sample.py GRAPH WEIGHTS -p "ROMEO:" -n 400 --temp 0.8 -k 3
"""

import argparse

import torch

from evaluate import load_model


@torch.no_grad()
def sample(model, prompt, n, temp, k, seed=1):
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    tokens = torch.tensor([list(prompt.encode())], device=device)
    for _ in range(n):
        p = torch.softmax(model(tokens, k)[:, -1].float() / temp, dim=-1)
        tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], dim=1)
    return bytes(tokens[0].tolist()).decode(errors="replace")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph")
    parser.add_argument("weights")
    parser.add_argument("-p", "--prompt", default="\n")
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--temp", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-k", type=int, help="experts per token; the default is the graph's first mode")
    args = parser.parse_args()
    model = load_model(args.graph, args.weights, "cuda" if torch.cuda.is_available() else "cpu")
    print(sample(model, args.prompt, args.n, args.temp, args.k, args.seed))


if __name__ == "__main__":
    main()
