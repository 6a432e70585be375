"""Writes a Docker archive with one program. `make image` needs a container engine, this does not.

usage: image.py NAME PROGRAM ARCHIVE
"""

import hashlib
import io
import json
import sys
import tarfile


def add(archive, name, content, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def main():
    name, program, path = sys.argv[1:]
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive, open(program, "rb") as file:
        add(archive, "pause", file.read(), 0o755)
    layer = layer.getvalue()
    layer_hash = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_hash}"]},
    }
    config = json.dumps(config).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = f"{layer_hash}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]
    with tarfile.open(path, "w") as archive:
        add(archive, config_name, config)
        add(archive, layer_name, layer)
        add(archive, "manifest.json", json.dumps(manifest).encode())


main()
