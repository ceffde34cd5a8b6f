"""Only what the allow-list names is ever built, whatever way a path takes to it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import yaml

from kuiper.config.instantiate import factory
from kuiper.errors import SpecError
from kuiper.optim import SGD

GROUPS = resources.files("kuiper") / "config" / "groups"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "kuiperish.rule",  # begins like an allowed prefix, but for its dot
        "torch.optim.optimizer.torch.load",  # the way leads through an allowed module
        "torch.optim.optimizer.functools.partial",
        "kuiper.config.instantiate.importlib.import_module",
        "kuiper.config.instantiate.importlib",  # a module
        "kuiper.record.recorder.time",
        "kuiper.data.small.datasets",
        "kuiper.config.instantiate.Any",  # another's class under an allowed name
        "kuiper.aggregation.krum.Tensor",
        "kuiper.config.instantiate.ALLOWED",  # not callable
        "kuiper.optim.SGD.__init__",
        "kuiper.",
        "kuiper.optim.",
    ],
)
def test_anything_else_is_refused(target: str) -> None:
    with pytest.raises(SpecError, match="_target_") as caught:
        factory({"_target_": target})
    assert caught.value.remedy


def test_a_typo_says_what_is_missing() -> None:
    with pytest.raises(SpecError, match=r"'kuiper.optim.SDG' cannot be imported.*SDG"):
        factory({"_target_": "kuiper.optim.SDG"})


def test_parameters_are_filled_in_and_metadata_is_not() -> None:
    make = factory({"_target_": "kuiper.optim.SGD", "_name_": "sgd", "_doc_": "a line", "lr": 0.5})
    assert make(momentum=0.9) == SGD(lr=0.5, momentum=0.9)
    assert factory({"_target_": "torch.optim.SGD"}).func.__name__ == "SGD"  # re-exported within its package
    linear = factory({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3})
    assert linear().weight.shape == (3, 2)


def test_a_users_module_needs_its_prefix_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rules.py").write_text(
        "from os import system\n\ndef geometric(rows, f, *, steps=3):\n    return steps\n")
    monkeypatch.syspath_prepend(tmp_path)
    group = {"_target_": "my_rules.geometric", "steps": 5}
    with pytest.raises(SpecError, match="allow-list") as caught:
        factory(group)
    assert "allow:" in caught.value.remedy
    assert factory(group, allow=["my_rules."])(None, 0) == 5
    with pytest.raises(SpecError, match="allow-list"):  # what it imports is not its own
        factory({"_target_": "my_rules.system"}, allow=["my_rules."])


def test_every_shipped_choice_can_be_built() -> None:
    for path in Path(str(GROUPS)).glob("*/*.yaml"):
        group = yaml.safe_load(path.read_text())
        if "_target_" in group:
            assert callable(factory(group)), path
