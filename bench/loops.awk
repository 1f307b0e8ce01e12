# Innermost loops of an assembly file that have eight or more instructions that match `product`, of the functions whose
# name matches `function_name`. A scan has two kinds: with `part` gates those with divisions or estimates of them (gates
# and steps of a block's tokens), with `part` states the others (a token's states).
#
# Input: what gcc or clang -S writes for x86-64 or ARM. Output: a file a loop, named by `out` and a number, that ends
# with a line "# products N". Exit code 1 when there is none.

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
        if (!inner || n < 8)
            continue
        if (part != "" && (part == "gates") != (text ~ /div|frecpe|vrcp/))
            continue
        printf "%s# products %d\n", text, n >(out (++n_found))
        close(out n_found)
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
    exit !n_found
}
