"""Numbers of samples and shapes that are known before anything is loaded, and what they must satisfy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

Conf = Mapping[str, Any]
Report = Callable[[str, str, str], None]  # key in job_conf, message, remedy
ANY_SHAPE = "choose model mlp or softmax, which take any shape"


def samples(dataset: Conf) -> int | None:
    """Training samples of a resolved dataset; None where only loading it tells."""
    terms = dataset.get("_samples_")
    return None if terms is None else sum(factor * dataset.get(name, 1) for name, factor in terms.items())


def shape(dataset: Conf) -> tuple[int, ...] | None:
    """The shape of its samples; None where only loading it tells."""
    sides = dataset.get("_shape_")
    return None if sides is None else tuple(dataset.get(side, side) for side in sides)


def held_out(conf: Conf, total: int) -> int:
    """How many of so many training samples the validation set takes."""
    return round(conf["validation"] * total)


def smallest_shard(conf: Conf) -> int | None:
    """Samples of the node that has fewest; None where that is drawn, or only loading the dataset tells."""
    total, partition = samples(conf["dataset"]), conf["partition"]
    if total is None or not partition.get("_even_"):
        return None
    shards = partition.get(partition.get("_per_node_"), 1)
    return (total - held_out(conf, total)) // (conf["num_workers"] * shards) * shards


def warnings(conf: Conf) -> list[str]:
    """What runs, but not as one would think."""
    shard, size = smallest_shard(conf), conf["batch_size"]
    if shard is None or size <= shard:
        return []
    return [f"batch_size is {size}, and a node has {shard} samples: each batch holds samples more than once"]


def validation(conf: Conf, spec: Spec, simulate: bool, report: Report) -> None:
    """Both the validation set and what is left of the training set have a sample."""
    total, fraction = samples(conf["dataset"]), conf["validation"]
    if not fraction or total is None or 0 < held_out(conf, total) < total:
        return
    least = math.ceil(100 / total) / 100
    report("validation", f"is {fraction:g}, and of the {total} training samples of {conf['dataset']['_name_']} that "
           f"holds out {held_out(conf, total)}, which leaves a set empty",
           f"write 0 for none, or a part from {least:g} to {1 - least:g}" if total > 1 else "write 0")


def nodes(conf: Conf, spec: Spec, simulate: bool, report: Report) -> None:
    """Every node has a sample, or as many as the partition asks for."""
    total, partition, n = samples(conf["dataset"]), conf["partition"], conf["num_workers"]
    if total is None:
        return
    left = total - held_out(conf, total)
    parameter = partition.get("_per_node_")
    each = partition.get(parameter, 1)
    if n * each <= left or left < 1:
        return
    has = f"{conf['dataset']['_name_']} has {total} training samples" + f", {left} without validation" * (left < total)
    if n > left:
        report("num_workers", f"is {n}, and {has}: not one for each node", f"write at most {left}, or choose more data")
    else:
        report(f"partition.{parameter}", f"is {each}, and {n} nodes with so many each need {n * each} samples; {has}",
               f"write at most {left // n}, or fewer num_workers")


def images(conf: Conf, spec: Spec, simulate: bool, report: Report) -> None:
    """The model can take samples of this shape."""
    asked, sides, name = conf["model"].get("_image_"), shape(conf["dataset"]), conf["model"]["_name_"]
    if asked is None or sides is None:
        return
    given = f"the samples of {conf['dataset']['_name_']} have shape {list(sides)}"
    if len(sides) != 3:
        report("model", f"is {name}, which needs images (channels, height, width), and {given}", ANY_SHAPE)
        return
    smallest, channels = asked.get("smallest", 1), asked.get("channels")
    if min(sides[1:]) < smallest:
        report("model", f"is {name}, which needs images of at least {smallest} x {smallest} pixels, and {given}",
               f"{ANY_SHAPE}, or a dataset with larger images")
    if channels and sides[0] not in channels:
        report("model", f"is {name}, which needs images of {' or '.join(map(str, channels))} channels, and {given}",
               ANY_SHAPE)


def batch_norm(conf: Conf, spec: Spec, simulate: bool, report: Report) -> None:
    """BatchNorm sees more than one sample."""
    model, shard = conf["model"], smallest_shard(conf)
    setting = model.get("_batch_norm_")
    if setting is None or any(model[name] != value for name, value in setting.items()):
        return
    remedy = "".join(f", or {name} other than {value}" for name, value in setting.items())
    if conf["batch_size"] == 1:
        report("batch_size", f"is 1, and {model['_name_']} has BatchNorm, which needs several samples",
               f"write at least 2{remedy}")
    elif shard == 1:
        report("num_workers", f"is {conf['num_workers']}, which leaves nodes with one sample, and "
               f"{model['_name_']} has BatchNorm, which needs several", f"use fewer workers{remedy}")


def engine(conf: Conf, spec: Spec, simulate: bool, report: Report) -> None:
    """One call for many nodes cannot key what each of them draws."""
    drawing = [name for name in conf["model"].get("_draws_") or () if conf["model"][name]]
    if conf["engine"] == "batched" and drawing:
        report("engine", f"is batched, which cannot compute a model that draws: {conf['model']['_name_']} has "
               f"{drawing[0]} {conf['model'][drawing[0]]:g}",
               f"write `engine: sequential`, or `{drawing[0]}: 0`")


def loss(conf: Conf, spec: Spec, simulate: bool, report: Report) -> None:
    """The loss suits what the model puts out."""
    suits = conf["model"].get("_losses_")
    if suits and conf["loss"] not in suits:
        report("loss", f"is {conf['loss']}, and {conf['model']['_name_']} puts out logits, for {', '.join(suits)}",
               f"write `loss: {suits[0]}`" + ", which is the same for logits" * (conf["loss"] == "nll"))


CHECKS = (
    ({"dataset", "validation"}, validation),
    ({"dataset", "validation", "partition", "num_workers"}, nodes),
    ({"dataset", "model"}, images),
    ({"dataset", "validation", "partition", "num_workers", "model", "batch_size"}, batch_norm),
    ({"model", "engine"}, engine),
    ({"model", "loss"}, loss),
)
"""Keys that a check needs, and the check."""
