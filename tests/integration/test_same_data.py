"""One run has one data set: at all its processes, from its beginning to its end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kuiper.cluster import agent
from kuiper.data.digest import digests
from kuiper.data.npz import npz
from kuiper.errors import DifferentData
from kuiper.link.holding import Holding, difference, pack
from kuiper.process import Process
from tests.integration.jobs import events, follow, manager, only, write_spec
from tests.integration.meshes import Raw, start
from tests.integration.test_faults import at_step, kill, status, wait_for
from tests.integration.test_resume import Killed, simulate

CONF = {"model": "softmax", "num_workers": 2, "steps": 4, "eval_interval": 2, "batch_size": 8}
COLLECTIVE = {"algorithm": "parameter_server", "transport": "collective"}


def write(path: Path, train: float = 0, test: float = 0, other_way: bool = False) -> Path:
    """100 samples of three features, with one value of either set changed; other_way: in another order and packed."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((120, 3), np.float32), rng.integers(0, 2, 120)
    x[5, 0] += train
    x[110, 0] += test
    arrays = {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:], "y_test": y[100:]}
    path.parent.mkdir(exist_ok=True)
    if other_way:
        np.savez_compressed(path, **dict(reversed(arrays.items())))
    else:
        np.savez(path, **arrays)
    return path


def test_a_digest_is_of_the_samples(tmp_path: Path) -> None:
    def of(**change: Any) -> dict[str, str]:
        return digests(npz(1, str(write(tmp_path / "data.npz", **change)), standardise=False))

    first = of()
    assert of(other_way=True) == first and set(first) == {"train", "test"}
    train, test = of(train=1e-6), of(test=1e-6)
    assert train["train"] != first["train"] and train["test"] == first["test"]
    assert test["train"] == first["train"] and test["test"] != first["test"]
    said = difference(pack(first), pack(test), "here", "there")
    assert said == f"the test set is {first['test'][:12]} here and {test['test'][:12]} there"


def homes(folder: Path) -> list[str]:
    """Setup commands that give worker_2 a home folder of its own, and all others one."""
    one, other = (shlex.quote(str(folder / name)) for name in ("one", "other"))
    return [f'if [ "$KUIPER_PROCESS" = worker_2 ]; then export HOME={other}; else export HOME={one}; fi']


def spec_of(folder: Path, name: str, conf: dict[str, Any], **keys: Any) -> Path:
    dataset = {"npz": {"path": "~/data.npz", "standardise": False}}
    return write_spec(folder, name, {**CONF, **conf, "dataset": dataset}, 2, **{"setup_commands": homes(folder), **keys})


@pytest.mark.parametrize(("conf", "change", "says"), [
    ({"algorithm": "all_reduce"}, {"test": 1}, "the test set is"),
    (COLLECTIVE, {"train": 1, "test": 1}, "the test set is"),
], ids=["peers", "collective"])
def test_other_data_at_one_process_fails_the_job(
    conf: dict[str, Any], change: dict[str, float], says: str, tmp_path: Path
) -> None:
    write(tmp_path / "one" / "data.npz")
    write(tmp_path / "other" / "data.npz", **change)
    done = manager("submit", str(spec_of(tmp_path, "other", conf)), "--follow", "--json")
    assert done.returncode == 100, done.stdout + done.stderr
    run_dir = Path(only(done)["run_dir"])
    told = {name: json.loads((run_dir / name / "error.json").read_text()) for name in ("ps", "worker_2")}
    assert {one["type"] for one in told.values()} == {"DifferentData"}
    assert "worker_2 on localhost holds other data" in told["ps"]["message"] and says in told["ps"]["message"]
    assert "allow_different_data: true" in told["ps"]["remedy"]
    assert str(tmp_path / "one" / "data.npz") in told["ps"]["message"]
    assert str(tmp_path / "other" / "data.npz") in told["worker_2"]["message"] and says in told["worker_2"]["message"]
    assert not events(run_dir, "step") and not (run_dir / "data.json").exists()
    assert not agent.marked(KUIPER_RUN=run_dir.name)


