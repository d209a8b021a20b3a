"""Which commands there are. Each is a function of the parsed arguments that returns the exit code."""

from __future__ import annotations

import argparse
import sys

from proxsparse.cli import commands
from proxsparse.cli.settings import Parser, add_settings
from proxsparse.config import PRESETS, LearnConfig, LearnJob
from proxsparse.errors import ProxSparseError

DESCRIPTION = """\
Learn which two of every four weights of a language model to keep, or any n of m (ProxSparse, arXiv 2502.00258).

  python -m proxsparse learn --out runs/first          learn a mask with the embedded model and corpus
  python -m proxsparse export runs/first --to sparse   write the sparse model, proven
  python -m proxsparse verify sparse                   prove it again, from the files alone
"""
EXIT_CODES = (
    "Exit codes: 0 done; 1 not proven (verify); 2 bad input or a failed run, with one sentence; 130 interrupted."
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        parsed = build_parser().parse_args(arguments)
        return parsed.run(parsed)
    except ProxSparseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m proxsparse", description=DESCRIPTION, epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run, help: str, example: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.\n\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        verb.set_defaults(run=run)
        return verb

    def add_json(verb) -> None:
        verb.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")

    def add_detach(verb) -> None:
        verb.add_argument("--detach", action="store_true", help="start the worker, print where the run is, and return")

    learn = add(
        "learn", commands.learn, "learn a mask, in a worker process that this command follows",
        "python -m proxsparse learn --model embedded --corpus bundled --steps 80 --lambda1 0.02 --out runs/first",
    )  # fmt: skip
    learn.add_argument("--out", metavar="DIR", help="the run's directory (default: a new one under runs/)")
    learn.add_argument("--preset", choices=PRESETS, default="Quick", help="settings to start from (default Quick)")
    add_detach(learn)
    add_json(learn)
    add_settings(learn, LearnJob, "the job")
    add_settings(learn, LearnConfig, "the learner")

    resume = add(
        "resume", commands.resume, "go on with a run that was stopped, failed, or lost its worker",
        "python -m proxsparse resume runs/first",
    )  # fmt: skip
    resume.add_argument("directory", metavar="RUN")
    add_detach(resume)
    add_json(resume)

    fork = add(
        "fork", commands.fork, "start a new run from a checkpoint of another, with other settings",
        "python -m proxsparse fork runs/first --step 40 --lambda1 0.05 --out runs/stronger",
    )  # fmt: skip
    fork.add_argument("directory", metavar="RUN")
    fork.add_argument("--step", type=int, metavar="N", help="the checkpoint's step (default: the last)")
    fork.add_argument("--out", metavar="DIR", required=True, help="the new run's directory")
    add_detach(fork)
    add_json(fork)
    add_settings(fork, LearnConfig, "settings that change")

    send = add(
        "send", commands.send, "pause, resume, step, stop a run, or set its λ1",
        "python -m proxsparse send runs/first set --lambda1 0.03",
    )  # fmt: skip
    send.add_argument("directory", metavar="RUN")
    send.add_argument("command", choices=("pause", "resume", "step", "gradient", "prox", "set", "stop"))
    send.add_argument("--lambda1", type=float, help="the new strength, for set")

    evaluate = add(
        "eval", commands.evaluate, "measure the held-out perplexity of a model, dense or exported",
        "python -m proxsparse eval embedded --corpus text.txt --context 512 --windows 40",
    )  # fmt: skip
    evaluate.add_argument("model", metavar="MODEL", help="embedded, a Hub id, a directory, or a .gguf file")
    evaluate.add_argument("--corpus", default="bundled", help="bundled, wikitext2, c4, or a .txt or .jsonl file")
    evaluate.add_argument("--context", type=int, default=512, help="window length in tokens (default 512)")
    evaluate.add_argument("--windows", type=int, default=40, help="how many windows; 0: all (default 40)")
    evaluate.add_argument("--batch", type=int, default=4, help="windows in one forward pass (default 4)")
    evaluate.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"), default="auto", help="arithmetic (default auto)"
    )
    evaluate.add_argument("--device", help="cpu, cuda, or cuda:1 (default: cuda where there is one)")
    add_json(evaluate)

    export = add(
        "export", commands.export, "write the sparse model of a run, and prove it",
        "python -m proxsparse export runs/first --to sparse",
    )  # fmt: skip
    export.add_argument("directory", metavar="RUN")
    export.add_argument("--to", required=True, metavar="DIR", help="a new or empty directory")
    export.add_argument("--step", type=int, metavar="N", help="of which step the masks are taken (default: the last)")
    add_json(export)

    verify = add(
        "verify", commands.verify, "prove from the files that every group is N:M and every kept weight is the original's",
        "python -m proxsparse verify sparse --original embedded",
    )  # fmt: skip
    verify.add_argument("directory", metavar="DIR")
    verify.add_argument(
        "--original", metavar="MODEL", help="the model it came from (default: what its provenance says)"
    )
    add_json(verify)

    runs = add("runs", commands.list_all, "list the runs, newest first", "python -m proxsparse runs")
    runs.add_argument("--root", default="runs", metavar="DIR", help="where the runs are (default runs)")
    add_json(runs)

    worker = verbs.add_parser("worker")  # without help: what `learn` starts, not for people
    worker.add_argument("directory")
    worker.set_defaults(run=commands.worker)
    return parser
