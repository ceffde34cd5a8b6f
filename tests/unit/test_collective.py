"""The collective link without a group: its calls never wait for ever, and which backend it takes."""

from __future__ import annotations

import threading

import pytest

from kuiper.errors import JobFailed, QuorumLost
from kuiper.link.collective import Calls, backend


@pytest.fixture
def calls() -> Calls:
    one = Calls()
    one.start()
    return one


def test_calls_run_in_order(calls: Calls) -> None:
    seen: list[int] = []
    futures = [calls.submit(lambda place=place: seen.append(place)) for place in range(100)]
    assert futures[-1].result(5) is None and seen == list(range(100))


def test_a_loss_ends_calls_that_would_never_return(calls: Calls) -> None:
    stuck, entered = threading.Event(), threading.Event()

    def collective() -> None:
        entered.set()
        stuck.wait()

    inside, behind = calls.submit(collective), calls.submit(lambda: None)
    assert entered.wait(5) and not inside.cancel()
    calls.fail(QuorumLost("rank 2 is gone"))
    calls.fail(QuorumLost("rank 3 is gone"))
    for future in (inside, behind, calls.submit(lambda: None)):
        with pytest.raises(QuorumLost, match="rank 2"):
            future.result(0)
    stuck.set()
    calls.join(5)
    assert not calls.is_alive()


def test_a_failed_collective_waits_for_who_is_gone(calls: Calls) -> None:
    failed = calls.submit(lambda: [].pop())
    threading.Timer(0.05, calls.fail, (QuorumLost("rank 1 is gone"),)).start()
    with pytest.raises(QuorumLost, match="rank 1"):
        failed.result(5)


def test_a_collective_that_fails_by_itself(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kuiper.link.collective._NEWS_SECONDS", 0)
    with pytest.raises(JobFailed, match="pop from empty list"):
        calls.submit(lambda: [].pop()).result(5)


def test_nccl_only_where_every_process_has_a_gpu_to_itself() -> None:
    gpus = [{"host": host, "device": device} for host in ("a", "b") for device in ("cuda:0", "cuda:1")]
    assert backend(gpus) == "nccl"
    assert backend([*gpus, gpus[0]]) == backend([*gpus, {"host": "a", "device": "cpu"}]) == "gloo"
