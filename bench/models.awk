# The table of bench/models.sh: ceilings (before, after), costs a token, rows of `bench -o csv`.

FILENAME ~ /before$|after$/ {
    if ($1 + 0 == 0)
        next
    if (flops[$1] < $2) flops[$1] = $2
    if (bytes[$1] < $3) bytes[$1] = $3
    if (int8[$1] < $4) int8[$1] = $4
    next
}
FILENAME ~ /costs$/ { prefill[$1] = $2; decode[$1] = $3 + $4; next }
{
    gsub(/"/, "", $1)
    if (!head++) {
        for (n = 1; n in flops; n++)
            printf "Ceilings, %d thread%s: %.0f GFLOP/s fp32, %.0f GOP/s int8, %.1f GB/s read (the better of before and after).\n",
                   n, (n > 1 ? "s" : ""), flops[n], int8[n], bytes[n]
        print "\n| model | threads | test | tok/s, median (min to max) | rate | share of the ceiling |"
        print "|---|---:|---|---:|---:|---:|"
    }
    quantised = ($2 ~ /^q/)
    if ($9 == 0) {
        rate = $13 * prefill[$1] / 1e9
        peak = quantised ? int8[$4] : flops[$4]
        unit = quantised ? "GOP/s" : "GFLOP/s"
    } else {
        rate = $13 * decode[$1] / 1e9
        peak = bytes[$4]
        unit = "GB/s"
    }
    printf "| %s %s | %d | %s | %.1f (%.1f to %.1f) | %.1f %s | %.0f %% |\n", $1, $2, $4, $7, $13, $14, $15, rate, unit, 100 * rate / peak
}
