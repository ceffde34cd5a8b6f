"""What the shipped MNIST configs must reach; all but the first are slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.jobs import ROOT, follow


def study(test):
    """Takes minutes: left out of the default run."""
    return pytest.mark.slow(pytest.mark.timeout(1200)(test))



@pytest.fixture
def accuracy(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUIPER_DATA", str(data_root))

    def run(config: str, *overrides: str) -> float:
        words = [word for override in (f"log_path={tmp_path / 'logs'}", *overrides) for word in ("-o", override)]
        return follow(ROOT / "configs" / f"{config}.yml", "--simulate", *words, timeout=600)["evaluation"]["top_1"]

    return run


def test_one_epoch_learns(accuracy) -> None:
    assert accuracy("mnist_parameter_server", "epochs=1") >= 94


@study
@pytest.mark.parametrize("algorithm", ["parameter_server", "all_reduce"])
def test_synchronous_training_reaches_97(algorithm: str, accuracy) -> None:
    assert accuracy("mnist_parameter_server", f"algorithm={algorithm}") >= 97


@study
def test_multi_krum_holds_under_attack_where_the_average_does_not(accuracy) -> None:
    config, ipm = "mnist_multi_krum_alie", ("attack=ipm", "attack.eps=10")
    honest = accuracy(config, "num_byzantine=0", "attack=none", "aggregator=average")
    assert accuracy(config) > honest - 2
    assert accuracy(config, *ipm) > honest - 2
    assert accuracy(config, *ipm, "aggregator=average") < 20


@study
def test_gossip_and_federated_learn(accuracy) -> None:
    assert accuracy("mnist_elastic_gossip") >= 96
    assert accuracy("mnist_fedavg_dirichlet") >= 93
