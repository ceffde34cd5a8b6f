"""Pictures that mislead nobody: states, divergence, clocks, data, axes, styles, sizes, and the verb's exit codes."""

import json
import re
import time
from pathlib import Path

import matplotlib.image
import pytest
from test_analysis import config, run_dir
from typer.testing import CliRunner

from kuiper.analysis import X, Width, cautions, compare, load_curves, plot_curves
from kuiper.analysis.headline import headline
from kuiper.analysis.panels import limits
from kuiper.analysis.plot import draw
from kuiper.analysis.style import line_style
from kuiper.cli.app import app
from kuiper.cli.plot import parse_percent
from kuiper.cluster.store import Job, Process
from kuiper.errors import KuiperError, UsageError
from kuiper.record.metrics import MetricsLog

SCORES = [10.0, 60.0, 90.0]


def diverged(folder: Path, step: int) -> Path:
    MetricsLog(folder / "ps" / "metrics.jsonl").event("diverged", step=step)
    return folder


def marks(figure, panel: int = 0) -> list[str]:
    """The marks of ends and divergence in one panel: they are not filled."""
    return sorted(line.get_marker() for line in figure.axes[panel].lines if line.get_markerfacecolor() == "none")


def test_what_did_not_succeed_is_marked_in_labels_lines_and_table(tmp_path: Path) -> None:
    states = ["SUCCEEDED", "RUNNING", "STOPPED", "FAILED", "LOST", "SUCCEEDED"]
    folders = [run_dir(tmp_path / str(i), SCORES, config(f"rule{i}")) for i in range(len(states))]
    diverged(folders[5], 15)
    curves = load_curves(folders, dict(zip(folders, states, strict=True)))
    assert [curve.title for curve in curves] == [
        "rule0", "rule1 (running)", "rule2 (stopped)", "rule3 (failed)", "rule4 (lost)",
        "rule5 (diverged at step 15)"]
    figure = draw(curves)
    assert {curve.title for curve in curves} <= {text.get_text() for text in figure.texts}
    assert marks(figure, 0) == marks(figure, 1) == ["o", "s", "x", "x", "x"]
    assert "cross: failed or diverged, square: stopped, circle: not ended" in headline(curves)[1]
    rows = compare(curves)
    assert [row["states"] for row in rows] == [[state] for state in states]
    assert rows[5]["diverged"] == [15] and rows[0]["diverged"] == [None]


def test_a_state_that_nobody_observed_is_read_from_the_directory(tmp_path: Path) -> None:
    said = {
        "job.json": [({"final": {"state": "FAILED"}}, "FAILED"), ({"final": None}, "RUNNING")],
        "ps/exit.json": [({"code": 0, "reason": "exited"}, "SUCCEEDED"), ({"code": 1, "reason": "exited"}, "FAILED"),
                         ({"code": -15, "reason": "stopped"}, "STOPPED")],
    }  # fmt: skip
    for index, (name, content, state) in enumerate((name, *each) for name, all_ in said.items() for each in all_):
        folder = run_dir(tmp_path / str(index), SCORES, config())
        (folder / name).write_text(json.dumps(content))
        assert load_curves([folder])[0].state == state


def test_a_diverged_run_is_never_the_best(tmp_path: Path) -> None:
    """Scored 99 % after it had diverged at step 15, by an event or by a loss that is not finite."""
    folders = [run_dir(tmp_path / rule, [10.0, 50.0, 99.0], config(rule)) for rule in ("event", "sound", "nan")]
    diverged(folders[0], 15)
    from kuiper.record import Recorder

    with Recorder(folders[2] / "ps", "ps", {"data_set": "", "model": "", "sample_mode": "", "gradient_policy": "",
                                            "task": "cv"}) as recorder:
        for step, loss in ((0, 1.0), (10, 0.5), (20, float("nan"))):
            recorder.evaluation(step, step / 5, 50.0 if step < 20 else 99.0, 99.0, loss)
    event, sound, nan = compare(load_curves(folders), target=60.0)
    assert [row["best_top_1"] for row in (event, sound, nan)] == [50.0, 99.0, 50.0]
    assert [row["reached"] for row in (event, sound, nan)] == [0, 1, 0]
    assert nan["diverged"] == [20]
    alone = compare(load_curves(folders[:1]))[0]
    assert alone["target"] == 47.0  # of the best before


