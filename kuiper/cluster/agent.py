"""The supervisor of one process of a job: one file, standard library only, Python 3.8 or newer, Linux.

It travels to a host as it is and needs nobody's connection once started:

    agent.py start FOLDER...                 supervise what agent.json there describes; returns when all run
                                             or wait for their turn
    agent.py look FOLDER...                  print what is known of those processes, as JSON
    agent.py stop RUN_ID GRACE FOLDER...     stop them and whatever else of the run is alive on this host
    agent.py renew RUN_ID FOLDER...          make them ready to be started again, once they have ended
    agent.py digest FOLDER...                print size and SHA-256 of what they have on record, as JSON
    agent.py trial SECONDS COMMAND...        run a command for so long at most, and end all that it leaves behind

agent.json: run_id, process, argv, env, cwd, setup_commands, choose_python (whether those may put another
interpreter in the place of argv's first word), duration (seconds or null), grace (seconds),
retry (restarts of a process that failed), final_codes (exit codes that make a restart pointless), secrets
(their names), log_bytes, log_keep, after (run directories: the process is started when nothing of those runs
is alive on this host any more, however they ended), listen (of a process that others connect to: address,
host, and ports, "first-last" or null), server (endpoint.json of the server on another host: `start` tries
whether it can be reached, if it is there; and that server is told when the process has failed for good: argv is run
once more, with "ended" as its last word). Values of secrets, if any, are in secrets.json, which is deleted
once read. The agent writes agent.lock, proc.json, heartbeat, log, exit.json. It reserves room for exit.json
and for the process's error.json, so that both can be written on a disk that has filled up.

The agent binds the socket that its process listens on, and hands it over: KUIPER_LISTENER is its number. So
the port is kept, and its address known, from endpoint.json, while the process still waits for its turn.

Machines may share the folders. A process of another one cannot be seen from here: it is taken to be alive until
its exit.json is there, and the file `stop` reaches its agent (see `elsewhere`).

A process is identified by (boot id, pid, start time), which survives the reuse of a pid, and what it leaves
behind is found by the marker KUIPER_RUN in its environment, which survives a change of session.
KUIPER_ATTEMPT there says how often the agent has started it again, KUIPER_QUEUED that the run was queued.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time

RUN_MARKER, PROCESS_MARKER, ATTEMPT = "KUIPER_RUN", "KUIPER_PROCESS", "KUIPER_ATTEMPT"
LISTENER, QUEUED, BACKLOG = "KUIPER_LISTENER", "KUIPER_QUEUED", 1024
ROOM_FOR = "exit.json", "error.json"
STATE_FILES = "exit.json", "stop", "error.json", "proc.json", "heartbeat", "endpoint.json", "agent.lock"
PRIVATE = "secrets.json", "agent.lock", "agent.json", "stop"
TICK, QUEUE_TICK, HEARTBEAT, RETRY_PAUSE = 0.25, 0.5, 2.0, 1.0
LEFTOVER_GRACE = 2.0
FORGOTTEN = 86400.0  # seconds without a heartbeat of a process on another machine
ENDED, ENDED_SECONDS = "ended", 90.0
RESERVED, RESERVED_BYTES = "%s.reserved", 4096
PR_SET_CHILD_SUBREAPER = 36
CANNOT_START, OVERDUE = 127, 124
SERVER_KNOWS = 4, 100  # of a process that has lost the server, or that ends because the job has failed
NOT_REACHED, PORTS_TAKEN, REACH_SECONDS = 4, 5, 6.0
# $1 says whether the python that the setup commands put first on PATH is to be taken, $2 is their number. Each is
# evaluated by itself, so that an unbalanced quote in one cannot swallow the next, and without our arguments as its
# own. Then the command, which is never parsed.
SETUP = """
kuiper_choose=$1; kuiper_setup=("${@:3:$2}"); kuiper_command=("${@:$(($2 + 3))}"); set --
kuiper_python3=$(type -P python3); kuiper_python=$(type -P python)
for kuiper_line in "${kuiper_setup[@]}"; do
  eval "$kuiper_line" || { kuiper_code=$?; echo "setup command failed: $kuiper_line" >&2; exit $kuiper_code; }
