"""Words about a picture: what its runs share, and what they do not share although they should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kuiper.analysis.curves import Curve
from kuiper.analysis.labels import differing_keys, is_other_data, show
from kuiper.analysis.panels import key_of_marks

SEPARATOR = "  ·  "


def headline(curves: Sequence[Curve]) -> tuple[str, str]:
    """Title and subtitle: what all runs share; what differs is in the labels."""
    different = differing_keys([curve.config for curve in curves])
    conf = curves[0].config["conf"]

    def shared(group: str) -> str | None:
        return None if group in different or group not in conf else show(conf[group].get("_name_"))

    title = "Test accuracy"
    if any(is_other_data(key) for key in different):
        title += f" on different {_differing_data(different)}"
    elif shared("dataset"):
        title += f" on {shared('dataset')}"
    nodes, byzantine = (conf.get(key) for key in ("num_workers", "num_byzantine"))
    facts = [shared("algorithm"), shared("model")]
    if len(curves) == 1 and conf["algorithm"].get("_rule_"):
        facts.append(shared("aggregator"))
    if shared("partition") not in (None, "iid"):
        facts.append(_with_parameter(conf["partition"], "partition", different))
    if byzantine and not {"num_workers", "num_byzantine"} & different:
        title += f", {byzantine} of {nodes} nodes Byzantine"
        if shared("attack") not in (None, "none"):
            title += f" ({_with_parameter(conf['attack'], 'attack', different)})"
    elif "num_workers" not in different:
        facts.append(f"{nodes} nodes")
    counts = sorted({len(curve.runs) for curve in curves})
    if counts[-1] > 1:
        facts.append(f"mean of {' or '.join(map(str, counts))} seeds, band: its 95 % confidence interval")
    elif "seed" not in different:
        facts.append(f"seed {conf.get('seed')}")
    if any(curve.worst for curve in curves):
        worst = "thin line: the worst" if counts[-1] > 1 else "band: down to the worst"
        facts.append(f"line: mean over honest peers, {worst}")
    facts.append(key_of_marks(curves))
    return title, SEPARATOR.join(fact for fact in facts if fact)


def caption(curves: Sequence[Curve]) -> str:
    """Title and subtitle in one, for below a picture that has neither."""
    title, subtitle = headline(curves)
    return ". ".join([title, *subtitle.split(SEPARATOR)]) + "."


def cautions(curves: Sequence[Curve]) -> list[str]:
    """Sentences about runs whose numbers do not compare."""
    different = differing_keys([curve.config for curve in curves])
    said = []
    if any(is_other_data(key) for key in different):
        said.append(f"the runs have different {_differing_data(different)}: their accuracies do not compare")
    units = dict.fromkeys(curve.unit for curve in curves)
    if len(units) > 1:
        said.append(f"{' and '.join(f'{unit}s' for unit in units)} share an axis: a round has many local steps")
    if len({curve.virtual for curve in curves}) > 1:
        said.append("some clocks are virtual and others wall clocks: their times do not compare")
    return said


def _differing_data(different: set[str]) -> str:
    return "tasks" if "task" in different else "data sets" if "dataset" in different else "data"


def _with_parameter(group: dict[str, Any], key: str, different: set[str]) -> str:
    """`ipm, eps 10`: the choice and its first parameter, the one that matters, if all runs share it."""
    name = next((each for each in group if not each.startswith("_")), None)
    if name is None or group[name] is None or f"{key}.{name}" in different:
        return group["_name_"]
    return f"{group['_name_']}, {name} {show(group[name])}"
