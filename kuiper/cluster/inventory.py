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
    """Bytes of a file, or of all files below a folder; links are not followed, what is removed meanwhile is 0."""
    try:
        if os.path.islink(path) or not os.path.isdir(path):
            return os.lstat(path).st_size
        return sum(size(entry.path) for entry in os.scandir(path))
    except OSError:
        return 0


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
    for order in glob.iglob(os.path.join(runs, "*", "*", "*", "agent.json")):
        try:
            with open(order) as file:
                folder = json.load(file)["cwd"]
        except (OSError, ValueError, KeyError):
            continue
        found.setdefault(folder, set()).add(os.path.dirname(os.path.dirname(order)))
    return found


def about(paths):
    """{path: its bytes, age, and `file`, which is the same only for the same file: hosts may share it}."""
    found = {}
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:  # removed meanwhile
            continue
        found[path] = {"bytes": size(path), "age": time.time() - status.st_mtime,
                       "file": [path, status.st_ino, status.st_ctime_ns]}
    return found


def main():
    folder, runs = (glob.escape(path) for path in sys.argv[1:])
    code = about(glob.glob(os.path.join(folder, "*")) + glob.glob(os.path.join(folder, ".*")))  # half unpacked ones
    used = users(runs)
    for path in code:
        code[path]["users"] = sorted(used.get(path, ()))
    print(json.dumps({"code": code, "runs": about(glob.glob(os.path.join(runs, "*", "*"))), "marked": marked()}))


if __name__ == "__main__":
    main()
