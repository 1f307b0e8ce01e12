# Innermost loops of an assembly file: of the functions whose name matches `function_name`, the one that is densest in
# instructions that match `product` and has eight or more (with `all`: every loop that has some, one after the other).
#
# Input: what gcc or clang -S writes for x86-64 or ARM. Output: the loop's instructions; on the last line
# "# products N", how many match. Exit code 1 when there is no such loop.

function leave(    i, j, from, inner, n, text) {
    for (i = 1; i <= n_lines; i++) {
        if (target[i] == "" || !(target[i] in at) || at[target[i]] > i)
            continue
        from = at[target[i]]
        inner = 1; n = 0; text = ""
        for (j = from; j <= i; j++) {
            if (j < i && target[j] != "" && (target[j] in at) && at[target[j]] >= from && at[target[j]] <= j)
                inner = 0
            if (line[j] ~ product)
                n++
            if (line[j] !~ /:$/)
                text = text line[j] "\n"
        }
        if (!inner || n == 0)
            continue
        if (all) {
            found = found text
            products += n
        } else if (n >= 8 && n / length(text) > density) {
            found = text
            products = n
            density = n / length(text)
        }
    }
    n_lines = 0
    delete at; delete target; delete line
}

{ sub(/[ \t]*(\/\/|#[ \t#]).*$/, "") }
/^[A-Za-z_][A-Za-z0-9_.]*:/ {
    leave()
    name = $1
    sub(/:.*/, "", name)
    inside = name ~ function_name
    next
}
!inside || /^[ \t]*$/ { next }
/^\.[A-Za-z0-9_.]+:/ { sub(/:.*/, ":"); at[substr($0, 1, length($0) - 1)] = n_lines + 1; line[++n_lines] = $0; next }
/^[ \t]*\./ { next }
{
    line[++n_lines] = $0
    if ($1 ~ /^(j|b$|b\.|cbz|cbnz|tbz|tbnz)/ && $NF ~ /^\./)
        target[n_lines] = $NF
}
END {
    leave()
    if (!products)
        exit 1
    printf "%s# products %d\n", found, products
}
