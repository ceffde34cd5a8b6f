"""The way to a host that ssh itself would take: `ssh -G`, or Paramiko's reading of the same files without an ssh."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from kuiper.errors import Unreachable
from kuiper.places import user_name

ASKING = 15.0
"""Seconds that `ssh -G` may take: a `Match exec` runs commands."""
CONNECT_TIMEOUT = 10.0
DEFAULT_PORT = 22
DEFAULT_KEYS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
SYSTEM = Path("/etc/ssh/ssh_config")
_JUMP = re.compile(r"(?:ssh://)?(?:(?P<user>.+)@)?(?:\[(?P<address>[^]]+)\]|(?P<host>[^:@/]+))(?::(?P<port>\d+))?/?")
_HARMLESS = ("Pseudo-terminal", "Warning: Identity file")
_REMEDY = "mend it until `ssh {name}` works"


class LocalFault(Unreachable):
    """Something of this machine keeps it from logging in anywhere: a file of ssh's, a key, the agent."""


@dataclass(frozen=True)
class Jump:
    """A host on the way to another one.

    Attributes:
        through: the jump hosts before it, as ProxyJump has them; None leaves it to what its own name says.
    """

    name: str
    user: str | None
    port: int | None
    through: tuple[str, ...] | None


@dataclass(frozen=True)
class Route:
    """How ssh would connect to a host.

    Attributes:
        name: what it was asked for, and how messages call it.
        host, port: where its sshd is.
        keys: files of private keys, in ssh's order; they need not be there.
        agent: the socket of an ssh-agent, or "".
        identities_only: whether other keys of the agent are left alone.
        jump: the host to go through, and `command`, a ProxyCommand, instead; at most one is set.
        known_hosts: files of host keys, which need not be there; `revoked`: a file of refused ones, or "".
        names: the host in known_hosts, the one that counts first.
        family: AF_UNSPEC, AF_INET or AF_INET6.
        source: the address to connect from, or "".
    """

    name: str
    host: str
    port: int
    user: str
    keys: tuple[str, ...]
    agent: str
    identities_only: bool
    jump: Jump | None
    command: str
    known_hosts: tuple[Path, ...]
    revoked: str
    names: tuple[str, ...]
    family: int
    source: str
    timeout: float


