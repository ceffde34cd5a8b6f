"""Run directories read back: labels, time to accuracy, table, picture."""

import math
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import yaml

from kuiper.analysis import compare, load_curves, load_runs, plot_curves, time_to_accuracy
from kuiper.analysis.labels import labels
from kuiper.analysis.headline import headline
from kuiper.analysis.layouts import spread
from kuiper.analysis.plot import draw
from kuiper.cli.plot import print_table
from kuiper.errors import RecordError, UsageError
from kuiper.record import Recorder

HEADER = {
    "data_set": "digits", "model": "mlp", "sample_mode": "all", "gradient_policy": "average", "task": "cv",
}  # fmt: skip


def config(
    rule: str = "average", job: str = "job", run_id: str = "r1", mode: str = "cluster", **conf: Any
) -> dict:
    groups = {
        "algorithm": {"_name_": "parameter_server"},
        "aggregator": {"_name_": rule, "_target_": "x", **({"m": None} if rule == "multi_krum" else {})},
        "attack": {"_name_": "ipm", "eps": 10.0},
        "model": {"_name_": "mlp"},
        "dataset": {"_name_": "digits"},
    }
    values = {"seed": 1, "num_workers": 10, "num_byzantine": 3, "clock": "auto", "steps": 20, "rounds": None}
    return {"job": {"job_name": job, "run_id": run_id, "mode": mode}, "conf": {**values, **groups, **conf}}


def run_dir(folder: Path, top_1: list[float], settings: dict, worst: float | None = None) -> Path:
    (folder / "ps").mkdir(parents=True)
    with Recorder(folder / "ps", "ps", HEADER) as recorder:
        recorder.step(1, bytes_in=10, bytes_out=5)
        recorder.step(2, bytes_in=1, bytes_out=2)
        for index, accuracy in enumerate(top_1):
            more = {} if worst is None or index == 0 else {"worst": worst}
            recorder.evaluation(10 * index, 2.0 * index, accuracy, 99.0, 0.1, **more)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.mark.parametrize(
    ("configs", "expected"),
    [
        ([config("average"), config("multi_krum")], ["average", "multi_krum"]),
        ([config(seed=1), config(seed=2)], ["seed=1", "seed=2"]),
        ([config("median", seed=1), config(seed=2)], ["median, seed=1", "average, seed=2"]),
        ([config(), config(attack={"_name_": "none"})], ["ipm", "no attack"]),
        ([config(attack={"_name_": "ipm", "eps": 0.5}), config()], ["eps=0.5", "eps=10"]),
        ([config(), config(mode="simulate")], ["cluster", "simulate"]),
        ([config(f=None), config(f=2)], ["f=none", "f=2"]),
        ([config(job="a"), config(job="b")], ["a", "b"]),
        ([config(), config(run_id="r2")], ["job r1", "job r2"]),
        ([config(job="iris")], ["iris"]),
    ],
)
def test_labels_say_what_differs_and_nothing_else(configs: list[dict], expected: list[str]) -> None:
    assert labels(configs) == expected


