"""The job spec: every form it may have, and every complaint at its line."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from kuiper.cluster.host import Address
from kuiper.cluster.plan import plan
from kuiper.cluster.spec import Limits, Worker, load
from kuiper.config.schema import InvalidSpec
from kuiper.errors import UsageError

SPEC = """\
job_name: mnist-krum
ps_ip: localhost
worker_ips: [localhost:2]
job_conf:
  algorithm: parameter_server
  num_workers: 5
  model: mlp
  dataset: digits
  steps: 10
"""


@pytest.fixture
def spec(tmp_path):
    """Writes the spec with some lines replaced or added, and loads it."""

    def write(extra="", replace=("", ""), text=SPEC, options=(), simulate=False):
        path = tmp_path / "conf.yml"
        path.write_text(text.replace(*replace) + extra)
        return load(path, options, simulate)

    return write


def complaints(spec, **how):
    with pytest.raises(InvalidSpec) as caught:
        spec(**how)
    return caught.value.problems


def test_defaults(spec):
    loaded = spec()
    assert loaded.job_name == "mnist-krum" and loaded.mode == "cluster" and loaded.ps_ip == [Worker("localhost")]
    assert loaded.worker_ips == [Worker("localhost", 2)]
    assert loaded.limits == Limits(None, 30.0) and loaded.on_failure == {"tolerate": None, "retry": 0}
    assert loaded.log_path == "logs" and loaded.path.is_absolute()
    assert loaded.job_conf["num_workers"] == 5
    assert loaded.where("job_conf", "num_workers").endswith("conf.yml:6")


def test_everything_that_can_be_said(spec):
    loaded = spec(extra="""\
