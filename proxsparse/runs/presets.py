"""Presets: the settings of a run in a file, as a sweep or a person writes them."""

from __future__ import annotations

from pathlib import Path

from proxsparse.config import LearnJob
from proxsparse.errors import ProxSparseError
from proxsparse.files import check_version, local_path, read_json, write_json

PRESET_FILE = "preset.json"
VERSION = 1


def preset_of(job: LearnJob) -> dict:
    """What a preset file of a job holds: its every setting."""
    return {"version": VERSION} | job.to_dict()


def write_preset(path: Path, job: LearnJob) -> None:
    """Write every setting of `job`."""
    write_json(path, preset_of(job))


def read_preset(path: str | Path) -> LearnJob:
    """The settings in a preset file, or in a sweep's directory. What it does not name takes the default of today.

    A file without a version is read as one of version 1: presets of before there was a version name every setting.
    Raises ProxSparseError for a file that is no preset, or one that a newer version wrote.
    """
    path = local_path(path)
    file = path / PRESET_FILE if path.is_dir() else path
    try:
        values = read_json(file)
    except (OSError, ProxSparseError) as error:
        raise ProxSparseError(f"{path} is no preset ({error}): give the file that a sweep wrote.") from error
    if values is None:
        raise ProxSparseError(f"There is no preset {str(path)!r}: give the name of one, or the file a sweep wrote.")
    if not isinstance(values, dict):
        raise ProxSparseError(f"{path} is no preset (it holds no settings by name): give the file that a sweep wrote.")
    check_version(values.pop("version", VERSION), VERSION, f"The preset {path}")
    return LearnJob.from_dict(values)
