#!/usr/bin/env bash
# Tests the image and the chart on a real cluster.
#
#   run.sh [argument of the test binary...]
#
# Without KUBECONFIG, starts a cluster with one node in namespaces of its own, which needs root, and checks
# that it leaves nothing behind. With KUBECONFIG, uses that cluster. Then also set:
#
#   NODE_LOAD_IMAGE  command that loads an image archive, such as `kind load image-archive`
#   NODE_ADDRESS     address of this machine at which Pods of the cluster reach it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() { echo "test-node: $*" >&2; exit 1; }

PATH=$PATH:/usr/sbin:/sbin
cargo=${CARGO:-cargo}
images=$(realpath "${CARGO_TARGET_DIR:-target}")/node
mkdir -p "$images"

if [[ -z ${KUBECONFIG:-} ]]; then
    [[ $(uname -s) == Linux && $EUID == 0 ]] ||
        fail "the node needs Linux and root; set KUBECONFIG to use another cluster, or run \`make test\` only"
fi

# need COMMAND PACKAGE: on Debian, installs a missing package.
need() {
    command -v "$1" >/dev/null || [[ -e $1 ]] && return
    command -v apt-get >/dev/null && [[ $EUID == 0 ]] || fail "$1 is missing; install $2"
    echo "test-node: installing $2" >&2
    [[ -n ${updated:-} ]] || apt-get update --quiet=2 >&2
    updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --no-install-recommends --no-remove --yes "$2" >&2 ||
        fail "cannot install $2; see the error above"
}

tools=(kubectl helm ministack wscat)
if [[ -z ${KUBECONFIG:-} ]]; then
    need runc runc
    need ip iproute2
    need sysctl procps
    need setpriv util-linux
    need iptables iptables
    [[ -e /opt/cni/bin/bridge || -e /usr/libexec/cni/bridge ]] || need /usr/lib/cni/bridge containernetworking-plugins
    tools+=(etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy containerd
        containerd-shim-runc-v2 ctr pause-image)
fi
need npm npm
docker info >/dev/null 2>&1 || podman info >/dev/null 2>&1 || need buildah buildah
tests/tools/build.sh "${tools[@]}" >/dev/null

# The second image is the same program under another tag, for `helm upgrade`.
export NODE_IMAGE=stream-notifier:test NODE_NEXT_IMAGE=stream-notifier:test-next
export NODE_IMAGE_ARCHIVE=$images/image.tar NODE_NEXT_IMAGE_ARCHIVE=$images/next-image.tar
ARCHIVE=$NODE_IMAGE_ARCHIVE hack/image.sh operator "$NODE_IMAGE"
ARCHIVE=$NODE_NEXT_IMAGE_ARCHIVE hack/image.sh operator "$NODE_NEXT_IMAGE"
"$cargo" build --package stream-notifier-tests --bin guard
"$cargo" test --no-run --test node

test=("$cargo" test --offline --test node -- --test-threads=1 "$@")
if [[ -n ${KUBECONFIG:-} ]]; then
    "${test[@]}"
    exit
fi

# The settings that kubelet, kube-proxy and the CNI plugins change.
settings='vm\.(overcommit_memory|panic_on_oom) |kernel\.(panic|panic_on_oops|keys\.root_max)'
settings+='|net\.ipv4\.(ip_forward |conf\.(all|default)\.)|net\.bridge\.|net\.netfilter\.nf_conntrack_(max|tcp_timeout)'

# The state of the machine that a node could change.
snapshot() {
    ip -oneline link | sed 's/ mtu .*//'
    ip -oneline address | awk '{ print $2, $4 }'
    ip route
    iptables-save 2>/dev/null | sed '/^#/d; s/\[[0-9]*:[0-9]*\]//' || true
    sysctl --all 2>/dev/null | grep -E "^($settings)" || true
    cut -d ' ' -f 1-3 /proc/mounts
    find /etc /opt /var/lib/cni /var/lib/kubelet /var/lib/containerd /var/log/pods /var/log/containers \
        -printf '%p %s %T@\n' 2>/dev/null | sort || true
    find /sys/fs/cgroup -type d \( -name 'stream-notifier-node-*' -o -name kubepods \) 2>/dev/null
}

snapshot >"$images/before"
tests/node/isolated.sh "${test[@]}" && status=0 || status=$?
snapshot >"$images/after"
diff "$images/before" "$images/after" || fail "the node changed the machine: see the lines above"
exit "$status"
