"""What the keys of Kuiper's own conf.yml (Oort's and FedScale's too) are called here, as data.

A key that is in no table here means the same in both, or is not known in either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Word:
    """One key of theirs.

    Attributes:
        to: ours: a top-level key or one of job_conf, dotted for a parameter of a group; "": it can only say
            what is so here anyway.
        values: theirs -> ours; what is not among them must be the name of a choice here.
        only: the values that it can have here; empty: any.
        of: the choice that it is a parameter of; "": whatever is chosen. With another one it has no effect.
        over: the key of theirs whose value it is divided by: ours is a fraction of that.
        says: what else the user should know.
        remedy: what to do where it has no meaning here (`to` is empty), or about a value that is not known.
    """

    to: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    only: tuple[Any, ...] = ()
    of: str = ""
    over: str = ""
    says: str = ""
    remedy: str = ""


def _oort(parameter: str) -> Word:
    return Word(f"selector.{parameter}", of="oort")


def _removed(why: str) -> Word:
    return Word(remedy=f"remove it: {why}")


JOB_CONF: dict[str, Word] = {
    "job_name": Word("job_name"),
    "log_path": Word("log_path", says=", on this machine; `collect` brings what hosts have below exp_path"),
    "total_worker": Word("algorithm.clients_per_round"),
    "num_participants": Word("algorithm.clients_per_round"),
    "data_set": Word("dataset", {"Mnist": "mnist"}, remedy="for images of your own write "
                     "`data_set: image_folder`, and have train/<class>/ and test/<class>/ in data_dir"),
    "data_dir": Word("dataset.root"),
    "model": Word("model", {"lr": "softmax"}, remedy="a classifier of torchvision by its name is fine, too"),
    "gradient_policy": Word("algorithm", {"": "fedavg", "fed-avg": "fedavg"},
                           remedy="yogi and prox are not there yet: write `gradient_policy: fedavg`"),
    "sample_mode": Word("selector", remedy="guided selection is not there yet: write `sample_mode: random`"),
    "epochs": Word("rounds"),
    "rounds": Word("rounds"),
    "upload_epoch": Word("algorithm.local_steps"),
    "local_steps": Word("algorithm.local_steps"),
    "overcommit": Word("algorithm.overcommit"),
    "overcommitment": Word("algorithm.overcommit"),
    "learning_rate": Word("optimizer.lr"),
    "weight_decay": Word("optimizer.weight_decay"),
    "decay_factor": Word("schedule.factor", of="step"),
    "decay_epoch": Word("schedule.every", of="step"),
    "decay_round": Word("schedule.every", of="step"),
    "min_learning_rate": Word("schedule.floor", of="step", over="learning_rate"),
    "sample_seed": Word("seed"),
    "to_device": Word("worker_ips", only=("cpu", "cuda"), remedy="write cpu, or cuda"),
    "use_cuda": Word("worker_ips", only=(True, False, "True", "False"), remedy="write True or False"),
    "task": Word("", only=("cv",), remedy="speech and text are not there yet: write `task: cv`"),
    # of guided selection
    "round_penalty": _oort("alpha"),
    "round_threshold": _oort("round_threshold"),
    "pacer_delta": _oort("pacer_delta"),
    "pacer_step": _oort("pacer_step"),
    "exploration_factor": _oort("exploration"),
    "exploration_decay": _oort("exploration_decay"),
    "exploration_min": _oort("exploration_min"),
    "clip_bound": _oort("clip"),
    "cut_off_util": _oort("cut_off"),
    "sample_window": _oort("sample_window"),
    "blacklist_rounds": _oort("blacklist_rounds"),
    "blacklist_max_len": _oort("blacklist_max_len"),
    # of optimisers at the server, and of local ones
    "yogi_eta": Word("algorithm.eta", of="fedyogi"),
    "yogi_tau": Word("algorithm.tau", of="fedyogi"),
    "yogi_beta": Word("algorithm.beta1", of="fedyogi"),
    "yogi_beta2": Word("algorithm.beta2", of="fedyogi"),
    "proxy_mu": Word("algorithm.mu", of="fedprox"),
    # without a meaning here
    "data_mapfile": Word(remedy="maps of clients to samples are not read yet: write `num_workers: ...` "
                         "(clients) and `partition: {dirichlet: {alpha: 0.5}}` in its place"),
    "client_path": Word(remedy="traces of devices are not read yet: write `devices: lognormal` in its place"),
    "user_trace": _removed("traces of availability are not read yet, and every client is always there"),
    "filter_less": Word(only=(0,), remedy="write 0: every client takes part, however few samples it has"),
    "num_loaders": _removed("datasets are held in memory"),
    "test_bsz": _removed("the whole test set is scored, in batches of kuiper's own size"),
    "test_ratio": Word(only=(1,), remedy="write 1: the whole test set is scored"),
    "ps_port": Word(remedy="the server takes any free port; for certain ones write `ports: 29500-29510`"),
    "manager_port": _removed("there is one port, the server's; see `ports`"),
    "backend": _removed("rows travel over kuiper's own mesh; see `transport`"),
    "save_checkpoint": Word(only=(False, "False"), remedy="write `checkpoint_interval: ...` in its place"),
    "model_zoo": _removed("models are kuiper's own or torchvision's"),
}
JOB_CONF["data_map_file"] = JOB_CONF["data_mapfile"]
JOB_CONF["device_conf_file"] = JOB_CONF["client_path"]
JOB_CONF["device_avail_file"] = JOB_CONF["user_trace"]
"""FedScale's names."""

TOP: dict[str, str] = {
    "executor_entry": "remove it: every process runs kuiper's own code",
    "aggregator_entry": "remove it: every process runs kuiper's own code",
    "use_container": "remove it: processes run on the hosts themselves",
    "redis_conf": "remove it: processes talk to each other over kuiper's own mesh",
}
"""Top-level keys that have no meaning here -> what to do."""

DEFAULTS: dict[str, Any] = {
    "algorithm": "fedavg",
    "algorithm.local_steps": 20,
    "selector": "random",
    "optimizer": "sgd",
    "optimizer.lr": 0.04,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 5e-4,
    "schedule": "step",
    "schedule.every": 5,
    "schedule.factor": 0.95,
    "batch_size": 30,
    "clock": "virtual",
}
"""What Kuiper does where its conf.yml says nothing, in our keys. Also schedule.floor, for a least rate of:"""
LEAST_RATE = 1e-4

TORCHVISION = ("alexnet", "convnext", "densenet", "efficientnet", "googlenet", "inception", "maxvit",
               "mnasnet", "mobilenet", "regnet", "resnet", "resnext", "shufflenet", "squeezenet", "swin",
               "vgg", "vit", "wide_resnet")
"""How names of torchvision's classifiers begin."""