def route(name: str, user: str | None = None, port: int | None = None,
          through: tuple[str, ...] | None = None) -> Route:
    """Ask ssh's own configuration for the way to a host.

    Args:
        user, port: instead of those that are configured.
        through: the jump hosts on the way, instead of those that are configured.

    Raises:
        LocalFault: the configuration cannot be read, or goes round in a circle.
    """
    said = _asked(name, user, port)
    host = _one(said, "hostname") or name
    number = int(_one(said, "port") or DEFAULT_PORT)
    login = _one(said, "user") or user_name()
    alias = _one(said, "hostkeyalias")
    tokens = {"%": "%", "h": host, "n": name, "p": str(number), "r": login, "u": user_name(),
              "i": str(os.getuid()), "d": str(Path.home()), "k": alias or host, "j": _one(said, "proxyjump"),
              "l": socket.gethostname(), "L": socket.gethostname().partition(".")[0]}
    command = "" if through else _one(said, "proxycommand")
    if command and _one(said, "proxyusefdpass") == "yes":
        raise LocalFault(f"{name}: ProxyUseFdpass is not known here", "use one that passes bytes, or ProxyJump")
    if command:
        command = _expanded(command, _safe(name, {token: tokens[token] for token in "%hnpr"}))
    jumps = through if through is not None else tuple(filter(None, _one(said, "proxyjump").split(",")))
    files = _files(said.get("userknownhostsfile", [KNOWN_HOSTS]), tokens)
    files += _files(said.get("globalknownhostsfile", [GLOBAL_KNOWN_HOSTS]), tokens)
    timeout, family = _one(said, "connecttimeout"), _one(said, "addressfamily")
    return Route(
        name=name, host=host, port=number, user=login,
        keys=tuple(_path(one, tokens) for one in said.get("identityfile", DEFAULT_KEYS) if one != "none"),
        agent=_agent(_one(said, "identityagent"), tokens),
        identities_only=_one(said, "identitiesonly") == "yes",
        jump=None if command else _jump(name, jumps, tokens),
        command=command,
        known_hosts=tuple(files),
        revoked=_path(_one(said, "revokedhostkeys"), tokens),
        names=(alias.lower(),) if alias else entries(host, number),
        family={"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(family, socket.AF_UNSPEC),
        source=_one(said, "bindaddress"),
        timeout=float(timeout) if timeout.isdigit() and int(timeout) else CONNECT_TIMEOUT,
    )  # fmt: skip


def entries(host: str, port: int) -> tuple[str, ...]:
    """A host's names in known_hosts: with its port, then, as ssh has it, without."""
    host = host.lower()
    return (host,) if port == DEFAULT_PORT else (f"[{host}]:{port}", host)


def _asked(name: str, user: str | None, port: int | None) -> Mapping[str, Sequence[str]]:
    """What `ssh -G` prints, as lists of values by keyword."""
    if name.startswith("-") or (user or "").startswith("-"):
        raise LocalFault(f"{name}: a host or user that begins with '-' is not passed to ssh", "give another name")
    program = shutil.which("ssh")
    if program is None:
        return _by_paramiko(name, user, port)
    own = Path.home() / ".ssh" / "config"
    words = [program, "-T", "-G"]
    if Path.home() != _passwd_home() and own.exists():  # ssh itself looks only at the home in /etc/passwd
        words += ["-F", str(own)]
    words += [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", name]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASKING, check=False,
                              start_new_session=True)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        why = f"takes longer than {ASKING:g} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        raise LocalFault(f"{name}: `ssh -G {name}` {why}", "look at Match exec in ~/.ssh/config") from error
    if done.returncode and b"usage:" in done.stderr.lower():  # an ssh that knows no -G: a very old one, dropbear's
        return _by_paramiko(name, user, port)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        lines = [line for line in lines if line and not line.startswith(_HARMLESS) and "terminating," not in line]
        raise LocalFault(f"{name}: this machine's ssh does not say how to get there: {'; '.join(lines[:5])}",
                         _REMEDY.format(name=name))
    said: dict[str, list[str]] = {}
    for line in done.stdout.decode(errors="surrogateescape").splitlines():
        keyword, _, value = line.partition(" ")
        said.setdefault(keyword.lower(), []).append(value)
    return said


def _by_paramiko(name: str, user: str | None, port: int | None) -> Mapping[str, Sequence[str]]:
    """The same without an ssh: less of the language, and an error where it is more than Paramiko reads."""
    said: dict[str, list[str]] = {}
    for path in (Path.home() / ".ssh" / "config", SYSTEM):
        if not path.exists():
            continue
        try:
            found = paramiko.SSHConfig.from_text(path.read_text()).lookup(name)
        except Exception as error:  # Paramiko's, invoke's, shlex's, a codec's
            raise LocalFault(f"{name}: {path} cannot be read without an ssh: {error}",
                             "install an ssh client, or mend that file") from error
        for keyword, value in found.items():
            if keyword != "hostname" or value != name:
                said.setdefault(keyword, value if isinstance(value, list) else [str(value)])
    overrides = {"user": user, "port": port and str(port)}
    return said | {keyword: [value] for keyword, value in overrides.items() if value}


def _jump(name: str, jumps: Sequence[str], tokens: Mapping[str, str]) -> Jump | None:
    if not jumps or jumps[0].lower() == "none":
        return None
    found = _JUMP.fullmatch(_expanded(jumps[-1].strip(), tokens))
    if found is None:
        raise LocalFault(f"{name}: ProxyJump {jumps[-1]} is not [user@]host[:port]", _REMEDY.format(name=name))
    host, port = found["address"] or found["host"], found["port"]
    if host.lower() in (name.lower(), tokens["h"].lower()):  # ProxyJump of `Host *` concerns the jump host as well
        return None
    return Jump(host, found["user"], int(port) if port else None, tuple(jumps[:-1]) or None)


def _agent(said: str, tokens: Mapping[str, str]) -> str:
    if said == "none":
        return ""
    if said in ("", "SSH_AUTH_SOCK"):
        return os.environ.get("SSH_AUTH_SOCK", "")
    if said.startswith("$") and not said.startswith("${"):
        return os.environ.get(said[1:], "")
    return _path(said, tokens)


def _files(values: Sequence[str], tokens: Mapping[str, str]) -> list[Path]:
    """Paths, several to a value."""
    return [Path(_path(word, tokens)) for value in values if value != "none"
            for word in ([value] if Path(value).exists() else value.split())]


def _path(text: str, tokens: Mapping[str, str]) -> str:
    """A path with its tokens, variables and ~ replaced; "" for none."""
    if text in ("", "none"):
        return ""
    expanded = re.sub(r"\$\{(\w+)\}", lambda found: os.environ.get(found[1], found[0]), _expanded(text, tokens))
    home, ours = _passwd_home() / ".ssh", Path.home() / ".ssh"
    if Path(expanded).parent == home and ours.is_dir():  # where $HOME is another folder, ~ is that one
        return str(ours / Path(expanded).name)
    return os.path.expanduser(expanded)


def _expanded(text: str, tokens: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda found: tokens.get(found[1], found[0]), text)


def _safe(name: str, tokens: Mapping[str, str]) -> Mapping[str, str]:
    """Tokens that a shell takes for nothing but a word."""
    for value in tokens.values():
        if shlex.quote(value) != value and value != "%":
            raise LocalFault(f"{name}: {value!r} is not put into a ProxyCommand, which a shell reads",
                             "use a user and host name of letters, digits, '.', '_' and '-'")
    return tokens


def _one(said: Mapping[str, Sequence[str]], keyword: str) -> str:
    value = (said.get(keyword) or [""])[0]
    return "" if keyword.startswith("proxy") and value.lower() == "none" else value


def _passwd_home() -> Path:
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # ssh itself then says so
        return Path.home()
