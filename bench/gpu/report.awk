# The page of bench/gpu.sh; limits.awk stands before it. Also reads memory, load, logits, proof, scan and failures.

# The last number of an option's list: last_of("-n_0_-b_1,4_-p_16,64", "-b") is 4.
function last_of(options, name,    list) {
    list = options
    sub(".*" name "_", "", list)
    sub(/_.*/, "", list)
    sub(/.*,/, "", list)
    return list
}
function or_dash(value, unit) { return value == "" || value == "-" || !value ? "–" : value unit }
function test_name(kind, batch, n) { return (kind == "pp" ? "prefill " : "generation ") batch "×" n }
function group_of(key,    part) {
    split(key, part, SUBSEP)
    return part[1] SUBSEP part[2] SUBSEP part[3]
}

# memory MODEL QUANT TARGET OPTIONS USED MHZ WATT DEVICE: N MB of its memory: weights …
FILENAME ~ /memory$/ {
    kind = $5 ~ /-n_0_/ ? "pp" : "tg"
    held_for = $0
    sub(/.*: weights /, "weights ", held_for)
    held = $0
    sub(/ MB of its memory.*/, "", held)
    sub(/.* /, "", held)
    key = $2 SUBSEP $3 SUBSEP $4 SUBSEP last_of($5, "--experts-per-token") SUBSEP kind SUBSEP last_of($5, "-b") \
          SUBSEP last_of($5, kind == "pp" ? "-p" : "-n")
    if (!(key in memory))
        memory_order[++n_memory] = key
    memory[key] = held SUBSEP $6 SUBSEP $7 SUBSEP $8 SUBSEP held_for
    next
}
FILENAME ~ /load$/ {
    split($0, field, ",")
    if (!((field[2], field[3]) in load))
        load_order[++n_loads] = field[2] SUBSEP field[3]
    load[field[2], field[3]] = field[4] SUBSEP field[5]
    next
}
FILENAME ~ /logits$/ {
    split($0, field, ",")
    key = field[2] SUBSEP field[3] SUBSEP field[4] SUBSEP field[5]
    if (!(key in logits))
        logits_order[++n_logits] = key
    logits[key] = field[6]
    next
}
FILENAME ~ /scan$/ { scans[++n_scans] = $0; next }
FILENAME ~ /proof$/ { sub(/^[a-z]*: /, ""); proofs[++n_proofs] = $0; next }
FILENAME ~ /failures$/ { failures[++n_failures] = $0; next }

function print_ceilings(    name, words, n, i, text) {
    n = split("read read_token exchange phase_64 phase_192 mma tensor product", name, " ")
    split("reading 4 GB|reading 0.85 GB|an exchange among 128 blocks|with 64 KiB of weights each after it|" \
          "with 192 KiB|tensor cores by mma.sync alone|tensor cores alone, 16-bit random numbers|" \
          "PyTorch's product of 8192³", words, "|")
    for (i = 1; i <= n; i++)
        if (name[i] in ceiling)
            text = text sprintf(name[i] ~ /^(exchange|phase)/ ? "%s%s %.2f to %.2f %s" : "%s%s %.0f to %.0f %s",
                                (text ? "; " : ""), words[i], least[name[i]], ceiling[name[i]],
                                (name[i] ~ /^(exchange|phase)/ ? "us" : name[i] ~ /^read/ ? "GB/s" : "TFLOP/s"))
    print text ? "\nCeilings in the same run, least to most: " text "." : "\nCeilings were not measured."
    print "Limits take reading, and " ("product" in ceiling ? "that product" : "those tensor cores") ", at their best,"
    print "and `mossc inspect`'s bytes and operations, attention's windows full. Others' figures: bench/gpu/peers.txt."
}
function print_failures(    i) {
    if (n_failures)
        print "\n## What failed\n"
    for (i = 1; i <= n_failures; i++)
        print "- " failures[i]
}

function print_row(key,    part, k, limit, paper, best) {
    split(key, part, SUBSEP)
    k = group_of(key) SUBSEP part[4]
    limit = 0
    if (read && matmul && k in weights)
        limit = part[6] == "pp" ? limit_prefill(k, part[5], part[7], read, matmul) \
                                : limit_generate(k, part[4], part[5], read)
    paper = part[2] == "f16" ? peer_of("paper", part[1], part[4], part[6], part[5], part[7]) : ""
    best = part[2] == "f16" ? peer_of("best", part[1], part[4], part[6], part[5], part[7]) : ""
    printf "| %s | %s | %s (%s to %s) |", part[4], test_name(part[6], part[5], part[7]), thousands(median[key]),
           thousands(lowest[key]), thousands(highest[key])
    printf " %s |", (limit ? thousands(limit) : "–")
    printf " %s |", (limit ? sprintf("%.0f %%", 100 * median[key] / limit) : "–")
    printf " %s | %s |", (paper ? thousands(paper) : "–"), (paper ? sprintf("%.1f", median[key] / paper) : "–")
    printf " %s | %s |\n", (best ? thousands(best) : "–"), (best ? sprintf("%.2f", median[key] / best) : "–")
}
function print_group(group,    part, i) {
    split(group, part, SUBSEP)
    printf "\n## %s, %s, target %s\n\n", part[1], part[2], part[3]
    print "| experts a token | test | tok/s, median (min to max) | limit here | share | paper, A100 | times that " \
          "| best of others, H200 | times that |"
    print "|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    for (i = 1; i <= n_rows; i++)
        if (group_of(order[i]) == group)
            print_row(order[i])
}
function print_rates(    i, seen) {
    for (i = 1; i <= n_rows; i++)
        if (!(group_of(order[i]) in seen)) {
            seen[group_of(order[i])] = 1
            print_group(group_of(order[i]))
        }
}

