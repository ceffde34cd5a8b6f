"""Bad input as users give it: the message names key, value and remedy, and nothing is left behind."""

from __future__ import annotations

import json
import os
import pickle
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuiper.cli.app import run
from kuiper.cluster import store

SPEC = """\
job_name: hello
ps_ip: localhost
worker_ips: ['localhost:1']
log_path: LOGS
job_conf:
  algorithm: parameter_server
  model: softmax
  dataset: iris
  num_workers: 2
  steps: 4
"""
KUIPERS = """\
ps_ip: localhost
worker_ips: ['localhost:1']
job_conf:
  - log_path: LOGS
  - job_name: hello
  - total_worker: 4
  - data_set: iris
  - model: softmax
  - epochs: 4
  - to_device: cpu
"""
BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]\n" for n in range(9))
NAMES = {"slash": "a/b", "space": "a b", "single quote": "a'b", "double quote": 'a"b', "newline": "a\nb",
         "dots": "..", "climbing": "../../etc", "shell": "$(reboot)", "option": "-rf", "nothing": "",
         "NUL": "a\0b", "long": "a" * 101}


def instead(old: str, new: str) -> str:
    assert old in SPEC
    return SPEC.replace(old, new)


def conf(lines: str) -> str:
    """The spec with more below job_conf; what it sets already is replaced."""
    kept = [line for line in SPEC.splitlines()
            if not any(line.startswith(f"  {key}:") for key in re.findall(r"^\w+", lines, re.MULTILINE))]
    return "\n".join(kept + [f"  {line}" for line in lines.splitlines()]) + "\n"