def test_seeds_say_how_many_of_them(tmp_path: Path) -> None:
    folders = [run_dir(tmp_path / str(seed), SCORES[: 3 - (seed == 4)], config(seed=seed)) for seed in range(1, 5)]
    diverged(folders[2], 20)
    states = dict(zip(folders, ["SUCCEEDED", "FAILED", "SUCCEEDED", "RUNNING"], strict=True))
    [curve] = load_curves(folders, states)
    assert curve.remarks == ("1 of 3 failed", "1 of 3 diverged, the first at step 20", "3 of 4 seeds")


def test_wall_and_virtual_time_share_an_axis_only_when_asked(tmp_path: Path) -> None:
    folders = [run_dir(tmp_path / mode, SCORES, config(mode=mode)) for mode in ("cluster", "simulate")]
    curves = load_curves(folders)
    with pytest.raises(UsageError, match="simulated time .* wall time") as error:
        plot_curves(curves, tmp_path / "x.png")
    assert "--x round" in error.value.remedy
    plot_curves(curves, tmp_path / "x.png", X.ROUND)
    assert draw(curves, X.ROUND).axes[0].get_xlabel() == "Step"
    figure = draw(curves, X.TIME)
    assert figure.axes[0].get_xlabel() == "Time, wall or simulated (seconds)"
    assert {"cluster, wall time", "simulate, simulated time"} <= {text.get_text() for text in figure.texts}
    assert any("virtual" in said for said in cautions(curves))


@pytest.mark.parametrize(
    ("other", "word"),
    [({"dataset": {"_name_": "iris"}}, "data sets"), ({"dataset": {"_name_": "digits", "path": "b.npz"}}, "data"),
     ({"rounds": 2}, "")],
)
def test_other_data_and_other_units_are_said(tmp_path: Path, other: dict, word: str) -> None:
    """Even where so much differs that a label leaves things out."""
    more = [config("average", algorithm={"_name_": f"a{i}"}, model={"_name_": f"m{i}"}, x=i, y=i,
                   **(other if i else {})) for i in range(2)]
    curves = load_curves([run_dir(tmp_path / str(i), SCORES, settings) for i, settings in enumerate(more)])
    said = " ".join(cautions(curves))
    if word:
        assert f"different {word}:" in said and f"different {word}" in headline(curves)[0]
        assert curves[0].label != curves[1].label and ("iris" in curves[1].label or "b.npz" in curves[1].label)
    else:
        assert "steps and rounds share an axis" in said
        assert draw(curves).axes[1].get_xlabel() == "Step or round"


@pytest.mark.parametrize(
    ("scores", "worst", "low", "high"),
    [([10.0, 95.0, 99.0], None, 94, 100), ([10.0, 90.0, 90.0], None, 89, 91), ([10.0, 30.0, 97.0], None, 0, 100),
     ([10.0, 1.0, 2.0], None, 0, 3), ([50.0], None, 49, 51), ([10.0, 95.0, 96.0], 90.0, 88, 97),
     ([10.0, float("nan")], None, 9, 11)],
)  # fmt: skip
def test_the_axis_fits_what_was_scored_after_the_start(tmp_path, scores, worst, low, high) -> None:
    curves = load_curves([run_dir(tmp_path / "run", scores, config(), worst=worst)])
    bottom, top = limits(curves)
    drawn = [score for score in scores[1:] or scores if score == score]
    assert low <= bottom <= min(drawn, default=10) and max(drawn, default=10) <= top <= high
    assert draw(curves).axes[0].get_ylim() == (bottom, top)


def test_styles_tell_lines_apart_also_in_black_and_white() -> None:
    styles = [line_style(index) for index in range(252)]
    assert len({(each["color"], str(each["linestyle"]), each["marker"]) for each in styles}) == 252
    assert len({(str(each["linestyle"]), each["marker"]) for each in styles[:28]}) == 28


