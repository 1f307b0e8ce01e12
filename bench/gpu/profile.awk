# A table of kernels by the time they take, from ncu's rows of metrics (CSV, units of the base).
#
# Variables: title. A kernel's name is its template and its parameters' codes; those of one name are one row. Times are
# of each launch alone, other kernels waiting: dependent launches overlap when nobody looks. Long names are cut.
function field(i) { return i in value ? value[i] : "" }
function split_row(    n, i, part) {
    gsub(/^"|"\r?$/, "")
    n = split($0, part, /","/)
    delete value
    for (i = 1; i <= n; i++)
        value[i] = part[i]
    return n
}
/^"ID",/ {
    n = split_row()
    for (i = 1; i <= n; i++)
        at[value[i]] = i
    next
}
/^"[0-9]+",/ && length(at) {
    split_row()
    name = field(at["Kernel Name"])
    metric = field(at["Metric Name"])
    number = field(at["Metric Value"])
    gsub(/,/, "", number)
    if (metric ~ /^gpu__time/) {
        now = number / 1000
        launches[name]++
        time[name] += now
        whole += now
        grid[name] = field(at["Grid Size"])
    }
    sum[name, metric] += number
}
function mean(name, pattern,    key, parts) {
    for (key in sum) {
        split(key, parts, SUBSEP)
        if (parts[1] == name && parts[2] ~ pattern)
            return sprintf("%.0f", sum[key] / launches[name])
    }
    return "-"
}
END {
    if (!whole)
        exit
    printf "\n### %s\n\nKernels alone, %.0f us in all; shares of what the GPU can do at most, by ncu.\n\n", title, whole
    print "| kernel | launches | us each | us in all | share | memory, % | tensor cores, % | issue, % |"
    print "|---|---:|---:|---:|---:|---:|---:|---:|"
    for (name in time)
        order[++n_names] = name
    for (i = 1; i <= n_names; i++) {
        best = i
        for (j = i + 1; j <= n_names; j++)
            if (time[order[j]] > time[order[best]])
                best = j
        name = order[best]
        order[best] = order[i]
        if (i > 16)
            continue
        printf "| %s%s | %d | %.1f | %.0f | %.1f %% | %s | %s | %s |\n", substr(name, 1, 36),
            (length(name) > 36 ? "…" : ""), launches[name], time[name] / launches[name], time[name],
            100 * time[name] / whole, mean(name, "^dram"), mean(name, "tensor"), mean(name, "issue")
    }
}
