# Costs of `mossc inspect --json`, a line for each mode:
#   EXPERTS PREFILL_FLOPS DECODE_WEIGHT_BYTES DECODE_STATE_BYTES WEIGHT_BYTES CHUNK

function number(key,    text) {
    text = $0
    if (!sub(".*\"" key "\": *", "", text))
        return 0
    return text + 0
}
/"chunk":/ { chunk = number("chunk") }
/"memory":/ { weights = number("weights") }
/"experts_per_token":/ { experts = number("experts_per_token") }
/"decode": *{/ { weight_bytes = number("weight_bytes"); state_bytes = number("state_bytes") }
/"prefill": *{/ {
    printf "%d %.0f %.0f %.0f %.0f %d\n", experts, number("flops"), weight_bytes, state_bytes, weights,
           chunk
}
