#!/bin/sh
# Makes the tools the tests run against, and prints where each is: one "name path" a line on
# stdout; what it is doing goes to stderr.
#
#   build.sh [name...]      all that the tests need when no name is given
#
# What it makes is kept outside the checkout, in a folder named by a hash of everything it was made
# from. So a fresh clone, a second checkout and `git clean` find it again, a new version gets a
# folder of its own, and nothing is ever rebuilt in place.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${STREAM_NOTIFIER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/stream-notifier}/bin

# No C, no paths and no symbols in the binaries, and no surprise from the environment.
export CGO_ENABLED=0 GOFLAGS= GOWORK=off
go_flags="-mod=readonly -buildvcs=false -trimpath"

say() { echo "test tools: $*" >&2; }
fail() { say "$*"; exit 1; }

# need <command> <what it is and why>
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing on this machine: $2."; }

hash() { if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi | cut -c 1-16; }

# version <tool module> <Go module>: the version that the tool module asks for.
version() { awk -v module="$2" '$1 == "require" { $1 = ""; $0 = $0 } $1 == module { print $2; exit }' "$here/$1/go.mod"; }

# go_tool <name> <tool module> <package> <linker flags> <minutes on 2 cores>
go_tool() {
    need go "Go 1.26 or newer builds the Kubernetes servers and Helm for the tests (https://go.dev/dl)"
    key=$( (cat "$here/$2/go.mod" "$here/$2/go.sum"; echo "$go_flags $4"; go version) | hash)
    binary=$cache/$2-$key/$1
    if [ ! -x "$binary" ]; then
        say "building $1, about $5 min on 2 cores, once; it is kept in $cache/$2-$key"
        mkdir -p "$cache/$2-$key"
        # A build that is cut short must not look like a finished one.
        (cd "$here/$2" && go build $go_flags -ldflags "$4" -o "$binary.$$" "$3") || {
            rm -f "$binary.$$"
            fail "could not build $1 (the error of go is above)."
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
    # Built without their stamp the servers call themselves v0.0.0, and Helm refuses a chart by its
    # kubeVersion.
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

# python_environment <name> <requirements> <what it is>
#
# The path it prints is that of the environment's Python: run modules with `-m`. (The environment is
# moved to its place when it is complete, and a script in its bin/ would still name the Python of the
# place before.)
python_environment() {
    need python3 "Python 3.10 or newer runs $3"
    key=$( (cat "$2"; python3 -c 'import sys; print(sys.version, sys.executable)') | hash)
    environment=$cache/$1-$key
    if [ ! -x "$environment/bin/python" ]; then
        say "making a Python environment with $3, about 1 min, once; it is kept in $environment"
        mkdir -p "$cache"
        python3 -c 'import ensurepip, venv' 2>/dev/null ||
            fail "the venv module of python3 is missing on this machine (on Debian: apt install python3-venv)."
        (python3 -m venv "$environment.$$" &&
            "$environment.$$/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
                --requirement "$2") >&2 || {
            rm -rf "$environment.$$"
            fail "could not install $3 (the error of python3 is above)."
        }
        rm -rf "$environment"
        mv "$environment.$$" "$environment"
    fi
    echo "$1 $environment/bin/python"
}

ministack() {
    python_environment ministack "$here/ministack/requirements.txt" "MiniStack, the AWS emulator of the tests"
}

# Only the benchmarks need it.
origin() {
    python_environment origin "$here/../benches/origin/requirements.txt" "chalice and boto3, for the origin's loop"
}

need cc "a C compiler builds the cryptography of the operator (on Debian: apt install gcc)"

# Two test runs at once would each build everything; the second one waits for the first instead.
# Where there is no flock the work is done twice, and is right all the same.
if command -v flock >/dev/null 2>&1; then
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock -n 9 || { say "waiting for another run that is making them"; flock 9; }
fi

[ $# -gt 0 ] || set -- etcd kube-apiserver kube-controller-manager kubectl helm ministack
for name in "$@"; do
    case $name in
        kube-apiserver) kubernetes kube-apiserver 4 ;;
        kube-controller-manager) kubernetes kube-controller-manager 2 ;;
        kubectl) kubernetes kubectl 1 ;;
        etcd | helm | ministack | origin) "$name" ;;
        *) fail "there is no tool named $name." ;;
    esac
done
