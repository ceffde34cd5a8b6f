"""One table of attacks: known answers, and the laws that all obey."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, resources

import pytest
import torch
import yaml
from torch import Tensor

from kuiper.attacks import alie, ipm, label_flip, sign_flip
from kuiper.attacks.alie import largest_hidden_z
from kuiper.errors import JobFailed, SpecError


@dataclass(frozen=True)
class Attack:
    """An attack, what it acts on, and what it takes beside its parameters."""

    name: str
    acts_on: str
    call: Callable[..., Tensor] | None = None
    takes: tuple[str, ...] = ()


ATTACKS = [
    Attack("none", "none"),
    Attack("crash", "nothing_sent"),
    Attack("sign_flip", "rows", sign_flip, ("rows_kd",)),
    Attack("label_flip", "labels", label_flip, ("labels", "classes")),
    Attack("ipm", "gather", ipm, ("honest_hd", "count")),
    Attack("alie", "gather", alie, ("honest_hd", "count")),
]
GATHER = [attack for attack in ATTACKS if attack.acts_on == "gather"]


ANCHORS = [(17, 8, 1.22064), (25, 5, 0.25335), (25, 11, 1.06757), (17, 4, 0.29338)]


@pytest.mark.parametrize(("n", "f", "z"), ANCHORS)
def test_alie_takes_z_from_n_and_f(n: int, f: int, z: float) -> None:
    assert largest_hidden_z(n, f) == pytest.approx(z, abs=5e-6)
    honest = torch.randn(n - f, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    expected = honest.mean(0) - largest_hidden_z(n, f) * honest.std(0, correction=1)
    torch.testing.assert_close(alie(honest, f), expected.expand(f, -1))


def test_alie_known_answers() -> None:
    honest = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert alie(honest, 1, z=2.0)[0].tolist() == pytest.approx([2 - 2 * 2**0.5, 0])
    assert torch.equal(alie(honest[:1], 3, z=2.0), honest[:1].expand(3, -1))  # one honest row: sigma = 0
    with pytest.warns(UserWarning, match="z = 0 <= 0 at n = 20, f = 2"):
        assert largest_hidden_z(20, 2) == 0
    for n, f in ((2, 1), (1, 0), (4, 3)):
        with pytest.raises(SpecError, match=f"n = {n}, f = {f}"):
            largest_hidden_z(n, f)


def test_ipm_sign_flip_label_flip_known_answers() -> None:
    rows = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    assert ipm(rows, 2, eps=10).tolist() == [[-20.0, -10.0]] * 2
    assert sign_flip(rows).tolist() == [[-1.0, 2.0], [-3.0, -4.0]]
    assert label_flip(torch.tensor([[0, 9], [3, 4]]), 10).tolist() == [[9, 0], [6, 5]]


@pytest.mark.parametrize("attack", GATHER, ids=lambda attack: attack.name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gather_attacks(attack: Attack, dtype: torch.dtype) -> None:
    """Shape and dtype; honest rows untouched; the same bits from any memory layout; no honest row refused."""
    honest = torch.randn(7, 1001, generator=torch.Generator().manual_seed(0)).to(dtype)
    kept = honest.clone()
    sent = attack.call(honest, 4)
    assert sent.shape == (4, 1001) and sent.dtype == dtype
    assert torch.equal(honest, kept)
    assert torch.equal(attack.call(honest.T.contiguous().T, 4), sent)
    assert attack.call(honest, 0).shape == (0, 1001)
    with pytest.raises(JobFailed, match="no honest row"):
        attack.call(honest[:0], 4)


def test_own_attacks_leave_their_input() -> None:
    rows, labels = torch.ones(2, 3), torch.arange(4)
    sign_flip(rows)
    label_flip(labels, 4)
    assert torch.equal(rows, torch.ones(2, 3)) and torch.equal(labels, torch.arange(4))


def test_every_yaml_is_in_the_table() -> None:
    folder = resources.files("kuiper.config") / "groups" / "attack"
    found = {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text()) for file in folder.iterdir()}
    assert set(found) == {attack.name for attack in ATTACKS}
    for attack in ATTACKS:
        conf = found[attack.name]
        assert conf["_acts_on_"] == attack.acts_on
        given = {key: value for key, value in conf.items() if not key.startswith("_")}
        if attack.call is None:
            assert "_target_" not in conf and not given
            continue
        module, _, name = conf["_target_"].rpartition(".")
        assert getattr(import_module(module), name) is attack.call
        parameters = inspect.signature(attack.call).parameters.values()
        assert tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY) == attack.takes
        assert given == {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
