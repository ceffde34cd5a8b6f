"""Objects from a resolved configuration: the parts of a job, its adversary, its algorithm."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from kuiper import random, registry
from kuiper.aggregation.apart import Apart as ApartRule
from kuiper.aggregation.rule import Rule
from kuiper.algorithms.base import Algorithm, Job
from kuiper.attacks.adversary import Adversary
from kuiper.config.instantiate import factory
from kuiper.data import Dataset, hold_out
from kuiper.data.digest import digests
from kuiper.errors import SpecError
from kuiper.learner import Batches, FlatModel, Learner
from kuiper.link.clock import VirtualClock, WallClock
from kuiper.optim import Apart, Optimizer
from kuiper.record import Recorder
from kuiper.record.keeper import Keeper


class Builder:
    """Builds from one resolved configuration.

    Args:
        config: as written to config.yaml by the submitter.

    Attributes:
        digests: of the data set that was loaded, by its parts; before any sample is held out.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        if config["job"]["allow"] and config["job"]["spec_folder"] not in sys.path:
            sys.path.append(config["job"]["spec_folder"])  # modules of the user's own, beside the spec
        self.conf = config["conf"]
        self.seed: int = self.conf["seed"]
        self.n: int = self.conf["num_workers"]
        declared = self.conf["f"]
        self.f: int = self.conf["num_byzantine"] if declared is None else declared
        self.digests: dict[str, str] = {}

    def make(self, group: str, *args: Any) -> Any:
        return self.factory(group)(*args)

    def factory(self, group: str) -> Callable[..., Any]:
        return factory(self.conf[group], self.config["job"]["allow"])

    def adversary(self) -> Adversary:
        group, listed = self.conf["attack"], self.conf["byzantine"]
        if listed is None:
            listed = random.chosen(self.seed, "byzantine", self.n, self.conf["num_byzantine"])
        attack = self.factory("attack") if group.get("_target_") else None
        federated = self.conf["algorithm"]["_family_"] == "federated"
        return Adversary(
            np.sort(np.asarray(listed, np.int64)), registry.acts_on(group), attack, self.seed,
            tolerated=partial(registry.of_cohort, self.f, self.n) if federated else None,
            batches=group.get("batches", 0), nodes=self.n)

    def clock(self) -> WallClock | VirtualClock:
        if self.conf["clock"] == "wall":
            return WallClock()
        return VirtualClock(self.make("devices", self.n, self.seed))

    def learner(self, adversary: Adversary, device: str, data: Dataset | None = None) -> Learner:
        """The learner on `device`, of the job's dataset unless its samples are given.

        The adversary gets to know the rule, which goes by what the model's rows hold.
        """
        data = (data or self.dataset()).to(device)
        labels = data.train_y.cpu().numpy()
        shards = self.shards(labels)
        empty = [node for node, shard in enumerate(shards) if not len(shard)]
        if empty:
            raise SpecError(f"partition: nodes {empty[:10]} got no samples of {len(labels)}",
                            "use fewer workers, more data or a milder partition")
        batches = Batches(data, shards, self.conf["batch_size"], self.seed, adversary)
        learner = Learner(self.model(data, device), data, batches, self.conf["engine"])
        adversary.rule = self.rule(learner)
        return learner

    def shards(self, labels: np.ndarray) -> list[np.ndarray]:
        """Indices of the training samples of each node."""
        return self.make("partition", labels, self.n, random.numpy_generator(self.seed, "partition"))

    def dataset(self) -> Dataset:
        data = self.make("dataset", self.seed)
        self.digests = digests(data)
        return self.split(data)

    def split(self, data: Dataset) -> Dataset:
        """With the validation set held out, where the job has one."""
        validation = self.conf["validation"]
        return hold_out(data, validation, self.seed) if validation else data

    def model(self, data: Dataset, device: str) -> FlatModel:
        conf, precision = self.conf, getattr(torch, self.conf["precision"])
        emulated = device != "cpu" and not torch.cuda.is_bf16_supported(including_emulation=False)
        if precision is torch.bfloat16 and emulated:
            raise SpecError(f"precision: {torch.cuda.get_device_name()} only emulates bfloat16, which is slower",
                            "write `precision: float32`")
        random.seed_torch(self.seed, "initial weights")
        module = self.make("model", data.shape, data.classes)
        if not isinstance(module, torch.nn.Module):
            raise SpecError(f"model: the function returns {type(module).__name__}", "return a torch.nn.Module")
        return FlatModel(module, conf["loss"], device,
                         buffers=conf["buffers"] != "reestimate", precision=precision)

    def optimizer(self, learner: Learner) -> Optimizer:
        made = self.make("optimizer")
        return Apart(made, learner.parameters) if learner.model.keeps_statistics else made

    def rule(self, learner: Learner) -> Rule | ApartRule:
        """The job's rule behind its pre-aggregators."""
        build = partial(factory, allow=self.config["job"]["allow"])
        rule = Rule(self.conf["aggregator"], self.conf["pre_aggregator"], self.f, self.seed, build)
        return ApartRule(rule, learner.parameters) if learner.model.keeps_statistics else rule

    def steps(self, learner: Learner) -> int:
        """Steps or rounds; an epoch is one pass of all nodes together over the training set."""
        conf = self.conf
        if conf["epochs"] is not None:
            samples = len(learner.data.train_y)
            return max(1, math.ceil(conf["epochs"] * samples / (conf["batch_size"] * self.n)))
        return conf["steps"] or conf["rounds"]

    def job(self, adversary: Adversary, learner: Learner, recorder: Recorder, keeper: Keeper) -> Job:
        conf, nodes = self.conf, np.arange(self.n)
        quorum = self.n - self.f if conf["quorum"] == "n-f" else conf["quorum"]
        return Job(
            seed=self.seed, steps=self.steps(learner), eval_interval=conf["eval_interval"], nodes=nodes,
            senders=np.setdiff1d(nodes, adversary.silent), byzantine=adversary.byzantine, f=self.f,
            quorum=quorum, deadline=conf["deadline"], on_nan=conf["on_nan"],
            row_dtype=getattr(torch, conf["row_dtype"]),
            theta=learner.model.theta.clone(), learner=learner, rule=adversary.rule,
            averages=conf["aggregator"]["_name_"] == "average" and not conf["pre_aggregator"],
            trusted=registry.trusted(conf["aggregator"]) if conf["algorithm"].get("_rule_") else None,
            optimizer=self.optimizer(learner), schedule=self.factory("schedule"),
            selector=self.make("selector"), recorder=recorder, keeper=keeper,
            local_statistics=conf["buffers"] == "local", attack_state=adversary.state)

    def algorithm(self, job: Job, records: bool) -> Algorithm:
        return self.factory("algorithm")(job, records=records)
