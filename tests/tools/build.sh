#!/bin/sh
# Builds the tools of the tests and prints one line "name path" for each on stdout. Progress goes to
# stderr.
#
#   build.sh [name...]      without a name, builds all tools that `make test` needs
#
# The tools are kept outside the checkout, in folders named by a hash of all their inputs. A fresh clone or
# a second checkout therefore reuses them. A new version gets its own folder, so the script never rebuilds
# a tool in place.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${STREAM_NOTIFIER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stream-notifier}/bin

# Build without C, and without paths in the binaries. Override Go settings of the environment.
export CGO_ENABLED=0 GOFLAGS= GOWORK=off
go_flags="-mod=readonly -buildvcs=false -trimpath"

say() { echo "test tools: $*" >&2; }
fail() { say "$*"; exit 1; }

# need <command> <purpose>
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing; $2."; }

hash() { if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | cut -c 1-16; }

# version <tool module> <Go module>: prints the version that the tool module requires.
version() { awk -v module="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == module { print $2; exit }' "$here/$1/go.mod"; }

# go_tool <name> <tool module> <package> <linker flags> <minutes on 2 cores>
go_tool() {
    need go "install Go 1.26 or newer to build the Kubernetes servers and Helm for the tests (https://go.dev/dl)"
    key=$( (cat "$here/$2/go.mod" "$here/$2/go.sum"; echo "$go_flags $4"; go version) | hash)
    binary=$cache/$2-$key/$1
    if [ ! -x "$binary" ]; then
        say "building $1 once, about $5 min on 2 cores, into $cache/$2-$key"
        mkdir -p "$cache/$2-$key"
        # Move the binary at the end, so that an interrupted build does not look complete.
        (cd "$here/$2" && go build $go_flags -ldflags "$4" -o "$binary.$$" "$3") || {
            rm -f "$binary.$$"
            fail "could not build $1; see the error of go above."
        }
        mv "$binary.$$" "$binary"
    fi
    echo "$1 $binary"
}

# kubernetes <name> <minutes>
kubernetes() {
    if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ]; then
        echo "$1 $KUBEBUILDER_ASSETS/$1"
        return
    fi
    # Without this stamp the servers report v0.0.0, and Helm rejects the chart by its kubeVersion.
    kubernetes_version=$(version control-plane k8s.io/kubernetes)
    minor=${kubernetes_version#v1.}
    stamp="-s -w"
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        stamp="$stamp -X $package.gitVersion=$kubernetes_version -X $package.gitMajor=1"
        stamp="$stamp -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
    done
    go_tool "$1" control-plane "k8s.io/kubernetes/cmd/$1" "$stamp" "$2"
}

etcd() {
    if [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/etcd" ]; then
        echo "etcd $KUBEBUILDER_ASSETS/etcd"
        return
    fi
    go_tool etcd etcd go.etcd.io/etcd/server/v3 "-s -w" 1
}

helm() {
    go_tool helm helm helm.sh/helm/v4/cmd/helm \
        "-s -w -X helm.sh/helm/v4/internal/version.version=$(version helm helm.sh/helm/v4)" 4
}

# Used only by `make test-charts`.
helm3() {
    go_tool helm3 helm3 helm.sh/helm/v3/cmd/helm \
        "-s -w -X helm.sh/helm/v3/internal/version.version=$(version helm3 helm.sh/helm/v3)" 4
}

# python_environment <name> <requirements> <description>
#
# Prints the path of the environment's Python. Run its modules with `-m`, because the environment is moved
# once it is complete and the scripts in its bin/ contain the old path.
python_environment() {
    need python3 "install Python 3.10 or newer to run $3"
    key=$( (cat "$2"; python3 -c 'import sys; print(sys.version, sys.executable)') | hash)
    environment=$cache/$1-$key
    if [ ! -x "$environment/bin/python" ]; then
        say "creating a Python environment once for $3, about 1 min, in $environment"
        mkdir -p "$cache"
        python3 -c 'import ensurepip, venv' 2>/dev/null ||
            fail "the venv module of python3 is missing; install it (on Debian: apt install python3-venv)."
        (python3 -m venv "$environment.$$" &&
            "$environment.$$/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
                --requirement "$2") >&2 || {
            rm -rf "$environment.$$"
            fail "could not install $3; see the error of python3 above."
        }
        rm -rf "$environment"
        mv "$environment.$$" "$environment"
    fi
    echo "$1 $environment/bin/python"
}

ministack() {
    python_environment ministack "$here/ministack/requirements.txt" "MiniStack, the AWS emulator of the tests"
}

kubernetes_validate() {
    python_environment kubernetes-validate "$here/kubernetes-validate/requirements.txt" \
        "kubernetes-validate, which checks the objects of the chart"
}

# Used only by `make test-node`, as the functions below.
containerd() {
    (
        go_flags="$go_flags -tags=no_btrfs,no_devmapper,no_zfs"
        go_tool "$1" containerd "github.com/containerd/containerd/v2/cmd/$1" "-s -w" 2
    )
}

pause_image() {
    key=$(cat "$here"/pause/* | hash)
    archive=$cache/pause-$key/pause.tar
    if [ ! -f "$archive" ]; then
        need python3 "install Python 3.10 or newer to pack an image"
        mkdir -p "$cache/pause-$key"
        (cc -O2 -static -o "$cache/pause-$key/pause" "$here/pause/pause.c" &&
            python3 "$here/pause/image.py" docker.io/library/pause:1 "$cache/pause-$key/pause" "$archive.$$" &&
            mv "$archive.$$" "$archive") >&2 || fail "could not build the pause image; see the error above."
    fi
    echo "pause-image $archive"
}

wscat() {
    need npm "install Node.js to run wscat, a WebSocket client (on Debian: apt install npm)"
    key=$( (cat "$here/wscat/package.json" "$here/wscat/package-lock.json"; node --version) | hash)
    folder=$cache/wscat-$key
    if [ ! -x "$folder/node_modules/.bin/wscat" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        cp "$here/wscat/package.json" "$here/wscat/package-lock.json" "$folder"
        (cd "$folder" && npm ci --silent --ignore-scripts) >&2 || {
            rm -rf "$folder"
            fail "could not install wscat; see the error of npm above."
        }
    fi
    echo "wscat $folder/node_modules/.bin/wscat"
}

# Used only by the benchmarks.
origin() {
    python_environment origin "$here/../benches/origin/requirements.txt" "chalice and boto3, which run the original loop"
}

need cc "install a C compiler to build the cryptography of the operator (on Debian: apt install gcc)"

# A second run waits for the first one instead of building everything too. Without flock, both runs build,
# which is slower but correct.
if command -v flock >/dev/null 2>&1; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock -n 9 || { say "waiting for another run that is building the tools"; flock 9; }
fi

[ $# -gt 0 ] || set -- etcd kube-apiserver kube-controller-manager kubectl helm ministack kubernetes-validate
for name in "$@"; do
    case $name in
        kube-apiserver) kubernetes kube-apiserver 4 ;;
        kube-controller-manager) kubernetes kube-controller-manager 2 ;;
        kubectl | kubelet | kube-proxy | kube-scheduler) kubernetes "$name" 1 ;;
        kubernetes-validate) kubernetes_validate ;;
        containerd | containerd-shim-runc-v2 | ctr) containerd "$name" ;;
        pause-image) pause_image ;;
        etcd | helm | helm3 | ministack | origin | wscat) "$name" ;;
        *) fail "unknown tool: $name." ;;
    esac
done