done
if [[ $kuiper_choose ]]; then
  for kuiper_name in python3 python; do
    kuiper_before=kuiper_$kuiper_name kuiper_now=$(type -P $kuiper_name)
    if [[ $kuiper_now && $kuiper_now != "${!kuiper_before}" ]]; then kuiper_command[0]=$kuiper_now; break; fi
  done
fi
exec "${kuiper_command[@]}"
"""

# ---------------------------------------------------------------- identity


def boot_id():
    """The id of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def stat(pid):
    """(state letter, parent's pid, start time in clock ticks since boot), or None without such a process."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[1]), int(fields[19])


def identity(pid):
    """{boot_id, pid, start_time} of a process that lives, or None."""
    found = stat(pid)
    if found is None or found[0] in "ZX":
        return None
    return {"boot_id": boot_id(), "pid": pid, "start_time": found[2]}


def alive(who):
    """Whether exactly that process lives: same boot, same pid, same start time, not a zombie."""
    return bool(who) and identity(who["pid"]) == {key: who[key] for key in ("boot_id", "pid", "start_time")}


def machine():
    """{node, machine_id} of this machine, which outlast its boots; machine_id is "" where there is none."""
    try:
        with open("/etc/machine-id") as file:
            number = file.read().strip()
    except OSError:
        number = ""
    return {"node": os.uname().nodename, "machine_id": number}


def elsewhere(who):
    """The name of the other machine that a recorded process belongs to; None if it is this one's, or nobody knows."""
    here = machine()
    if not who or "node" not in who or who["boot_id"] == boot_id() or who["node"] == here["node"]:
        return None
    renamed = here["machine_id"] and who.get("machine_id") == here["machine_id"]
    return None if renamed else who["node"]


def away(folder):
    """The name of the other machine that a process's agent is at work on, None if it has ended or is this one's."""
    if os.path.exists(os.path.join(folder, "exit.json")):
        return None
    beat = (read(os.path.join(folder, "heartbeat")) or {}).get("time")
    if beat is not None and time.time() - beat > FORGOTTEN:
        return None
    return elsewhere(read(os.path.join(folder, "agent.lock")))


def send(who, number):
    """Signal exactly that process; False when it is gone. Another one that got its pid is left alone."""
    try:
        if not hasattr(os, "pidfd_open"):  # before Python 3.9
            return alive(who) and (os.kill(who["pid"], number) or True)
        handle = os.pidfd_open(who["pid"])
    except OSError:
        return False
    try:
        if not alive(who):  # asked after the handle was opened: from here on it cannot become another process
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def first_alive(run_dirs):
    """The first of these run directories with a process or an agent that lives on this host, or None."""
    for run_dir in run_dirs:
        for lock in glob.iglob(os.path.join(glob.escape(run_dir), "*", "agent.lock")):
            if alive(read(lock)) or alive(read(os.path.join(os.path.dirname(lock), "proc.json"))):
                return run_dir
    return None


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(processes=None, **markers):
    """Identities of the living processes, this one excepted, whose environment has all of KEY=VALUE.

    `processes`: names; what is marked as part of another process is left out.
    """
    wanted = {("%s=%s" % pair).encode(errors="surrogateescape") for pair in markers.items()}
    key = (PROCESS_MARKER + "=").encode()
    found = []
    for pid in pids():
        who = identity(pid)  # before the environment is read: a reused pid then fails the check at the signal
        try:
            with open("/proc/%d/environ" % pid, "rb") as file:
                entries = set(file.read().split(b"\0"))
        except OSError:  # another user's, or gone
            continue
        names = [entry[len(key):].decode(errors="replace") for entry in entries if entry.startswith(key)]
        others = processes is not None and names and names[0] not in processes
        if who and pid != os.getpid() and wanted <= entries and not others:
            found.append(who)
    return found


def descendants(root):
    """Identities of the living processes below `root`, whatever their session."""
    children = {}
    for pid in pids():
        found = stat(pid)
        if found:
            children.setdefault(found[1], []).append(pid)
    below, queue = [], [root]
    while queue:
        for pid in children.get(queue.pop(), []):
            below.append(identity(pid))
            queue.append(pid)
    return [who for who in below if who]


