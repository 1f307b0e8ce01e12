# The products of a plan's prefill (mossc compile --emit plan), a line each: launches, n_in, n_out, experts. The head's
# is of the last tokens only, and left out.
$2 ~ /^gemm(_h100)?,$/ {
    for (i = 5; i < NF; i += 2)
        param[$i] = $(i + 1)
    shape[$1] = param["n_in"] " " param["n_out"] " " param["n_experts"]
    if (!($1 in order))
        order[$1] = ++n
    kernel[n] = $1
}
/^[a-z_]+: [0-9]+ launches/ { is_prefill = $1 == "prefill:" }
is_prefill && $1 ~ /^[0-9]+$/ && $2 == "layer" && $4 in shape { launches[$4]++ }
END {
    for (i = 1; i <= n; i++)
        if (kernel[i] in launches)
            print launches[kernel[i]], shape[kernel[i]]
}
