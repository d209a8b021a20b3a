"""Following a run in the terminal: a progress bar while it goes on, a small table when it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from tqdm import tqdm

from proxsparse.report import pattern_share
from proxsparse.runs import Run
from proxsparse.runs.files import Tail
from proxsparse.runs.run import ACTIVE

POLL_SECONDS = 0.3


def follow(run: Run, process: subprocess.Popen, as_json: bool = False) -> int:
    """Show the run's progress on stderr until its worker ends, then the result on stdout; returns the exit code.

    The first Ctrl-C asks the worker to stop with a checkpoint; the second leaves it to itself.
    """
    print(f"run {run.path}", file=sys.stderr)
    interruptions = 0
    with tqdm(total=run.job().learn.steps, unit="step", file=sys.stderr, dynamic_ncols=True) as bar:
        steps, perplexities, shown = Tail(run.path / "steps.jsonl"), Tail(run.path / "perplexity.jsonl"), {}
        while True:
            try:
                ended = process.poll() is not None
                _show(bar, run, steps, perplexities, shown)
                if ended:
                    break
                time.sleep(POLL_SECONDS)
            except KeyboardInterrupt:
                interruptions += 1
                if interruptions > 1:
                    print(f"\nThe worker goes on: follow it with `python -m proxsparse runs`, or stop it with "
                          f"`python -m proxsparse send {run.path} stop`.", file=sys.stderr)  # fmt: skip
                    return 130
                if run.state()["status"] in ACTIVE:
                    run.send("stop")
                    tqdm.write(
                        "Stopping after this step, with a checkpoint (Ctrl-C again: leave it running) …",
                        file=sys.stderr,
                    )
    return _report(run, as_json, interrupted=interruptions > 0)


def _show(bar: tqdm, run: Run, steps: Tail, perplexities: Tail, shown: dict) -> None:
    for record in steps.read():
        shown |= {"loss": f"{record['loss']:.3f}", "λ": f"{record['lambda1']:g}"}
        shown["sparse groups"] = f"{pattern_share(record):.1%}"
        bar.n = record["step"]
    for record in perplexities.read():
        if record["mask"] == "learned":
            shown["ppl"] = f"{record['perplexity']:.1f}"
    bar.set_description(run.state()["doing"][:40], refresh=False)
    bar.set_postfix(shown, refresh=True)


def _report(run: Run, as_json: bool, interrupted: bool) -> int:
    state, table = run.state(), run.table("perplexity")
    final = [] if table.empty else table[table["scope"] == "final"].to_dict("records")
    status = state["status"]
    code = {"done": 0, "stopped": 130 if interrupted else 0}.get(status, 2)
    if as_json:
        result = {"run": str(run.path), "status": status, "step": state["step"], "elapsed": state.get("elapsed")}
        result |= {"perplexity": {entry["mask"]: entry for entry in final}, "error": state.get("error")}
        print(json.dumps(result))
        return code
    if code == 2:
        print(f"error: {state.get('error') or state['doing']}", file=sys.stderr)
        print(f"What is done is kept; go on with: python -m proxsparse resume {run.path}", file=sys.stderr)
        return code
    for entry in final:
        print(f"{entry['mask']:<10} perplexity {entry['perplexity']:>9.2f} ± {entry['stderr'] or 0:.2f}")
    if final:
        print(f"{'':<10} on {final[0]['windows']} held-out windows of {final[0]['context']} tokens")
    print(
        f"{status} at step {state['step']} of {run.job().learn.steps} after {state['elapsed']:.0f} s of work: {run.path}"
    )
    skipped = run.skipped()
    if skipped:
        name, reason = next(iter(skipped.items()))
        print(f"left dense: {len(skipped)} linear maps, e.g. {name} ({reason})")
    if status == "done":
        print(f"next: python -m proxsparse export {run.path} --to DIR")
    else:
        print(f"next: python -m proxsparse resume {run.path}")
    return code