def sweep(find, grace, attend=lambda: None):
    """TERM what `find()` gives, KILL what is left after `grace` seconds; returns what survived even that."""
    asked, start = set(), time.monotonic()
    while True:
        attend()
        left = find()
        waited = time.monotonic() - start
        if not left or waited > grace + 5:
            return left
        for who in left:
            number = signal.SIGTERM if waited < grace else signal.SIGKILL
            if (who["pid"], who["start_time"], number) not in asked:
                asked.add((who["pid"], who["start_time"], number))
                send(who, number)
        time.sleep(0.02)


def listen(address, ports):
    """A socket that listens on the first of `ports` ("first-last"; None: any) that is free.

    The address "" is every one of this host's, of IPv4 and of IPv6.
    """
    import socket  # here: `look` and `stop` do without it

    both = not address and has_ipv6()
    first, _, last = (ports or "0").partition("-")
    for port in range(int(first), int(last or first) + 1):
        listener = socket.socket(socket.AF_INET6 if both else socket.AF_INET)
        try:
            if both:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(BACKLOG)
            return listener
        except OSError as error:
            listener.close()
            problem = error.strerror
    raise OSError("ports %s: %s" % (ports, problem))


def has_ipv6():
    """Whether one socket here can listen on IPv6 and IPv4."""
    import socket

    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            trial.bind(("::", 0))
        return True
    except (OSError, AttributeError):  # not in this kernel, or switched off
        return False


# ---------------------------------------------------------------- files


def say(text):
    """A line in the log, if the disk has room for it."""
    try:
        sys.stderr.write("agent: %s\n" % text)
    except OSError:
        pass


