"""`reorder`: a model with its channels in an order in which groups keep more."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from proxsparse.cli.bar import Bar
from proxsparse.cli.settings import add_settings, given_settings
from proxsparse.config import CompareJob
from proxsparse.files import check_free, local_path
from proxsparse.settings import settings_of

# Settings of a comparison that count here, too.
READ = ("model", "corpus", "length", "calibration", "bos", "device", "n", "m")


def add_reorder(add: Callable[..., argparse.ArgumentParser], add_json: Callable) -> None:
    """The command's arguments."""
    verb = add(
        "reorder", reorder, "write a model whose channels stand in an order in which groups keep more; it computes the same",
        "proxsparse reorder --to reordered\n  proxsparse learn --model reordered --out runs/reordered",
    )  # fmt: skip
    verb.add_argument("--to", required=True, metavar="DIR", help="a new or empty directory")
    add_json(verb)
    add_settings(verb, CompareJob, "what the order is found by", without=tuple({*settings_of(CompareJob)} - {*READ}))


def reorder(arguments: argparse.Namespace) -> int:
    job = CompareJob(**given_settings(CompareJob, vars(arguments)))
    check_free(local_path(arguments.to))
    from proxsparse.models.load import load_model  # here: bad input is refused without waiting for torch
    from proxsparse.reordering.write import reorder_model

    lm = load_model(job.model, job.device)
    with Bar("reorder") as progress:
        text = lm.windows(job.corpus, job.length, bos=job.bos, progress=progress, samples=job.calibration)
        windows = text.calibration[: job.calibration]
        about = {"corpus": job.corpus, "corpus_sha256": text.sha256, "windows": len(windows)}
        found = reorder_model(lm, windows, arguments.to, job.n, job.m, progress, about)
    if arguments.json:
        print(json.dumps(found))
    else:
        before, after = found["kept"]
        print(
            f"{found['directory']}: in the {found['layers']} layers whose groups changed, {job.n} of {job.m} keep {after:.1%} "
            f"of Wanda's scores, {before:.1%} before. No output changes by more than {found['change']:.0e} of its size, which is rounding."
        )
    return 0
