"""`report`: a run as one page that needs neither a server nor a network."""

from __future__ import annotations

import argparse
import json

from proxsparse.runs import Run


def report(arguments: argparse.Namespace) -> int:
    from proxsparse.report import write_report

    path = write_report(Run(arguments.directory), arguments.to)
    size = path.stat().st_size
    print(json.dumps({"report": str(path), "bytes": size}) if arguments.json else f"{size:>13,}  bytes in {path}")
    return 0
