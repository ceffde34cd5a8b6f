"""The law of the design: one spec, one seed, one trajectory, bit for bit, wherever the nodes are.

Each family runs (a) as a simulation, (b) as local processes with one node each, and (c) as local
processes with several nodes each; sequential engine, full quorum, an attack in every row.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.jobs import events, follow, trajectory, write_spec

COMMON = {"dataset": "digits", "model": {"mlp": {"hidden": [32], "dropout": 0.2}}, "batch_size": 16, "seed": 7,
          "engine": "sequential", "eval_interval": 4}
STEPS = {"steps": 10, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}}
NORMALISED = {"model": {"mlp": {"hidden": [32], "norm": "batch"}}}

FAMILIES = {
    "parameter_server": {
        **STEPS, "algorithm": {"parameter_server": {"worker_momentum": 0.5}}, "num_workers": 5,
        "num_byzantine": 1, "aggregator": "multi_krum", "attack": {"ipm": {"eps": 2.0}}},
    "adam_trimmed_mean_alie": {
        "steps": 10, "algorithm": "parameter_server", "num_workers": 3, "num_byzantine": 1,
        "aggregator": "trimmed_mean", "attack": {"alie": {"z": 1.5}}, "optimizer": "adam", "schedule": "cosine",
        **NORMALISED, "buffers": "aggregate", "precision": "bfloat16"},
    "crash": {
        **STEPS, "algorithm": "parameter_server", "num_workers": 4, "num_byzantine": 1,
        "aggregator": "median", "attack": "crash"},
    "all_reduce": {**STEPS, "algorithm": "all_reduce", "num_workers": 3, "num_byzantine": 1, "attack": "label_flip",
        "row_dtype": "float16", **NORMALISED, "validation": 0.1},
    "elastic_gossip": {
        **STEPS, "algorithm": {"elastic_gossip": {"probability": 0.7}}, "num_workers": 4,
        "num_byzantine": 1, "attack": {"ipm": {"eps": 0.5}}},
    "gossiping_sgd": {
        **STEPS, "algorithm": {"gossiping_sgd": {"period": 2}}, "num_workers": 3, "num_byzantine": 1,
        "attack": "sign_flip", "row_dtype": "bfloat16", **NORMALISED, "buffers": "local", "validation": 0.2},
    "fedavg": {
        "rounds": 5, "algorithm": {"fedavg": {"clients_per_round": 3, "overcommit": 1.0, "local_steps": 3}},
        "num_workers": 4, "num_byzantine": 1,
        "attack": {"min_max": {"knowledge": "own", "batches": 2}},
        "partition": {"dirichlet": {"alpha": 1.0}}, "eval_interval": 2, "security": "none",
        "row_dtype": "bfloat16"},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_placement_changes_no_bit(family: str, tmp_path: Path) -> None:
    conf = {**COMMON, **FAMILIES[family]}
    simulated = follow(write_spec(tmp_path, "a", conf, 0), "--simulate")
    alone = follow(write_spec(tmp_path, "b", conf, conf["num_workers"]))
    together = follow(write_spec(tmp_path, "c", conf, 2))

    expected = trajectory(simulated["run_dir"])
    assert len(expected["losses"]) == (conf.get("steps") or conf["rounds"])
    assert len({bits for *_, bits in expected["evaluations"]}) == len(expected["evaluations"]), "nothing was learned"
    assert trajectory(alone["run_dir"]) == expected
    assert trajectory(together["run_dir"]) == expected
    assert all(not events(run["run_dir"], "gone") for run in (alone, together))


def test_another_seed_is_another_trajectory(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "a", {**COMMON, **FAMILIES["fedavg"]}, 0)
    first, again, other = (follow(spec, "--simulate", "-o", f"seed={seed}")["run_dir"] for seed in (7, 7, 8))
    assert trajectory(first) == trajectory(again) != trajectory(other)
