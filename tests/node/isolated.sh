#!/usr/bin/env bash
# Runs a command in namespaces of its own (mounts, network, processes, hostname), with private folders where
# the programs of a Kubernetes node keep their state. Everything ends and disappears with the command: no
# process, interface, firewall rule, mount or file is left. Needs root.
#
#   isolated.sh COMMAND [ARGUMENT...]
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
    [[ $EUID == 0 ]] || { echo "isolated.sh: needs root" >&2; exit 1; }
    # The parent group of all containers, in each hierarchy. It outlives the namespaces, so it is removed
    # at the end.
    export NODE_CGROUP=stream-notifier-node-$$
    roots=(/sys/fs/cgroup)
    [[ -e /sys/fs/cgroup/cgroup.procs ]] || roots=(/sys/fs/cgroup/*/)
    for root in "${roots[@]}"; do
        mkdir -p "$root/$NODE_CGROUP"
        # Without these, a group of version 1 has no processor and no memory.
        for file in cpuset.cpus cpuset.mems; do
            [[ ! -s $root/$NODE_CGROUP/$file && -e $root/$file && -w $root/$NODE_CGROUP/$file ]] &&
                cat "$root/$file" >"$root/$NODE_CGROUP/$file"
        done
    done
    remove_groups() {
        for root in "${roots[@]}"; do
            [[ -d $root/$NODE_CGROUP ]] || continue
            find "$root/$NODE_CGROUP" -depth -type d -exec rmdir {} +
        done
    }
    trap remove_groups EXIT
    # The kernel ends the namespaces if this script is killed. The lock of another script is not inherited.
    setpriv --pdeathsig KILL unshare --mount --propagation private --net --pid --ipc --uts --fork --kill-child --mount-proc \
        -- "${BASH_SOURCE[0]}" --inside "$@" 8>&- && status=0 || status=$?
    exit "$status"
fi
shift
[[ $$ == 1 ]] || { echo "isolated.sh: --inside is only for its own use" >&2; exit 1; }

# kubelet, containerd, CNI plugins and iptables write to these folders.
for folder in /run /var/lib /var/log; do
    mount -t tmpfs -o mode=755 tmpfs "$folder"
done
mkdir /run/lock
# kubelet sets these for the whole machine. It writes to copies instead.
copies=$(mktemp -d /run/sysctl.XXXXXX)
for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy=$copies/${key//\//.}
    cat "/proc/sys/$key" >"$copy"
    mount --bind "$copy" "/proc/sys/$key"
done
# Containers need the device and mount propagation of a host.
mount --make-rshared /
hostname node
ip link set lo up
exec "$@"