@pytest.mark.parametrize("width", [None, Width.PAGE, Width.COLUMN])
def test_names_of_many_long_lines_neither_overlap_nor_leave_the_picture(tmp_path: Path, width: Width | None) -> None:
    rules = [f"rule_{'x' * (index * 7 % 60)}_{index}" for index in range(18)]
    curves = load_curves([run_dir(tmp_path / str(i), [10.0, 97.0], config(rule)) for i, rule in enumerate(rules)])
    figure = draw(curves, width=width)
    figure.draw_without_rendering()
    texts = figure.legends[0].get_texts() if width else [
        text for text in figure.texts if text.get_text().replace("\n", "") in rules]
    boxes = [text.get_window_extent() for text in texts]
    assert len(boxes) == 18 and not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    labels = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert not any(label.overlaps(box) for label in labels for box in boxes)
    assert not width or figure.axes[0].yaxis.label.get_window_extent().x0 >= figure.bbox.x0


@pytest.mark.parametrize(("width", "inches"), [(Width.COLUMN, 3.25), (Width.PAGE, 6.75)])
def test_a_paper_gets_its_width_and_fonts(tmp_path: Path, width: Width, inches: float) -> None:
    curves = load_curves([run_dir(tmp_path / rule, [10.0, 97.25, 97.5], config(rule)) for rule in ("a", "b$_x$")])
    pdf = plot_curves(curves, tmp_path / "x.pdf", width=width).read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([0-9.]+)", pdf)
    assert box and float(box[1]) == pytest.approx(72 * inches, abs=0.1)
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    eps = plot_curves(curves, tmp_path / "x.EPS", width=width).read_bytes()
    assert b"/FontType 42" in eps and b"/FontType 3" not in eps
    picture = matplotlib.image.imread(plot_curves(curves, tmp_path / "x.png", width=width))
    assert picture.shape[1] == round(300 * inches)
    assert "b$_x$" in plot_curves(curves, tmp_path / "x.svg", width=width).read_text()


@pytest.mark.parametrize(("text", "value"), [("90", 90.0), ("90%", 90.0), ("0.9%", 0.9), ("1.5", 1.5), ("100", 100.0)])
def test_a_target_is_in_percent(text: str, value: float) -> None:
    assert parse_percent(text) == value


@pytest.mark.parametrize("text", ["0.9", "1", ".95", "0", "-1", "101", "nan", "ninety", "", "%", "0,9"])
def test_a_target_that_may_be_a_fraction_or_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--target"):
        parse_percent(text)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes jobs that have ended, with scores or without."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def make(name: str, state: str, scores: list[float], host: str = "localhost") -> None:
        folder = tmp_path / "logs" / name / f"run-{name}"
        folder.mkdir(parents=True)
        if scores:
            run_dir(folder, scores, config(name, name, folder.name))
        evaluation = {"step": 1} if host != "localhost" else None
        from kuiper.cluster.host import Address
        from kuiper.cluster.site import Site

        Job(folder, name, folder.name, "cluster", time.time(), 1.0, [Process("ps", host)],
            [Site(Address(host), str(folder))], final={"state": state, "reason": "", "evaluation": evaluation}).save()

    return make


def plot(*words: str) -> tuple[int, str]:
    """Exit code (as `app.run` gives it), and what was said."""
    done = CliRunner().invoke(app, ["plot", *words])
    if isinstance(done.exception, KuiperError):
        return done.exception.exit_code, f"{done.output}{done.exception}"
    return done.exit_code, done.output


def test_exit_codes_and_remedies(ledger, tmp_path: Path) -> None:
    ledger("good", "SUCCEEDED", SCORES)
    ledger("bad", "FAILED", [])
    ledger("half", "FAILED", SCORES)
    ledger("halted", "STOPPED", [])
    ledger("away", "SUCCEEDED", [], "node7")
    for words, code, said in [
        (["good", "-o", "nodir/x.png"], 2, "mkdir -p nodir"),
        (["good", "-o", "x.gif"], 2, ".pdf"),
        (["good", "--target", "0.9"], 2, "--target 90"),
        (["bad"], 100, "--errors"),
        (["halted"], 103, "retry"),
        (["halted", "bad"], 100, "bad run-bad is FAILED"),
        (["away"], 104, "collect run-away"),
        (["good", "bad"], 104, "left out: bad run-bad"),
        (["good", "half"], 0, "FAILED"),
        (["nobody"], 102, "nobody"),
    ]:
        result, output = plot(*words)
        assert (result, said in output) == (code, True), (words, result, output)
    assert (tmp_path / "accuracy.png").exists() and not (tmp_path / "x.gif").exists()
    assert plot("good", "--width", "column", "-o", "c.pdf")[1].splitlines()[-1].startswith("caption: Test accuracy on")
