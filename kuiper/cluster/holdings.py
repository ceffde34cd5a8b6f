"""Where a host has a data set: one file, standard library only, run there as a whole; prints JSON.

    python -c SOURCE ORDER

ORDER is JSON: {given: the place, or null for $KUIPER_DATA, default: without that, files: what the data set
reads below it, one of which must be there}.
"""

import hashlib
import json
import os
import sys

MOST = 1 << 30
"""Bytes whose contents are compared; of more than that, names and sizes are."""


def files_of(place):
    """(name below `place`, path, bytes) of a file, or of all below a folder, sorted."""
    if os.path.isfile(place):
        return [("", place, os.path.getsize(place))]
    found = []
    for folder, _, names in os.walk(place):
        for name in names:
            path = os.path.join(folder, name)
            found.append((os.path.relpath(path, place), path, os.path.getsize(path)))
    return sorted(found)


def digest_of(files):
    """The same for the same files, wherever they lie."""
    digest, whole = hashlib.sha256(), sum(size for _, _, size in files) <= MOST
    for name, path, size in files:
        digest.update(("%s\0%d\0" % (name, size)).encode(errors="surrogateescape"))
        if whole:
            with open(path, "rb") as file:
                for chunk in iter(lambda: file.read(1 << 20), b""):
                    digest.update(chunk)
    return digest.hexdigest()[:12]


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
