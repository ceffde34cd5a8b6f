"""What kuiper keeps on a host, as JSON: one file, standard library only; python -I -c SOURCE CODE RUNS.

CODE is the folder of snapshots, RUNS that of run directories, <job name>/<run id> below it.
"""

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


def users(runs):
    """{folder of code: run directories whose processes begin there}."""
    found = {}
    for order in glob.iglob(os.path.join(glob.escape(runs), "*", "*", "*", "agent.json")):
        try:
            with open(order) as file:
                folder = json.load(file)["cwd"]
        except (OSError, ValueError, KeyError):
            continue
        found.setdefault(folder, set()).add(os.path.dirname(os.path.dirname(order)))
    return found


def code(folder, runs):
    """{path: about it} of all below a folder of snapshots: archives and half unpacked ones, too.

    `file` is the same only for the same folder, which hosts that share it all have.
    """
    found, used = {}, users(runs)
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        try:
            status = os.lstat(path)
            about = {"bytes": size(path), "age": time.time() - status.st_mtime,
                     "users": sorted(used.get(path, ())), "file": [status.st_ino, status.st_ctime_ns]}
        except OSError:  # removed meanwhile
            continue
        found[path] = about
    return found


def sizes(runs):
    """{run directory: bytes}."""
    found = {}
    for path in glob.glob(os.path.join(glob.escape(runs), "*", "*")):
        try:
            found[path] = size(path)
        except OSError:  # removed meanwhile
            continue
    return found


def main():
    folder, runs = sys.argv[1:]
    print(json.dumps({"code": code(folder, runs), "runs": sizes(runs), "marked": marked()}))


if __name__ == "__main__":
    main()
