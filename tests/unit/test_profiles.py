"""The seconds that a device profile charges are those of FedScale's formula."""

from __future__ import annotations

import numpy as np
import pytest

from kuiper.link import Channel
from kuiper.link.clock import VirtualClock
from kuiper.link.profiles import Profiles, lognormal, uniform
from kuiper.link.wire import frame_bytes

NODES = np.arange(3)
MODEL = Channel("model", 1, width=1000, shared=True)
BATCH, LOCAL_STEPS = 30, 20
UPDATE = Channel("update", 2, width=1000, columns=("loss", "samples"), work=BATCH * LOCAL_STEPS)
DOWN, UP = frame_bytes(MODEL, 1, 1), frame_bytes(UPDATE, 1, 1)


def test_a_client_takes_what_the_formula_says() -> None:
    """3 batch local_steps ms / 1000 + 8 (down + up) / (1000 kbit/s), and the latency of both ways."""
    ms, kbit, latency = np.array([1.0, 20.0, 3.0]), np.array([500.0, 10.0, np.inf]), np.array([0.0, 0.1, 2.0])
    clock = VirtualClock(Profiles(ms, kbit, latency, np.inf))
    clock.hub = 1000.0
    expected = 3 * BATCH * LOCAL_STEPS * ms / 1000 + 8 * (DOWN + UP) / (1000 * kbit) + 2 * latency
    np.testing.assert_allclose(clock.arrivals(MODEL, UPDATE, NODES), 1000 + expected, rtol=1e-12)
    # On an unlimited port nobody's time depends on who else is asked.
    np.testing.assert_allclose(clock.arrivals(MODEL, UPDATE, NODES[1:2]), 1000 + expected[1:2], rtol=1e-12)


@pytest.mark.parametrize("begins", [0.0, 1e6], ids=["at-once", "later"])
def test_the_servers_port_is_shared(begins: float) -> None:
    """n equal clients on free networks: n downloads, then n uploads, through one port."""
    n, port = 5, 100.0
    clock = VirtualClock(uniform(n, 0, ms_per_sample=2.0, server_kbit_per_s=port))
    clock.hub = begins
    in_at = clock.arrivals(MODEL, UPDATE, np.arange(n)) - begins
    ready = 8 * n * DOWN / (1000 * port) + 3 * BATCH * LOCAL_STEPS * 2.0 / 1000
    one_upload = 8 * UP / (1000 * port)
    np.testing.assert_allclose(in_at, ready + one_upload * np.arange(1, n + 1), rtol=1e-8)


def test_the_narrower_end_sets_the_pace() -> None:
    slow_device = Profiles(np.ones(2), np.array([1.0, np.inf]), np.zeros(2), 10.0)
    nodes, size = np.arange(2), 1000
    np.testing.assert_allclose(slow_device.download(nodes, size), [8.0, 8 * 2 / 10])
    # The fast one has the port to itself while the slow one trickles in.
    np.testing.assert_allclose(slow_device.upload(nodes, np.array([5.0, 5.0]), size), [13.0, 5.8])


def test_lognormal_devices_are_keyed_by_node() -> None:
    profiles = lognormal(20_000, 1, ms_per_sample=4.0, ms_sigma=0.5, kbit_per_s=100.0, kbit_sigma=1.0)
    for drawn, median, sigma in ((profiles.ms_per_sample, 4.0, 0.5), (profiles.kbit_per_s, 100.0, 1.0)):
        logs = np.log(drawn / median)
        assert abs(logs.mean()) < 5 * sigma / np.sqrt(20_000)
        assert abs(logs.std() - sigma) < 0.03 * sigma
    assert abs(np.corrcoef(np.log(profiles.ms_per_sample), np.log(profiles.kbit_per_s))[0, 1]) < 0.03
    fewer = lognormal(10, 1, ms_per_sample=4.0)
    np.testing.assert_array_equal(fewer.ms_per_sample, profiles.ms_per_sample[:10])
    assert (lognormal(10, 2, ms_per_sample=4.0).ms_per_sample != fewer.ms_per_sample).all()
    assert np.isinf(lognormal(10, 1, kbit_per_s=None).kbit_per_s).all()


def test_a_uniform_device_by_hand() -> None:
    """10 samples forward and backward at 2 ms each take 60 ms; 1000 bytes at 8 kbit/s a second, and half of one to start."""
    same = uniform(2, 1, ms_per_sample=2.0, kbit_per_s=8.0, latency=0.5)
    nodes = np.arange(2)
    assert same.compute(nodes, 10) == pytest.approx([0.06] * 2)
    assert same.download(nodes, 1000) == pytest.approx([1.5] * 2)
    assert same.upload(nodes, np.array([3.0, 4.0]), 1000) == pytest.approx([4.5, 5.5])
