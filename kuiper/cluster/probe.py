"""What a host has: one file, standard library only, Python 3.8 or newer, run there as a whole; prints JSON.

    python -c SOURCE PYTHON FOLDER DEPTH [FILE...]

PYTHON is the interpreter that was found without the setup commands, which runs agents; this one is that which runs
processes. FOLDER is kuiper's place there, DEPTH `quick`, or `thorough` to import torch and kuiper, too, and the files
are looked for below FOLDER. What the setup commands have left running, marked as this is, is ended.
"""

import glob
import json
import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata

SECONDS = 60
TRIAL = 1 << 20
NVIDIA = "/proc/driver/nvidia/gpus"
THOROUGH = (
    "import json, torch\n"
    "why = ''\n"
    "try:\n"
    "    import kuiper.process\n"
    "except BaseException as error:\n"
    "    why = '%s: %s' % (type(error).__name__, error)\n"
    "gpus = [torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count())]\n"
    "print(json.dumps({'torch': torch.__version__, 'capability': torch.backends.cpu.get_cpu_capability(),\n"
    "                  'gpus': len(gpus), 'memory': gpus, 'kuiper': why}))"
)


def torch_imported():
    """Version, CPU capability and GPUs, as a process of a job would see them; or why it would not."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", THOROUGH], cwd="/", timeout=SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if done.returncode == 0:
            return json.loads(done.stdout.decode().splitlines()[-1])
        return {"torch": None, "why": last_line(done.stderr)}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return {"torch": None, "why": str(error)}


def torch_installed():
    """Its version by what pip left, and the number of GPUs by what the driver shows; in milliseconds."""
    sys.path[:] = [path for path in sys.path if path]  # not what happens to lie in the home folder
    try:
        return {"torch": metadata.version("torch"), "gpus": gpus()}
    except metadata.PackageNotFoundError as error:
        return {"torch": None, "why": str(error), "gpus": gpus()}


def gpus():
    """How many torch would find; None where only torch can tell."""
    if os.path.isdir(NVIDIA):
        return len(os.listdir(NVIDIA))
    if glob.glob("/dev/nvidia[0-9]*") or os.path.exists("/dev/kfd"):
        return None
    return 0


def last_line(output):
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def runs():
    """The run ids in the environments of this user's living processes; surveys are none."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % name, "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            continue
        found |= {entry[11:].decode(errors="replace") for entry in entries if entry.startswith(b"KUIPER_RUN=")}
    return {run for run in found if not run.startswith("survey-")}


def in_full(folder):
    """With ~, $HOME and $USER as here; one that is relative begins at home. Links are resolved."""
    home = os.path.expanduser("~")
    if folder == "~" or folder.startswith("~/"):
        folder = home + folder[1:]
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user whom /etc/passwd does not know
        name = str(os.getuid())
    values = {"HOME": home, "USER": os.environ.get("USER") or name}
    variable = re.compile(r"\$(?:(HOME|USER)\b|\{(HOME|USER)\})")
    folder = variable.sub(lambda found: values[found.group(1) or found.group(2)], folder)
    return os.path.realpath(os.path.join(home, folder))


def room(folder):
    """Free bytes where a folder is or would be, and what is wrong with that place."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        return 0, "%s is not a folder" % folder
    free = shutil.disk_usage(folder).free
    trial = os.path.join(folder, ".kuiper-%s.tmp" % os.urandom(8).hex())  # hosts may share it
    try:
        try:
            with open(trial, "xb", buffering=0) as file:
                file.write(b" " * min(free, TRIAL))
        finally:
            if os.path.exists(trial):
                os.unlink(trial)
    except OSError as error:  # read-only, not this user's, no quota
        return free, "%s cannot be written to: %s" % (folder, error.strerror)
    return free, ""


def main():
    python, folder, depth = sys.argv[1:4]
    base = in_full(folder)
    free, wrong = room(base)
    thorough = depth == "thorough"
    facts = torch_imported() if thorough else torch_installed()
    print(json.dumps(dict(
        facts, path=os.path.abspath(python), executable=sys.executable, python=platform.python_version(), base=base,
        free=free, place=wrong,
        there=[name for name in sys.argv[4:] if os.path.exists(os.path.join(base, name))],
        machine=platform.machine(), cores=os.cpu_count(), runs=sorted(runs()) if thorough else [], time=time.time(),
    )))  # fmt: skip


if __name__ == "__main__":
    main()
