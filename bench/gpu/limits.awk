# What report.awk and predict.awk share: reads peers.txt, ceilings, costs and rows; limits of a GPU with given rates.
#
# ceiling[NAME]: the largest of all measurements, units of 1e9 and 1e12 (exchange, phase_N: us). order[1..n_rows]: keys
# of rows, MODEL QUANT TARGET EXPERTS BATCH KIND LENGTH; the last row of a key counts. Limits are tokens a second that
# reading memory once (bytes a second) and arithmetic (operations a second) leave.

function split_csv(    i) {
    gsub(/"/, "")
    split($0, field, ",")
    kind = field[8] + 0 ? "pp" : "tg"
    return field[1] SUBSEP field[2] SUBSEP field[3] SUBSEP field[5] SUBSEP field[6] SUBSEP kind SUBSEP \
           (field[8] + field[9])
}
# Distinct experts that n tokens choose, k of all each, at random.
function distinct(all, k, n) { return all * (1 - (1 - k / all) ^ n) }
# Arithmetic, or all weights once a chunk.
function limit_prefill(key, batch, n, bytes, flops,    reading, computing) {
    computing = batch * n * prefill_flops[key] / flops
    reading = int((batch * n + chunk[key] - 1) / chunk[key]) * weights[key] / bytes
    return batch * n / (computing > reading ? computing : reading)
}
# What all tokens share and every expert that some token chose, once, and each sequence's state.
function limit_generate(key, k, batch, bytes,    read) {
    read = decode_bytes[key] + batch * state_bytes[key]
    if (expert_bytes[key])
        read += (distinct(n_experts[key], k, batch) - k) * expert_bytes[key]
    return batch * bytes / read
}
# read and matmul: what the GPU at hand reaches a second; 0: not measured.
function set_rates() {
    read = ("read" in ceiling ? ceiling["read"] : 0) * 1e9
    matmul = ("product" in ceiling ? ceiling["product"] : "tensor" in ceiling ? ceiling["tensor"] : 0) * 1e12
}
function thousands(x,    text, out) {
    if (x < 100)
        return sprintf("%.1f", x)
    text = sprintf("%.0f", x)
    while (length(text) > 3) {
        out = "," substr(text, length(text) - 2) out
        text = substr(text, 1, length(text) - 3)
    }
    return text out
}
# The paper's figure or the other programs', "" where there is none.
function peer_of(which, model, k, kind, batch, n,    key) {
    key = model SUBSEP k SUBSEP kind SUBSEP batch SUBSEP
    if (kind == "tg")
        n = "*"
    return (which, key n) in peer ? peer[which, key n] : ""
}

FILENAME ~ /peers.txt$/ {
    if (/^#/)
        next
    key = $1 SUBSEP $2 SUBSEP $3 SUBSEP $4 SUBSEP $5
    if ($6 != "-")
        peer["paper", key] = $6
    if ($7 != "-")
        peer["best", key] = $7
    next
}
FILENAME ~ /ceilings$/ {
    if ($1 == "device")
        next
    if (ceiling[$1] < $2)
        ceiling[$1] = $2
    if (!($1 in least) || least[$1] > $2)
        least[$1] = $2
    next
}
# cost MODEL QUANT TARGET N_EXPERTS EXPERT_BYTES EXPERTS PREFILL_FLOPS DECODE_WEIGHT_BYTES STATE_BYTES WEIGHTS CHUNK
FILENAME ~ /costs$/ {
    key = $2 SUBSEP $3 SUBSEP $4 SUBSEP $7
    n_experts[key] = $5
    expert_bytes[key] = $6
    prefill_flops[key] = $8
    decode_bytes[key] = $9
    state_bytes[key] = $10
    weights[key] = $11
    chunk[key] = $12
    next
}
FILENAME ~ /rows$/ {
    key = split_csv()
    if (!(key in median))
        order[++n_rows] = key
    median[key] = field[13]
    lowest[key] = field[14]
    highest[key] = field[15]
    next
}
