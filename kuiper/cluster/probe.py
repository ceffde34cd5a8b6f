"""What a host has: one file, standard library only, run there as `python -I -c SOURCE FOLDER`; prints JSON."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time

SECONDS = 60


def torch_there():
    """Version, CPU capability and GPUs, as a process of a job would see them; or why it would not."""
    code = (
        "import json, torch\n"
        "gpus = [torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count())]\n"
        "print(json.dumps({'torch': torch.__version__, 'capability': torch.backends.cpu.get_cpu_capability(),\n"
        "                  'gpus': [[free, total] for free, total in gpus]}))"
    )
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS)
        if done.returncode == 0:
            return json.loads(done.stdout.decode().splitlines()[-1])
        return {"torch": None, "why": done.stderr.decode(errors="replace").strip().splitlines()[-1:]}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"torch": None, "why": [str(error)]}


def runs():
    """Run ids in the environments of this user's living processes."""
    found = set()
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/environ" % name, "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            continue
        found.update(entry.partition(b"=")[2].decode(errors="replace") for entry in entries if entry.startswith(b"KUIPER_RUN="))
    return sorted(found)


def room(folder):
    """Free bytes where a folder is or would be, and what is wrong with that place."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return 0, "%s is not a folder" % folder
    wrong = "" if os.access(folder, os.W_OK | os.X_OK) else "%s cannot be written to" % folder
    return shutil.disk_usage(folder).free, wrong


def main():
    free, wrong = room(sys.argv[1])
    print(json.dumps(dict(
        torch_there(), python=platform.python_version(), machine=platform.machine(), cores=os.cpu_count(),
        free=free, place=wrong, runs=runs(), time=time.time())))  # fmt: skip


if __name__ == "__main__":
    main()
