"""`prune`: a model's mask by a method that learns nothing, written and proven at once."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from proxsparse.cli.bar import Bar
from proxsparse.cli.output import say_export
from proxsparse.cli.settings import add_settings, given_settings
from proxsparse.cli.streaming import add_streaming_of_text, streaming_of
from proxsparse.config import MASK_METHODS, METHODS, CompareJob, absolute, check_patterns
from proxsparse.errors import ProxSparseError
from proxsparse.files import check_free, local_path
from proxsparse.settings import settings_of

# Settings of a comparison that count here, too.
READ = ("model", "corpus", "length", "calibration", "bos", "device", "n", "m", "seed")


def add_prune(add: Callable[..., argparse.ArgumentParser], add_json: Callable) -> None:
    """The command's arguments."""
    verb = add(
        "prune", prune_model, "choose a mask without learning, block by block, and write the sparse model, proven",
        "proxsparse prune --method wanda --to sparse\n"
        "  proxsparse prune --model large-model --method sparsegpt --stream --to sparse",
    )  # fmt: skip
    verb.add_argument("--to", required=True, metavar="DIR", help="a new or empty directory")
    verb.add_argument("--method", choices=MASK_METHODS, default="wanda", help="(default wanda)")
    add_streaming_of_text(verb, "; the corpus is then bundled by default")
    add_json(verb)
    add_settings(verb, CompareJob, "what is pruned", without=tuple({*settings_of(CompareJob)} - {*READ}))


def prune_model(arguments: argparse.Namespace) -> int:
    given = given_settings(CompareJob, vars(arguments))
    if arguments.stream:
        given.setdefault("corpus", "bundled")  # a streamed model writes no text of its own, a part of mixed
    job, name = CompareJob(**given), arguments.method
    method = METHODS[name]
    if method.each_pattern:
        check_patterns(job.n, job.m, name)
    if arguments.stream and method.whole:
        raise ProxSparseError(
            f"{name} needs the gradient of the whole model, which cannot be streamed: choose another method."
        )
    options = streaming_of(arguments)
    check_free(local_path(arguments.to))
    model = absolute(job.model)
    from proxsparse.export.write import export_model  # here: bad input is refused without waiting for torch
    from proxsparse.methods import METHODS as FUNCTIONS
    from proxsparse.models.load import load_model

    lm = load_model(model, job.device, **options)
    about = {"method": name, "mask": name, "job": {field: getattr(job, field) for field in READ} | {"model": model}}
    chosen = {"seed": job.seed} if name == "random" else {}
    with Bar("prune") as progress:
        windows = None
        if method.reads:
            text = lm.windows(absolute(job.corpus), job.length, bos=job.bos, progress=progress, samples=job.calibration)
            windows = text.calibration[: job.calibration]
            about |= {"corpus": job.corpus, "corpus_sha256": text.sha256, "windows": len(windows)}
        masks = FUNCTIONS[name](lm.model, windows, job.n, job.m, progress=progress, **chosen).masks
        report = export_model(lm, masks, arguments.to, about, progress)
    if arguments.json:
        print(json.dumps(report))
    else:
        say_export(report)
    return 0