def write(path, value):
    """Atomically write `value` as JSON."""
    temporary = "%s.%s-%d.tmp" % (path, os.uname().nodename, os.getpid())  # machines may share the folder
    try:
        with open(temporary, "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def reserve(path):
    """Take room on the disk for `path` now."""
    with open(RESERVED % path, "wb") as file:
        file.write(b" " * RESERVED_BYTES)
        file.flush()
        os.fsync(file.fileno())


def write_reserved(path, value):
    """Write `value` as JSON into the room that was reserved for it."""
    with open(RESERVED % path, "r+b") as file:
        file.write(json.dumps(value).encode().ljust(RESERVED_BYTES))
    os.replace(RESERVED % path, path)


def persist(path, value, tries=60):
    """`write`, then `write_reserved`, and both again every second: a disk may not stay full or read-only."""
    while True:
        tries -= 1
        for attempt in (write, write_reserved):
            try:
                return attempt(path, value)
            except OSError as error:
                say("cannot write %s: %s" % (path, error))
                if not tries and attempt is write_reserved:
                    raise
        time.sleep(1)


def read(path):
    """The JSON object in a file; None when there is none, or only a part of one."""
    try:
        with open(path, errors="replace") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def tail(path, size=65536):
    """The last `size` bytes of a file as text, '' without one."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def first_error(folder):
    """What went wrong, in a line: error.json, else the last traceback's last line, else the log's."""
    error = read(os.path.join(folder, "error.json"))
    if error:
        return "%s: %s" % (error.get("type", "Error"), error.get("message", ""))
    lines = [line for line in tail(os.path.join(folder, "log")).splitlines() if line.strip()]
    starts = [at for at, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    for line in lines[starts[-1] + 1 :] if starts else []:
        if not line[0].isspace():
            return line.strip()
    spoken = [text for text in map(eventful, lines) if text]
    return spoken[-1].strip()[-500:] if spoken else None


def eventful(line):
    """What a log line says: the message of a Bunyan record of an error, '' for one below, the line elsewhere."""
    try:
        record = json.loads(line)
        return str(record["msg"]).partition("\n")[0] if record["level"] >= 50 else ""
    except (ValueError, TypeError, KeyError):
        return line


def rotate(log, limit, keep):
    """Copy a log that outgrew `limit` bytes aside and empty it; its writers append, so they go on."""
    try:
        if os.path.getsize(log) <= limit:
            return
        for number in range(keep - 1, 0, -1):
            if os.path.exists("%s.%d" % (log, number)):
                os.replace("%s.%d" % (log, number), "%s.%d" % (log, number + 1))
        with open(log, "rb") as source, open(log + ".part", "wb", buffering=0) as copy:
            shutil.copyfileobj(source, copy)
            os.replace(log + ".part", log + ".1")
            shutil.copyfileobj(source, copy)  # what came meanwhile: from here to the cut, microseconds
            os.truncate(log, 0)
    except OSError as error:  # a full disk must not end the job
        say("cannot rotate %s: %s" % (log, error))


# ---------------------------------------------------------------- supervision


def with_setup(commands, argv, choose=False):
    """A command line that runs the setup commands in one shell, and then becomes `argv`.

    `choose`: the python that they put first on PATH, if they do, takes the place of argv's first word.
    """
    if not commands:
        return list(argv)
    return ["bash", "-c", SETUP, "kuiper", "1" if choose else "", str(len(commands)), *commands, *argv]


class Supervisor:
    """One process, from its start to its exit.json."""

    def __init__(self, folder):
        self.folder = folder
        self.plan = read(self.path("agent.json"))
        if self.plan is None:
            raise OSError("%s is missing or not JSON" % self.path("agent.json"))
        self.secrets = read(self.path("secrets.json")) or {}
        if os.path.exists(self.path("secrets.json")):
            os.unlink(self.path("secrets.json"))
        self.started = self.began = self.beaten = self.kill_at = self.asked = self.child = None
        self.listener = None
        self.attempts = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, ready):
        """Run the process, again as `retry` allows, and write exit.json; `ready()` once it runs or waits."""
        self.queue(ready)
        self.started, self.began = time.time(), time.monotonic()
        while True:
            code, error = self.attempt(ready)
            failed = self.asked is None and code != 0 and code not in self.plan.get("final_codes", ())
            if not failed or self.child is None or self.attempts > self.plan.get("retry", 0):
                break
            time.sleep(RETRY_PAUSE)
        by_itself = "not started" if self.child is None else "finished" if code == 0 else "failed"
        reason = self.asked or by_itself
        signalled = code is not None and code < 0
        persist(self.path("exit.json"), {
            "code": None if signalled else code, "signal": -code if signalled else None,
            "reason": reason, "first_error": None if reason in ("finished", "stopped") else error,
            "attempts": self.attempts, "started": self.started, "ended": time.time(), "boot_id": boot_id(),
        })  # fmt: skip
        for name in ROOM_FOR:
            if os.path.exists(RESERVED % self.path(name)):
                os.unlink(RESERVED % self.path(name))
        ready()
        if reason == "failed" and code not in SERVER_KNOWS and self.plan.get("server"):
            self.tell_server()

    def tell_server(self):
        """Have the server on another host told that the process will not come; on its own host it sees exit.json."""
        try:
            self.child = self.spawn(ENDED)
        except (OSError, ValueError) as error:
            return say("cannot tell the server: %s" % error)
        deadline = time.monotonic() + ENDED_SECONDS
        while self.reap() is None and time.monotonic() < deadline:
            signal.sigtimedwait([signal.SIGCHLD], TICK)
        sweep(self.left, 0, self.reap)

    def listen(self):
        """Bind what the process will listen on, if it does."""
        order = self.plan.get("listen")
        if order:
            self.listener = listen(order["address"], order["ports"])

    def queue(self, ready):
        """Wait until the runs that this one comes after have ended, or a stop is asked for."""
        after = self.plan.get("after") or ()
        if first_alive(after):
            if self.listener:
                port = self.listener.getsockname()[1]
                write(self.path("endpoint.json"), {"host": self.plan["listen"]["host"], "port": port})
            ready()
        while self.asked is None and first_alive(after):
            terminated = signal.sigtimedwait([signal.SIGTERM], QUEUE_TICK)
            if terminated or os.path.exists(self.path("stop")):
                self.ask("stopped")

    def attempt(self, ready):
        """One life of the process: (its exit code or minus its signal, its first error)."""
        self.attempts += 1
        if os.path.exists(self.path("error.json")):
            os.unlink(self.path("error.json"))
        self.child = None
        self.check()
        if self.asked:
            return None, None
        try:
            self.reserve()
        except OSError as error:  # an attempt before has used it up, and this one can do without
            say("cannot reserve room: %s" % error)
        try:
            self.child = self.spawn()
        except (OSError, ValueError) as error:
            return CANNOT_START, "cannot start %s: %s" % (self.plan["argv"][0], error)
        proc = identity(self.child.pid) or {"boot_id": boot_id(), "pid": self.child.pid, "start_time": -1}
        try:
            write(self.path("proc.json"), dict(proc, attempt=self.attempts, started=time.time(), **machine()))
        except OSError as error:  # nobody could find it again
            os.killpg(self.child.pid, signal.SIGKILL)
            self.reap()
            self.child = None
            return CANNOT_START, "cannot write proc.json: %s" % error
        self.beaten = None
        self.check()
        ready()
        status = self.reap()
        while status is None:
            signal_info = signal.sigtimedwait([signal.SIGCHLD, signal.SIGTERM], TICK)
            status = self.reap()  # first: a process that had ended by itself was not stopped
            if status is None and signal_info is not None and signal_info.si_signo == signal.SIGTERM:
                self.ask("stopped")
            if status is None:
                self.check()
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        error = first_error(self.folder)
        if self.asked == "duration":
            error = "limits.duration (%g s) is over" % self.plan["duration"]
        sweep(self.left, LEFTOVER_GRACE, self.reap)
        return code, error

    def reserve(self):
        for name in ROOM_FOR:
            if not os.path.exists(RESERVED % self.path(name)):
                reserve(self.path(name))

    def spawn(self, *more):
        """The process, with more words at the end of its command."""
        plan = self.plan
        argv = with_setup(plan.get("setup_commands") or [], [*plan["argv"], *more], plan.get("choose_python"))
        env = dict(os.environ)
        env.update(plan.get("env") or {})
        env.update(self.secrets)
        env.update({RUN_MARKER: plan["run_id"], PROCESS_MARKER: plan["process"]})
        env[ATTEMPT] = str(self.attempts - 1)
        if plan.get("after"):
            env[QUEUED] = "1"
        handed = [self.listener.fileno()] if self.listener else []
        if handed:
            env[LISTENER] = str(handed[0])
        with open(self.path("log"), "ab") as log:
            return subprocess.Popen(
                argv, env=env, cwd=plan.get("cwd") or None, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=default_signals, pass_fds=handed,
            )  # fmt: skip

    def check(self):
        """What is due: a heartbeat, a rotation, a stop request, the end of the time allowed, a KILL."""
        now = time.monotonic()
        if self.child and (self.beaten is None or now - self.beaten >= HEARTBEAT):
            self.beaten = now
            try:
                write(self.path("heartbeat"), {"time": time.time(), "attempt": self.attempts})
            except OSError as error:  # a full disk must not end the job
                say("cannot write a heartbeat: %s" % error)
            rotate(self.path("log"), self.plan.get("log_bytes") or 64 << 20, self.plan.get("log_keep") or 3)
        if os.path.exists(self.path("stop")):
            self.ask("stopped")
        duration = self.plan.get("duration")
        if duration is not None and now - self.began > duration:
            self.ask("duration")
        if self.kill_at is not None and now > self.kill_at:
            for who in self.left():
                send(who, signal.SIGKILL)

    def ask(self, reason):
        """TERM the process's group, once; `check` sends the KILL when `grace` is over."""
        if self.asked is None:
            self.asked = reason
            grace = (read(self.path("stop")) or {}).get("grace", self.plan.get("grace", 30))
            self.kill_at = time.monotonic() + grace
            if self.child:  # not reaped yet, so that its pid and group are still its own
                os.killpg(self.child.pid, signal.SIGTERM)

    def left(self):
        """What descends from this agent or keeps the process's marker."""
        found = descendants(os.getpid())
        markers = {RUN_MARKER: self.plan["run_id"], PROCESS_MARKER: self.plan["process"]}
        return found + [who for who in marked(**markers) if who not in found]

    def reap(self):
        """Collect the dead, orphans too; the process's own wait status once it is among them."""
        status = None
        while True:
            try:
                pid, value = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if pid == 0:
                return status
            if self.child and pid == self.child.pid:
                status, self.child.returncode = value, 0


def become_subreaper():
    """Orphans below this process become its children."""
    import ctypes  # here: `look` and `stop` do without it

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def default_signals():
    """For the process: none of the agent's ignored and blocked signals."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def supervise(folder):
    """Hold the folder's lock and run the supervisor; prints one line when the process runs or cannot."""
    lock = open(os.path.join(folder, "agent.lock"), "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = False
    except BlockingIOError:
        held = True
    except OSError:  # a file system without locks
        held = alive(read(lock.name))
    if held:
        print("already supervised", flush=True)
        return
    if os.path.exists(os.path.join(folder, "exit.json")):
        print("already ended", flush=True)
        return
    supervisor = Supervisor(folder)
    try:
        lock.truncate(0)
        lock.write(json.dumps(dict(identity(os.getpid()), **machine())))
        lock.flush()
        supervisor.reserve()
    except OSError as error:  # to who starts it: a full disk has no room in the log either
        print("cannot write in %s: %s" % (folder, error.strerror), flush=True)
        return
    try:
        supervisor.listen()
    except OSError as error:
        print("cannot listen: %s" % error, flush=True)
        return
    become_subreaper()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])  # taken by sigtimedwait
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def ready():
        try:
            os.write(1, b"ready\n")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except OSError:  # who started us is gone; the job goes on
            pass

    supervisor.run(ready)


