"""What --prune finds and removes, and what it leaves alone."""

import io
import json
import os
import time

import numpy as np
import pytest
from made_runs import made_run, set_state
from safetensors.numpy import save_file

from proxsparse import LearnJob, ProxSparseError, Run
from proxsparse.cli.main import main
from proxsparse.files import read_json, write_json
from proxsparse.runs.lock import held
from proxsparse.runs.prune import bytes_freed, prunable, prune

LONG_AGO = time.time() - 100 * 86400


def aged(path):
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def checkpoint(run, step, size=1000):
    (run.path / "checkpoints").mkdir(exist_ok=True)
    path = run.path / "checkpoints" / f"step-{step:06d}.safetensors"
    save_file({"soft.weight": np.zeros(size, np.uint8)}, path)
    return path


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def finished(root):
    """A run that is done, with two checkpoints."""
    run = made_run(root / "finished", steps=4)
    for step in (2, 4):
        checkpoint(run, step)
    return run


def names(found):
    return sorted(each.path.name for each in found)


def test_of_a_run_that_is_done_the_last_checkpoint_stays(root, finished):
    found = prunable(root)
    assert names(found) == ["step-000002.safetensors"]
    size = found[0].path.stat().st_size
    assert prune(found) == (size, []) and size > 1000
    assert list(finished.checkpoints()) == [4] and prunable(root) == []
    finished.fork(root / "fork", 4, steps=6000)


def test_where_the_last_checkpoint_cannot_be_read_the_one_before_stays(root, finished):
    (finished.path / "checkpoints" / "step-000004.safetensors").write_bytes(b"torn")
    assert prunable(root) == []


def test_a_run_without_its_state_is_as_old_as_its_beginning(root, finished):
    (finished.path / "state.json").unlink()
    assert prunable(root, older=1) == []
    aged(finished.path / "run.json")
    assert names(prunable(root, older=1)) == ["finished"]


@pytest.mark.parametrize("status", ["stopped", "failed", "interrupted", "new"])
def test_a_run_that_can_go_on_keeps_both_checkpoints(root, finished, status):
    set_state(finished, status, 4)
    assert prunable(root) == []


def test_what_is_worked_on_is_left_alone(root, finished):
    aged(finished.path / "state.json")
    with held(finished.path / "lock"):
        assert prunable(root, older=1) == []
    found = prunable(root)
    with held(finished.path / "lock"):  # somebody starts it between the question and the answer
        freed, kept = prune(found)
    assert freed == 0 and len(kept) == 1 and kept[0].endswith("stop it first.")
    assert len(finished.checkpoints()) == 2
    export = Run.create_kind(
        "export", {"run": str(finished.path), "step": 4, "format": "dense"}, finished.path / "export"
    )
    with held(export.path / "lock"):
        assert prunable(root, older=1) == []
    write_json(finished.path / "run.json", read_json(finished.path / "run.json") | {"recorded": True})
    assert prunable(root, older=1) == [], "a recorded example is only looked at"


def test_what_was_half_written_or_set_aside_goes_unless_it_is_recent(root, finished):
    finished.checkpoints()[2].unlink()
    old = [
        finished.path / "checkpoints" / ".step-000006.safetensors.x.part", finished.path / "commands" / ".a.json.y.part",
        finished.path / "checkpoints" / "step-000001.unreadable",
        finished.path / "probe" / ".tmpa1B2c3",
        root / ".uploads" / "text-abc123.txt", root / ".deleted-0123" / "gone" / "run.json",
    ]  # fmt: skip
    recent = [finished.path / ".state.json.z.part", root / ".uploads" / "new-abc123.txt"]
    kept = [
        finished.path / "notes.part", root / ".uploads" / "ada" / "needed-abc123.txt", root / ".uploads" / "judged-abc123.txt",
    ]  # fmt: skip
    for path in (*old, *recent, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100))
    moved = "/before/it/was/moved/.uploads"
    job = LearnJob(corpus=f"{moved}/ada/{kept[1].name}", evaluate_on=(f"{moved}/{kept[2].name}",))
    Run.create(job, root / "needs-it")
    for path in (*old, *kept, root / ".deleted-0123"):
        aged(path)
    assert prune(prunable(root)) == (600, [])
    assert [path for path in old if path.exists()] == [] and all(path.exists() for path in (*recent, *kept))


def test_an_export_that_was_cut_off_goes_and_a_finished_one_stays(root, finished):
    finished.checkpoints()[2].unlink()
    export = Run.create_kind(
        "export", {"run": str(finished.path), "step": 4, "format": "dense"}, finished.path / "export"
    )
    (export.path / "model").mkdir()
    assert prunable(root) == [], "it was begun just now"
    aged(export.path)
    assert names(prunable(root)) == ["export"]
    write_json(export.path / "report.json", {})
    aged(export.path)
    assert prunable(root) == []
    (export.path / "report.json").unlink()
    aged(export.path)
    prune(prunable(root))
    assert not export.path.exists() and finished.export() is None


def test_old_runs_go_when_it_is_said_how_old(root, finished):
    fork = made_run(root / "young", steps=2)
    aged(finished.path / "state.json")
    assert [each.path for each in prunable(root, older=99)] == [finished.path] and prunable(root, older=101) != [
        finished.path
    ]
    assert names(prunable(root, older=0)) == ["finished"], "and none that is younger than an hour"
    freed, kept = prune(prunable(root, older=99))
    assert freed > 2000 and kept == [] and [path.name for path in root.iterdir()] == [fork.id]
    for days in (-1, float("nan"), float("inf")):
        with pytest.raises(ProxSparseError, match="give a number of days"):
            prunable(root, older=days)


def test_a_checkpoint_that_a_fork_shares_frees_nothing_until_the_fork_goes_too(root, finished):
    finished.fork(root / "fork", 2, steps=6000)
    found = prunable(root)
    assert names(found) == ["step-000002.safetensors"] and bytes_freed(found) == 0 and prune(found) == (0, [])
    assert Run(root / "fork").checkpoints()[2].stat().st_size > 1000


def test_the_command_line_shows_asks_and_frees(root, finished, monkeypatch, capsys):
    command, size = ["runs", "--root", str(root), "--prune"], finished.checkpoints()[2].stat().st_size
    for answer in ("n\n", "", "no\n", "\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert main(command) == 0
        said = capsys.readouterr().out
        assert "step-000002.safetensors: a checkpoint before the last" in said and said.endswith(
            "Nothing was removed.\n"
        )
    assert len(finished.checkpoints()) == 2
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["bytes"], said["removed"], said["freed"]) == (size, False, 0)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("Freed 0.0 MB.\n") and list(finished.checkpoints()) == [4]
    assert main([*command, "--yes"]) == 0 and "nothing under" in capsys.readouterr().out
    checkpoint(finished, 3)
    assert main([*command, "--yes", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["removed"] and said["freed"] == said["bytes"] > 1000 and said["kept"] == []


@pytest.mark.parametrize(
    "flags", [["--yes"], ["--older", "0"], ["--prune", "--older", "-1"], ["--prune", "--older", "x"]]
)
def test_flags_that_make_no_sense_are_one_sentence(root, flags, capsys):
    assert main(["runs", "--root", str(root), *flags]) == 2
    assert capsys.readouterr().err.count("\n") == 1
