"""Runs: one directory each, the only thing that app, command line and notebooks share."""

from proxsparse.runs.additions import add_to_comparison
from proxsparse.runs.jobs.bench import start_bench
from proxsparse.runs.jobs.export import start_export
from proxsparse.runs.readers.comparison import Comparison
from proxsparse.runs.readers.probe import Probe
from proxsparse.runs.readers.sweep import Sweep
from proxsparse.runs.run import Run, find_run, list_runs, look_at_runs, new_run_path

__all__ = [
    "Comparison",
    "Probe",
    "Run",
    "Sweep",
    "add_to_comparison",
    "find_run",
    "list_runs",
    "look_at_runs",
    "new_run_path",
    "start_bench",
    "start_export",
]