def test_labels_of_very_different_runs_stay_short_but_unique() -> None:
    many = [config(a=i, b=i, c=i, d=i, e=i % 2) for i in range(3)]
    assert labels(many) == ["a=0, b=0, c=0", "a=1, b=1, c=1", "a=2, b=2, c=2"]
    last = [config(a=i // 2, b=i // 2, c=i // 2, d=i % 2) for i in range(4)]
    assert len(set(labels(last))) == 4


def test_time_to_accuracy_and_the_table(tmp_path: Path) -> None:
    first = run_dir(tmp_path / "a", [10.0, 80.0, 95.0, 90.0], config("multi_krum"))
    second = run_dir(tmp_path / "b", [10.0, 11.0, math.nan], config("average"))
    fast, never = load_runs([first, second])
    assert time_to_accuracy(fast, 80.0) == 2.0 and time_to_accuracy(fast, 90.0) == 4.0
    assert time_to_accuracy(never, 50.0) is None
    rows = compare(load_curves([first, second]))
    assert [row["label"] for row in rows] == ["multi_krum", "average"]
    assert [rows[0][key] for key in ("top_1", "best_top_1", "clock", "rounds")] == [90.0, 95.0, 6.0, 30]
    assert [rows[0][key] for key in ("top_1_ci", "target", "time_to_target")] == [None, 85.0, 4.0]
    assert rows[0]["bytes"] == 10 + 5 + 1 + 2
    assert rows[1]["best_top_1"] == 11.0 and not rows[0]["virtual"]
    assert (rows[1]["top_1"], rows[1]["reached"], rows[1]["time_to_target"]) == (None, 0, None)


def test_runs_that_differ_only_in_their_seed_are_one_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a table of Student's t: 4.302653 for two degrees of freedom, 95 % between both ends."""
    finals = {1: [10.0, 80.0, 90.0], 2: [20.0, 85.0, 93.0], 3: [15.0, 90.0, 96.0]}
    folders = [
        run_dir(tmp_path / str(seed), top_1, config("multi_krum", f"krum-seed{seed}", str(seed), seed=seed))
        for seed, top_1 in finals.items()
    ]
    folders.insert(1, run_dir(tmp_path / "average", [10.0, 11.0, 12.0], config("average", "other")))
    krum, average = load_curves(folders)
    assert (krum.label, average.label) == ("multi_krum", "average")
    assert krum.rounds == (0, 10, 20) and krum.clock == (0.0, 2.0, 4.0)
    assert krum.top_1 == (15.0, 85.0, 93.0) and average.top_1 == (10.0, 11.0, 12.0)
    halves = [4.302653 * deviation / math.sqrt(3) for deviation in (5.0, 5.0, 3.0)]
    assert krum.top_1_ci == pytest.approx(halves, rel=1e-6) and average.top_1_ci == ()

    row, other = compare([krum, average], target=85.0)
    assert (row["seeds"], row["top_1"], row["best_top_1"], row["reached"]) == ([1, 2, 3], 93.0, 93.0, 3)
    assert row["time_to_target"] == pytest.approx((4.0 + 2.0 + 2.0) / 3)
    assert row["top_1_ci"] == pytest.approx(7.452412, rel=1e-6) and other["top_1_ci"] is None
    print_table([row, other])
    assert [line.split("  ")[-1].strip() for line in capsys.readouterr().out.splitlines()] == [
        "time to 85 %", "2.67 ± 2.87 s", "0 of 1 there"]
    figure = draw([krum, average])
    assert "mean of 1 or 3 seeds" in headline([krum, average])[1]
    assert "93.0 ± 7.5 %" in {text.get_text() for text in figure.texts}

    [alone] = load_curves([folders[0], *folders[2:]])
    assert alone.label == "krum"


def test_a_seed_that_is_behind_or_there_twice_is_in_no_mean(tmp_path: Path) -> None:
    seeds = {"a": (1, [10.0, 80.0]), "b": (2, [20.0]), "again": (1, [10.0, 70.0]), "c": (3, [20.0, 90.0])}
    folders = [
        run_dir(tmp_path / name, top_1, config(job="job", run_id=name, seed=seed))
        for name, (seed, top_1) in seeds.items()
    ]
    first, second = load_curves(folders)
    assert [run.folder.name for run in first.runs] == ["a", "c"] and first.top_1 == (15.0, 85.0)
    assert [run.folder.name for run in first.left_out] == ["b"]
    assert [run.folder.name for run in second.runs] == ["again"]
    assert (first.label, second.label) == ("job a", "job again")
    assert compare([first])[0]["left_out"] == [str(tmp_path / "b")]


def test_bytes_between_peers_count_once(tmp_path: Path) -> None:
    """Of its steps, 10 and 1 came in, 5 and 2 went out."""
    peers = run_dir(tmp_path / "a", [10.0], config(algorithm={"_name_": "elastic_gossip", "_peers_": True}))
    server = run_dir(tmp_path / "b", [10.0], config())
    assert [row["bytes"] for row in compare(load_curves([peers, server]))] == [7, 18]


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="config.yaml"):
        load_runs([tmp_path])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config()))
    with pytest.raises(RecordError, match="training_perf"):
        load_runs([tmp_path])
    with pytest.raises(RecordError, match="no run"):
        load_curves([])


def test_spread_keeps_order_gap_and_bounds() -> None:
    wanted = [96.0, 96.5, 10.0, 96.2, 50.0, 99.9]
    placed = spread(wanted, gap=6.0, low=2.0, high=98.0)
    in_order = [placed[index] for index in sorted(range(6), key=lambda index: wanted[index])]
    assert all(b - a >= 6.0 - 1e-9 for a, b in zip(in_order, in_order[1:], strict=False))
    assert placed[2] == 10.0 and placed[4] == 50.0 and max(placed) == 98.0
    assert spread([50.0] * 100, gap=6.0, low=0.0, high=99.0) == pytest.approx([99.0 - i for i in range(100)])
    assert spread([0.0], 6.0, 2.0, 98.0) == [2.0]


@pytest.mark.parametrize("count", [1, 6])
def test_picture_names_every_line_without_overlap(tmp_path: Path, count: int) -> None:
    rules = ["average", "median", "trimmed_mean", "multi_krum", "krum", "a_rule_with_a_long_name"][:count]
    folders = [run_dir(tmp_path / rule, [10.0, 90.0, 97.0], config(rule), worst=9.0) for rule in rules]
    curves = load_curves(folders)
    assert curves[0].worst == (10.0, 9.0, 9.0)
    figure = draw(curves)
    extents = {text.get_text(): text.get_window_extent() for text in figure.texts}
    boxes = [extents[curve.label] for curve in curves]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.axes[1].bbox.x1 < box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert sum("97.0 %" == text.get_text() for text in figure.texts) == count
    assert figure.axes[0].get_ylim() == (0, 100)
    picture = matplotlib.image.imread(plot_curves(curves, tmp_path / "out.png"))
    assert picture.shape[1] > 1000 and picture.std() > 0.01


def test_headline_says_what_all_runs_share(tmp_path: Path) -> None:
    curves = load_curves([run_dir(tmp_path / rule, [10.0], config(rule)) for rule in ("average", "median")])
    title, subtitle = headline(curves)
    assert title == "Test accuracy on digits, 3 of 10 nodes Byzantine (ipm, eps 10)"
    assert subtitle == "parameter_server  ·  mlp  ·  seed 1"


def test_a_picture_that_cannot_be_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for name, said in {"x.gif": "by .gif", "x": "without a suffix", "no/x.png": f"no folder {tmp_path}/no",
                       "is.png": "is a folder"}.items():
        (tmp_path / "is.png").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=said):
            plot_curves([], tmp_path / name)
