# The page of bench/gpu.sh; limits.awk stands before it. Also reads memory, load, logits and failures.

function print_ceilings(    name, n) {
    if (!("read" in ceiling) && !("tensor" in ceiling)) {
        print "\nCeilings were not measured."
        return
    }
    printf "\nCeilings in the same run, least to most: "
    n = split("read read_token tensor product", names, " ")
    for (i = 1; i <= n; i++)
        if (names[i] in ceiling)
            printf "%s%s %.0f to %.0f %s", (i > 1 ? "; " : ""), words[names[i]], least[names[i]], ceiling[names[i]],
                   (names[i] ~ /^read/ ? "GB/s" : "TFLOP/s")
    print "."
}
function group_of(key,    part) {
    split(key, part, SUBSEP)
    return part[1] SUBSEP part[2] SUBSEP part[3]
}
function print_row(key,    part, k, batch, kind, n, limit, paper, best) {
    split(key, part, SUBSEP)
    k = part[4]; batch = part[5]; kind = part[6]; n = part[7]
    group = group_of(key)
    if (group != last_group) {
        printf "\n## %s, %s, target %s\n\n", part[1], part[2], part[3]
        print "| experts a token | test | tok/s, median (min to max) | limit here | share | paper, A100 | times that | best of others, H200 | times that |"
        print "|---:|---|---:|---:|---:|---:|---:|---:|---:|"
        last_group = group
    }
    limit = 0
    if (read && matmul && (group SUBSEP k) in weights)
        limit = kind == "pp" ? limit_prefill(group SUBSEP k, batch, n, read, matmul) \
                             : limit_generate(group SUBSEP k, k, batch, read)
    paper = part[2] == "f16" ? peer_of("paper", part[1], k, kind, batch, n) : ""
    best = part[2] == "f16" ? peer_of("best", part[1], k, kind, batch, n) : ""
    printf "| %s | %s %s×%s | %s (%s to %s) | %s | %s | %s | %s | %s | %s |\n", k,
           (kind == "pp" ? "prefill" : "generation"), batch, n, thousands(median[key]), thousands(lowest[key]),
           thousands(highest[key]), (limit ? thousands(limit) : "–"), (limit ? sprintf("%.0f %%", 100 * median[key] / limit) : "–"),
           (paper ? thousands(paper) : "–"), (paper ? sprintf("%.1f", median[key] / paper) : "–"),
           (best ? thousands(best) : "–"), (best ? sprintf("%.2f", median[key] / best) : "–")
}
# The last number of an option's list: last_of("-n_0_-b_1,4_-p_16,64", "-b") is 4.
function last_of(options, name,    list) {
    list = options
    sub(".*" name "_", "", list)
    sub(/_.*/, "", list)
    sub(/.*,/, "", list)
    return list
}
# memory MODEL QUANT TARGET OPTIONS USED MHZ WATT DEVICE: N MB of its memory: weights …
FILENAME ~ /memory$/ {
    options = $5
    kind = options ~ /-n_0_/ ? "pp" : "tg"
    batch = last_of(options, "-b")
    longest = last_of(options, kind == "pp" ? "-p" : "-n")
    k = last_of(options, "--experts-per-token")
    text = $0; sub(/.*: weights /, "weights ", text)
    planned = $0; sub(/ MB of its memory.*/, "", planned); sub(/.* /, "", planned)
    row = $2 SUBSEP $3 SUBSEP $4 SUBSEP k SUBSEP kind SUBSEP batch SUBSEP longest
    if (!(row in memory))
        memory_order[++n_memory] = row
    memory[row] = planned SUBSEP $6 SUBSEP $7 SUBSEP $8 SUBSEP text
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
FILENAME ~ /failures$/ { failures[++n_failures] = $0; next }

END {
    words["read"] = "reading 4 GB"; words["read_token"] = "reading 0.85 GB"
    words["tensor"] = "tensor cores alone, 16-bit random numbers"; words["product"] = "PyTorch's product of 8192³"
    print_ceilings()
    set_rates()
    print "Limits take reading, and " ("product" in ceiling ? "that product" : "those tensor cores") \
          ", at their best, and `mossc inspect`'s bytes and operations, attention's windows full. Others' figures: bench/gpu/peers.txt."
    if (n_failures)
        print "\n## What failed\n"
    for (i = 1; i <= n_failures; i++)
        print "- " failures[i]
    for (i = 1; i <= n_rows; i++)
        if (!(group_of(order[i]) in seen)) {
            seen[group_of(order[i])] = 1
            for (j = i; j <= n_rows; j++)
                if (group_of(order[j]) == group_of(order[i]))
                    print_row(order[j])
        }
    if (n_memory) {
        print "\n## Memory in use and clocks\n\nMB of 10^6 bytes. Used: what nvidia-smi saw beyond the idle GPU, the driver's own share included.\n"
        print "| model | experts | test, the largest of its program | held | used | held for | SM clock under load, least | power, most | paper | best of others |"
        print "|---|---:|---|---:|---:|---|---:|---:|---:|---:|"
    }
    for (i = 1; i <= n_memory; i++) {
        split(memory_order[i], part, SUBSEP)
        split(memory[memory_order[i]], value, SUBSEP)
        paper = part[5] == "pp" && part[2] == "f16" ? peer_of("paper", part[1], part[4], "memory", part[6], part[7]) : ""
        best = part[5] == "pp" && part[2] == "f16" ? peer_of("best", part[1], part[4], "memory", part[6], part[7]) : ""
        printf "| %s %s %s | %s | %s %s×%s | %s | %s | %s | %s | %s | %s | %s |\n", part[1], part[2], part[3], part[4],
               (part[5] == "pp" ? "prefill" : "generation"), part[6], part[7], value[1], value[2], value[5],
               (value[3] == "-" ? "–" : value[3] " MHz"), (value[4] == "-" ? "–" : value[4] " W"),
               (paper ? paper " GB" : "–"), (best ? best " GB" : "–")
    }
    if (n_loads) {
        print "\n## Start\n\nFour tokens of prompt, from the start of the command; cold: the driver has no machine code of this program yet.\n"
        print "| model | cache | loaded after | first token after |\n|---|---|---:|---:|"
    }
    for (i = 1; i <= n_loads; i++) {
        split(load_order[i], part, SUBSEP)
        split(load[load_order[i]], value, SUBSEP)
        printf "| %s | %s | %s s | %s s |\n", part[1], part[2], value[1], value[2]
    }
    if (n_logits) {
        print "\n## Logits\n\nOf a random prompt. A token's error: max |difference| / max |logit|. A router whose choice was close may choose otherwise: see the median.\n"
        print "| model | experts | computed | against | error, median | error, most | same largest logit |\n|---|---:|---|---|---:|---:|---:|"
    }
    for (i = 1; i <= n_logits; i++) {
        split(logits_order[i], part, SUBSEP)
        split(logits[logits_order[i]], value, " ")
        printf "| %s | %s | %s | %s | %s | %s | %s of %s |\n", part[1], part[2], part[3], part[4], value[1], value[2], value[3], value[4]
    }
}
