"""YAML reading: positions, surprises, and what is refused."""

from __future__ import annotations

import pytest

from kuiper.config import source
from kuiper.config.schema import InvalidSpec

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
)


def test_every_key_has_a_place(tmp_path):
    path = tmp_path / "conf.yml"
    path.write_text("# comment\njob: x\nconf:\n  - seed: 1\n  - model:\n      mlp: {hidden: [3]}\n")
    document = source.load(path)
    assert document.data == {"job": "x", "conf": [{"seed": 1}, {"model": {"mlp": {"hidden": [3]}}}]}
    lines = {("job",): 2, ("conf",): 3, ("conf", 0, "seed"): 4, ("conf", 1, "model", "mlp", "hidden"): 6}
    assert {at: document.where(*at) for at in lines} == {at: f"{path}:{line}" for at, line in lines.items()}
    assert document.where("conf", 1, "model", "mlp", "hidden", "missing", 3) == f"{path}:6"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("-2", -2), ("0x1f", 31), ("010", 10), (".5", 0.5), ("true", True), ("~", None),
        ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("1_000", "1_000"),
        ("'1'", "1"), ("n-f", "n-f"), ("", None), ("NULL", None), (".inf", float("inf")),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    read = source.parse(f"x: {text}", "text").data["x"]
    assert read == value and type(read) is type(value)


def test_anchors_and_merges():
    document = source.parse("base: &b {lr: 1, m: 2}\nuse:\n  <<: *b\n  lr: 3\nagain: *b\n", "t")
    assert document.data["use"] == {"lr": 3, "m": 2}
    assert document.data["again"] == {"lr": 1, "m": 2}
    assert not document.problems


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"", None, "is empty"),
        (b"# nothing\n", None, "is empty"),
        (b"a: 1\n\tb: 2\n", 2, "tab"),
        (b"a:\n\t- 1\n", 2, "tab"),
        (b"a: [1, 2\nb: 3\n", 2, "not YAML"),
        (b"a: b: c\n", 1, "needs quotes"),
        (b"a: 1\n---\nb: 2\n", 2, "not YAML"),
        (b"a: *nope\n", 1, "not YAML"),
        (b"a: \xff\xfe\n", 1, "UTF-8"),
        (b"a: 1\nb: \x01\n", None, "not YAML"),
        (b"[" * 3000, None, "nests deeper"),
        (b"a: &a [*a]\n", 1, "nests deeper"),
        (BOMB.encode(), 1, "expands to more than"),
        (b"a: " + b"x" * 2_000_000, None, "bytes"),
    ],
)
def test_refused(tmp_path, content, line, says):
    path = tmp_path / "conf.yml"
    path.write_bytes(content)
    with pytest.raises(InvalidSpec) as caught:
        source.load(path)
    [problem] = caught.value.problems
    assert says in str(problem) and problem.remedy
    assert problem.where == (f"{path}:{line}" if line else str(path))
    assert caught.value.exit_code == 3


def test_missing_file_and_folder(tmp_path):
    cases = [(tmp_path / "nope.yml", "no such file"), (tmp_path, "is a folder"), ("a\0b", "cannot be read")]
    for path, says in cases:
        with pytest.raises(InvalidSpec, match=says):
            source.load(path)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "set twice; first at t:1"),
        ("x: {a: 1}\ny:\n  a: 1\n  a: 2\n", 4, "set twice; first at t:3"),
        ("1: x\n", 1, "not a word"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "tags are not read"),
        ("a: !!python/name:os.system\n", 1, "tags are not read"),
        ("a: !!int x\n", 1, "not what its tag says"),
        ("<<: 3\n", 1, "no mapping"),
    ],
)
def test_collected(text, line, says):
    [problem] = source.parse(text, "t").problems
    assert problem.where == f"t:{line}" and says in problem.message
