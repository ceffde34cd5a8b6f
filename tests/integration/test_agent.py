"""The agent by itself, with real processes; each is a few lines of python or sh."""

from __future__ import annotations

import ast
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent

AGENT = [sys.executable, "-I", agent.__file__]
SLEEP = ["sleep", "60"]
RUN_ID = f"20260101-000000-{os.getpid()}"  # others may run these tests on this machine, too


class Case:
    """One process's folder, as the launcher would make it."""

    def __init__(self, folder: Path, run_id: str = RUN_ID) -> None:
        self.folder, self.run_id = folder, run_id
        folder.mkdir(parents=True)

    def start(self, argv: list[str], **plan: Any) -> str:
        order = {"run_id": self.run_id, "process": self.folder.name, "argv": argv, "grace": 5, **plan}
        (self.folder / "agent.json").write_text(json.dumps(order))
        return self.agent("start", str(self.folder)).stdout.strip()

    def agent(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*AGENT, *arguments], capture_output=True, text=True, timeout=30)

    def stop(self, grace: float = 5) -> subprocess.CompletedProcess[str]:
        return self.agent("stop", self.run_id, str(grace), str(self.folder))

    def look(self) -> dict[str, Any]:
        report = json.loads(self.agent("look", str(self.folder)).stdout)
        facts: dict[str, Any] = report["folders"][str(self.folder)]
        return facts

    def json(self, name: str) -> dict[str, Any]:
        value = agent.read(str(self.folder / name))
        assert value is not None, f"no {name}"
        return value

    def ended(self) -> dict[str, Any]:
        until(lambda: (self.folder / "exit.json").exists() and not agent.alive(self.json("agent.lock")))
        return self.json("exit.json")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


def until(true: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path / "run $(touch hacked); 'a b'" / "ps")


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_it_is_one_file_for_python_3_8_and_the_standard_library() -> None:
    tree = ast.parse(Path(agent.__file__).read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_a_run_that_succeeds_outlives_its_starter_and_is_started_once(case: Case) -> None:
    assert case.start(sh("echo begin; sleep 1; echo end")) == "ready"
    assert case.agent("start", str(case.folder)).stdout.strip() == "already supervised"
    proc, lock = case.json("proc.json"), case.json("agent.lock")
    assert agent.alive(proc) and agent.alive(lock)
    assert os.getsid(lock["pid"]) == lock["pid"] != os.getsid(0)
    assert case.json("heartbeat")["time"] == pytest.approx(time.time(), abs=5)
    ended = case.ended()
    assert (ended["code"], ended["signal"], ended["reason"]) == (0, None, "finished")
    assert ended["first_error"] is None
    assert case.log == "begin\nend\n"
    assert case.agent("start", str(case.folder)).stdout.strip() == "already ended"
    assert case.log == "begin\nend\n"


def test_strings_reach_the_process_as_they_are(case: Case) -> None:
    hostile = ["a b", "$(touch hacked)", "; touch hacked", "'\"`touch hacked`", "new\nline", "", "ü\\", "-n"]
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['HOSTILE'], os.getcwd()]))"
    home = case.folder.parent
    argv = [sys.executable, "-c", code, *hostile]
    setup = ["export FROM_SETUP='it works'", "echo \"$FROM_SETUP, $# arguments\""]
    case.start(argv, env={"HOSTILE": "\n".join(hostile)}, cwd=str(home), setup_commands=setup)
    assert case.ended()["code"] == 0, case.log
    said, values = case.log.splitlines()
    assert said == "it works, 0 arguments"
    assert json.loads(values) == [hostile, "\n".join(hostile), str(home)]
    assert not list(home.rglob("hacked"))


def test_a_setup_command_that_fails_is_the_first_error(case: Case) -> None:
    case.start(sh("echo never"), setup_commands=["true", "test 1 = 2 # 'unbalanced", "echo never"])
    ended = case.ended()
    assert (ended["code"], ended["reason"]) == (1, "failed")
    case_2 = Case(case.folder.parent / "worker_1")
    case_2.start(sh("echo never"), setup_commands=["true", "cd /nowhere"])
    assert case_2.ended()["first_error"] == "setup command failed: cd /nowhere"
    assert "never" not in case.log + case_2.log


@pytest.mark.parametrize(("setup", "choose", "taken"), [
    (["PATH={env}:$PATH"], True, "{env}/python3"),
    (["export PATH={old}:$PATH", "rm {env}/python3", "PATH={env}:$PATH"], True, "{old}/python3"),
    (["PATH={env}:$PATH"], False, "given"), (["export A=b"], True, "given"), (["PATH=$PATH:{env}"], True, "given"),
], ids=["activated", "the first", "the spec names one", "another matter", "behind"])
def test_setup_commands_may_choose_the_python(setup: list[str], choose: bool, taken: str, case: Case) -> None:
    """As activating an environment does, unless the spec names one."""
    folders = {name: case.folder.parent / name for name in ("env", "old", "bin")}
    for folder in folders.values():
        folder.mkdir()
        for name in ("python3", "python"):
            (folder / name).write_text("#!/bin/sh\necho $0\n")
            (folder / name).chmod(0o755)
    words = {name: shlex.quote(str(folder)) for name, folder in folders.items()}
    case.start(sh("echo given"), choose_python=choose, env={"PATH": f"{folders['bin']}:/usr/bin:/bin"},
               setup_commands=[command.format(**words) for command in setup])
    assert case.ended()["code"] == 0 and case.log.strip() == taken.format(**folders)


def test_secrets_are_read_once_and_removed(case: Case) -> None:
    (case.folder / "secrets.json").write_text('{"TOKEN": "s3cret"}')
    case.start(sh('test "$TOKEN" = s3cret'))
    assert case.ended()["code"] == 0
    assert not (case.folder / "secrets.json").exists()


def test_what_cannot_be_started(case: Case) -> None:
    case.start(["/no/such/python"])
    ended = case.ended()
    assert ended["reason"] == "not started" and "/no/such/python" in ended["first_error"]


def test_a_killed_process_and_what_it_left_in_a_session_of_its_own(case: Case) -> None:
    case.start(sh("setsid sleep 60 & wait"))
    until(lambda: len(agent.marked(KUIPER_RUN=RUN_ID, KUIPER_PROCESS="ps")) == 3)
    os.kill(case.json("proc.json")["pid"], signal.SIGKILL)
    ended = case.ended()
    assert (ended["code"], ended["signal"], ended["reason"]) == (None, 9, "failed")
    assert agent.marked(KUIPER_RUN=RUN_ID) == []


@pytest.mark.parametrize("error_json", [None, {"type": "QuorumLost", "message": "2 of 3"}])
def test_the_first_error(case: Case, error_json: dict[str, str] | None) -> None:
    code = "def f():\n  raise ValueError('loss is nan')\n"
    script = code + (
        "import traceback\n"
        "try: f()\nexcept ValueError: traceback.print_exc(); print('bye'); raise SystemExit(7)"
    )
    if error_json:
        path = str(case.folder / "error.json")
        script = f"import json; json.dump({error_json!r}, open({path!r}, 'w'))\n" + script
    case.start([sys.executable, "-u", "-c", script])
    ended = case.ended()
    assert ended["code"] == 7
    assert ended["first_error"] == ("QuorumLost: 2 of 3" if error_json else "ValueError: loss is nan")


def test_retry(case: Case) -> None:
    case.start(sh('cd "$0"; echo x >> tries; test $(wc -l < tries) = 2')[:3] + [str(case.folder)], retry=2)
    ended = case.ended()
    assert (ended["code"], ended["attempts"]) == (0, 2)


@pytest.mark.parametrize(("code", "told"), [(1, True), (3, True), (4, False), (100, False), (0, False)])
def test_the_server_is_told_of_a_process_that_failed_by_itself(code: int, told: bool, case: Case) -> None:
    """Also of one that is not started again, as a data set is missing; not where the job has failed."""
    case.start(sh(f'test $# = 0 || exec touch "$0/told"; exit {code}') + [str(case.folder)],
               server=str(case.folder / "endpoint.json"), final_codes=[3, 100], retry=0)
    assert case.ended()["code"] == code
    assert (case.folder / "told").exists() == told


def test_what_is_reserved_is_written_in_place(case: Case) -> None:
    """As on a full disk: a new file cannot be begun."""
    path = case.folder / "exit.json"
    agent.reserve(str(path))
    place = os.stat(agent.RESERVED % path).st_ino
    (case.folder / f"exit.json.{os.uname().nodename}-{os.getpid()}.tmp").mkdir()  # where a new file would begin
    agent.persist(str(path), {"code": 1}, tries=1)
    assert case.json("exit.json") == {"code": 1} and os.stat(path).st_ino == place


def test_duration(case: Case) -> None:
    case.start(sh("trap '' TERM; sleep 60 & wait; sleep 60"), duration=0.5, grace=0.5)
    ended = case.ended()
    assert (ended["reason"], ended["signal"]) == ("duration", 9)
    assert "0.5 s" in ended["first_error"]


def behind(case: Case, name: str, *before: Case, **plan: Any) -> Case:
    """A process that leaves a file `ran` and sleeps, started behind other runs."""
    folder = case.folder.parent.parent / f"{name} [1]" / "ps"
    queued = Case(folder, f"{RUN_ID}-{name}")
    after = [str(each.folder.parent) for each in before]
    assert queued.start(["sh", "-c", 'touch "$0/ran"; sleep 60', str(folder)], after=after, **plan) == "ready"
    return queued


def ran(case: Case) -> bool:
    return (case.folder / "ran").exists()


def test_a_queue_keeps_its_order_however_each_of_it_ends(case: Case) -> None:
    case.start(SLEEP)
    second = behind(case, "second", case)
    third = behind(case, "third", case, second, duration=1)
    fourth = behind(case, "fourth", case, second, third)
    assert second.look()["after"] == third.look()["after"] == str(case.folder.parent)
    assert second.stop().returncode == 0
    assert second.json("exit.json")["reason"] == "stopped"
    os.kill(case.json("agent.lock")["pid"], signal.SIGKILL)  # its process goes on, so those behind it do not
    time.sleep(1.5)  # more than third may take: its wait is not counted
    assert third.look()["after"] == str(case.folder.parent) and not (third.folder / "exit.json").exists()
    os.kill(case.json("proc.json")["pid"], signal.SIGKILL)
    ended = third.ended()
    assert ended["reason"] == "duration" and ended["ended"] - ended["started"] >= 1
    until(lambda: (fourth.folder / "proc.json").exists())
    assert fourth.json("proc.json")["started"] >= ended["ended"] and ran(third) and not ran(second)
    assert fourth.stop(grace=1).returncode == 0


def test_nothing_in_a_queue_waits_for_what_is_gone(case: Case) -> None:
    """A killed agent's lock, another boot's, a pid that is somebody else's now, no folder at all."""
    mine = agent.identity(os.getpid())
    assert mine is not None
    before = []
    for index, who in enumerate([{**mine, "boot_id": "another boot"}, {**mine, "start_time": 1}]):
        before.append(Case(case.folder.parent.parent / f"gone {index}" / "ps"))
        for name in ("agent.lock", "proc.json"):
            (before[-1].folder / name).write_text(json.dumps(who))
    queued = behind(case, "queued", *before)
    until(lambda: ran(queued))
    after = [str(case.folder.parent.parent / "nowhere"), str(queued.folder.parent)]
    killed = behind(case, "killed", queued)
    os.kill(killed.json("agent.lock")["pid"], signal.SIGKILL)
    last = behind(case, "last", queued, killed)
    assert last.look()["after"] == after[1] and killed.look()["agent_alive"] is False
    assert agent.first_alive(after) == after[1] and agent.first_alive(after[:1]) is None
    assert queued.stop(grace=1).returncode == 0
    until(lambda: ran(last))
    assert last.stop(grace=1).returncode == 0 and not ran(killed)


def test_a_port_is_kept_from_the_queue_to_the_process(case: Case) -> None:
    """Who connects while its process waits is answered when its turn has come; the port is nobody else's."""
    answer = ("import os, socket; listener = socket.socket(fileno=int(os.environ['KUIPER_LISTENER']))\n"
              "for _ in range(2): listener.accept()[0].sendall(os.environ['KUIPER_QUEUED'].encode())")
    case.start(SLEEP)
    queued = Case(case.folder.parent.parent / "queued" / "ps", f"{RUN_ID}-queued")
    listen = {"address": "127.0.0.1", "host": "10.0.0.1", "ports": None}
    queued.start([sys.executable, "-c", answer], after=[str(case.folder.parent)], listen=listen)
    endpoint = queued.json("endpoint.json")
    assert endpoint["host"] == "10.0.0.1"
    with socket.create_connection(("127.0.0.1", endpoint["port"]), 20) as early:
        taken = Case(case.folder.parent.parent / "taken" / "ps", f"{RUN_ID}-taken")
        ports = f"{endpoint['port']}-{endpoint['port']}"
        (taken.folder / "agent.json").write_text(json.dumps(
            {"run_id": taken.run_id, "process": "ps", "argv": SLEEP, "listen": {**listen, "ports": ports}}))
        refused = taken.agent("start", str(taken.folder))
        assert refused.returncode == agent.PORTS_TAKEN
        assert f"ports {ports}: Address already in use" in refused.stderr
        assert not (queued.folder / "proc.json").exists()
        assert case.stop(grace=1).returncode == 0
        assert early.recv(1) == b"1"
    with socket.create_connection(("127.0.0.1", endpoint["port"]), 20) as late:
        assert late.recv(1) == b"1"
    assert queued.ended()["code"] == 0


def test_the_log_is_rotated_while_it_is_written(case: Case) -> None:
    code = "import time\nfor i in range(60): print('x' * 99, flush=True); time.sleep(0.05)"
    case.start([sys.executable, "-c", code], log_bytes=1000, log_keep=2)
    assert case.ended()["code"] == 0
    logs = sorted(path.name for path in case.folder.glob("log*"))
    assert logs == ["log", "log.1"]
    assert len(case.log.splitlines()) < 60 and set(case.log) <= {"x", "\n"}


