"""Kuiper's own conf.yml: what each key becomes, at which line, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster.spec import Spec, Worker, load
from kuiper.config import kuiper_keys, schema
from kuiper.config.compose import compose

CONF = """\
ps_ip: 10.0.0.5
worker_ips:
    - 10.0.0.3:2
    - 10.0.0.4:1
exp_path: $HOME/Kuiper/training
auth:
    ssh_user: ""
    ssh_private_key: ~/.ssh/id_rsa
setup_commands:
    - source $HOME/anaconda3/bin/activate kuiper
job_conf:
    - log_path: $HOME/Kuiper/evals
    - job_name: shufflenet_kuiper
    - total_worker: 100
    - data_set: cifar10
    - data_dir: $HOME/data
    - sample_mode: random
    - model: shufflenet_v2_x2_0
    - round_penalty: 2.0
    - eval_interval: 20
    - epochs: 500
"""
Read = Callable[..., Spec]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def one(more: str = "", options: tuple[str, ...] = ()) -> Spec:
        (tmp_path / "conf.yml").write_text(CONF + "".join(f"    - {line}\n" for line in more.splitlines()))
        return load(tmp_path / "conf.yml", options)

    return one


def conf(spec: Spec) -> dict[str, Any]:
    found: dict[str, Any] = compose(spec)["conf"]
    return found


def parameters(group: dict[str, Any], *names: str) -> list[Any]:
    return [group["_name_"], *(group[name] for name in names)]


def test_a_file_as_it_is(read: Read) -> None:
    spec = read()
    assert (spec.job_name, spec.exp_path) == ("shufflenet_kuiper", "$HOME/Kuiper/training")
    assert spec.log_path == str(Path.home() / "Kuiper" / "evals")  # of this machine
    assert spec.worker_ips == [Worker("10.0.0.3", 2, (0, 1)), Worker("10.0.0.4", 1, (0,))]  # one per GPU
    found = conf(spec)
    assert parameters(found["algorithm"], "clients_per_round", "local_steps") == ["fedavg", 100, 20]
    assert parameters(found["dataset"], "root") == ["cifar10", "~/data"]  # of the process's host
    assert parameters(found["model"], "name") == ["torchvision", "shufflenet_v2_x2_0"]
    assert parameters(found["optimizer"], "lr", "momentum", "weight_decay") == ["sgd", 0.04, 0.9, 5e-4]
    assert parameters(found["schedule"], "every", "factor", "floor") == ["step", 5, 0.95, 0.0025]
    assert (found["rounds"], found["epochs"], found["eval_interval"]) == (500, None, 20)
    assert (found["batch_size"], found["num_workers"], found["clock"]) == (30, 100, "virtual")


def test_each_key_is_said_at_its_line(read: Read) -> None:
    spec = read("to_device: cpu\ntask: cv")
    said = [note.rpartition("conf.yml")[2] for note in spec.notes]
    assert said == [
        ":10: whatever it activates, processes run the `python` of their host, "
        "{host: ..., python: /path/to/python}",
        ":12: log_path: '$HOME/Kuiper/evals' -> log_path: '~/Kuiper/evals', on this machine; "
        "`collect` brings what hosts have below exp_path",
        ":13: job_name: 'shufflenet_kuiper' -> job_name",
        ":14: total_worker: 100 -> job_conf.algorithm.clients_per_round",
        ":15: data_set: 'cifar10' -> job_conf.dataset",
        ":16: data_dir: '$HOME/data' -> job_conf.dataset.root: '~/data'",
        ":17: sample_mode: 'random' -> job_conf.selector",
        ":18: model: 'shufflenet_v2_x2_0' -> job_conf.model: {'torchvision': {'name': 'shufflenet_v2_x2_0'}}",
        ":19: round_penalty: 2.0 -> no effect, selector is random",
        ":21: epochs: 500 -> job_conf.rounds",
        ":22: to_device: 'cpu' -> worker_ips: processes on the CPU",
        ":23: task: 'cv' -> as always here",
        ": not said, so as in Kuiper: algorithm fedavg, algorithm.local_steps 20, optimizer sgd, "
        "optimizer.lr 0.04, optimizer.momentum 0.9, optimizer.weight_decay 0.0005, schedule step, "
        "schedule.every 5, schedule.factor 0.95, batch_size 30, clock virtual, schedule.floor 0.0025, "
        "num_workers 100",
    ]
    assert spec.worker_ips == [Worker("10.0.0.3", 2), Worker("10.0.0.4", 1)]
    assert spec.where("job_conf", "rounds").endswith(":21")


def test_what_a_file_says_besides(read: Read) -> None:
    more = ("gradient_policy: fed-avg\nlearning_rate: 0.01\nmin_learning_rate: 1e-3\ndecay_epoch: 10\n"
            "overcommit: 1.1\nupload_epoch: 5\nsample_seed: 233\nuse_cuda: False\n"
            "num_workers: 1000\npartition: {dirichlet: {alpha: 0.3}}")
    found = conf(read(more, options=("rounds=7", "optimizer.momentum=0.5")))
    assert parameters(found["algorithm"], "overcommit", "local_steps") == ["fedavg", 1.1, 5]
    assert parameters(found["optimizer"], "lr", "momentum") == ["sgd", 0.01, 0.5]
    assert parameters(found["schedule"], "every", "floor") == ["step", 10, pytest.approx(0.1)]
    assert (found["seed"], found["num_workers"], found["rounds"]) == (233, 1000, 7)
    assert found["partition"]["alpha"] == 0.3


def test_a_choice_may_be_written_as_ours(read: Read) -> None:
    spec = read("gradient_policy: {fedavg: {weighting: uniform}}")
    assert parameters(conf(spec)["algorithm"], "weighting", "clients_per_round") == ["fedavg", "uniform", 100]


def test_what_is_of_another_choice_is_left_out(read: Read) -> None:
    spec = read("optimizer: adam\nschedule: cosine\ndecay_factor: 0.9")
    assert conf(spec)["optimizer"]["lr"] == 0.001 and conf(spec)["optimizer"]["_name_"] == "adam"
    assert "decay_factor: 0.9 -> no effect, schedule is cosine" in "\n".join(spec.notes)


def test_a_spec_of_ours_is_left_alone(tmp_path: Path) -> None:
    """Its epochs are epochs, its host:n are processes on the CPU."""
    (tmp_path / "conf.yml").write_text(
        "job_name: ours\nps_ip: localhost\nworker_ips: ['localhost:2']\njob_conf: [algorithm: all_reduce, "
        "model: softmax, dataset: iris, num_workers: 2, epochs: 3, batch_size: 8]\n")
    spec = load(tmp_path / "conf.yml")
    assert spec.notes == [] and spec.worker_ips == [Worker("localhost", 2)] and conf(spec)["epochs"] == 3


def test_every_key_leads_somewhere() -> None:
    ours = (*schema.SPEC, *schema.VALUES, *schema.GROUPS)
    for name, word in kuiper_keys.JOB_CONF.items():
        assert word.to.partition(".")[0] in (*ours, ""), name
        assert word.to or word.remedy, name
