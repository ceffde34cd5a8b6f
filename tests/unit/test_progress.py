"""What a submit shows while it is at work."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from kuiper.cli.progress import Hosts, Lines


def shown(hosts: Hosts, height: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=60, height=height, color_system=None)
    console.print(hosts)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_line_per_host_with_the_last_that_was_said_of_it() -> None:
    hosts = Hosts()
    for step in ("reached", "staged [x]"):
        for name in ("a", "node-10"):
            hosts(step, name)
    hosts("RUNNING (2)", "a")
    lines = shown(hosts, 20)
    assert [re.sub(r"^ +\d+\.\d s  ", "", line).rstrip() for line in lines] == [
        "a        RUNNING (2)", "node-10  staged [x]"]


def test_where_hosts_do_not_fit_the_last_to_speak_are_shown() -> None:
    hosts = Hosts()
    for number in range(30):
        hosts("reached", f"h{number:02}")
    lines = shown(hosts, 13)
    assert len(lines) == 11 and "h20" in lines[0] and lines[-1] == "30 hosts, of which 10 are shown"


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say = Lines()
    say("reached", "a")
    say("every process runs")
    assert re.fullmatch(r" +0\.0 s  a: reached\n +0\.0 s  every process runs\n", capsys.readouterr().err)
