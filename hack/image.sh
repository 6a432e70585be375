#!/usr/bin/env bash
# Builds the image of the operator, or of local mode, from a static binary and the public CA certificates.
#
#   image.sh operator|local NAME[:TAG]
#
#   ENGINE          docker, podman or buildah. Default: the first one that works.
#   ARCHIVE         also write the image to this file, as an archive that containerd and podman load.
#   CA_CERTIFICATES PEM file with the CA certificates. Default: the public ones of Debian's package
#                   ca-certificates. Never this machine's own bundle, which can contain private CAs.
set -euo pipefail
# The image keeps the modes of the files, and its user is not root.
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "image: $*" >&2; exit 1; }

variant=${1:-} image=${2:-}
case $variant in operator | local) ;; *) fail "usage: image.sh operator|local NAME[:TAG]" ;; esac
[[ -n $image ]] || fail "usage: image.sh operator|local NAME[:TAG]"

# works ENGINE: a docker client without a daemon cannot build.
works() {
    case $1 in
        docker | podman) command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1 ;;
        buildah) command -v buildah >/dev/null ;;
        *) fail "unknown engine $1; set ENGINE to docker, podman or buildah" ;;
    esac
}

find_engine() {
    if [[ -n ${ENGINE:-} ]]; then
        works "$ENGINE" || fail "$ENGINE does not work; run \`$ENGINE info\`"
        echo "$ENGINE"
        return
    fi
    for engine in docker podman buildah; do
        if works "$engine"; then
            echo "$engine"
            return
        fi
    done
    fail "docker, podman or buildah is needed, and none of them works; on Debian: apt install buildah"
}

# The binary needs no library of the image. The explicit target keeps procedural macros dynamic.
build_binary() {
    local features=(--no-default-features)
    [[ $variant == operator ]] || features=()
    # It would take precedence over RUSTFLAGS.
    unset CARGO_ENCODED_RUSTFLAGS
    RUSTFLAGS="-C target-feature=+crt-static ${RUSTFLAGS:-}" "${CARGO:-cargo}" build --release --locked \
        --package stream-notifier "${features[@]}" --target "$target" --target-dir "$builds"
    install -D -m 755 --strip "$builds/$target/release/stream-notifier" "$root/stream-notifier"
}

copy_certificates() {
    local certificates=${CA_CERTIFICATES:-} debian=/usr/share/ca-certificates/mozilla
    mkdir -p "$root/etc/ssl/certs"
    if [[ -n $certificates ]]; then
        cat "$certificates"
    elif [[ -d $debian ]]; then
        cat "$debian"/*.crt
    else
        fail "no CA certificates; set CA_CERTIFICATES to a PEM file with the public ones (on Debian: apt install ca-certificates)"
    fi >"$root/etc/ssl/certs/ca-certificates.crt"
}

build_image() {
    local build=(--build-arg "VARIANT=$variant" --build-arg "TARGETARCH=$arch" --tag "$image" .)
    case $engine in
        docker | podman)
            "$engine" build --quiet "${build[@]}" >/dev/null
            [[ -z ${ARCHIVE:-} ]] || "$engine" save --output "$ARCHIVE" "$image"
            ;;
        buildah)
            # Without these options, buildah needs overlay mounts and user namespaces.
            local buildah=(buildah --storage-driver vfs)
            "${buildah[@]}" build --quiet --isolation chroot "${build[@]}" >/dev/null
            [[ -z ${ARCHIVE:-} ]] || "${buildah[@]}" push --quiet "$image" "docker-archive:$ARCHIVE:$image"
            ;;
    esac
}

case $(uname -s)-$(uname -m) in
    Linux-x86_64) arch=amd64 target=x86_64-unknown-linux-gnu ;;
    Linux-aarch64) arch=arm64 target=aarch64-unknown-linux-gnu ;;
    *) fail "images are built on Linux, on amd64 or arm64" ;;
esac
# Kubernetes completes a name without a registry in this way. podman and buildah would use localhost.
case $image in
    *.*/* | *:*/* | localhost/*) ;;
    */*) image=docker.io/$image ;;
    *) image=docker.io/library/$image ;;
esac
# podman does not overwrite it.
[[ -z ${ARCHIVE:-} ]] || rm -f "$ARCHIVE"
root=dist/$variant/$arch
# Both variants share a folder, because cargo reuses the dependencies whose features are the same.
builds=${CARGO_TARGET_DIR:-target}/image

engine=$(find_engine)
rm -rf "$root"
build_binary
copy_certificates
build_image
[[ $engine != buildah ]] || echo "to push it: buildah --storage-driver vfs push $image"
echo "built $image with $engine ($(du -shL "$root" | cut -f1) unpacked)"
