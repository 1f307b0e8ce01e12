# What guards.sh and guards_arm.sh share: counts of today beside a table of earlier ones. Sourced by both, which define
# count and instructions, and mossc, measure and here.
slack=10 prompt=64 generated=24   # in bench, after as many again and after one

# allow_for VERSION: other compilers than the one the counts were made with are allowed more
allow_for() {
    case $1 in 12 | 12.*) ;; *) slack=30; echo "gcc $1, the counts are gcc 12's: $slack % are allowed" ;; esac
}

# compare_counts TABLE: false when one is over
compare_counts() {
    local subject storage phase kernels unit units before tokens now
    local failed=0
    while read -r subject storage phase kernels unit units before; do
        case $subject in '' | '#'*) continue ;; esac
        count "$subject" "$storage" "$phase" || exit 1
        tokens=$((2 * prompt))
        [ "$phase" = decode ] && tokens=$((1 + generated))
        now=$(awk -v n="$(instructions "$subject" "$storage" "$phase" "$kernels")" -v units="$units" -v tokens="$tokens" \
            'BEGIN { printf "%.4g\n", n / units / tokens }')
        if [ "$measure" = --measure ]; then
            echo "$subject $storage $phase $kernels $unit $units $now"
        elif awk -v now="$now" -v before="$before" -v slack="$slack" \
            'BEGIN { exit !(now > 0 && now <= before * (1 + slack / 100)) }'; then
            echo "ok    $subject $storage $phase: $kernels takes $now instructions a $unit, $before before"
        else
            echo "FAIL  $subject $storage $phase: $kernels takes $now instructions a $unit, $before before, $slack % over"
            failed=1
        fi
    done <"$1"
    return $failed
}
