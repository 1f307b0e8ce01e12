#!/usr/bin/env bash
# mpirun mossc tune between two hosts: network namespaces with a cable between them, names of their own, and an agent
# that enters the other one where mpirun would call ssh. The same points as in one process; addresses that both have.
#
#   mpi_hosts.sh MOSSC
# Works in namespaces and a temporary folder of its own, on a tiny graph. Exit code: 0 all well, 1 not, 77 skipped: no
# mpirun of Open MPI, no ip, or no namespaces for this user.
set -u
skip() { echo "SKIPPED: $*: nothing of several hosts was tested"; exit 77; }

if [ "${2:-}" != inside ]; then
    mpirun --version 2>/dev/null | grep -q 'Open MPI' || skip "no mpirun of Open MPI here (Debian: openmpi-bin)"
    for tool in ip nsenter unshare; do
        command -v $tool >/dev/null || skip "no $tool here (Debian: iproute2, util-linux)"
    done
    # Whatever happens, all of it goes with the first process.
    run="unshare --user --map-root-user --net --mount --uts --pid --fork --kill-child --mount-proc"
    $run sh -c 'ip link add name probe0 type veth peer name probe1 && hostname probe' 2>/dev/null ||
        skip "this user or system has no namespaces"
    exec $run bash "$0" "$(realpath "$1")" inside
fi
. "$(dirname "$0")/tools.sh"

# --- The two hosts: head, where this runs, and far ---
unshare --net --uts sleep 1000 &
far=$!
while [ "$(readlink /proc/$far/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
on_far() { nsenter --target $far --net --uts "$@"; }
{
    hostname head && on_far hostname far
    ip link add name cable0 type veth peer name cable1 && ip link set cable1 netns $far
    ip address add 10.77.0.1/24 dev cable0 && ip link set cable0 up && ip link set lo up
    on_far ip address add 10.77.0.2/24 dev cable1 && on_far ip link set cable1 up && on_far ip link set lo up
    # A bridge of containers, as many machines have it: the same address on both, and it leads nowhere.
    for on in "" on_far; do
        $on ip link add name bridge0 type veth peer name bridge1
        $on ip address add 10.78.0.1/24 dev bridge0 && $on ip link set bridge0 up && $on ip link set bridge1 up
    done
    printf '127.0.0.1 localhost\n10.77.0.1 head\n10.77.0.2 far\n' >hosts && mount --bind hosts /etc/hosts
} || skip "the hosts cannot be made"
cat >agent <<AGENT
#!/bin/sh
[ "\$1" = far ] || { echo "no host \$1" >&2; exit 255; }
shift
exec nsenter --target $far --net --uts sh -c "\$*"
AGENT
chmod +x agent

# hosts_run HOSTS ARGUMENTS...: mpirun between them; its own words take the cable
hosts_run() {
    local hosts=$1
    shift
    TMPDIR=/tmp timeout 500 mpirun --allow-run-as-root --oversubscribe --mca plm_rsh_agent "$work/agent" \
        --mca oob_tcp_if_include 10.77.0.0/24 --mca btl_tcp_if_include 10.77.0.0/24 -x TMPDIR="$work/tmp" -H "$hosts" "$@"
}
tune() { echo "$mossc" tune tiny.json --db "$1" --trials 16 --time 600 --kernels-only; }

# --- A worker on the other host alone; and one on each ---
expect 0 '16 trials, 0 of them' $(tune one.db)
expect 0 '16 trials, 0 of them' hosts_run head:1,far:1 -n 2 $(tune apart.db)
grep -q 'far' stdout stderr || fail "nothing is said of the worker on far: $(cat stdout stderr)"
[ "$(points apart.db)" = "$(points one.db)" ] || fail "another host tried other points: $(diff <(points apart.db) <(points one.db))"
expect 0 '16 trials, 0 of them' hosts_run head:2,far:1 -n 3 $(tune both.db)
for worker in 'rank 1 (head)' 'rank 2 (far)'; do
    grep -qF "$worker" stdout stderr || fail "$worker did not come: $(cat stdout stderr)"
done
[ "$(points both.db)" = "$(points one.db)" ] || fail "two hosts tried other points: $(diff <(points both.db) <(points one.db))"
finish mpi_hosts