exp_path: ~/kuiper
log_path: /var/log/my runs
auth: {ssh_user: ann, ssh_private_key: ~/.ssh/id}
setup_commands: ['export A="b c"; true']
secrets: [WANDB_API_KEY]
limits: {duration: 2h, grace: 500ms}
on_failure: {tolerate: 2, retry: 3}
allow: [mine, other.]
mode: cluster
""")
    assert loaded.auth == {"ssh_user": "ann", "ssh_private_key": "~/.ssh/id"}
    assert loaded.limits == Limits(7200.0, 0.5) and loaded.on_failure == {"tolerate": 2, "retry": 3}
    assert loaded.allow == ["mine.", "other."] and loaded.exp_path == "~/kuiper"  # the host's home
    assert spec(extra="on_failure: stop_all\n").on_failure == {"tolerate": 0, "retry": 0}


@pytest.mark.parametrize(
    ("entry", "worker"),
    [
        ("localhost", Worker("localhost", 1)),
        ("localhost:3", Worker("localhost", 3)),
        ("'localhost:[2,1]'", Worker("localhost", 3, (0, 0, 1))),
        ("localhost:[2,1]", Worker("localhost", 3, (0, 0, 1))),
        ("{localhost: 2}", Worker("localhost", 2)),
        ("{host: localhost, processes: 2, port: 22}", Worker("localhost", 2, (), 22)),
        ("{host: localhost, gpus: [1, 3]}", Worker("localhost", 2, (1, 3))),
        ("{host: localhost, gpus: [1], processes: 2, python: /opt/p}",
         Worker("localhost", 2, (1, 1), None, "/opt/p")),
    ],
)
def test_workers(spec, entry, worker):
    assert spec(replace=("localhost:2", entry)).worker_ips == [worker]


def test_blocks_are_contiguous_and_named(spec):
    loaded = spec(replace=("localhost:2", "localhost:2, {host: localhost, gpus: [1], python: /opt/python}"))
    processes = plan(loaded, {"conf": {"num_workers": 5}, "job": {"mode": "cluster"}})
    assert [(p.rank, p.name, p.device, p.nodes) for p in processes] == [
        (0, "ps", "cpu", []), (1, "worker_1", "cpu", [0]), (2, "worker_2", "cpu", [1, 2]),
        (3, "worker_3", "cuda:1", [3, 4])]
    assert [p.python for p in processes] == [sys.executable] * 3 + ["/opt/python"]
    [alone] = plan(loaded, {"conf": {"num_workers": 5}, "job": {"mode": "simulate"}})
    assert (alone.rank, alone.name, alone.nodes) == (0, "ps", [])


def test_job_conf_as_a_list_keeps_places(spec):
    text = SPEC.replace("\n  ", "\n  - ")
    loaded = spec(text=text)
    assert loaded.job_conf == spec().job_conf
    assert loaded.where("job_conf", "steps").endswith("conf.yml:9")
    [problem] = complaints(spec, text=text, extra="  - steps: 3\n")
    assert problem.where.endswith(":10") and "set twice" in problem.message


def test_simulation_needs_no_hosts(spec):
    hosts = "ps_ip: localhost\nworker_ips: [localhost:2]\n"
    assert spec(replace=(hosts, ""), simulate=True).mode == "simulate"
    elsewhere = spec(replace=("localhost:2", "10.0.0.1:4"), extra="mode: simulate\n")
    assert elsewhere.worker_ips == [Worker("10.0.0.1", 4)]


def test_options(spec):
    options = ["seed=3", "optimizer.lr=1e-2", "limits.duration=1h", "job_conf.steps=7", "job_name=x.y",
               "byzantine=[1, 2]", "attack={ipm: {eps: 2}}", "epochs="]
    loaded = spec(options=options)
    assert loaded.job_name == "x.y" and loaded.limits.duration == 3600
    conf = loaded.job_conf
    assert [conf[key] for key in ("seed", "optimizer.lr", "steps", "epochs")] == [3, 0.01, 7, None]
    assert conf["byzantine"] == [1, 2] and conf["attack"] == {"ipm": {"eps": 2}}
    assert loaded.where("job_conf", "steps") == "-o job_conf.steps=7"
    with pytest.raises(UsageError, match="has no '='"):
        spec(options=["seed"])


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("se ed=3", "no key"), ("=3", "no key"), ("+seed=3", "no key"), ("a..b=3", "no key"),
        ("__import__('os')=3", "no key"), ("seed=[1", "not YAML"), ("seed=!!python/name:os.system", "tags"),
        ("seed=$(touch x)", "must be a whole number"), ("sed=3", "did you mean 'seed'?"),
        ("job_name=../x", "must be 1 to 100"), ("job_name='a\nb'", "must be 1 to 100"),
        ("aggregator=os.system", "no such aggregator"), ("optimizer.lr.x=1", "not a parameter of sgd"),
        ("seed={a: &a [1], b: [*a, *b]}", "not YAML"),
    ],
)
def test_bad_options(spec, option, says):
    problems = complaints(spec_and_compose(spec), options=[option])
    assert len(problems) == 1 and says in str(problems[0])
    assert problems[0].where.startswith("-o ") and "\n" not in problems[0].where


def spec_and_compose(spec):
    from kuiper.config.compose import compose

    return lambda **how: compose(spec(**how))


@pytest.mark.parametrize(
    "name", ["a/b", "a b", "'a\"b'", '"a\\nb"', "a..b", "-a", ".a", "", "7", "a" * 101, "$(x)"]
)
def test_job_names(spec, name):
    [problem] = complaints(spec, replace=("mnist-krum", name))
    assert problem.key == "job_name" and problem.where.endswith(":1")


@pytest.mark.parametrize(
    ("line", "key", "says"),
    [
        ("jobname: x", "jobname", "did you mean 'job_name'?"),
        ("seed: 3", "seed", "move it into job_conf"),
        ("limits: {duration: soon}", "limits.duration", "30s, 5m, 2h or 1d"),
        ("limits: {durations: 2h}", "limits.durations", "did you mean 'duration'?"),
        ("limits: 3", "limits", "a mapping"),
        ("mode: simulation", "mode", "one of cluster, simulate"),
        ("secrets: ['A=b']", "secrets", "never their values"),
        ("setup_commands: [1]", "setup_commands", "item 0"),
        ("allow: [os.]\nallow: [x]", "allow", "set twice"),
        ("allow: ['']", "allow", "module names"),
        ("on_failure: {tolerate: -1}", "on_failure.tolerate", "at least 0"),
        ("log_path: [x]", "log_path", "must be text"),
        ("auth: {password: x}", "auth.password", "not a key"),
    ],
)
def test_bad_lines(spec, line, key, says):
    [problem] = complaints(spec, extra=line + "\n")
    assert problem.key == key and says in str(problem) and problem.remedy
    assert problem.where.endswith(f"conf.yml:{SPEC.count(chr(10)) + line.count(chr(10)) + 1}")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("10.0.0.3:2", "on other hosts cannot reach it"), ("localhost:0", "from 1 to 4096"),
        ("localhost:two", "must count processes"), ("'localhost:[1,'", "must count processes"),
        ("localhost:", "must count processes"), ("3", "must name a host"),
        ("'-oProxyCommand=x:1'", "host name"),
        ("{host: localhost, gpu: 1}", "did you mean 'gpus'?"), ("{processes: 1, port: 2}", "is missing"),
        ("{host: localhost, python: python3}", "absolute path"), ("'a b;c:1'", "host name"),
    ],
)
def test_bad_workers(spec, entry, says):
    problems = complaints(spec, replace=("localhost:2", entry))
    assert says in "\n".join(str(problem) for problem in problems)
    assert all(problem.where.endswith((":2", ":3")) for problem in problems)


def test_home_is_the_hosts_but_for_logs_and_keys(spec, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    loaded = spec(extra="exp_path: $HOME/kuiper\nlog_path: ${HOME}/logs\n"
                        "auth: {ssh_private_key: $HOME/.ssh/id, ssh_user: ''}\n")
    assert (loaded.exp_path, loaded.log_path) == ("$HOME/kuiper", "/home/me/logs")
    assert loaded.address("localhost").key == "/home/me/.ssh/id" and loaded.address("localhost").user is None


def test_how_hosts_are_reached(spec):
    loaded = spec(replace=(
        "ps_ip: localhost\nworker_ips: [localhost:2]\n",
        "ps_ip: {host: node1, port: 2222}\nworker_ips: ['node1:2', {host: node2, python: /opt/python}]\n"
        "auth: {ssh_user: ann, ssh_private_key: /keys/id}\n"))
    common = {"user": "ann", "key": "/keys/id"}
    assert loaded.address("node1") == Address("node1", port=2222, **common)
    assert loaded.address("node2", base="/b") == Address("node2", "/opt/python", "/b", **common)


def test_host_files(spec, tmp_path):
    """One host a line; options are laid over them, and what they said is kept."""
    (tmp_path / "servers").write_text("[boss]:2222  # the first\n")
    lines = "# all", "", "node1", "node2:4", "node3:[2,1]", "[node4]:22", "[node5]:22:2", "node1"
    (tmp_path / "workers").write_text("\n".join(lines))
    spec()
    files = {"servers": tmp_path / "servers", "workers": tmp_path / "workers"}
    loaded = load(tmp_path / "conf.yml", **files)
    assert loaded.ps_ip == [Worker("boss", port=2222)]
    assert loaded.worker_ips == [Worker("node1"), Worker("node2", 4), Worker("node3", 3, (0, 0, 1)),
                                 Worker("node4", port=22), Worker("node5", 2, port=22), Worker("node1")]
    assert loaded.where("worker_ips", 1).endswith("workers:4")
    assert loaded.host_files == {name: path.read_bytes() for name, path in files.items()}
    over = load(tmp_path / "conf.yml", ["worker_ips=[node9]"], **files)
    assert over.worker_ips == [Worker("node9")] and over.where("worker_ips", 0) == "-o worker_ips=[node9]"


def test_hosts_are_needed_and_agree(spec):
    [problem] = complaints(spec, replace=("ps_ip: localhost\n", ""))
    assert problem.key == "ps_ip" and "is missing" in problem.message
    [problem] = complaints(spec, replace=("ps_ip: localhost", "ps_ip: [localhost, localhost]"))
    assert "2 servers" in problem.message
    [problem] = complaints(spec, replace=("ps_ip: localhost", "ps_ip: localhost:2"))
    assert "one process" in problem.message and problem.where.endswith(":2")
    [problem] = complaints(spec, replace=("localhost:2", "{host: localhost, port: 1}, {host: localhost, port: 2}"))
    assert "two values of port: 1 and 2" in problem.message


def test_all_problems_at_once_in_the_order_of_lines(spec):
    extra = "  sed: 1\n  aggregator: mutli_krum\nmodus: x\n"
    problems = complaints(spec, replace=("ps_ip", "ps_pi"), extra=extra, options=["quorum=many"])
    assert [problem.key for problem in problems] == [
        "ps_ip", "ps_pi", "job_conf.sed", "job_conf.aggregator", "modus", "job_conf.quorum"]
    text = str(InvalidSpec(problems))
    assert text.count("\n\n") == 5 and "did you mean 'multi_krum'?" in text


def test_reading_a_spec_imports_neither_hydra_nor_torch(tmp_path):
    (tmp_path / "conf.yml").write_text(SPEC)
    code = ("import sys; from kuiper.cluster.spec import load; load(sys.argv[1]); "
            "print([name for name in ('hydra', 'omegaconf', 'torch', 'numpy') if name in sys.modules])")
    command = [sys.executable, "-c", code, tmp_path / "conf.yml"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_job_for_every_seed(spec):
    one, two = spec(extra="  seed: [7, 3]\n").each()
    assert [each.job_name for each in (one, two)] == ["mnist-krum-seed7", "mnist-krum-seed3"]
    assert [each.job_conf["seed"] for each in (one, two)] == [7, 3]
    assert one.job_conf["steps"] == 10 and one.where("job_conf", "seed").endswith("conf.yml:10")
    plain = spec(extra="  seed: 7\n")
    assert plain.each() == [plain]
    [only] = spec(options=["seed=[5]"]).each()
    assert only.job_name == "mnist-krum-seed5"


@pytest.mark.parametrize(("seeds", "message"), [
    ("[1, 2, 1]", "names a seed twice"),
    ("[]", "empty list"),
    ("[1, -2]", "an item that is -2, and must be a whole number from 0"),
    ("[1, true]", "an item that is True"),
    ("[1, [2]]", r"an item that is \[2\]"),
    (f"[{2**63}]", "an item that is 9223372036854775808"),
])
def test_seeds_that_are_wrong(spec, seeds, message):
    [problem] = complaints(spec, extra=f"  seed: {seeds}\n")
    assert problem.key == "job_conf.seed" and problem.where.endswith("conf.yml:10")
    assert re.search(message, problem.message)


def test_a_name_with_room_for_the_seed(spec):
    [problem] = complaints(spec, replace=("mnist-krum", "x" * 94), extra="  seed: [1, 10]\n")
    assert problem.key == "job_name" and "by 1 characters" in problem.remedy
