# The page of bench/models.sh: ceilings (round first), costs a token, rows of `bench -o csv` (round first).
#
# A row's share is of the better ceiling before and after its round; a line shows the median round and, behind it,
# the least and the most.

# The values of one line, of rounds 1 to n, in order; the median of an even number is the lower one.
function sort(values, n, sorted,    i, j, v) {
    for (i = 1; i <= n; i++) {
        v = values[i]
        for (j = i - 1; j >= 1 && sorted[j] > v; j--) sorted[j + 1] = sorted[j]
        sorted[j + 1] = v
    }
}
function ceiling(round, threads, kind,    a, b) {
    a = ceilings[round, threads, kind]
    b = ceilings[round + 1, threads, kind]
    return a > b ? a : b
}
function range(kind, threads,    r, v, values, sorted) {
    for (r = 1; r <= rounds; r++) values[r] = ceiling(r, threads, kind)
    sort(values, rounds, sorted)
    return sprintf("%.0f (%.0f to %.0f)", sorted[int((rounds + 1) / 2)], sorted[1], sorted[rounds])
}

FILENAME ~ /ceilings$/ {
    ceilings[$1, $2, "fp32"] = $3
    ceilings[$1, $2, "read"] = $4
    ceilings[$1, $2, "int8"] = $5
    if ($2 > most_threads) most_threads = $2
    next
}
FILENAME ~ /costs$/ { cost[$1, $2] = $3; next }
{
    gsub(/"/, "", $2)
    line = $2 SUBSEP $3 SUBSEP $5 SUBSEP $8
    if (!(line in seen)) { lines[++n_lines] = line; seen[line] = 1 }
    speed[line, $1] = $14
}

function print_line(i,    part, r, kind, unit, values, shares, speeds, sorted, middle, format_line) {
    split(lines[i], part, SUBSEP)
    kind = part[4] ~ /^tg/ ? "read" : part[2] ~ /^q/ ? "int8" : "fp32"
    unit = kind == "read" ? "GB/s" : kind == "int8" ? "GOP/s" : "GFLOP/s"
    for (r = 1; r <= rounds; r++) {
        values[r] = speed[lines[i], r]
        shares[r] = 100 * values[r] * cost[part[1], part[4]] / 1e9 / ceiling(r, part[3], kind)
    }
    sort(values, rounds, speeds)
    sort(shares, rounds, sorted)
    middle = int((rounds + 1) / 2)
    if (format == "md")
        format_line = "| %s %s | %d | %s | %.1f (%.1f to %.1f) | %.1f %s | %.0f %% (%.0f to %.0f) |\n"
    else if (format == "csv")
        format_line = "%s,%s,%d,%s,%.2f,%.2f,%.2f,%.2f,%s,%.1f,%.1f,%.1f\n"
    else
        format_line = "  {\"model\": \"%s\", \"quant\": \"%s\", \"threads\": %d, \"test\": \"%s\", \"median\": %.2f, \"min\": %.2f, \"max\": %.2f, " \
            "\"rate\": %.2f, \"unit\": \"%s\", \"share\": %.1f, \"share_min\": %.1f, \"share_max\": %.1f}" (i < n_lines ? "," : "") "\n"
    printf format_line, part[1], part[2], part[3], part[4], speeds[middle], speeds[1], speeds[rounds],
           speeds[middle] * cost[part[1], part[4]] / 1e9, unit, sorted[middle], sorted[1], sorted[rounds]
}

END {
    if (format == "md") {
        printf "%s, %s, %d processors, %d rounds; medians with minimum and maximum\n\n", date, processor, processors, rounds
        for (t = 1; t <= most_threads; t++)
            printf "Ceilings, %d thread%s: %s GFLOP/s fp32, %s GOP/s int8, %s GB/s read.\n", t, (t > 1 ? "s" : ""),
                   range("fp32", t), range("int8", t), range("read", t)
        print "\n| model | threads | test | tok/s | rate | % of the round's ceiling |\n|---|---:|---|---:|---:|---:|"
    } else if (format == "csv")
        print "model,quant,threads,test,median,min,max,rate,unit,share,share_min,share_max"
    else
        printf "{\"date\": \"%s\", \"processor\": \"%s\", \"rounds\": %d, \"rows\": [\n", date, processor, rounds
    for (i = 1; i <= n_lines; i++)
        print_line(i)
    if (format == "json")
        print "]}"
}