# ---------------------------------------------------------------- commands


def start(folders):
    """Start supervisors in sessions of their own; exit code 0 also for those that are there already."""
    plans = [read(os.path.join(folder, "agent.json")) for folder in folders]
    for folder, plan in zip(folders, plans):
        if plan is None:
            raise OSError("%s/agent.json is missing or not JSON" % folder)
    for path in {plan["server"] for plan in plans if plan.get("server")}:
        problem = reach(read(path))
        if problem:
            sys.stderr.write("%s\n" % problem)
            return NOT_REACHED
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])  # inherited by the supervisors
    begun = [supervisor(folder, plan) for folder, plan in zip(folders, plans)]
    code = 0
    for folder, one in zip(folders, begun):
        line = one.stdout.readline().decode().strip()
        one.returncode = 0  # not ours to wait for
        if not line or line.startswith("cannot"):
            said = (os.path.basename(folder), line or first_error(folder))
            sys.stderr.write("%s: the agent ended at once: %s\n" % said)
            code = PORTS_TAKEN if line.startswith("cannot listen") else 1
        else:
            print(line)
    return code


def reach(server):
    """'' once {host, port} can be connected to, or why not after some seconds."""
    import socket  # here: `look` and `stop` do without it

    deadline = time.monotonic() + REACH_SECONDS
    while server:
        try:
            socket.create_connection((server["host"], server["port"]), REACH_SECONDS / 2).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                return "cannot reach the server at %s port %d: %s" % (server["host"], server["port"], error)
        time.sleep(0.2)
    return ""


