"""What kuiper keeps on a host, as JSON: one file, standard library only; python -I -c SOURCE BASE."""

import glob
import json
import os
import sys
import time

MARKER = b"KUIPER_RUN="


def size(path):
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if os.path.islink(path) or not os.path.isdir(path):
        return os.lstat(path).st_size
    return sum(size(entry.path) for entry in os.scandir(path))


def marked():
    """{run id: pids} of this user's living processes that carry the marker of a run."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % name, "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:  # another user's, or gone
            continue
        for entry in entries:
            if entry.startswith(MARKER):
                found.setdefault(entry[len(MARKER):].decode(errors="replace"), []).append(int(name))
    return found


def users(base):
    """{folder of code: run directories whose processes begin there}."""
    found = {}
    for order in glob.iglob(os.path.join(glob.escape(base), "runs", "*", "*", "*", "agent.json")):
        try:
            with open(order) as file:
                folder = json.load(file)["cwd"]
        except (OSError, ValueError, KeyError):
            continue
        found.setdefault(folder, set()).add(os.path.dirname(os.path.dirname(order)))
    return found


def main():
    base = sys.argv[1]
    used = users(base)
    code = {path: {"bytes": size(path), "age": time.time() - os.lstat(path).st_mtime,
                   "users": sorted(used.get(path, ()))}
            for path in (os.path.join(base, "code", name) for name in listed(os.path.join(base, "code")))}
    runs = {path: size(path) for path in glob.glob(os.path.join(glob.escape(base), "runs", "*", "*"))}
    print(json.dumps({"code": code, "runs": runs, "marked": marked()}))


def listed(folder):
    """Names in a folder, archives and half unpacked ones among them."""
    return os.listdir(folder) if os.path.isdir(folder) else []


if __name__ == "__main__":
    main()
