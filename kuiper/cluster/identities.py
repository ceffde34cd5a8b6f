"""The keys that this machine can show a host: files, and those that an ssh-agent holds."""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from paramiko.agent import AgentKey, AgentSSH

from kuiper.cluster.known_keys import decoded, kind
from kuiper.cluster.ssh_config import Route

AGENT_SECONDS = 10.0
OPENSSH_KEY = b"openssh-key-v1\0"


@dataclass(frozen=True)
class Fault:
    """A key or an agent of this machine that cannot be used.

    Attributes:
        what: its file.
        wrong: "is encrypted, and ...".
        asked: whether the spec names it.
    """

    what: str
    wrong: str
    remedy: str
    asked: bool = False


@dataclass
class Identities:
    """What is shown to a host, in this order, and what cannot be.

    Attributes:
        keys: each with the name by which messages call it.
    """

    keys: list[tuple[str, paramiko.PKey]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    agent: AgentSSH | None = None

    def close(self) -> None:
        """Let the agent go."""
        if self.agent is not None:
            self.agent._close()


class Agent(AgentSSH):
    """An ssh-agent at a socket of any name; Paramiko's own knows $SSH_AUTH_SOCK alone.

    Raises:
        OSError, SSHException: nobody listens there, or what answers is no agent.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(AGENT_SECONDS)
        try:
            connection.connect(path)
            self._connect(connection)
        except BaseException:
            connection.close()
            raise


def identities(route: Route, asked: str | None) -> Identities:
    """The spec's key first, then the agent's that ssh's files name, the agent's others, and the rest of the files.

    Args:
        asked: the file that the spec names.
    """
    found, held = Identities(), dict[bytes, AgentKey]()
    if route.agent:
        try:
            found.agent = Agent(route.agent)
            held = {key.blob: key for key in found.agent.get_keys()}
        except Exception as error:  # whatever answers there, it is not this verb's end
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            found.faults.append(Fault(f"ssh-agent at {route.agent}", f"does not answer: {why}",
                                      "start one: eval $(ssh-agent), or unset SSH_AUTH_SOCK"))
    first, mine, rest = (list[tuple[str, paramiko.PKey]]() for _ in range(3))
    for name in dict.fromkeys([asked, *route.keys] if asked else route.keys):
        by_agent = held.pop(public(name), None)
        if by_agent is not None:
            (first if name == asked else mine).append((name, by_agent))
            continue
        try:
            (first if name == asked else rest).extend((name, key) for key in load(name))
        except FileNotFoundError:
            if name == asked:
                found.faults.append(Fault(name, "is not there", "give the path of a private key", True))
        except Unusable as error:
            found.faults.append(Fault(name, str(error), error.remedy, name == asked))
    left = [] if route.identities_only else sorted(held.values(), key=lambda key: key.inner_key is None)
    others = [(f"{key.comment or key.name} of ssh-agent", key) for key in left]  # last those that Paramiko cannot read
    found.keys = [*first, *mine, *others, *rest]
    return found


class Unusable(Exception):
    """A file that is there and gives no key."""

    def __init__(self, wrong: str, remedy: str) -> None:
        super().__init__(wrong)
        self.remedy = remedy


def load(name: str) -> Iterator[paramiko.PKey]:
    """The key in a file: with its certificate, when there is one beside it, and then alone.

    Raises:
        FileNotFoundError: there is none.
        Unusable: it gives no key.
    """
    try:
        data = Path(name).read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot be read: {getattr(error, 'strerror', None) or error}",
                       "see who owns it and what its permissions are") from error
    wrong = unusable(data, name)
    if wrong:
        raise Unusable(*wrong)
    try:
        key = paramiko.PKey.from_path(name)
    except Exception as error:  # cryptography's and Paramiko's: most are no error of a tree of theirs
        said = str(error).splitlines()[:1] or [type(error).__name__]
        raise Unusable(f"cannot be used: {said[0][:200]}", "make another one: ssh-keygen -t ed25519") from error
    if key.public_blob is not None:
        yield key
        key = copy.copy(key)
        key.public_blob = None
    yield key


def unusable(data: bytes, name: str) -> tuple[str, str] | None:
    """Why a file holds no key that can be used, and what to do; None when nothing is known against it."""
    if data.startswith(b"PuTTY-User-Key-File"):
        return "is in PuTTY's format", f"convert it: puttygen {name} -O private-openssh -o NEW"
    if b"PRIVATE KEY-----" not in data:
        if kind(decoded((data.decode(errors="replace").split() + ["", ""])[1])):
            return "is a public key, whose private key no ssh-agent holds", "name the private key: the one without .pub"
        return "is no private key", "name a private key, such as ssh-keygen -t ed25519 makes"
    loaded: object = None
    for read in (load_ssh_private_key, load_pem_private_key):
        try:
            loaded = read(data, None)
            break
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            if "password" in str(error).lower():
                return "is encrypted, and no ssh-agent holds it", f"ssh-add {name}"
    if isinstance(loaded, DSAPrivateKey) or b"BEGIN DSA" in data or kind(_of_openssh(data)) == "ssh-dss":
        return "is a DSA key, which hosts refuse", "make another one: ssh-keygen -t ed25519"
    if loaded is not None:
        return None
    if kind(_of_openssh(data)).startswith("sk-"):
        return "is of a security key, which only an ssh-agent can use", f"ssh-add {name}"
    return "is damaged, or of a kind that is not read", "make another one: ssh-keygen -t ed25519"


def public(name: str) -> bytes:
    """The public key of a file, as far as it can be known without a passphrase; b"" when it cannot."""
    for path in (name, f"{name}.pub"):
        try:
            data = Path(path).read_bytes()
        except (OSError, ValueError):
            continue
        blob = _of_openssh(data) or decoded((data.decode(errors="replace").split() + ["", ""])[1])
        if kind(blob):
            return blob
    return b""


def _of_openssh(data: bytes) -> bytes:
    """The public key that OpenSSH writes in clear at the head of a private one."""
    lines = data.decode(errors="replace").splitlines()
    if "-----BEGIN OPENSSH PRIVATE KEY-----" not in lines[:1]:
        return b""
    whole = decoded("".join(lines[1:]).partition("-----")[0])
    if not whole.startswith(OPENSSH_KEY):
        return b""
    message = paramiko.Message(whole[len(OPENSSH_KEY) :])
    try:
        for _ in range(3):  # cipher, key derivation and its options
            message.get_binary()
        message.get_int()
        return message.get_binary()
    except Exception:  # cut off
        return b""
