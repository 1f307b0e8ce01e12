# What an A100 would do: a prediction from bytes and operations, beside the paper's figures. limits.awk stands before it.
#
# The limit of an A100-80GB (1.7 TB/s reached and 2.0 TB/s on paper; 312 TFLOP/s), and that limit times the share which
# the a100 artifact reached of the limit of the GPU at hand, where it was measured.

function share_of(model, k, kind, batch, n,    key, group, limit) {
    key = model SUBSEP "f16" SUBSEP "a100" SUBSEP k SUBSEP batch SUBSEP kind SUBSEP n
    group = model SUBSEP "f16" SUBSEP "a100" SUBSEP k
    if (!(key in median) || !read || !matmul)
        return 0
    limit = kind == "pp" ? limit_prefill(group, batch, n, read, matmul) : limit_generate(group, k, batch, read)
    return median[key] / limit
}
function print_prediction(model, k, kind, batch, n,    group, paper, low, high, share) {
    group = model SUBSEP "f16" SUBSEP "a100" SUBSEP k
    if (!(group in weights))
        return
    paper = peer_of("paper", model, k, kind, batch, n)
    low = kind == "pp" ? limit_prefill(group, batch, n, 1.7e12, 312e12) : limit_generate(group, k, batch, 1.7e12)
    high = kind == "pp" ? limit_prefill(group, batch, n, 2.0e12, 312e12) : limit_generate(group, k, batch, 2.0e12)
    share = share_of(model, k, kind, batch, n)
    if (!n_predicted++) {
        print "\n## A100: a prediction, not a measurement\n"
        print "f16, an A100-80GB of 1.7 TB/s (what it reaches) or 2.0 TB/s (its data sheet), and 312 TFLOP/s. Predicted: its limit at 1.7 TB/s times the"
        print "share of the limit here that the a100 artifact reached on this GPU.\n"
        print "| model | experts | test | paper, measured | limit, 1.7 TB/s | limit, 2.0 TB/s | share here | predicted | times the paper |"
        print "|---|---:|---|---:|---:|---:|---:|---:|---:|"
    }
    printf "| %s | %s | %s %s×%s | %s | %s | %s | %s | %s | %s |\n", model, k, (kind == "pp" ? "prefill" : "generation"), batch, n,
           (paper ? thousands(paper) : "–"), thousands(low), thousands(high), (share ? sprintf("%.0f %%", 100 * share) : "–"),
           (share ? thousands(low * share) : "–"), (share && paper ? sprintf("%.0f", low * share / paper) : "–")
}
END {
    set_rates()
    n_gen = 256
    for (i = 1; i <= n_rows; i++) {
        split(order[i], part, SUBSEP)
        if (part[3] == "a100" && part[6] == "tg")
            n_gen = part[7]
    }
    n_models = split("mossnet-8x200m+:2 mossnet-8x200m+:3 mamba-500m:1", models, " ")
    n_tests = split("pp:1:512 pp:1:2048 pp:1:8192 pp:1:32768 pp:4:512 pp:4:2048 pp:4:32768 tg:1:0 tg:4:0 tg:16:0", tests, " ")
    for (m = 1; m <= n_models; m++)
        for (t = 1; t <= n_tests; t++) {
            split(models[m], a, ":")
            split(tests[t], b, ":")
            print_prediction(a[1], a[2], b[1], b[2], b[3] + 0 ? b[3] : n_gen)
        }
}
