"""Where a host has a data set: one file, standard library only, run there as a whole; prints JSON.

    python -c SOURCE ORDER

ORDER is JSON: {given: the place, or null for $KUIPER_DATA, default: without that, files: what the data set
reads below it, one of which must be there}.
"""

import gzip
import hashlib
import json
import os
import sys
import zipfile

PACKED = ".gz"
MOST = 1 << 30
"""Bytes whose contents are compared; of more than that, names and sizes are."""


def files_of(place):
    """(name below `place`, path, bytes) of a file, or of all below a folder, sorted.

    A packed file has the name of its content, and is left out beside it; hidden files are no data.
    """
    if os.path.isfile(place):
        return [("", place, os.path.getsize(place))]
    found = {}
    for folder, folders, names in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(names, reverse=True):  # `name` after `name.gz`, in whose place it comes
            path = os.path.join(folder, name)
            content = os.path.relpath(path[:-len(PACKED)] if name.endswith(PACKED) else path, place)
            if not name.startswith("."):
                found[content] = path
    return sorted((name, path, os.path.getsize(path)) for name, path in found.items())


def digest_of(files):
    """The same for files of the same content, wherever they lie and however they are packed."""
    digest, whole = hashlib.sha256(), sum(size for _, _, size in files) <= MOST
    for name, path, size in files:
        held = content_of(path) if whole else [b"%d" % size]
        digest.update(name.encode(errors="surrogateescape") + b"\0")
        for chunk in held:
            digest.update(chunk)
    return digest.hexdigest()[:12]


def content_of(path):
    """What a file holds, in pieces; of an archive (.npz), the checksums of its members."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = sorted((one.filename, one.file_size, one.CRC) for one in archive.infolist())
        yield json.dumps(members).encode()
        return
    with (gzip.open if path.endswith(PACKED) else open)(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            yield chunk


def main():
    order = json.loads(sys.argv[1])
    place = order["given"]
    if place is None:
        place = os.environ.get("KUIPER_DATA") or order["default"]
    place = os.path.expanduser(place)
    looked = [os.path.normpath(os.path.join(place, name)) for name in order["files"]]
    there = [path for path in looked if os.path.exists(path)]
    files = files_of(there[0]) if there else []
    print(json.dumps({
        "place": there[0] if there else None, "looked": looked, "bytes": sum(size for _, _, size in files),
        "digest": digest_of(files), "relative": not os.path.isabs(place),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
