"""Runs: one directory each, the only thing that app, command line and notebooks share."""

from proxsparse.runs.comparison import Comparison
from proxsparse.runs.export_job import start_export
from proxsparse.runs.run import Run, find_run, list_runs, new_run_path
from proxsparse.runs.sweep import Sweep

__all__ = ["Comparison", "Run", "Sweep", "find_run", "list_runs", "new_run_path", "start_export"]
