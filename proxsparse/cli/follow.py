"""Following a run: a progress bar in a terminal, a line now and then in a file, and a small table when it ends."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from contextlib import closing

from tqdm import tqdm

from proxsparse.config import judged_by
from proxsparse.files import Tail
from proxsparse.learning.report import pattern_share
from proxsparse.runs import Comparison, Run, Sweep
from proxsparse.runs.directory import ACTIVE
from proxsparse.runs.readers.judged import judged_table

POLL_SECONDS = 0.3
LOG_SECONDS = 30  # between two lines of progress in a file or a pipe


def follow(run: Run, process: subprocess.Popen | None, as_json: bool = False) -> int:
    """Show the run's progress on stderr until its worker ends, then the result on stdout; returns the exit code. process: the worker;
    None: it has ended.

    The first Ctrl-C asks the worker to stop with a checkpoint; the second leaves it to itself.
    """
    print(f"run {run.path}", file=sys.stderr)
    interruptions, shown = 0, -math.inf
    progress = _LearnProgress(run) if run.kind == "learn" else _JobProgress(run)
    with closing(_Bar(progress.form) if sys.stderr.isatty() else _Lines()) as display:
        while True:
            try:
                ended = process is None or process.poll() is not None
                if ended or time.monotonic() - shown >= display.interval:
                    display.show(*progress.look())
                    shown = time.monotonic()
                if ended:
                    break
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                interruptions += 1
                if interruptions > 1:
                    print(f"\nThe worker goes on: follow it with `proxsparse runs`, or stop it with "
                          f"`proxsparse send {run.path} stop`.", file=sys.stderr)  # fmt: skip
                    return 130
                if run.state()["status"] in ACTIVE:
                    run.send("stop")
                    tqdm.write("Stopping; what is done is kept (Ctrl-C again: leave it running) …", file=sys.stderr)
    return progress.report(as_json, interrupted=interruptions > 0)


class _Bar:
    """In a terminal."""

    interval = POLL_SECONDS

    def __init__(self, form: str):
        self.bar = tqdm(file=sys.stderr, dynamic_ncols=True, unit="step", bar_format=form)
        self.close = self.bar.close

    def show(self, done: int, total: int | None, words: str) -> None:
        self.bar.n, self.bar.total = done, total
        self.bar.set_description(words, refresh=True)


class _Lines:
    """In a file or a pipe."""

    interval = LOG_SECONDS

    def show(self, done: int, total: int | None, words: str) -> None:
        print(f"{done}/{total}  {words}" if total else words, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class _JobProgress:
    """A job that works through a list, such as a comparison."""

    form = "{desc}{n_fmt}/{total_fmt} |{bar}| [{elapsed}]"

    def __init__(self, run: Run):
        self.run = run

    def look(self) -> tuple[int, int | None, str]:
        """What is done, of how much, and what is being done."""
        state = self.run.state()
        return state["step"], state.get("steps"), state["doing"]

    def report(self, as_json: bool, interrupted: bool) -> int:
        state = self.run.state()
        reader: Comparison | Sweep = Comparison(self.run) if self.run.kind == "compare" else Sweep(self.run)
        code = exit_code(state["status"], interrupted)
        if as_json:
            table = reader.table()
            result = {"run": str(self.run.path), "status": state["status"], "error": state.get("error")}
            result |= {"failures": reader.failures()} if self.run.kind == "compare" else {}
            print(json.dumps(result | {"table": json.loads(table.to_json(orient="records"))}))
            return code
        if len(reader.table()):  # of one that failed, too: what it has measured counts
            print(reader.in_terminal() if isinstance(reader, Comparison) else reader.markdown())
        if code == 2:
            return failed(self.run)
        if state["status"] == "done":
            print(f"done after {state['elapsed']:.0f} s of work; in {self.run.path}: {', '.join(reader.files())}")
            print(f"next: {reader.next_command()}")
        else:
            print(f"next: proxsparse resume {self.run.path}")
        return code


class _LearnProgress:
    """A learner: its steps, what its last one and its last measurement said."""

    form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"

    def __init__(self, run: Run):
        self.run, self.total, self.step = run, run.job().learn.steps, 0
        self.steps, self.perplexities = Tail(run.path / "steps.jsonl"), Tail(run.path / "perplexity.jsonl")
        self.shown = {}

    def look(self) -> tuple[int, int, str]:
        """As of any job."""
        for record in self.steps.read():
            self.shown |= {"loss": f"{record['loss']:.3f}", "λ": f"{record['lambda1']:g}"}
            self.shown["sparse groups"] = f"{pattern_share(record):.1%}"
            self.step = record["step"]
        for record in self.perplexities.read():
            if record["mask"] == "learned":
                self.shown["perplexity"] = f"{record['perplexity']:.1f} ({record['scope']})"
        words = [self.run.state()["doing"], *(f"{name} {value}" for name, value in self.shown.items())]
        return self.step, self.total, ", ".join(words)

    def report(self, as_json: bool, interrupted: bool) -> int:
        return _report(self.run, as_json, interrupted)


def exit_code(status: str, interrupted: bool) -> int:
    return {"done": 0, "stopped": 130 if interrupted else 0}.get(status, 2)


def failed(run: Run) -> int:
    """Say why a run ended, and how it goes on."""
    state = run.state()
    print(f"error: {state.get('error') or state['doing']}", file=sys.stderr)
    if state["step"]:
        print(f"What is done is kept; go on with: proxsparse resume {run.path}", file=sys.stderr)
    return 2


def _report(run: Run, as_json: bool, interrupted: bool) -> int:
    state, table = run.state(), run.table("perplexity")
    final = [] if table.empty else table[table["scope"] == "final"].to_dict("records")
    judged = judged_table(run.table("judged").to_dict("records"))
    status = state["status"]
    code = exit_code(status, interrupted)
    if as_json:
        result = {"run": str(run.path), "status": status, "step": state["step"], "elapsed": state.get("elapsed")}
        result |= {"perplexity": {entry["mask"]: entry for entry in final}, "error": state.get("error")}
        result["judged"] = json.loads(judged.to_json(orient="records"))
        print(json.dumps(result))
        return code
    if code == 2:
        return failed(run)
    names = {"dense": run.given()}
    for entry in final:
        name = names.get(entry["mask"], entry["mask"])
        print(f"{name:<10} perplexity {entry['perplexity']:>9.2f} ± {entry['stderr'] or 0:.2f}")
    if final:
        print(
            f"{'':<10} on {final[0]['windows']} held-out windows of {final[0]['context']} tokens of "
            f"{judged_by(run.job().corpus)}; the mask was learned on none of them"
        )
    for text, rows in judged.groupby("text", sort=False):
        for row in rows.itertuples():
            over = "" if row.mask == "dense" else f", {row.ratio:.2f} ± {row.ratio_stderr:.2f} times {run.given()}"
            name = names.get(row.mask, row.mask)
            print(f"{name:<10} perplexity {row.perplexity:>9.2f} ± {row.stderr:.2f}{over}")
        print(f"{'':<10} on {rows['windows'].iloc[0]} windows of {rows['context'].iloc[0]} tokens of {text}")
    print(
        f"{status} at step {state['step']} of {run.job().learn.steps} after {state['elapsed']:.0f} s of work: {run.path}"
    )
    skipped = run.skipped()
    if skipped:
        name, reason = next(iter(skipped.items()))
        print(f"left dense: {len(skipped)} linear maps, e.g. {name} ({reason})")
    if status == "done":
        print(f"next: proxsparse export {run.path} --to DIR")
    else:
        print(f"next: proxsparse resume {run.path}")
    return code
