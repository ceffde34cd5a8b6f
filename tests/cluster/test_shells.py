"""Login shells and start-up files that are the user's: whatever they are and say, a host does what it is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kuiper.cluster import agent, shell
from kuiper.cluster.host import Address
from kuiper.cluster.shell import START_UP_FILES, STARTUP
from kuiper.cluster.ssh import SshHost
from kuiper.errors import HostError
from tests.cluster.lab import Lab, LabHost
from tests.cluster.sshd import descendants, signalled
from tests.cluster.test_hosts import HOSTILE

pytestmark = pytest.mark.cluster
FISH = ".config/fish/config.fish"
NOISE = "echo hello\necho trouble >&2\nstty erase ^H\ntput clear\n"
# login shell, its start-up file, what that says
FRIENDLY = {
    "bash": ("bash", ".bashrc", NOISE),
    "tcsh": ("tcsh", ".cshrc", NOISE + "alias rm 'rm -i'\nset noclobber\nset path = ( /nowhere )\n"),
    "fish": ("fish", FISH, NOISE + "function head; echo no; end\n"),
    "zsh": ("zsh", ".zshenv", NOISE + "setopt noclobber\nPATH=\n"),
    "dash": ("dash", ".profile", NOISE),
    "noise of others": ("bash", ".bashrc", "(for i in 1 2 3 4 5; do sleep 0.1; echo '{'; echo noise >&2; done) &\n"),
    "no tools": ("bash", ".bashrc", "PATH=/nowhere\n"),
    "last words": ("bash", ".bashrc", "trap 'echo bye; exit 9' EXIT\n"),
    "private": ("bash", ".bashrc", "umask 077\nset -o noclobber\nset -u\nexport CDPATH=/ POSIXLY_CORRECT=1\n"),
    "old locale": ("bash", ".bashrc", "export LC_ALL=C LANG=C\n"),
    "functions": ("bash", ".bashrc", "printf() { echo no; }\nread() { echo no; }\nexport -f printf read\n"),
    "talkative": ("bash", ".bashrc", "yes welcome | head -c 300000\nyes trouble | head -c 300000 >&2\nset -x\n"),
}
NAMED = {
    "hangs": ("bash", ".bashrc", "sleep 86.5\n", "did not come to our command"),
    "asks": ("bash", ".bashrc", "read answer\n", "did not come to our command"),
    "another shell": ("bash", ".bashrc", "exec fish\n", "did not come to our command"),
    "another login shell": ("tcsh", ".cshrc", "exec zsh -l\n", "did not come to our command"),
    "fish that asks": ("fish", FISH, "read answer; exec bash\n", "did not come to our command"),
    "joins its streams": ("bash", ".bashrc", "exec 2>&1\n", "sends standard output or standard error elsewhere"),
    "drops a stream": ("bash", ".bashrc", "exec 2>/dev/null\n", "sends standard output or standard error elsewhere"),
    "leaves": ("bash", ".bashrc", "echo not today\nexit 3\n", "ended before our command ran, and said: not today"),
    "no login": ("nologin", ".profile", "", "ended before our command ran, and said: This account"),
}


@pytest.fixture(scope="session")
def user() -> Iterator[Callable[[str], str]]:
    """A function from a shell's name to a user of this machine, root by number, whose login shell it is."""
    if os.geteuid() or not shutil.which("useradd"):
        pytest.skip("needs root, who may add users with other login shells")
    names: dict[str, str] = {}

    def add(name: str) -> str:
        path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"there is no {name}: install it")
        if name not in names:
            names[name] = f"kuiper-{os.getpid()}-{name}"
            words = ["-o", "-u", "0", "-g", "0", "-M", "-s", path, "-d", "/", names[name]]
            changed("useradd", *words)
            changed("usermod", "-p", "*", names[name])
        return names[name]

    try:
        yield add
    finally:
        for name in names.values():
            changed("userdel", "-f", name)


def changed(*words: str) -> None:
    """Change the users of this machine; somebody else may be at it."""
    deadline = time.monotonic() + 60
    while (done := subprocess.run(words, capture_output=True, text=True)).returncode == 1:  # it is locked
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.1)
    assert not done.returncode or words[0] == "userdel", done.stderr


def place(lab: Lab, host: LabHost, user: str) -> Address:
    return Address(host.address, sys.executable, f"{host.home}/kuiper", user, host.port, str(lab.key))


@pytest.fixture
def startup(lab: Lab) -> Iterator[Callable[[str, str], None]]:
    """Writes a file of the first host's home, which is as it was at the end."""
    home, made = Path(lab.hosts[0].home), []

    def write(name: str, text: str) -> None:
        made.append(home / name)
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        made[-1].write_text(text)

    yield write
    for path in made:
        path.unlink()


@pytest.mark.parametrize("case", FRIENDLY)
def test_any_login_shell_will_do(case: str, lab: Lab, user: Callable[[str], str], tmp_path: Path,
                                 startup: Callable[[str, str], None]) -> None:
    name, file, text = FRIENDLY[case]
    startup(file, text)
    host = SshHost(place(lab, lab.hosts[0], user(name)))
    echo = [sys.executable, "-c", "import sys; sys.stdout.write(repr(sys.argv[1:])); sys.exit(7)"]
    done = host.run([*echo, *HOSTILE], 20)
    assert done.code == 7 and repr(HOSTILE) in done.out if case == "noise of others" else (
        (done.code, done.out, done.err) == (7, repr(HOSTILE), ""))
    path, data = tmp_path / "ü !x" / "it's; $(x) \\", os.urandom(300_000) + b"\n\0\r\n\xff"
    host.put(data, path, mode=0o640)
    assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o640
    if case != "noise of others":
        assert host.get(path) == data and host.get(path, 300_000) == data[300_000:]
    host.put(b"", path)
    assert path.read_bytes() == b"" and host.exists(path) and not host.exists(tmp_path / "no")
    assert os.listdir(path.parent) == [path.name]
    with pytest.raises(HostError, match="cannot read .*No such file"):
        host.get(tmp_path / "no")
    report = host.run([host.python, "-I", host.agent, "look", str(tmp_path)], 20)
    assert report.answer()["boot_id"] == agent.boot_id()


@pytest.mark.parametrize("case", NAMED)
def test_a_start_up_file_that_is_in_the_way_is_named(case: str, lab: Lab, user: Callable[[str], str],
                                                     startup: Callable[[str, str], None],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    assert STARTUP <= 15
    monkeypatch.setattr(shell, "STARTUP", 2.0)
    name, file, text, said = NAMED[case]
    startup(file, text)
    with pytest.raises(HostError, match=said) as caught:
        SshHost(place(lab, lab.hosts[0], user(name))).run(["true"], 20)
    assert lab.hosts[0].address in str(caught.value) and START_UP_FILES in str(caught.value)
    signalled(descendants(lab.hosts[0].listening), signal.SIGKILL)


def test_a_start_up_file_runs_once_for_many_commands(lab: Lab, startup: Callable[[str, str], None]) -> None:
    startup(".bashrc", "sleep 1; echo x >> ~/began\n")
    host = SshHost(place(lab, lab.hosts[0], lab.user))
    assert [host.run(["echo", str(number)], 20).out for number in range(20)] == [f"{n}\n" for n in range(20)]
    began = Path(lab.hosts[0].home, "began")
    assert began.read_text() == "x\n"
    began.unlink()


def test_one_session_at_a_time(lab: Lab) -> None:
    """MaxSessions 1: those who ask at once wait for each other."""
    config = Path(lab.hosts[0].folder, "sshd_config")
    before = config.read_text()
    lab.hosts[0].stop()
    config.write_text(f"{before}MaxSessions 1\n")
    lab.hosts[0].start()
    try:
        host = SshHost(place(lab, lab.hosts[0], lab.user))
        with ThreadPoolExecutor(16) as pool:
            said = list(pool.map(lambda number: host.run(["echo", str(number)], 20).out, range(30)))
        assert said == [f"{number}\n" for number in range(30)]
    finally:
        lab.hosts[0].stop()
        config.write_text(before)
        lab.hosts[0].start()


def test_long_commands_and_what_they_say(lab: Lab) -> None:
    host = SshHost(place(lab, lab.hosts[0], lab.user))
    words = [f"{number:0100d}" for number in range(5000)]
    assert host.run(["printf", "%s", *words], 30).out == "".join(words)
    done = host.run(["sh", "-c", "head -c 5000000 /dev/zero >&2; head -c 5000000 /dev/zero; exit 3"], 30)
    assert (done.code, len(done.out), len(done.err)) == (3, 5_000_000, 5_000_000)
    told = host.run(["sh", "-c", 'echo "$TOLD"'], 20, env={"TOLD": "it's $(touch hacked)\n\\"})
    assert told.out == "it's $(touch hacked)\n\\\n"
    with pytest.raises(HostError, match="NUL byte"):
        host.run(["echo", "\0"], 20)


def test_data_that_cannot_be_written_is_never_run(lab: Lab, tmp_path: Path) -> None:
    host = SshHost(place(lab, lab.hosts[0], lab.user))
    (tmp_path / "file").touch()
    hostile = f"touch {tmp_path}/hacked\n".encode() * 50_000
    for path in (tmp_path / "file" / "below", tmp_path, Path("/proc/none/x"), Path("/dev/full/x")):
        with pytest.raises(HostError, match="cannot write"):
            host.put(hostile, path)
    assert host.run(["echo", "goes on"], 20).out == "goes on\n" and not (tmp_path / "hacked").exists()


def test_a_start_outlives_the_connection(lab: Lab, user: Callable[[str], str], tmp_path: Path) -> None:
    for name in ("tcsh", "fish", "zsh"):
        host = SshHost(place(lab, lab.hosts[0], user(name)))
        folder = tmp_path / name
        host.put(b'{"run_id": "shells", "process": "ps", "argv": ["sleep", "60"]}', folder / "agent.json")
        assert host.run([host.python, "-I", host.agent, "start", str(folder)], 20).out == "ready\n"
        lab.hosts[0].drop_connections()
        assert host.run([host.python, "-I", host.agent, "look", str(folder)], 20).answer()["folders"][str(folder)]["alive"]
        assert host.run([host.python, "-I", host.agent, "stop", "shells", "0", str(folder)], 20).answer() == {"left": []}
