# The table of bench/predict.sh: what was predicted (model, threads, phase, low, high), then what was measured.

function distance(x) { return x < 0 ? -x : x }

FILENAME ~ /predicted$/ { low[$1, $2, $3] = $4; high[$1, $2, $3] = $5; next }
!head++ {
    print "| model | threads | | predicted, tokens/s | measured | outside | of the middle |"
    print "|---|---:|---|---:|---:|---:|---:|"
}
{
    a = low[$1, $2, $3]; b = high[$1, $2, $3]
    outside = $4 < a ? $4 / a - 1 : $4 > b ? $4 / b - 1 : 0
    middle = $4 / sqrt(a * b) - 1
    name = $1
    sub(/.*\//, "", name)
    sub(/\.json$/, "", name)
    n++
    inside += outside == 0
    sum += distance(middle)
    if (distance(outside) > worst)
        worst = distance(outside)
    printf "| %s | %d | %s | %.1f to %.1f | %.1f | %+.0f %% | %+.0f %% |\n", name, $2, $3, a, b, $4, 100 * outside,
        100 * middle
}
END {
    printf "\n%d of %d in their range, the worst %.0f %% outside; %.0f %% from the middle in the mean.\n", inside, n,
        100 * worst, 100 * sum / n
}
