"""Tiny models of Hugging Face transformers with the logits its own code computes.

    python tests/data/import/make.py [FOLDER]      default: the folder of this file

Writes for each row of MODELS a folder as save_pretrained makes it (config.json and safetensors),
with tokens.txt and logits.f32 ([tokens, vocabulary], little-endian float32) beside them.
Needs torch and transformers; the README beside this file names the version that was used. Weights
are drawn so that every tensor tells in the logits, and seeds are searched until no router is close to a tie.
"""
import json
import pathlib
import shutil
import sys

import torch
import transformers as hf

ATTENTION = dict(vocab_size=40, hidden_size=24, num_attention_heads=4, num_key_value_heads=2, intermediate_size=36,
                 num_hidden_layers=2)
MAMBA = dict(vocab_size=40, hidden_size=24, state_size=5, num_hidden_layers=3)
N_TOKENS = 21
LEAST_LEAD = 0.01       # of the last expert chosen over the first rejected, in probability

# name: configuration, arguments of save_pretrained
MODELS = {
    "mamba": (hf.MambaConfig(**MAMBA), {}),
    "mamba_odd": (hf.MambaConfig(**MAMBA | dict(hidden_size=20, conv_kernel=3, expand=3, time_step_rank=3, use_conv_bias=False,
                                                layer_norm_epsilon=1e-3, tie_word_embeddings=False)), {}),
    "llama": (hf.LlamaConfig(**ATTENTION), {}),
    "llama_tied_shards": (hf.LlamaConfig(**ATTENTION | dict(head_dim=10, num_key_value_heads=4, tie_word_embeddings=True,
                                                            rms_norm_eps=1e-3, rope_theta=500.0)),
                          dict(max_shard_size="12KB")),
    "mistral": (hf.MistralConfig(**ATTENTION | dict(sliding_window=6, head_dim=8)), {}),
    "mistral_full": (hf.MistralConfig(**ATTENTION | dict(sliding_window=None, num_key_value_heads=1, rope_theta=1e6)), {}),
    "mixtral": (hf.MixtralConfig(**ATTENTION | dict(num_local_experts=5, num_experts_per_tok=2, intermediate_size=20)), {}),
    "mixtral_fused": (hf.MixtralConfig(**ATTENTION | dict(num_local_experts=4, num_experts_per_tok=3, intermediate_size=16,
                                                          sliding_window=7)), dict(save_original_format=False)),
}


def draw(model, generator):
    """Weights of the order of 1 / sqrt(inputs); norms, biases, D and A_log off their usual constants."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name.endswith(("norm.weight", "norm_f.weight", "layernorm.weight", "mixer.D")):
            value = 1 + 0.3 * noise
        elif name.endswith("A_log"):
            value = torch.log(torch.arange(1, weight.shape[1] + 1)) + 0.3 * noise
        elif name.endswith("bias") or "conv1d" in name or "embed" in name:
            value = 0.7 * noise
        else:
            value = 1.5 * noise / weight.shape[-1] ** 0.5
        weight.data.copy_(value)


def least_lead(model, tokens):
    """The smallest lead of any router, of any token; 1 without routers."""
    leads = [1.0]

    def look(module, inputs, output):
        p = torch.softmax(output[0].double(), dim=-1).sort(dim=-1, descending=True).values
        k = module.top_k
        leads.append(((p[:, k - 1] - p[:, k]) / p[:, k - 1]).min().item())

    hooks = [m.register_forward_hook(look) for m in model.modules() if type(m).__name__ == "MixtralTopKRouter"]
    model(tokens)
    for hook in hooks:
        hook.remove()
    return min(leads)


@torch.no_grad()
def make(folder, config, arguments):
    config._attn_implementation = "eager"
    model = hf.AutoModelForCausalLM.from_config(config).float().eval()
    for seed in range(1000):
        generator = torch.Generator().manual_seed(seed)
        draw(model, generator)
        tokens = torch.randint(config.vocab_size, (1, N_TOKENS), generator=generator)
        if least_lead(model, tokens) >= LEAST_LEAD:
            break
    logits = model(tokens, use_cache=False).logits[0]
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **arguments)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "tokens.txt").write_text(",".join(str(t) for t in tokens[0].tolist()) + "\n")
    (folder / "logits.f32").write_bytes(logits.float().numpy().astype("<f4").tobytes())
    print(folder.name, f"seed {seed}", f"largest logit {logits.abs().max():.3f}")


def main():
    here = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    print("transformers", hf.__version__, "torch", torch.__version__)
    for name, (config, arguments) in MODELS.items():
        make(here / name, config, arguments)


main()
