"""The graphs of the golden logits: name -> graph, number of tokens, dtypes stored, and equal router rows (twins)."""

CASES = {
    # Mamba layers alone, every default; all of 1 to E experts as modes; tied head.
    "mamba_moe": {
        "graph": {"vocab_size": 40, "d_model": 20, "tie_embeddings": True, "experts": 4, "top_k": [2, 1, 3, 4],
                  "layers": [{"repeat": 2, "of": [{"op": "mamba"}]}]},
        "tokens": 17, "matrices": "BF16", "vectors": "F32"},
    # No size a multiple of anything, d_inner not 2 d_model.
    "mamba_odd": {
        "graph": {"vocab_size": 37, "d_model": 33, "experts": 3, "top_k": [2, 1, 3],
                  "layers": [{"op": "mamba", "d_inner": 41, "d_state": 5, "d_conv": 3, "dt_rank": 7}]},
        "tokens": 24, "matrices": "F16", "vectors": "F32"},
    "mamba_zoh": {
        "graph": {"vocab_size": 37, "d_model": 20, "experts": 3, "top_k": 2, "discretization": "zoh",
                  "layers": [{"repeat": 2, "of": [{"op": "mamba", "d_inner": 36, "d_state": 6, "dt_rank": 3}]}]},
        "tokens": 19, "matrices": "F32", "vectors": "F32"},
    # The Mamba baseline: no routers; more taps than tokens before the sixth.
    "mamba_dense": {
        "graph": {"vocab_size": 48, "d_model": 24, "tie_embeddings": True,
                  "layers": [{"repeat": 2, "of": [{"op": "mamba", "d_conv": 6}]}]},
        "tokens": 21, "matrices": "F16", "vectors": "F16"},
    # Llama: attention to all tokens, three query heads on one key head, dense MLP.
    "attention_full": {
        "graph": {"vocab_size": 64, "d_model": 24, "layers": [{"repeat": 2, "of": [
            {"op": "attention", "heads": 3, "kv_heads": 1}, {"op": "mlp", "d_ff": 31}]}]},
        "tokens": 24, "matrices": "BF16", "vectors": "BF16"},
    # Mistral: a window shorter than the prompt; head_dim not d_model / heads; 6 heads on 3; another eps and theta.
    "attention_window": {
        "graph": {"vocab_size": 41, "d_model": 20, "norm_eps": 1e-3, "layers": [{"repeat": 2, "of": [
            {"op": "attention", "heads": 6, "kv_heads": 3, "head_dim": 6, "window": 5, "rope_theta": 500.0}]}]},
        "tokens": 23, "matrices": "F32", "vectors": "F32"},
    # No rotation, so an odd head_dim; a window of the current token alone in the second layer.
    "attention_norope": {
        "graph": {"vocab_size": 37, "d_model": 33, "tie_embeddings": True, "layers": [
            {"op": "attention", "heads": 3, "window": None, "rope_theta": 0},
            {"op": "attention", "heads": 1, "head_dim": 7, "window": 1, "rope_theta": 0}]},
        "tokens": 12, "matrices": "BF16", "vectors": "F32"},
    "mlp_moe": {
        "graph": {"vocab_size": 37, "d_model": 17, "experts": 5, "top_k": [2, 1, 3, 4, 5],
                  "layers": [{"repeat": 2, "of": [{"op": "mlp", "d_ff": 21}]}]},
        "tokens": 11, "matrices": "BF16", "vectors": "F32"},
    # Mixtral: gates renormalised.
    "mlp_renormalize": {
        "graph": {"vocab_size": 50, "d_model": 16, "experts": 8, "top_k": [2, 3], "renormalize": True, "layers": [
            {"op": "attention", "heads": 4, "kv_heads": 2, "window": 8}, {"op": "mlp", "d_ff": 24}]},
        "tokens": 20, "matrices": "F16", "vectors": "F32"},
    # Renormalised gates in all three projection groups of a mamba layer.
    "mamba_renormalize": {
        "graph": {"vocab_size": 37, "d_model": 12, "experts": 4, "top_k": [3, 1], "renormalize": True,
                  "layers": [{"op": "mamba", "d_state": 8}, {"op": "mlp", "d_ff": 10, "experts": 3, "top_k": 2}]},
        "tokens": 13, "matrices": "BF16", "vectors": "F32"},
    # Router rows 1 and 2 are equal, and 0 and 3: every token ties. With k = 1 nobody chooses experts 2 and 3.
    "router_tie": {
        "graph": {"vocab_size": 37, "d_model": 16, "experts": 4, "top_k": [1, 2, 3],
                  "layers": [{"op": "mamba", "d_state": 4}, {"op": "mlp", "d_ff": 12}]},
        "tokens": 16, "matrices": "F32", "vectors": "F32", "twins": [(1, 2), (0, 3)]},
    # Layers with experts and top_k of their own, which hold in every mode; one dense mamba among them.
    "layer_overrides": {
        "graph": {"vocab_size": 37, "d_model": 8, "experts": 4, "top_k": [2, 4], "layers": [
            {"op": "mamba", "experts": 2, "top_k": 1}, {"op": "mlp", "d_ff": 9, "experts": 6, "top_k": 3},
            {"op": "mamba", "experts": 1, "d_inner": 10}, {"op": "mlp", "d_ff": 8},
            {"op": "mlp", "d_ff": 5, "experts": 1}, {"op": "mlp", "d_ff": 7, "experts": 7, "top_k": "auto"}]},
        "tokens": 15, "matrices": "BF16", "vectors": "F32"},
    # top_k "auto" of 16 experts is 2, so most experts stay idle.
    "top_k_auto": {
        "graph": {"vocab_size": 37, "d_model": 8, "experts": 16, "top_k": "auto",
                  "layers": [{"op": "mamba", "d_state": 4}, {"op": "mlp", "d_ff": 6}]},
        "tokens": 6, "matrices": "BF16", "vectors": "F32"},
    # One token: no past, an empty state.
    "one_token": {
        "graph": {"vocab_size": 37, "d_model": 40, "experts": 2, "top_k": [1, 2], "tie_embeddings": True,
                  "layers": [{"op": "mamba", "d_inner": 20, "d_state": 4}, {"op": "attention", "heads": 5},
                             {"op": "mlp", "d_ff": 16}]},
        "tokens": 1, "matrices": "F32", "vectors": "F32"},
    # The paper's 8x200M+ in small: nested groups, all three kinds, a window, two modes, untied. Eight layers in a
    # row amplify rounding: a gain of 1 keeps float32 within 1e-4.
    "mixed": {
        "graph": {"vocab_size": 64, "d_model": 12, "experts": 8, "top_k": [2, 3], "layers": [{"repeat": 2, "of": [
            {"repeat": 2, "of": [{"op": "mamba", "d_inner": 24, "d_state": 4, "d_conv": 4, "dt_rank": 1}]},
            {"op": "attention", "heads": 3, "kv_heads": 1, "window": 7, "rope_theta": 10000.0},
            {"op": "mlp", "d_ff": 16}]}]},
        "tokens": 24, "matrices": "BF16", "vectors": "F32", "gain": 1.0},
}
