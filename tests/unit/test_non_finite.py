"""A loss or row that is not finite is named, and stops the job, is dropped, or is left to the rule."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kuiper.algorithms.non_finite import NonFinitePolicy
from kuiper.errors import JobFailed
from kuiper.link import Gathered
from kuiper.record import Recorder
from kuiper.record.log import bunyan_logger
from kuiper.record.metrics import read_metrics


@pytest.fixture
def screen(tmp_path: Path):
    def make(policy: str | None) -> tuple[NonFinitePolicy, io.StringIO]:
        recorder, log = Recorder(tmp_path, "ps"), io.StringIO()
        recorder.log = bunyan_logger("ps", log)
        return NonFinitePolicy(policy, recorder), log

    return make


def gathered(bad_row: bool = False, bad_loss: bool = False) -> Gathered:
    rows, losses = torch.ones(3, 4), np.ones(3)
    if bad_row:
        rows[1, 2] = float("inf")
    if bad_loss:
        losses[1] = np.nan
    return Gathered(np.array([2, 5, 7]), rows, {"loss": losses})


@pytest.mark.parametrize("bad", [{"bad_row": True}, {"bad_loss": True}])
def test_stop_names_node_and_step_and_drop_leaves_it_out(bad: dict, screen, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"step 9: NaN or Inf from nodes \[5\]"):
        screen("stop")[0].gathered(9, gathered(**bad))
    kept = screen("drop")[0].gathered(9, gathered(**bad))
    assert kept.nodes.tolist() == [2, 7] and kept.rows.shape == (2, 4) and len(kept.columns["loss"]) == 2
    [event] = [e for e in read_metrics(tmp_path / "metrics.jsonl") if e["event"] == "not_finite"]
    assert (event["step"], event["nodes"], event["dropped"]) == (9, [5], True)


def test_without_a_policy_the_rule_decides_and_it_is_said_once(screen) -> None:
    quiet, log = screen(None)
    for step in (1, 2):
        assert quiet.gathered(step, gathered(bad_loss=True)).nodes.tolist() == [2, 5, 7]
    assert [json.loads(line)["msg"] for line in log.getvalue().splitlines()] == ["step 1: NaN or Inf from nodes [5]"]
    assert quiet.gathered(3, gathered(bad_row=True)).nodes.tolist() == [2, 5, 7]


def test_large_finite_rows_pass_and_nothing_left_is_an_error(screen) -> None:
    large = Gathered(np.arange(2), torch.full((2, 9), 3e38), {"loss": np.ones(2)})
    assert len(screen("stop")[0].gathered(1, large).nodes) == 2
    nothing = Gathered(np.arange(2), torch.ones(2, 3), {"loss": np.full(2, np.inf)})
    with pytest.raises(JobFailed, match="all 2 nodes"):
        screen("drop")[0].gathered(1, nothing)
