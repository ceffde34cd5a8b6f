"""Verbs as a stranger uses them: wrong names, odd places, one job and several. In process; jobs are lines of sh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kuiper.cli.app import VERBS, run
from kuiper.cluster import store
from kuiper.cluster.stop import stop_all
from tests.integration.jobs import ROOT, write_spec
from tests.integration.test_faults import wait_for
from tests.integration.test_seeds import series

TRACEBACK = """Traceback (most recent call last):
  File "train.py", line 7, in <module>
    step()

ValueError: first
  -> see train.py

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "run.py", line 3, in main
RuntimeError: second"""


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line here: (exit code, standard output, standard error)."""
    def call(*words: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["kuiper", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run()
        out, err = capsys.readouterr()
        assert "Traceback (most recent call last)" not in err
        return end.value.code or 0, out, err

    return call


def ended(folder: Path, does: str, seeds: list[int] | int) -> list[store.Job]:
    jobs = series(folder, does, seeds)
    wait_for(lambda: all(status.over for status in store.observe(jobs, detailed=True)))
    return jobs


def test_json_of_a_verb_has_one_shape(tmp_path: Path, called: Any) -> None:
    spec = {"algorithm": "parameter_server", "model": "softmax", "dataset": "iris", "num_workers": 2, "steps": 1}
    path = str(write_spec(tmp_path, "planned", spec, 0))
    for seeds in ([7], [1, 2]):
        jobs = ended(tmp_path, "true", seeds if len(seeds) > 1 else 7)
        runs = [job.run_id for job in jobs]
        for verb in (["status"], ["wait"], ["stop"], ["status", "-w"]):
            code, out, _ = called(verb[0], "job", *verb[1:], "--json")
            assert code == 0 and [one["run_id"] for one in json.loads(out)] == runs, verb
        assert json.loads(called("wait", *runs, "--json")[1])[0]["smoke"] is False
        planned = json.loads(called("plan", path, "--simulate", "--json", "-o", f"seed={seeds}")[1])
        assert len(planned) == len(seeds)
    assert len(json.loads(called("list", "--json")[1])) == 3 and len(json.loads(called("list", "-n1", "--json")[1])) == 1
    assert json.loads(called("collect", "job", "--json")[1]) == []


def test_a_missing_job_is_answered_with_names_like_it(tmp_path: Path, called: Any) -> None:
    for verb in ("status", "logs", "wait", "stop", "resume", "retry", "show", "plot", "collect"):
        code, out, err = called(verb, "jib", "--json")
        assert code == 102 and json.loads(out)["exit_code"] == 102 and "nothing has been submitted yet" in err, verb
    job, *_ = ended(tmp_path, "true", [1, 2])
    for key, says in (("jib", "'job'"), ("JOB-seed1", "'job-seed1'"), (job.run_id[:-2], f"'{job.run_id}'"),
                      (f"logs/job/{job.run_id}", f"'{job.run_id}'"), ("job*", "'job'"), ("", "known"), ("zzz", "known"),
                      ("../job", "'job'"), ("job\0", "'job'")):
        code, _, err = called("status", key)
        assert code == 102 and says in err.splitlines()[1], (key, err)
    assert called("status", "job", "other")[0] == 2 and "Did you mean 'status'?" in called("statsu")[2]
    code, out, _ = called("wait", "--json")
    assert code == 2 and json.loads(out)["exit_code"] == 2


def test_records_that_are_damaged_or_gone(tmp_path: Path, called: Any) -> None:
    job = ended(tmp_path, "true", 1)[0]
    whole = job.paths.job.read_text()
    for damaged in (whole[:40], "[]", "{}", json.dumps({**json.loads(whole), "created": "today"}), "\0"):
        job.paths.job.write_text(damaged)
        code, _, err = called("status", job.run_id)
        assert code == 102 and f"{job.paths.job} is damaged" in err
        code, out, err = called("list")
        assert code == 0 and "left out" in err and job.run_id not in out
    job.paths.job.write_text(whole)
    shutil.rmtree(job.run_dir / "ps")
    assert called("status", "job")[0] == 0 and "has said nothing" in called("logs", "job")[2]
    job.paths.config.unlink()
    for verb in ("show", "retry"):
        code, _, err = called(verb, "job")
        assert code == 3 and "config.yaml" in err and "  -> " in err
    registry = tmp_path / "state" / "kuiper" / "registry.json"
    for damaged in ('{"log_paths": 5}', "[", '{"log_paths": [5]}'):
        registry.write_text(damaged)
        assert called("list")[0] == 0 and called("status", "job")[0] == 0  # logs is here
    job.paths.job.unlink()
    assert called("stop", "job")[0] == 102


def test_a_state_folder_that_cannot_be_one(tmp_path: Path, called: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    path = write_spec(tmp_path, "job", {"algorithm": "parameter_server", "model": "softmax", "dataset": "iris",
                                        "num_workers": 2, "steps": 1}, 0)
    code, _, err = called("submit", str(path), "--simulate", "-q")
    assert code == 100 and str(tmp_path / "file") in err and "  -> " in err
    assert called("list")[0] == 0 and called("status", "job")[0] == 102


def test_resume_says_why_there_is_nothing_to_resume(tmp_path: Path, called: Any) -> None:
    jobs = ended(tmp_path, "true", 1)
    code, _, err = called("resume", "job")
    assert code == 5 and "has succeeded" in err and f"`kuiper retry {jobs[0].run_id}`" in err
    going = series(tmp_path, "sleep 60", [1, 2])
    for key in ("job", "job-seed1", "job-seed2", going[0].run_id):
        code, _, err = called("resume", key)
        assert code == 5 and "`kuiper stop" in err and "there is nothing to resume" in err
    stop_all(going, 0)
    assert called("resume", "job")[0] == 3  # it has kept no checkpoints


def test_init_over_what_is_there(tmp_path: Path, called: Any) -> None:
    assert called("init")[0] == 0
    before = Path("conf.yml").read_bytes()
    code, _, err = called("init")
    assert code == 5 and "`kuiper init conf-2.yml`" in err and Path("conf.yml").read_bytes() == before
    code, _, err = called("init", ".")
    assert code == 2 and "conf.yml" in err
    assert called("init", "my job.yml")[0] == 2 and called("init", "-.yml")[0] == 2
    assert called("init", "conf.yml/x.yml")[0] == 100


def test_smoke_tests_are_marked_and_never_meant_by_a_name(tmp_path: Path, called: Any) -> None:
    real, = ended(tmp_path, "true", 1)
    assert not real.smoke
    smoke, = ended(tmp_path, "true", 1)
    smoke.smoke = True
    smoke.save()
    assert store.find("job")[0].run_id == real.run_id and store.find(smoke.run_id)[0].run_id == smoke.run_id
    listed = {one["run_id"]: one["smoke"] for one in json.loads(called("list", "--json")[1])}
    assert listed == {real.run_id: False, smoke.run_id: True}
    assert called("list")[1].count("smoke test") == 1 and "smoke test" in called("status", smoke.run_id)[1]
    shutil.rmtree(real.run_dir)
    assert store.find("job")[0].run_id == smoke.run_id  # there is no other


def test_list_says_where_it_stops(tmp_path: Path, called: Any) -> None:
    ended(tmp_path, "true", [1, 2, 3])
    code, out, err = called("list", "-n", "2")
    assert out.count("SUCCEEDED") == 2 and "the newest 2 of 3 runs" in err and "list --all" in err
    code, out, err = called("list", "--all")
    assert out.count("SUCCEEDED") == 3 and err == ""
    assert len(json.loads(called("list", "--all", "-n", "1", "--json")[1])) == 3


@pytest.mark.parametrize("time", ["5", "0", " 7 ", "1.5", "5x", "", "soon", "-1d", "1d2h", "5 months"])
def test_clean_wants_a_unit(called: Any, time: str) -> None:
    code, _, err = called("clean", f"--older-than={time}", "--yes")
    assert code == 2 and ("d" in err.split("->")[1])


def test_clean_keeps_to_its_log_path(tmp_path: Path, called: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    mine, other = ended(tmp_path, "true", 1)[0], ended(tmp_path / "other", "true", 1)[0]

    def cleans(*words: str) -> set[str]:
        said = json.loads(called("clean", "--older-than", "0s", "--dry-run", "--json", *words)[1])
        return {one["run_id"] for one in said["runs"]}

    assert cleans() == {mine.run_id} and cleans("--log-path", "other/logs") == {other.run_id}
    assert cleans("--everywhere") == {mine.run_id, other.run_id} and cleans("--log-path", "nowhere") == set()
    code, _, err = called("clean", "--older-than", "0s", "--yes")
    assert code == 0 and str(tmp_path / "other" / "logs") in err and not mine.run_dir.exists() and other.run_dir.exists()


def test_errors_come_whole_and_the_earliest_first(tmp_path: Path, called: Any) -> None:
    def record(second: int, level: int, msg: str, **more: Any) -> str:
        return json.dumps({"name": "ps", "level": level, "time": f"2026-01-01T00:00:{second:02d}.000Z", "msg": msg, **more})

    def lines(*numbers: int) -> list[str]:
        return [f"line {number}" for number in numbers]

    later, sooner = ended(tmp_path, "true", [1, 2])
    for job, start in ((later, 30), (sooner, 10)):
        said = [*lines(1, 2, 3, 4, 5), record(start, 30, "evaluation", step=20, top_1=93.333333, loss=0.25, v=0),
                *lines(6), *TRACEBACK.split("\n"), *lines(7, 8, 9, 10, 11, 12, 13, 14),
                record(start + 5, 60, "QuorumLost: 3 of 4\n  -> look", err={"name": "E", "stack": "Traceback\n  x\nE"})]
        job.paths.process("ps").log.write_text("\n".join([*said, ""]))
    code, out, _ = called("logs", sooner.run_id, "--errors", "-q")
    first, second = out.split("\n\nline 12\n")
    assert first.split("\n") == [*lines(5), first.split("\n")[1], *lines(6), *TRACEBACK.split("\n"), *lines(7, 8, 9)]
    assert "evaluation  step 20  top_1 93.3333  loss 0.25" in first
    assert "FATAL QuorumLost: 3 of 4\n  -> look\nTraceback\n  x\nE\n" in second
    code, out, _ = called("logs", "job", "--errors")
    order = [line.split()[0] for line in out.splitlines() if "RuntimeError" in line or "QuorumLost" in line]
    assert order == ["job-seed2", "job-seed2", "job-seed1", "job-seed1"]
    assert all(line.startswith("job-seed") for line in out.splitlines() if line)
    code, out, _ = called("logs", "job", "--errors", "--grep", "train.py", "-q")
    assert out.count("RuntimeError") == 2 and "QuorumLost" not in out

    told = [json.loads(line) for line in called("logs", "job", "--json")[1].splitlines()]
    assert {type(line["time"]) for line in told} == {float, type(None)}
    assert [line["time"] for line in told if line.get("step") == 20] == [1767225610.0, 1767225630.0]
    assert [line["error"] for line in told].count(True) == 2 * 5
    for verb in ("list", "status"):
        assert all(isinstance(one["created"], float) for one in json.loads(called(verb, *["job"] * (verb != "list"), "--json")[1]))
    later.paths.process("ps").log.write_text("all is well\nError handling is on\n")
    assert "no errors" in called("logs", later.run_id, "--errors")[2]


def test_every_verb_has_help_and_there_is_a_version(called: Any) -> None:
    from kuiper import __version__

    for verb in VERBS:
        short, long = called(verb, "-h"), called(verb, "--help")
        assert short == long and short[0] == 0 and f"Usage: kuiper {verb}" in short[1]
        assert all(option in short[1] for option in ("--json", "--quiet", "--verbose"))
    assert called("--version") == (0, f"kuiper {__version__}\n", "") and called("-h")[0] == 0


@pytest.mark.parametrize("words", [["manager.py"], ["-m", "kuiper.cli"]])
def test_commands_are_named_as_the_user_called_them(tmp_path: Path, words: list[str]) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    (tmp_path / "manager.py").symlink_to(ROOT / "manager.py")
    called = [os.path.relpath(sys.executable), *words]
    done = subprocess.run([*called, "init", "a b.yml"], env=env, capture_output=True, text=True)
    assert done.returncode == 2
    done = subprocess.run([*called, "init", "first.yml"], env=env, capture_output=True, text=True)
    assert f"`{' '.join(called)} check first.yml`" in done.stderr
    for redirected, code in ((">&-", 0), ("> /dev/full", 100), ("| head -n 1", 0)):
        for as_json in ("", "--json"):
            shell = ["bash", "-o", "pipefail", "-c", f'"$@" completion bash {as_json} {redirected}', "-", *called]
            done = subprocess.run(shell, env=env, capture_output=True, text=True)
            assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr
