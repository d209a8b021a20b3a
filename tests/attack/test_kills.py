"""A worker that is killed at any moment loses nothing: a short `kills.py`, which kills more."""

import random

import kills
import pytest


@pytest.mark.parametrize("job", kills.JOBS)
def test_a_killed_worker_loses_nothing_and_leaves_nothing(job, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = kills.attack(job(), tmp_path, kills=1, chance=random.Random(0))
    assert (found.kills, found.lost, found.left) == (1, [], [])
