"""Values as people write them who do not know YAML: each is refused with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from kuiper.config import schema
from kuiper.config.schema import InvalidSpec, Key
from kuiper.config.source import parse
from kuiper.cluster.spec import load

FLOAT, INT, COUNTS = Key("float", low=0), Key("int", low=1), Key("list", items="int")


@pytest.mark.parametrize(("key", "value", "says"), [
    (FLOAT, "0,05", "0.05"), (FLOAT, "1/10", "0.1"), (FLOAT, "10^-3", "0.001"), (FLOAT, "5%", "0.05"),
    (FLOAT, "0.1", "0.1"), (FLOAT, "\u201c0.1\u201d", "0.1"), (FLOAT, "0.1\u00a0", "0.1"),
    (schema.VALUES["validation"], 10, "0.1"), (schema.VALUES["validation"], "0,1", "0.1"),
    (INT, "1_000", "1000"), (INT, "1,000", "1000"), (INT, "1k", "1000"), (INT, 1000.0, "1000"), (INT, "4", "4"),
    (schema.VALUES["pool"], "no", "null"), (Key("bool"), "yes", "true"), (Key("bool"), "off", "false"),
    (COUNTS, "0,1", "[0, 1]"), (COUNTS, 3, "[3]"),
    (Key("list"), "localhost:2", "['localhost:2']"), (Key("list"), "node1, node2:4", "[node1, 'node2:4']"),
    (schema.JOB_NAME, 2024, "'2024'"), (schema.JOB_NAME, True, "'true'"), (schema.JOB_NAME, "my job", "my-job"),
    (schema.VALUES["ports"], 29600, "29600-29600"), (schema.VALUES["ports"], "29600:29650", "29600-29650"),
    (schema.VALUES["quorum"], "n - f", "n-f"), (schema.VALUES["on_nan"], "Drop", "drop"),
    (schema.LIMITS["duration"], "1:30", "90m"), (schema.LIMITS["duration"], "1:30:05", "5405s"),
    (schema.LIMITS["duration"], "90 minutes", "90m"), (schema.LIMITS["duration"], "1h30m", "90m"),
    (schema.LIMITS["duration"], "1,5h", "1.5h"), (schema.LIMITS["duration"], "1,5", "1.5s"),
])  # fmt: skip
def test_what_was_meant_is_said_and_would_do(key: Key, value: object, says: str) -> None:
    wrong = schema.check(key, value)[1]
    assert wrong.endswith(f"; did you mean {says}?"), wrong
    assert not schema.check(key, parse(says, "x").data)[1]


@pytest.mark.parametrize(("key", "value"), [
    (INT, "ten"), (INT, -1), (INT, 1.5), (FLOAT, "nan"), (FLOAT, "x,y"), (FLOAT, "1/0"), (INT, "9" * 5000),
    (schema.LIMITS["duration"], "soon"), (COUNTS, "a b"), (schema.VALUES["seed"], "-"), (INT, ""), (FLOAT, True),
    (Key("list"), "[a"), (schema.VALUES["validation"], 0.999), (schema.VALUES["validation"], 1.0),
])  # fmt: skip
def test_nothing_is_made_up(key: Key, value: object) -> None:
    wrong = schema.check(key, value)[1]
    assert wrong and "did you mean" not in wrong


@pytest.mark.parametrize(("line", "at", "says"), [
    ("optimizer: {sgd: {lr: 0,05}}", 2, "write 0.05"),
    ("limits: {grace: 5s, duration: 1,5h}", 2, "write 1.5h"),
    ("seed:1", 2, "a key, a colon, a space"), ("batch_size=32", 2, "a key, a colon, a space"),
    ("seed:\u00a05", 2, "U+00A0"), ("\u200bseed: 1", 2, "U+200B"), ("name: a\u202fb", 2, "U+202F"),
    ("path: \u201clogs\u201d", 2, "quotation mark \u201c"),
    ("steps: @5", 2, "needs quotes"), ("steps: %5", 2, "needs quotes"), ("seed: *x", 2, "needs quotes"),
    ("\tseed: 1", 2, "indent with spaces"), ("first: 2", 2, "set twice"),
])  # fmt: skip
def test_slips_of_syntax(line: str, at: int, says: str) -> None:
    try:
        problems = parse(f"first: 1\r\n{line}\r\n", "conf.yml").problems
    except InvalidSpec as error:
        problems = error.problems
    assert len(problems) == 1 and problems[0].where == f"conf.yml:{at}" and says in str(problems[0]), problems


def test_quotes_and_flow_lists_are_left_alone(tmp_path: Path) -> None:
    text = 'a: "\u00a0\u201cx\u201d"\nb: [0,05, 1]\nc: {x: 1, 5h: 2}\nd: {x: 1, y: }\ne: caf\u00e9 \u2603\n'
    document = parse(text, "conf.yml")
    assert not document.problems and document.data["b"] == [0, 5, 1] and document.data["a"][0] == "\u00a0"
    path = tmp_path / "conf.yml"
    path.write_text("job_name: 2024\nmode: simulate\njob_conf: {}\n")
    with pytest.raises(InvalidSpec, match="did you mean '2024'"):
        load(path)