# what it is: the spec (None: no file at all), then what the message says: place, value, bound or remedy
TABLE: dict[str, tuple[str | bytes | None, tuple[str, ...]]] = {
    "missing file": (None, ("conf.yml: no such file", "give the path of a job spec")),
    "empty": ("", ("conf.yml: is empty", "start from a copy")),
    "only comments": ("# soon\n---\n", ("is empty",)),
    "a list": ("- job_name: hello\n", ("conf.yml:1: does not hold a mapping", "write keys and values")),
    "binary": (bytes(range(256)), ("is not UTF-8 text", "save the file as UTF-8")),
    "tabs": ("job_name: x\njob_conf:\n\tseed: 1\n", ("conf.yml:3: has a tab", "indent with spaces")),
    "a key twice": (SPEC + "job_name: two\n", (
        "conf.yml:11: job_name is set twice; first at", "keep one of the two")),
    "a key twice below": (SPEC + "  seed: 1\n  seed: 2\n", ("conf.yml:12: job_conf.seed is set twice",)),
    "unknown aggregator": (conf("aggregator: multi_krun"), (
        "conf.yml:11: job_conf.aggregator is 'multi_krun'", "did you mean 'multi_krum'?")),
    "unknown key": (conf("agregator: median"), (
        "job_conf.agregator is not a key", "did you mean 'aggregator'?")),
    "key at the wrong level": (SPEC + "seed: 1\n", (
        "conf.yml:11: seed is not a key", "move it into job_conf")),
    "f too large for n": (conf("aggregator: multi_krum\nnum_workers: 6\nf: 2"), (
        "job_conf.f is too large for multi_krum, which needs n >= 2 f + 3: 7 rows for f = 2, and 6 arrive",
        "f can be at most 1; or write `num_workers: 7`")),
    "f too large for q": (conf("aggregator: median\nnum_workers: 6\nquorum: 4\nf: 2"), (
        "which needs n >= 2 f + 1: 5 rows for f = 2, and 4 arrive (quorum 4)", "write `quorum: 5`")),
    "more processes than workers": (instead("'localhost:1'", "'localhost:5'"), (
        "job_conf.num_workers is 2, and worker_ips start 5 processes", "start fewer processes")),
    "log_path is a file": (instead("LOGS", "conf.yml"), (
        "conf.yml:4: log_path is 'conf.yml', and", "conf.yml is not a folder", "choose a log_path")),
    "log_path below a dangling link": (instead("LOGS", "dangling/logs"), ("dangling is not a folder",)),
    "log_path with an escape": (instead("LOGS", r'"a\e[2J"'), (
        r"log_path is 'a\x1b[2J'", "control characters")),
    "dataset not there": (conf("dataset: mnist"), (
        "conf.yml:10: job_conf.dataset.root is empty, and there is no NOWHERE/MNIST/raw",
        "write `dataset: {mnist: {root: ...}}`, or export KUIPER_DATA")),
    "file not there": (conf("dataset: {npz: {path: /no/such.npz}}"), (
        "job_conf.dataset.path is '/no/such.npz', and there is no /no/such.npz",
        "write `dataset: {npz: {path: ...}}`")),
    "relative dataset": (conf("dataset: {npz: {path: data.npz}}"), (
        "'data.npz' is relative", "write it in full: /")),
    "_target_": (conf("model: {_target_: os.system}"), ("job_conf.model names a _target_", "choose by name")),
    "_target_ as a parameter": (conf("model: {softmax: {_target_: os.system}}"), (
        "job_conf.model._target_ is not a parameter of softmax",)),
    "python object": (instead("hello", "!!python/object/apply:os.system ['id']"), (
        "tags are not read", "remove the tag")),
    "anchors that explode": (BOMB + SPEC, ("expands to more than 50000 values", "write the values out")),
    "an alias of itself": ("job_name: &a [*a]\n", (
        "nests deeper than 32 levels", "an alias must not hold itself")),
    "nesting": ("job_name: " + "[" * 20_000, ("nests deeper than 32 levels",)),
    "endless duration": (SPEC + "limits: {duration: 1e300}\n", (
        "limits.duration is 1e+300, and must be a time",)),
    "a word for a number": (conf("steps: many"), (
        "job_conf.steps is 'many', and must be a whole number of at least 1",)),
    "a key of Kuiper's among ours": (conf("learning_rate: 0.1"), (
        "job_conf.learning_rate is not a key", "what Kuiper calls learning_rate is `optimizer.lr` here")),
    "a dataset of Kuiper's": (KUIPERS.replace("iris", "openImg"), (
        "conf.yml:7: job_conf.data_set is 'openImg', and there is no such dataset", "known: cifar10")),
    "Kuiper's selection": (KUIPERS + "  - sample_mode: kuiper\n  - pacer_delta: 5\n", (
        "conf.yml:11: job_conf.sample_mode is 'kuiper'", "known: random; guided selection is not there yet")),
    "Kuiper's policy": (KUIPERS + "  - gradient_policy: yogi\n", (
        "job_conf.gradient_policy is 'yogi'", "write `gradient_policy: fedavg`")),
    "Kuiper's map of clients": (KUIPERS + "  - data_mapfile: /data/clients\n", (
        "job_conf.data_mapfile is a key of Kuiper's that has no meaning here", "partition: {dirichlet")),
    "Kuiper's tasks": (KUIPERS + "  - task: speech\n", ("job_conf.task is 'speech'", "write `task: cv`")),
    "Kuiper's two names of one": (KUIPERS + "  - num_participants: 5\n", (
        "conf.yml:11: job_conf.num_participants sets algorithm.clients_per_round, which is set already at",
        "conf.yml:6", "keep one of the two")),
    "Kuiper's key out of bounds": (KUIPERS + "  - learning_rate: -1\n", (
        "conf.yml:11: job_conf.optimizer.lr is -1",)),
    "Kuiper's choice as a list": (KUIPERS + "  - sample_mode: [random]\n  - gradient_policy: {}\n", (
        "conf.yml:11: job_conf.selector is ['random'], and must be a choice",
        "conf.yml:12: job_conf.algorithm is {}, and must be a choice")),
    "Kuiper's unknown key": (KUIPERS + "  - lerning_rate: 1\n", (
        "conf.yml:11: job_conf.lerning_rate is not a key",)),
    "Kuiper's entries": (KUIPERS + "executor_entry: executor.py\n", (
        "conf.yml:11: executor_entry is not a key", "every process runs kuiper's own code")),
    "a variable of the host's": (SPEC + "exp_path: $FEDSCALE_HOME/core\n", (
        "exp_path is '$FEDSCALE_HOME/core'", "only $HOME and $USER")),
} | {f"job name, {what}": (instead("hello", json.dumps(name)), (
    "conf.yml:1: job_name is ", repr(name)[:20], "letters, digits")) for what, name in NAMES.items()}

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`manager.py ...` in this process: its exit code, and all that it said."""
    monkeypatch.setenv("KUIPER_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "dangling").symlink_to("nothing")

    def main(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["manager.py", *words])
        with pytest.raises(SystemExit) as ended:
            run()
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    return main


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"state", "state/kuiper"}


def refused(call: Call, tmp_path: Path, code: int, fragments: tuple[str, ...], *options: str) -> None:
    """Both verbs refuse it, say why, and leave nothing."""
    before = files(tmp_path)
    for verb in ("check", "submit"):
        ended, said = call(verb, "conf.yml", *options)
        assert ended == code, said
        for fragment in fragments:
            assert fragment.replace("NOWHERE", str(tmp_path / "nowhere")) in said, said
        assert "\n  -> " in said and "Traceback" not in said
        assert said.replace("\n", "").isprintable(), said
        assert len(said) < 5000
    assert files(tmp_path) - {"state/kuiper/locks", "state/kuiper/locks/hello"} == before
    assert store.jobs() == []


@pytest.mark.parametrize("what", TABLE)
def test_a_bad_spec_is_refused(what: str, call: Call, tmp_path: Path) -> None:
    spec, fragments = TABLE[what]
    if spec is not None:
        content = spec if isinstance(spec, bytes) else spec.replace("LOGS", str(tmp_path / "logs")).encode()
        (tmp_path / "conf.yml").write_bytes(content)
    refused(call, tmp_path, 3, fragments)


OPTIONS = {
    "no equals sign": ("seed", 2, ("-o seed has no '='", "write -o key=value")),
    "a name that climbs": ("job_name=../x", 3, ("-o job_name=../x: job_name is '../x'",)),
    "an escape": ("\x1b[2J=1", 3, (r"'\x1b[2J'", "is no key")),
    "yaml that does not parse": ("seed=[1", 3, ("-o seed=[1: is not YAML",)),
    "a python object": ("seed=!!python/name:os.system", 3, ("tags are not read",)),
    "an interpolation": ("seed=${oc.env:HOME}", 3, ("job_conf.seed",)),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_bad_option_is_refused(what: str, call: Call, tmp_path: Path) -> None:
    option, code, fragments = OPTIONS[what]
    (tmp_path / "conf.yml").write_text(instead("LOGS", str(tmp_path / "logs")))
    refused(call, tmp_path, code, fragments, "-o", option)


HOST_FILES = {
    "a user": (b"# mine\n\nann@node1\n", ("hosts:3: is 'ann@node1', which names a user", "auth: {ssh_user")),
    "the port of a process": (b"node1:7000\n", ("hosts:1: is 'node1:7000'", "finds its ports itself")),
    "slots": (b"node1 slots=4\n", ("which is more than one word", "host:n")),
    "IPv6 and a number": (b"fd00::5:4\n", ("IPv6 address, or one with a number", "write [fd00::5:4], or [fd00::5]:4")),
    "processes or a port": (b"[fd00::5]:4\n", ("is the port of sshd", "for processes, write [fd00::5]:22:4")),
    "two in a line": (b"\xef\xbb\xbfnode1,node2\r\n", ("hosts:1: is 'node1,node2', which is more than one word",)),
    "a word for a count": (b"node1:two\n", ("hosts:1: worker_ips.0 is 'node1:two', and must count",)),
    "an option": (b"-oProxyCommand=x\n", ("hosts:1: worker_ips.0.host is '-oProxyCommand=x'",)),
    "no such port": (b"[node1]:99999\n", ("hosts:1: worker_ips.0.port is 99999",)),
    "only comments": (b"# node1\n", ("hosts: names no host",)),
    "binary": (bytes(range(256)), ("hosts: cannot be read: it is not UTF-8 text",)),
    "nothing": (None, ("hosts: cannot be read: No such file",)),
}


@pytest.mark.parametrize("what", HOST_FILES)
def test_a_bad_host_file_is_refused(what: str, call: Call, tmp_path: Path) -> None:
    content, fragments = HOST_FILES[what]
    (tmp_path / "conf.yml").write_text(instead("LOGS", str(tmp_path / "logs")))
    if content is not None:
        (tmp_path / "hosts").write_bytes(content)
    refused(call, tmp_path, 3, fragments, "--workers", "hosts")


@pytest.mark.parametrize("algorithm", ["parameter_server", "all_reduce"])
def test_ports_that_are_taken(algorithm: str, call: Call, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = f"{port}-{port + (algorithm == 'all_reduce')}"  # of peers each process needs one
        text = conf(f"ports: {ports}\nalgorithm: {algorithm}").replace("LOGS", str(tmp_path / "logs"))
        (tmp_path / "conf.yml").write_text(text)
        refused(call, tmp_path, 5, (f"job_conf.ports is {ports}, and ", "give another range"))


class Runs:
    """Pickled by name, it would run what it is given."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