def test_data_that_may_differ(tmp_path: Path) -> None:
    write(tmp_path / "one" / "data.npz")
    write(tmp_path / "other" / "data.npz", train=1)
    job = follow(spec_of(tmp_path, "local", {"algorithm": "parameter_server", "allow_different_data": True}))
    [began] = events(job["run_dir"], "start")
    held = json.loads((Path(job["run_dir"]) / "data.json").read_text())["held"]
    assert held["ps"] == held["worker_1"] == began["data"] != held["worker_2"]


def test_a_worker_that_is_started_again_over_other_data_is_not_let_in(tmp_path: Path) -> None:
    """Not even where processes may differ: each keeps the data that it began with."""
    for folder in ("one", "other"):
        write(tmp_path / folder / "data.npz")
    conf = {"algorithm": "parameter_server", "aggregator": "average", "steps": 100_000, "eval_interval": 1000,
            "allow_different_data": True}
    submitted = manager("submit", str(spec_of(tmp_path, "again", conf, on_failure={"retry": 5})), "--json")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    job = only(submitted)
    wait_for(lambda: at_step(job) > 5)
    write(tmp_path / "other" / "data.npz", train=1)
    kill(job, "worker_2")
    wait_for(lambda: status(job)["state"] == "FAILED")  # every row is needed, and no other attempt is waited for
    reason = status(job)["reason"]
    assert "worker_2" in reason and "was not let in again: it holds other data" in reason
    assert events(job["run_dir"], "barred") and not events(job["run_dir"], "joined")
    ended = json.loads((Path(job["run_dir"]) / "worker_2" / "exit.json").read_text())
    assert ended["attempts"] == 2 and ended["code"] == 100


@pytest.mark.parametrize("change", [{"train": 1}, {"test": 1}])
def test_resume_refuses_data_that_changed(
    change: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "data.npz")
    conf = {**CONF, "algorithm": "parameter_server", "dataset": {"npz": {"path": str(file), "standardise": False}},
            "checkpoint_interval": 2}
    spec, run_dir = write_spec(tmp_path, "job", conf, 0), tmp_path / "run"
    record = Process.simulate

    async def dying(self: Process, *parts: Any) -> None:
        await record(self, *parts)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Process, "simulate", dying)
        simulate(spec, run_dir)
    before = json.loads((run_dir / "data.json").read_text())
    assert before["dataset"] == "npz" and before["source"] == {"path": str(file)}
    lines = events(run_dir, "step")
    write(file, **change)
    with pytest.raises(DifferentData) as refused:
        simulate(spec, run_dir, resume=True)
    now = digests(npz(1, str(file), standardise=False))
    [part] = change
    for said in (str(file), before["held"]["ps"][part][:12], now[part][:12]):
        assert said in refused.value.message
    assert "bring back" in refused.value.remedy and events(run_dir, "step") == lines
    assert json.loads((run_dir / "data.json").read_text()) == before
    write(file, other_way=True)
    assert events(simulate(spec, run_dir, resume=True), "end")


def test_one_that_lies_about_its_data_costs_only_itself(mesh: Any, tls: Path) -> None:
    """Before all have joined it is named; afterwards it is not let in, and nobody else notices."""
    server, first = start(mesh, range(1, 2), tls)
    with pytest.raises(DifferentData, match="ps did not let this process in for its data"):
        mesh(2, tls, holding=Holding(data=bytes(31) + b"x", source="noise")).join(*server.endpoint, timeout=20)
    server.inbox.wait(lambda: server.inbox.refused == [2])
    assert server.different == {2: bytes(31) + b"x"} and server.alive == {1}
    honest = Raw(server, 2, tls)
    server.inbox.wait(lambda: (2, 0) in server.inbox.came)
    honest.close()
    server.inbox.wait(lambda: [rank for rank, _ in server.inbox.lost] == [2])
    with pytest.raises(DifferentData):
        mesh(2, tls, 1, holding=Holding(data=bytes(31) + b"y")).join(*server.endpoint, timeout=20)
    assert server.alive == {1} and first.alive == {0}
