"""What each command does. Nothing heavy is imported before it is needed: `--help` answers at once."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from proxsparse.cli import ranks
from proxsparse.cli.bar import Bar
from proxsparse.cli.follow import follow
from proxsparse.cli.output import say_export
from proxsparse.cli.prune import prune_runs, refuse_without_prune
from proxsparse.cli.push import check_push, push_export, say_pushed
from proxsparse.cli.settings import job_from
from proxsparse.cli.streaming import streaming_of
from proxsparse.config import CompareJob, LearnConfig, LearnJob, absolute
from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.runs import Run, look_at_runs, new_run_path
from proxsparse.runs.additions import ADDED, add_to_comparison
from proxsparse.runs.commands import VALUES, require
from proxsparse.runs.launch import check_alone, set_launch
from proxsparse.runs.places import move
from proxsparse.runs.readers.comparison import check_masks, check_runs
from proxsparse.runs.tracking import require_tracker


def learn(arguments: argparse.Namespace) -> int:
    def made(make: Callable[[LearnJob, str | Path], Run]) -> Run:
        job = job_from(arguments)
        if job.track is not None:
            require_tracker(job.track)
        return make(job, arguments.out or new_run_path("runs", job.model))

    if ranks.are_several():
        ranks.require_place(arguments.out)
        return ranks.work_as_rank(lambda: made(ranks.begun_or_made), lambda run: require(run, "start"), arguments.json)

    def create(job: LearnJob, path: str | Path) -> Run:
        check_alone(job)
        return Run.create(job, path)

    return start(made(create), arguments)


def compare(arguments: argparse.Namespace) -> int:
    names = {field.name for field in dataclasses.fields(CompareJob)}
    values = {name: value for name, value in vars(arguments).items() if name in names}
    for name in ("runs", "masks"):
        values[name] = tuple(str(local_path(path).resolve()) for path in values.get(name, ()))
    if "evaluate_on" in values:
        values["evaluate_on"] = tuple(map(absolute, values["evaluate_on"]))
    if arguments.add_to is not None:
        return _add(arguments, values)
    if (values["runs"] or values["masks"]) and "methods" not in values:
        values["methods"] = ()
    values["tasks"] = tuple(
        str(local_path(task).resolve()) if task.endswith((".yaml", ".yml")) else task
        for task in values.get("tasks", ())
    )
    values |= {name: absolute(values[name]) for name in ("model", "corpus") if name in values}
    job = CompareJob(**values)
    check_runs(job, job.runs)  # the worker would only find out later
    check_masks(job.masks)
    if job.tasks:
        from proxsparse.evaluation.zero_shot import check_tasks

        check_tasks(job.tasks)
    path = arguments.out or new_run_path("runs", "compare")
    return start(Run.create_kind("compare", {"compare": job.to_dict()}, path), arguments)


def _add(arguments: argparse.Namespace, values: dict) -> int:
    """Add to a comparison, whose settings stay what they are."""
    launch = values.pop("launch", None)
    fixed = [f"--{name.replace('_', '-')}" for name in values if name not in ADDED]
    fixed += ["--out"] if arguments.out is not None else []
    if fixed:
        raise ProxSparseError(
            f"{', '.join(fixed)} cannot change in a comparison that is added to: leave it out, or start a new comparison."
        )
    run = Run(arguments.add_to)
    add_to_comparison(run, **values)
    if launch is not None:
        set_launch(run, launch)
    return start(run, arguments)


def resume(arguments: argparse.Namespace) -> int:
    def prepare(run: Run) -> None:
        _prepare(run, arguments)

    if ranks.are_several():
        return ranks.work_as_rank(lambda: Run(arguments.directory), prepare, arguments.json)
    run = Run(arguments.directory)
    prepare(run)
    return start(run, arguments)


def _prepare(run: Run, arguments: argparse.Namespace) -> None:
    """Look whether a run can go on, and take over what changes with that."""
    if run.state()["status"] == "done":
        more = "to take more steps, fork it with more --steps" if run.kind == "learn" else "start a new one"
        raise ProxSparseError(f"Run {run.id} is done: {more}.")
    require(run, "start")
    move(run, getattr(arguments, "evaluate_on", None), model=arguments.model, corpus=arguments.corpus)
    given = [getattr(arguments, name, None) for name in ("launch", "max_restarts")]
    if given != [None, None]:
        set_launch(run, *given)


def fork(arguments: argparse.Namespace) -> int:
    names = {field.name for field in dataclasses.fields(LearnConfig)}
    changes = {name: value for name, value in vars(arguments).items() if name in names}
    if "evaluate_on" in arguments:
        changes["evaluate_on"] = tuple(map(absolute, arguments.evaluate_on))
    return start(Run(arguments.directory).fork(arguments.out, arguments.step, **changes), arguments)


def send(arguments: argparse.Namespace) -> int:
    name = VALUES.get(arguments.command)
    if name and getattr(arguments, name) is None:
        raise ProxSparseError(f"There is nothing to {arguments.command}: give --{name}.")
    Run(arguments.directory).send(arguments.command, **({name: getattr(arguments, name)} if name else {}))
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    if arguments.windows < 0 or arguments.batch < 1:
        raise ProxSparseError(
            f"windows is {arguments.windows} and batch {arguments.batch}: give 0 or more windows, 1 or more a batch."
        )
    options = streaming_of(arguments)
    import torch

    from proxsparse.evaluation.perplexity import bos_effect, perplexity
    from proxsparse.layers import prunable_layers
    from proxsparse.models.load import load_model
    from proxsparse.models.sparsity import sparsity_of

    # What fp32 says is meant of the weights as well: a checkpoint in bf16 would be computed in bf16.
    dtype = torch.float32 if arguments.precision == "fp32" else None
    lm = load_model(absolute(arguments.model), arguments.device, dtype, **options)
    with Bar("reading") as progress:
        text = lm.heldout(arguments.corpus, arguments.context, arguments.bos, progress=progress)
    windows = text.windows[: arguments.windows or None]
    try:
        sparsity = str(sparsity_of(layer.matrix for layer in prunable_layers(lm.model, 1).in_turn()))
    except ProxSparseError as error:  # what cannot be pruned can be measured all the same
        sparsity = f"of unknown sparsity ({str(error).rstrip('.')})"
    with Bar("perplexity") as progress:
        found = perplexity(lm.model, windows, arguments.batch, arguments.precision, progress)
        effect = bos_effect(lm.model, windows, arguments.precision) if text.bos else None
    if arguments.json:
        print(
            json.dumps(
                {"model": arguments.model, "corpus": arguments.corpus, "sparsity": sparsity, "bos": effect}
                | dataclasses.asdict(found)
            )
        )
    else:
        print(
            f"{arguments.model} on {arguments.corpus}: perplexity {found}, {found.tokens:,} tokens, {found.seconds:.0f} s"
        )
        print(f"{arguments.model} is {sparsity}.")
        if effect:
            print(
                f"A BOS token begins every window (--bos {arguments.bos}): on the first {effect['windows']}, perplexity "
                f"{effect['with']:.2f} with it and {effect['without']:.2f} without."
            )
    return 0


def export(arguments: argparse.Namespace) -> int:
    from proxsparse.runs.jobs.export import export_masks, export_method, require_masks, require_no_method

    check_push(arguments)
    if arguments.stream and arguments.format == "compact":
        raise ProxSparseError("A compact export cannot be streamed: leave out --stream, or --format compact.")
    run = Run(arguments.directory)
    if run.kind == "compare":
        if arguments.step is not None:
            raise ProxSparseError(
                f"Run {run.id} compares methods, which have no steps: give --method instead of --step."
            )
        write, what = export_method, arguments.method
    else:
        require_masks(run)
        require_no_method(run, arguments.method)
        write, what = export_masks, max(run.masks()) if arguments.step is None else arguments.step
        if what not in run.masks():
            raise ProxSparseError(
                f"Run {run.id} has no masks of step {what}: choose {', '.join(map(str, run.masks()))}."
            )
    with Bar("export") as progress:
        report = write(run, what, Path(arguments.to), progress, arguments.format, arguments.model, arguments.stream)
    pushed = {} if arguments.push is None else {"pushed": push_export(report, arguments)}
    if arguments.json:
        print(json.dumps(report | pushed))
        return 0
    say_export(report)
    if pushed:
        say_pushed(pushed["pushed"])
    return 0


def try_prompt(arguments: argparse.Namespace) -> int:
    from proxsparse.runs.readers.probe import Answer, Probe
    from proxsparse.runs.requests import PromptRequest

    run = Run(arguments.directory)
    request = PromptRequest(prompt=arguments.prompt, step=arguments.step, new_tokens=arguments.new_tokens)
    request = Probe(run).checked(request)
    from proxsparse.runs.jobs.loaded_run import LoadedRun  # here: a wrong request is refused without loading anything

    lines: list[dict] = []
    with Bar("try") as progress:
        LoadedRun(run, progress=progress).answer(request, lines.append, progress)
    answer = Answer("", request, "done", tuple(lines))
    tables, texts = answer.next_tokens(), answer.texts()
    if arguments.json:
        found = {
            name: {
                "text": text,
                "next": tables[name].to_dict("records"),
                "divergence": tables[name].attrs["divergence"],
            }
            for name, text in texts.items()
        }
        print(json.dumps({"run": str(run.path), "prompt": request.prompt, "step": request.step, "models": found}))
        return 0
    for name, text in texts.items():
        first = ", ".join(f"{row.text!r} {row.probability:.1%}" for row in tables[name].head(3).itertuples())
        step = f", step {request.step}" if name == "learned" else ""
        print(f"{name}{step}: {' '.join(text.split())}\n  next token: {first}\n")
    if "learned" not in texts:
        print("There are no learned masks on disk yet: they are written with the run's first measurement.")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    from proxsparse.export.verification import verify as prove

    with Bar("verify") as progress:
        found = prove(arguments.directory, arguments.original, progress, arguments.stream)
    if arguments.json:
        print(json.dumps(found.to_dict()))
        return 0 if found.ok else 1
    print(found.summary)
    for layer in found.layers:
        wrong = f"{layer['bad_groups']:,} bad groups, {layer['changed_weights']:,} changed weights"
        if arguments.layers or not layer["ok"]:
            print(
                f"{layer['name']:<48} {layer['rows']:>6} × {layer['columns']:<6} {layer['groups']:>10,} groups  "
                f"{'ok' if layer['ok'] else wrong}"
            )
    for name in found.changed_elsewhere:
        print(f"{name:<48} not as in the original")
    return 0 if found.ok else 1


def list_all(arguments: argparse.Namespace) -> int:
    if arguments.prune:
        return prune_runs(arguments)
    refuse_without_prune(arguments)
    runs, unreadable = look_at_runs(arguments.root)
    if arguments.json:
        known = [run.header() | run.state() | {"id": run.id, "path": str(run.path)} for run in runs]
        print(json.dumps(known + [{"id": name, "unreadable": reason} for name, reason in unreadable.items()]))
        return 0
    if not runs and not unreadable:
        print(f"No runs under {arguments.root}: start one with `proxsparse learn`.")
    for run in runs:
        header, state = run.header(), run.state()
        job = run.asked()
        steps = job["learn"]["steps"] if run.kind == "learn" else state.get("steps", "?")
        what = f"{run.kind:<8} {job['model']} on {job['corpus']}"
        print(f"{header['created'][:16]}  {state['status']:<12} {state['step']:>5}/{steps:<5} {run.path}  {what}")
    for name, reason in unreadable.items():
        print(f"unreadable        {Path(arguments.root) / name}  {reason}")
    return 0


def worker(arguments: argparse.Namespace) -> int:
    from proxsparse.runs.worker import work

    return work(arguments.directory, arguments.lock)


def start(run: Run, arguments: argparse.Namespace) -> int:
    process = run.start()
    if arguments.detach:
        print(json.dumps({"run": str(run.path)}) if arguments.json else run.path)
        return 0
    return follow(run, process, as_json=arguments.json)