GOOD = {"round": 0, "clock": 0.0, "top_1: ": 50.0, "top_5: ": 90.0, "loss": 1.0}
RECORDS = {
    "code": (pickle.dumps({"perf": {0: Runs()}}), "it asks for"),
    "code by name": (b"cos\nsystem\n(S'mkdir pwned'\ntR.", "it asks for os.system"),
    "no pickle": (b"hello", "is not a training_perf"),
    "no rounds": (pickle.dumps({"perf": {}}), "has no evaluation yet"),
    "no mapping": (pickle.dumps({"perf": {0: "x"}}), "has None as 'round'"),
    "a key missing": (pickle.dumps({"perf": {0: {"round": 0}}}), "perf[0] has None as 'clock'"),
    "rounds that do not compare": (
        pickle.dumps({"perf": {0: GOOD, "x": GOOD | {"round": "x"}}}), "perf['x'] has 'x' as 'round'"),
    "an endless clock": (pickle.dumps({"perf": {0: GOOD | {"clock": float("inf")}}}), "has inf as 'clock'"),
    "a huge round": (pickle.dumps({"perf": {0: GOOD | {"round": 10**400}}}), "as 'round', which must be"),
    "more than all": (pickle.dumps({"perf": {0: GOOD | {"top_1: ": 1e308}}}), "has 1e+308 as 'top_1'"),
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_malicious_training_perf_is_not_drawn(what: str, call: Call, tmp_path: Path) -> None:
    content, says = RECORDS[what]
    run_dir = tmp_path / "logs" / "hello" / "20260131-142501-7f3a"
    (run_dir / "ps").mkdir(parents=True)
    store.Job(run_dir, "hello", run_dir.name, "simulate", 0.0, 1.0, [store.Process("ps", "localhost")],
              final={"state": "SUCCEEDED", "reason": "", "evaluation": None}).save()
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"job": {"job_name": "hello"}, "conf": {}}))
    (run_dir / "ps" / "training_perf").write_bytes(content)
    (run_dir / "ps" / "metrics.jsonl").write_text("")
    before = files(tmp_path)
    code, said = call("plot", "hello", "-o", "out.png")
    assert code == 100 and says in said and "\n  -> " in said and "Traceback" not in said, said
    assert files(tmp_path) == before
