"""Which commands there are. Each is a function of the parsed arguments that returns the exit code."""

from __future__ import annotations

import argparse
import functools
import sys

from proxsparse.cli import auth, commands
from proxsparse.cli.app import app
from proxsparse.cli.bench import bench
from proxsparse.cli.output import write_in_any_encoding
from proxsparse.cli.plan import add_plan
from proxsparse.cli.prune_model import add_prune
from proxsparse.cli.push import add_push, push
from proxsparse.cli.reorder import add_reorder
from proxsparse.cli.report import report
from proxsparse.cli.settings import Parser, add_further_texts, add_settings
from proxsparse.cli.streaming import add_streaming, add_streaming_of_text
from proxsparse.cli.sweep import sweep as sweep_command
from proxsparse.config import (
    BOS,
    CORPUS,
    EVALUATE_ON,
    EXPORT_FORMATS,
    JUDGED_BY_DEFAULT,
    JUDGED_ONLY,
    METHODS,
    PRESETS,
    TRACKERS,
    CompareJob,
    LearnConfig,
    LearnJob,
    SweepPlan,
)
from proxsparse.errors import ProxSparseError
from proxsparse.runs.commands import COMMANDS
from proxsparse.runs.queue import WORKERS, allow_workers

DESCRIPTION = """\
Learn which two of every four weights of a language model to keep, or any n of m (ProxSparse, arXiv 2502.00258).

  proxsparse learn --out runs/first          learn a mask with the embedded model and corpus
  proxsparse plan MODEL --gpu-memory 80      say first whether a model can be learned on a GPU of 80 GB
  proxsparse export runs/first --to sparse   write the sparse model, proven
  proxsparse verify sparse                   prove it again, from the files alone
  proxsparse report runs/first --to run.html the run as one page, for people without this program
  proxsparse bench sparse                    time it dense and sparse on this machine's GPU
  proxsparse app                             see, tune and do all this in the browser
"""
DEFAULT_TEXTS = (
    "without this flag: " + ", ".join(f"{' and '.join(texts)} for the corpus {corpus}" for corpus, texts in JUDGED_BY_DEFAULT.items())
    + ", and none for any other; none as well with the flag and no text after it"
)  # fmt: skip
EXIT_CODES = (
    "Exit codes: 0 done; 1 not proven (verify), or not equal (bench); 2 bad input or a failed run, with one sentence; "
    "130 interrupted."
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    write_in_any_encoding()
    try:
        if arguments[:1] == ["app"]:  # what follows are the explorer's own options
            return app(arguments[1:])
        parsed, unknown = build_parser().parse_known_args(arguments)
        if unknown:
            raise ProxSparseError(
                f"Unrecognized arguments: {' '.join(unknown)}: see `proxsparse {parsed.verb} --help`."
            )
        allow_workers(getattr(parsed, "workers", None))
        return parsed.run(parsed)
    except ProxSparseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    unabbreviated = functools.partial(Parser, allow_abbrev=False)  # --step must not mean --steps
    parser = unabbreviated(
        prog="proxsparse", description=DESCRIPTION, epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", dest="verb", parser_class=unabbreviated)

    def add(name: str, run, help: str, example: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.\n\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        verb.set_defaults(run=run)
        return verb

    def add_json(verb) -> None:
        verb.add_argument("--json", action="store_true", help="print one JSON object and nothing else on stdout")

    def add_worker(verb) -> None:
        verb.add_argument("--detach", action="store_true", help="start the worker, print where the run is, and return")
        verb.add_argument(
            "--workers", type=int, metavar="N",
            help=f"let it work beside N − 1 others on its device; it waits for its turn (default ${WORKERS}, else 1)",
        )  # fmt: skip

    def add_out(verb, what: str) -> None:
        verb.add_argument("--out", metavar="DIR", help=f"the {what}'s directory (default: a new one under runs/)")

    def add_launch(verb, help: str) -> None:
        verb.add_argument("--launch", type=int, metavar="N", default=argparse.SUPPRESS, help=help)

    def add_max_restarts(verb, default: str) -> None:
        verb.add_argument(
            "--max-restarts", type=int, metavar="N", default=argparse.SUPPRESS,
            help=f"with --launch: so often all processes are started again, at the last checkpoint, after one was lost ({default})",
        )  # fmt: skip

    def add_preset(verb) -> None:
        names = ", ".join(PRESETS)
        verb.add_argument(
            "--preset", default="Quick", metavar="NAME",
            help=f"settings to start from: {names}, or a sweep (default Quick)",
        )  # fmt: skip

    learn = add(
        "learn", commands.learn, "learn a mask, in a worker process that this command follows",
        "proxsparse learn --model embedded --corpus mixed --steps 80 --lambda1 0.2 --out runs/first",
    )  # fmt: skip
    add_out(learn, "run")
    add_preset(learn)
    add_worker(learn)
    add_json(learn)
    add_further_texts(learn, f"{EVALUATE_ON} ({DEFAULT_TEXTS})")
    learn.add_argument(
        "--track", choices=TRACKERS, default=argparse.SUPPRESS,
        help="also write what the run records to this tracker, on this machine (pip install 'proxsparse[NAME]')",
    )  # fmt: skip
    add_launch(learn, "so many processes share the model, one a GPU, or all of them the CPU (default 1)")
    add_max_restarts(learn, "default 0")
    add_settings(learn, LearnJob, "the job")
    add_settings(learn, LearnConfig, "the learner")

    compare = add(
        "compare", commands.compare, "measure methods and runs side by side: the same model, text and pattern",
        "proxsparse compare --methods magnitude wanda sparsegpt-update --run runs/first --out runs/compared",
    )  # fmt: skip
    add_out(compare, "comparison")
    compare.add_argument(
        "--add-to", metavar="RUN",
        help="a comparison that ended: measure the --methods, --run, --masks and --evaluate-on given here as well, and nothing again",
    )  # fmt: skip
    compare.add_argument(
        "--methods", nargs="+", metavar="METHOD", default=argparse.SUPPRESS,
        help=f"of {', '.join(METHODS)} (default: {', '.join(CompareJob().methods)}; none with --run or --masks)",
    )  # fmt: skip
    compare.add_argument(
        "--run",
        nargs="+",
        metavar="RUN",
        dest="runs",
        default=argparse.SUPPRESS,
        help="runs whose newest masks take part; the first is `ours` in the table",
    )
    compare.add_argument(
        "--masks", nargs="+", metavar="DIR", default=argparse.SUPPRESS,
        help="sparse checkpoints, of any tool, made from this model: their zeros take part as masks",
    )  # fmt: skip
    compare.add_argument(
        "--prompts", nargs="+", metavar="TEXT", default=argparse.SUPPRESS, help="beginnings that every model completes"
    )
    compare.add_argument(
        "--tasks", nargs="+", metavar="TASK", default=argparse.SUPPRESS,
        help="zero-shot tasks of lm-eval, by name or as .yaml files; paper: the seven of the ProxSparse paper, TruthfulQA as mc1 and mc2 "
        "(pip install 'proxsparse[eval]')",
    )  # fmt: skip
    add_further_texts(compare, f"{EVALUATE_ON} ({DEFAULT_TEXTS})")
    add_launch(compare, "so many processes measure, each with the whole model on a GPU of its own (default 1)")
    add_worker(compare)
    add_json(compare)
    add_settings(compare, CompareJob, "the comparison")

    sweep = add(
        "sweep", sweep_command, "find λ1 and the learning rate with Optuna, and write them as a preset",
        "proxsparse sweep --lambdas 0.05 0.1 0.2 --learning-rates 5e-4 1e-3 --out runs/sweep\n"
        "  proxsparse sweep --sampler tpe --trials 30 --lambdas 0.01 1 --learning-rates 1e-4 1e-2 --storage postgresql://me@host/sweeps\n"
        "  proxsparse sweep --join postgresql://me@host/sweeps",
    )  # fmt: skip
    add_out(sweep, "sweep")
    sweep.add_argument(
        "--lambdas", nargs="+", metavar="FLOAT", default=argparse.SUPPRESS,
        help=f"values of lambda1, or the ends of a range of them (default {' '.join(map(str, SweepPlan().lambdas))})",
    )  # fmt: skip
    sweep.add_argument(
        "--learning-rates", nargs="+", metavar="FLOAT", default=argparse.SUPPRESS,
        help=f"peak learning rates, or the ends of a range (default {' '.join(map(str, SweepPlan().learning_rates))})",
    )  # fmt: skip
    sweep.add_argument(
        "--set-apart", default=argparse.SUPPRESS, metavar="INT",
        help="calibration windows on which settings are judged, and nothing is learned (default 16)",
    )  # fmt: skip
    sweep.add_argument(
        "--storage", metavar="URL",
        help="where the study lies: the URL of a database, or a journal's path, that several machines reach (default: study.log in the "
        "sweep's directory); a password belongs into $PROXSPARSE_STORAGE_PASSWORD",
    )  # fmt: skip
    sweep.add_argument("--study", metavar="NAME", help="what it is called there (default: as the sweep's directory)")
    sweep.add_argument(
        "--join", metavar="SWEEP",
        help="work on a sweep that another worker began, here or on another machine: its directory, or its storage; --model and "
        "--corpus say where they lie on this machine",
    )  # fmt: skip
    add_launch(sweep, "so many processes try settings, each with the whole model on a GPU of its own (default 1)")
    add_preset(sweep)
    add_worker(sweep)
    add_json(sweep)
    add_settings(sweep, SweepPlan, "the search", without=("windows",))
    add_settings(sweep, LearnJob, "the job of every trial")
    add_settings(sweep, LearnConfig, "the learner of every trial", without=("lambda1", "learning_rate"))

    resume = add(
        "resume", commands.resume, "go on with a run, comparison or sweep that was stopped, failed, or lost its worker",
        "proxsparse resume runs/first",
    )  # fmt: skip
    resume.add_argument("directory", metavar="RUN")
    resume.add_argument("--model", metavar="MODEL", help="where its model lies now (default: where its run.json says)")
    resume.add_argument("--corpus", metavar="TEXT", help="where its text lies now (default: where its run.json says)")
    add_launch(resume, "with so many processes from now on (default: as before)")
    add_max_restarts(resume, "default: as before")
    add_further_texts(resume, "on which texts it is judged besides, from now on (default: as its run.json says)")
    add_worker(resume)
    add_json(resume)

    fork = add(
        "fork", commands.fork, "start a new run from a checkpoint of another, with other settings",
        "proxsparse fork runs/first --step 40 --lambda1 0.05 --out runs/stronger",
    )  # fmt: skip
    fork.add_argument("directory", metavar="RUN")
    fork.add_argument("--step", type=int, metavar="N", help="the checkpoint's step (default: the last)")
    fork.add_argument("--out", metavar="DIR", required=True, help="the new run's directory")
    add_further_texts(fork, f"{EVALUATE_ON} (default: as the run)")
    add_worker(fork)
    add_json(fork)
    add_settings(fork, LearnConfig, "settings that change")

    send = add(
        "send", commands.send, "pause, resume, step, slow down, stop a run, or set its λ1",
        "proxsparse send runs/first set --lambda1 0.03",
    )  # fmt: skip
    send.add_argument("directory", metavar="RUN")
    send.add_argument("command", choices=COMMANDS)
    send.add_argument(
        "--lambda1", type=float, help="the new strength, for set; it grows on by what is left of the ramp"
    )
    send.add_argument(
        "--seconds", type=float, help="between two half steps, for delay: slow motion; 0: as fast as it goes"
    )

    evaluate = add(
        "eval", commands.evaluate, "measure the held-out perplexity of a model, dense or exported",
        "proxsparse eval embedded --corpus text.txt --context 512 --windows 40",
    )  # fmt: skip
    evaluate.add_argument("model", metavar="MODEL", help="embedded, a Hub id, a directory, or a .gguf file")
    evaluate.add_argument("--corpus", default="bundled", help=f"{', '.join(JUDGED_ONLY)}, {CORPUS}")
    evaluate.add_argument("--context", type=int, default=512, help="window length in tokens (default 512)")
    evaluate.add_argument("--bos", choices=("auto", "every", "once"), default="auto", help=f"{BOS} (default auto)")
    evaluate.add_argument("--windows", type=int, default=40, help="how many windows; 0: all (default 40)")
    evaluate.add_argument("--batch", type=int, default=4, help="windows in one forward pass (default 4)")
    evaluate.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="fp32: weights and arithmetic; bf16: matrix products; auto: bf16 where the device has it (default auto)",
    )
    evaluate.add_argument("--device", help="cpu, cuda, or cuda:1 (default: cuda where there is one)")
    add_streaming_of_text(evaluate)
    add_json(evaluate)

    export = add(
        "export", commands.export, "write the sparse model of a run, or of a method in a comparison, and prove it",
        "proxsparse export runs/first --to sparse\n"
        "  proxsparse export runs/compared --method wanda --to sparse",
    )  # fmt: skip
    export.add_argument("directory", metavar="RUN")
    export.add_argument("--to", required=True, metavar="DIR", help="a new or empty directory")
    export.add_argument("--model", metavar="MODEL", help="where its model lies now (default: where its run.json says)")
    export.add_argument("--step", type=int, metavar="N", help="of which step the masks are taken (default: the last)")
    export.add_argument("--method", metavar="NAME", help="of a comparison: the method whose mask is taken")
    export.add_argument(
        "--format", choices=EXPORT_FORMATS, default="dense",
        help="dense: with zeros, transformers loads it; compact: without them, load_compact does (default dense)",
    )  # fmt: skip
    add_streaming(export)
    export.add_argument("--push", metavar="ORG/NAME", help="push it to the Hugging Face Hub, once it is proven")
    add_push(export)
    add_json(export)

    tried = add(
        "try", commands.try_prompt, "go on with a prompt, dense and under the magnitude, Wanda and learned mask of a run",
        'proxsparse try runs/first --prompt "A recipe for bread begins with"',
    )  # fmt: skip
    tried.add_argument("directory", metavar="RUN")
    tried.add_argument("--prompt", required=True, metavar="TEXT", help="the beginning of a text")
    tried.add_argument(
        "--step", type=int, metavar="N", help="of which step the learned mask is taken (default: the last)"
    )
    tried.add_argument("--new-tokens", default=32, metavar="INT", help="tokens that are added (default 32)")
    add_json(tried)

    verify = add(
        "verify", commands.verify, "prove from the files that every group is N:M and every kept weight is the original's",
        "proxsparse verify sparse --original embedded",
    )  # fmt: skip
    verify.add_argument("directory", metavar="DIR")
    verify.add_argument(
        "--original", metavar="MODEL", help="the model it came from (default: what its provenance says)"
    )
    verify.add_argument(
        "--layers", action="store_true", help="a line for every layer, not only for those that are not proven"
    )
    add_streaming(verify)
    add_json(verify)

    add_prune(add, add_json)
    add_reorder(add, add_json)

    pushed = add(
        "push", push, "push an export that lies on disk to the Hugging Face Hub, once it is proven again",
        "proxsparse push sparse org/model",
    )  # fmt: skip
    pushed.add_argument("directory", metavar="DIR")
    pushed.add_argument("repo", metavar="ORG/NAME", help="a model repository; it is made, private, where there is none")
    pushed.add_argument(
        "--original", metavar="MODEL", help="the model it came from (default: what its provenance says)"
    )
    add_push(pushed)
    add_json(pushed)

    timed = add(
        "bench", bench, "time a 2:4 model dense and sparse, layer by layer and whole; without a GPU: what arithmetic says",
        "proxsparse bench sparse --rows 1 16 256 4096",
    )  # fmt: skip
    timed.add_argument("model", metavar="MODEL", help="a 2:4 model: an exported directory, or what else eval takes")
    timed.add_argument(
        "--rows", type=int, nargs="+", default=[1, 16, 256, 4096], metavar="N",
        help="how many tokens enter a layer at once (default 1 16 256 4096)",
    )  # fmt: skip
    timed.add_argument("--context", type=int, default=512, help="tokens of the prefill (default 512)")
    timed.add_argument("--new-tokens", type=int, default=32, help="tokens decoded after it, one by one (default 32)")
    timed.add_argument("--device", help="cpu, cuda, or cuda:1 (default: cuda where there is one)")
    add_json(timed)

    add_plan(add, add_json)

    page = add(
        "report", report, "write a run as one page of HTML, to explore without a server and without a network",
        "proxsparse report runs/first --to run.html",
    )  # fmt: skip
    page.add_argument("directory", metavar="RUN")
    page.add_argument("--to", required=True, metavar="FILE", help="the page; an earlier report there is replaced")
    add_json(page)

    runs = add(
        "runs", commands.list_all, "list the runs, newest first; or free the disk of what nobody needs",
        "proxsparse runs\n  proxsparse runs --prune --older 90",
    )  # fmt: skip
    runs.add_argument("--root", default="runs", metavar="DIR", help="where the runs are (default runs)")
    runs.add_argument(
        "--prune", action="store_true",
        help="show, and after a question remove, earlier checkpoints of runs that are done, what was half written or set aside, and "
        "uploaded texts that no run needs; not what is worked on, nor what is younger than an hour",
    )  # fmt: skip
    runs.add_argument("--older", type=float, metavar="DAYS", help="with --prune: also runs that ended longer ago")
    runs.add_argument("--yes", action="store_true", help="with --prune: do not ask")
    add_json(runs)

    verbs.add_parser("app", help="start the explorer in the browser; `proxsparse app --help` lists its options")

    users = verbs.add_parser("auth", help="say who may log in to the explorer").add_subparsers(
        required=True, metavar="WHAT", dest="what", parser_class=unabbreviated
    )

    def add_users(name: str, run, help: str) -> argparse.ArgumentParser:
        what = users.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        what.set_defaults(run=run)
        what.add_argument("--file", metavar="FILE", required=True, help="the file of users, for `app --auth-file`")
        return what

    added = add_users("add", auth.add, "let somebody log in, or change their password and role; asks for the password")
    added.add_argument("name", metavar="NAME")
    added.add_argument("--operator", action="store_true", help="as operator (default: as visitor)")
    add_users("remove", auth.remove, "take somebody out of the file").add_argument("name", metavar="NAME")
    add_json(add_users("list", auth.list_users, "list who may log in, and as what"))

    worker = verbs.add_parser("worker")  # without help: what `learn` starts, not for people
    worker.add_argument("directory")
    worker.add_argument("--lock", type=int)
    worker.set_defaults(run=commands.worker)
    return parser
