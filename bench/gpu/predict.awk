# What an A100 would do, by bytes and operations, beside the paper's figures. limits.awk stands before it.
#
# Limits of an A100-80GB (1.7 TB/s reached, 2.0 TB/s on paper; 312 TFLOP/s). Predicted: what the a100 artifact reaches
# on the GPU at hand times the ratio of the two machines: the lesser and the greater of that of reading memory and
# that of multiprocessors times clock (108 at 1410 MHz), and no more than the limit.

function print_prediction(model, k, kind, batch, n,    group, key, paper, low, high, from, to) {
    group = model SUBSEP "f16" SUBSEP "a100" SUBSEP k
    key = group SUBSEP batch SUBSEP kind SUBSEP n
    if (!(group in weights))
        return
    paper = peer_of("paper", model, k, kind, batch, n)
    low = kind == "pp" ? limit_prefill(group, batch, n, 1.7e12, 312e12) : limit_generate(group, k, batch, 1.7e12)
    high = kind == "pp" ? limit_prefill(group, batch, n, 2.0e12, 312e12) : limit_generate(group, k, batch, 2.0e12)
    if (!n_predicted++) {
        print "\n## A100: a prediction, not a measurement\n"
        print "f16. Limits of an A100-80GB: 1.7 TB/s (what it reaches) or 2.0 TB/s (its data sheet), and 312 TFLOP/s."
        printf "Predicted: what the a100 artifact reaches on this GPU"
        if (ratio_low)
            printf ", times %.2f to %.2f", ratio_low, ratio_high
        print ": the ratios of reading memory and of multiprocessors times clock.\n"
        print "| model | experts | test | paper, measured | limit, 1.7 TB/s | limit, 2.0 TB/s | a100 artifact here " \
              "| predicted | times the paper |"
        print "|---|---:|---|---:|---:|---:|---:|---:|---:|"
    }
    printf "| %s | %s | %s %s×%s | %s | %s | %s |", model, k, (kind == "pp" ? "prefill" : "generation"), batch, n,
           (paper ? thousands(paper) : "–"), thousands(low), thousands(high)
    if (!(key in median) || !ratio_low) {
        print " – | – | – |"
        return
    }
    from = median[key] * ratio_low < high ? median[key] * ratio_low : high
    to = median[key] * ratio_high < high ? median[key] * ratio_high : high
    printf " %s | %s to %s | %s |\n", thousands(median[key]), thousands(from), thousands(to),
           (paper ? sprintf("%.1f to %.1f", from / paper, to / paper) : "–")
}
# Ratios of an A100 to the GPU at hand; 0: not measured.
function set_ratios(    reading, computing) {
    if (!("read" in ceiling) || !("clock" in ceiling))
        return
    reading = 1700 / ceiling["read"]
    computing = 108 * 1410 / (ceiling["processors"] * ceiling["clock"])
    ratio_low = reading < computing ? reading : computing
    ratio_high = reading < computing ? computing : reading
}
END {
    set_ratios()
    n_gen = 256
    for (i = 1; i <= n_rows; i++) {
        split(order[i], part, SUBSEP)
        if (part[3] == "a100" && part[6] == "tg")
            n_gen = part[7]
    }
    n_models = split("mossnet-8x200m+:2 mossnet-8x200m+:3 mamba-500m:1", models, " ")
    n_tests = split("pp:1:512 pp:1:2048 pp:1:8192 pp:1:32768 pp:4:512 pp:4:2048 pp:4:32768 tg:1:0 tg:4:0 tg:16:0",
                    tests, " ")
    for (m = 1; m <= n_models; m++)
        for (t = 1; t <= n_tests; t++) {
            split(models[m], a, ":")
            split(tests[t], b, ":")
            print_prediction(a[1], a[2], b[1], b[2], b[3] + 0 ? b[3] : n_gen)
        }
}