def test_stop_finds_everything_and_only_that(case: Case, tmp_path: Path) -> None:
    other = Case(tmp_path / "other" / "ps", RUN_ID + "0")  # one whose id begins alike
    other.start(SLEEP)
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    argv = ["setsid", sys.executable, "-c", "import signal, time; " + stubborn]
    case.start([sys.executable, "-c", f"import subprocess; subprocess.run({argv!r})"])
    until(lambda: "up" in case.log)
    began = time.monotonic()
    assert json.loads(case.stop(grace=1).stdout) == {"left": []}
    assert time.monotonic() - began < 8
    assert case.json("exit.json")["reason"] == "stopped" and case.look()["alive"] is False
    assert agent.marked(KUIPER_RUN=RUN_ID) == []
    before = (case.folder / "exit.json").read_bytes()
    assert case.stop().returncode == 0
    assert (case.folder / "exit.json").read_bytes() == before
    assert other.look()["alive"] is True
    assert other.stop().returncode == 0


def test_stop_of_one_host_of_two_on_one_machine(case: Case) -> None:
    """A process of the other host is not killed behind its agent's back, who would call that a failure."""
    other = Case(case.folder.parent / "worker_0")
    case.start(SLEEP)
    other.start(SLEEP)
    assert json.loads(case.stop().stdout) == {"left": []}
    assert other.look()["alive"] and other.look()["agent_alive"]
    assert json.loads(other.stop().stdout) == {"left": []}
    assert [one.ended()["reason"] for one in (case, other)] == ["stopped", "stopped"]


def test_stop_when_the_agent_was_killed(case: Case) -> None:
    case.start(sh("setsid sleep 60 & exec sleep 60"))
    until(lambda: len(agent.marked(KUIPER_RUN=RUN_ID, KUIPER_PROCESS="ps")) == 3)
    os.kill(case.json("agent.lock")["pid"], signal.SIGKILL)
    until(lambda: not case.look()["agent_alive"])
    assert case.look()["alive"] is True
    assert case.stop().returncode == 0
    assert case.json("exit.json")["reason"] == "stopped" and not agent.marked(KUIPER_RUN=RUN_ID)


def test_stop_before_the_start(case: Case) -> None:
    (case.folder / "agent.json").write_text("{}")
    assert case.stop().returncode == 0
    assert case.start(sh("echo never")) == "already ended"
    until(lambda: not agent.marked(KUIPER_RUN=RUN_ID))
    assert not (case.folder / "log").exists() or case.log == ""


def test_signals_before_python_3_9(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    with subprocess.Popen(SLEEP) as process:
        who = agent.identity(process.pid) or {}
        assert not agent.send({**who, "start_time": 1}, signal.SIGKILL)
        assert agent.send(who, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        assert not agent.send(who, signal.SIGKILL)


@pytest.mark.parametrize("change", [{"start_time": 1}, {"boot_id": "another boot"}])
def test_a_reused_pid_and_a_reboot_signal_nobody(case: Case, change: dict[str, Any]) -> None:
    with subprocess.Popen(SLEEP) as bystander:
        who = {**(agent.identity(bystander.pid) or {}), **change}
        for name in ("proc.json", "agent.lock"):
            (case.folder / name).write_text(json.dumps(who))
        facts = case.look()
        assert facts["alive"] is facts["agent_alive"] is False
        assert agent.send(who, signal.SIGKILL) is False
        assert case.stop().returncode == 0
        assert bystander.poll() is None and not (case.folder / "exit.json").exists()
        bystander.kill()


@pytest.mark.parametrize(("script", "code"), [
    ("(setsid env -i sleep 987 &); setsid -f sleep 987; exit 7", 7),
    ("trap '' TERM; setsid -f sleep 987; sleep 987", agent.OVERDUE),
])
def test_a_trial_leaves_nothing_behind(script: str, code: int) -> None:
    """Also what has left its session and its environment; also when it takes too long."""
    words = [sys.executable, "-I", agent.__file__, "trial", "1", "bash", "-c", f"echo it runs; {script}"]
    before = {who["pid"] for who in sleepers()}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (code, "it runs\n")
    assert not [who for who in sleepers() if who["pid"] not in before]


def sleepers() -> list[dict[str, Any]]:
    """Processes that sleep for 987 s."""
    words = b"sleep\0987\0"
    found = (pid for pid in agent.pids() if Path(f"/proc/{pid}/cmdline").exists())
    return [who for pid in found if _cmdline(pid) == words and (who := agent.identity(pid))]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