def supervisor(folder, plan):
    """The agent of one process; says a line when the process runs."""
    env = dict(os.environ)
    env.update({RUN_MARKER: plan["run_id"], PROCESS_MARKER: plan["process"]})
    with open(os.path.join(folder, "log"), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", os.path.abspath(__file__), "supervise", folder], env=env, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip


def look(folders):
    """What is known of each process, with whether it and its agent live."""
    report = {"boot_id": boot_id(), "time": time.time(), "folders": {}}
    for folder in folders:
        other = away(folder)  # first: what ends after this has left an exit.json below
        facts = {name: read(os.path.join(folder, name)) for name in ("proc.json", "exit.json", "heartbeat")}
        facts["agent"] = read(os.path.join(folder, "agent.lock"))
        facts["alive"], facts["agent_alive"] = alive(facts["proc.json"]), alive(facts["agent"])
        if not facts["alive"] and not facts["agent_alive"]:  # it may have ended since exit.json was read
            facts["exit.json"] = read(os.path.join(folder, "exit.json"))
        facts["elsewhere"] = None if facts["exit.json"] else other
        facts["staged"] = os.path.exists(os.path.join(folder, "agent.json"))
        waits = facts["agent_alive"] and facts["proc.json"] is None
        plan = read(os.path.join(folder, "agent.json")) if waits else None
        facts["after"] = first_alive((plan or {}).get("after") or ())
        facts["endpoint"] = read(os.path.join(folder, "endpoint.json"))
        facts["stop"] = os.path.exists(os.path.join(folder, "stop"))
        facts["metrics"] = tail(os.path.join(folder, "metrics.jsonl"), 8192)
        report["folders"][folder] = facts
    print(json.dumps(report))
    return 0


def stop(run_id, grace, folders):
    """Stop the run on this host and verify it; exit code 1 names what survived. Safe to repeat."""
    before = {}
    for folder in folders:
        if os.path.isdir(folder) and not os.path.exists(os.path.join(folder, "exit.json")):
            try:
                write(os.path.join(folder, "stop"), {"grace": grace})  # what the agent then allows
            except OSError as error:  # it is asked by signal all the same, with the grace of its plan
                say("cannot write %s/stop: %s" % (folder, error))
            before[folder] = read(os.path.join(folder, "proc.json"))
    others = {folder: node for folder, node in ((folder, away(folder)) for folder in before) if node}
    alive_before = {folder for folder, proc in before.items() if folder not in others and (proc is None or alive(proc))}
    agents = [read(os.path.join(folder, "agent.lock")) for folder in before]
    for who in filter(None, agents):
        send(who, signal.SIGTERM)
    deadline = time.monotonic() + grace + LEFTOVER_GRACE + 8  # an agent KILLs after `grace` and then sweeps
    while time.monotonic() < deadline and (any(alive(who) for who in agents) or any(away(one) for one in others)):
        time.sleep(0.02)
    names = [os.path.basename(folder) for folder in folders]  # two of a job's hosts may be one machine
    left = sweep(lambda: marked(names, **{RUN_MARKER: run_id}), min(grace, LEFTOVER_GRACE))
    for folder in alive_before if not left else ():
        path = os.path.join(folder, "exit.json")
        if not os.path.exists(path):  # never started, or its agent had been killed
            persist(path, {
                "code": None, "signal": None, "reason": "stopped", "first_error": None,
                "attempts": (before[folder] or {}).get("attempt", 0),
                "started": (before[folder] or {}).get("started"), "ended": time.time(), "boot_id": boot_id(),
            }, tries=1)  # fmt: skip
    left += _others(others)
    print(json.dumps({"left": left}))
    return 1 if left else 0


def _others(folders):
    """Identities of the agents of these folders that are at work on other machines."""
    return [read(os.path.join(folder, "agent.lock")) for folder in folders if away(folder)]


def renew(run_id, folders):
    """Remove what says that these processes have ended; exit code 1 when something of the run is alive."""
    left = marked(**{RUN_MARKER: run_id}) + _others(folders)
    for folder in folders if not left else ():
        for name in STATE_FILES:
            if os.path.exists(os.path.join(folder, name)):
                os.unlink(os.path.join(folder, name))
    print(json.dumps({"left": left}))
    return 1 if left else 0


def digest(folders):
    """{folder: {file: [bytes, sha256]}} of logs and results; no keys, no secrets, no checkpoints."""
    import hashlib

    report = {}
    for folder in folders:
        report[folder] = {}
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if name.startswith(".") or name in PRIVATE or not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                data = file.read()
            report[folder][name] = [len(data), hashlib.sha256(data).hexdigest()]
    print(json.dumps(report))
    return 0


def trial(seconds, argv):
    """Run a command; returns its exit code, 124 when it takes too long, once nothing of it is left."""
    become_subreaper()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP])
    deadline, status = time.monotonic() + seconds, None
    child = subprocess.Popen(argv, start_new_session=True, preexec_fn=default_signals)

    def reap():
        nonlocal status
        try:
            pid = -1
            while pid:
                pid, value = os.waitpid(-1, os.WNOHANG)
                if pid == child.pid:
                    status = child.returncode = value
        except ChildProcessError:
            pass

    reap()
    ended = None
    while status is None and ended is None and time.monotonic() < deadline:
        ended = signal.sigtimedwait([signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD], TICK)
        if ended is not None and ended.si_signo == signal.SIGCHLD:
            ended = None
        reap()
    code = OVERDUE if status is None else os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
    sweep(lambda: descendants(os.getpid()), 0, reap)
    return code


def main(arguments):
    try:
        if arguments[:1] == ["trial"] and len(arguments) > 2:
            return trial(float(arguments[1]), arguments[2:])
        if arguments[:1] == ["start"] and len(arguments) > 1:
            return start([os.path.abspath(folder) for folder in arguments[1:]])
        if arguments[:1] == ["supervise"] and len(arguments) == 2:
            return supervise(arguments[1]) or 0
        if arguments[:1] == ["look"]:
            return look(arguments[1:])
        if arguments[:1] == ["stop"] and len(arguments) > 2:
            return stop(arguments[1], float(arguments[2]), arguments[3:])
        if arguments[:1] == ["digest"]:
            return digest(arguments[1:])
        if arguments[:1] == ["renew"] and len(arguments) > 1:
            return renew(arguments[1], arguments[2:])
    except OSError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    sys.stderr.write(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
