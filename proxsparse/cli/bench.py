"""`bench`: dense against sparse on the user's own GPU, as two tables and a sentence."""

from __future__ import annotations

import argparse
import json

from proxsparse.cli.bar import Bar


def bench(arguments: argparse.Namespace) -> int:
    from proxsparse.export.benchmark import bench_model

    with Bar("bench") as progress:
        found = bench_model(
            arguments.model, arguments.rows, arguments.context, arguments.new_tokens, arguments.device, progress
        )
    if arguments.json:
        print(json.dumps(found))
    else:
        _show(found)
    return 1 if found["equal"] is False else 0


def _show(found: dict) -> None:
    rounded = f" (rounded from {found['rounded_from']}: the kernels take 16 bits)" if found["rounded_from"] else ""
    print(f"{found['model']}, {found['dtype']}{rounded}: one layer of each shape, on paper")
    print(
        f"{'shape':>15} {'layers':>6} {'dense bytes':>13} {'sparse':>13} {'ratio':>7} {'multiply-adds':>14} {'sparse':>13}"
    )
    for shape in found["shapes"]:
        print(
            f"{_shape(shape):>15} {shape['layers']:>6} {shape['dense_bytes']:>13,} {shape['sparse_bytes']:>13,} "
            f"{shape['ratio']:>7.2%} {shape['dense_multiply_adds']:>14,} {shape['sparse_multiply_adds']:>13,}"
            + (f"  stays dense: {shape['reason']}" if shape["reason"] else "")
        )
    if found["layers"]:
        tolerance = found["tolerance"]
        print(f"\nmeasured on {found['device']} with {found['backend']}; medians; tolerance {tolerance['layer']:.2g} of "
              f"the largest output of a layer, {tolerance['model']:.2g} of the model's largest logit")  # fmt: skip
        print(f"{'shape':>15} {'rows':>8} {'dense ms':>10} {'sparse ms':>10} {'speedup':>8} {'error':>9}")
        for entry in found["layers"]:
            _line(_shape(entry), entry, tolerance["layer"])
        for entry in found["end_to_end"]:
            _line(entry["part"], entry, tolerance["model"])
    print(found["summary"])


def _line(what: str, entry: dict, tolerance: float) -> None:
    wrong = "" if entry["error"] <= tolerance else ", OUTSIDE THE TOLERANCE"
    print(
        f"{what:>15} {entry['tokens']:>8} {entry['dense_seconds'] * 1e3:>10.3f} {entry['sparse_seconds'] * 1e3:>10.3f} "
        f"{entry['speedup']:>7.2f}× {entry['error']:>9.2g}  {entry['verdict']}{wrong}"
    )


def _shape(entry: dict) -> str:
    return f"{entry['rows']} × {entry['columns']}"