function print_memory(    i, part, value, paper, best) {
    if (!n_memory)
        return
    print "\n## Memory in use and clocks\n"
    print "MB of 10^6 bytes. Used: what nvidia-smi saw beyond the idle GPU, the driver's own share included.\n"
    print "| model | experts | test, the largest of its program | held | used | held for " \
          "| SM clock under load, least | power, most | paper | best of others |"
    print "|---|---:|---|---:|---:|---|---:|---:|---:|---:|"
    for (i = 1; i <= n_memory; i++) {
        split(memory_order[i], part, SUBSEP)
        split(memory[memory_order[i]], value, SUBSEP)
        paper = best = ""
        if (part[5] == "pp" && part[2] == "f16") {
            paper = peer_of("paper", part[1], part[4], "memory", part[6], part[7])
            best = peer_of("best", part[1], part[4], "memory", part[6], part[7])
        }
        printf "| %s %s %s | %s | %s | %s | %s | %s |", part[1], part[2], part[3], part[4],
               test_name(part[5], part[6], part[7]), value[1], or_dash(value[2], ""), value[5]
        printf " %s | %s | %s | %s |\n", or_dash(value[3], " MHz"), or_dash(value[4], " W"), or_dash(paper, " GB"),
               or_dash(best, " GB")
    }
}
function print_loads(    i, part, value) {
    if (!n_loads)
        return
    print "\n## Start\n"
    print "Four tokens of prompt, from the start of the command, weights' checksum included; cold: the driver has"
    print "no machine code of this program yet.\n"
    print "| model | cache | loaded after | first token after |\n|---|---|---:|---:|"
    for (i = 1; i <= n_loads; i++) {
        split(load_order[i], part, SUBSEP)
        split(load[load_order[i]], value, SUBSEP)
        printf "| %s | %s | %s s | %s s |\n", part[1], part[2], value[1], value[2]
    }
}
function print_logits(    i, part, value) {
    if (!n_logits)
        return
    print "\n## Logits\n"
    print "Of a random prompt. A token's error: max |difference| / max |logit|. A router whose choice was close may"
    print "choose otherwise, and every token after sees it. So rows of models that choose say little, and those with all"
    print "experts tell of the arithmetic: there a median of more than 0.02 (bf16: 0.05) is a failure. With q8, CPUs round what"
    print "goes into a product to 8 bits, GPUs to 16; there it is 0.4 against the CPU.\n"
    print "| model | experts | computed | against | error, median | error, most | same largest logit |"
    print "|---|---:|---|---|---:|---:|---:|"
    for (i = 1; i <= n_logits; i++) {
        split(logits_order[i], part, SUBSEP)
        split(logits[logits_order[i]], value, " ")
        printf "| %s | %s | %s | %s | %s | %s | %s of %s |\n", part[1], part[2], part[3], part[4], value[1], value[2],
               value[3], value[4]
    }
}
# Lines of scan_bench: "h100 32768 0.4850 ms 1234 GB/s 30 % of copy 60 % of exp ok, …"; others say what was measured.
function print_scans(    i, part, words) {
    if (!n_scans)
        return
    print "\n## The scan of a layer of mossnet-8x200m+, alone\n"
    for (i = 1; i <= n_scans; i++)
        if (scans[i] !~ / ms .* of copy/)
            print scans[i]
    print "\n| target | tokens | ms | GB/s | of a copy | of the exponentials\047 peak | against loops in double |"
    print "|---|---:|---:|---:|---:|---:|---|"
    for (i = 1; i <= n_scans; i++)
        if (scans[i] ~ / ms .* of copy/) {
            split(scans[i], part, " ")
            words = scans[i]
            sub(/.* of (exp|copy) */, "", words)
            printf "| %s | %s | %s | %s | %s %% | %s %% | %s |\n", part[1], part[2], part[3], part[5], part[7], part[11],
                   words == "" ? "–" : words
        }
}
function print_proofs(    i, part) {
    if (!n_proofs)
        return
    print "\n## Proof\n\n| what | verdict | its words |\n|---|---|---|"
    for (i = 1; i <= n_proofs; i++) {
        split(proofs[i], part, "|")
        printf "| %s | %s | %s |\n", part[1], part[2], part[3]
    }
}

END {
    print_ceilings()
    set_rates()
    print_failures()
    print_rates()
    print_memory()
    print_loads()
    print_scans()
    print_logits()
    print_proofs()
}
