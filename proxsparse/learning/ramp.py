"""How λ1 grows over a run: by a constant factor a step, to what is left of its ramp. The learner grows by this, and whoever
wants to know λ1 at steps to come asks here; nothing here imports torch."""

from __future__ import annotations


def left_of(ramp: float, step: int, steps: int) -> float:
    """How many times λ1 still grows from the step with index `step` (0-based) to the last of `steps`."""
    return ramp ** (max(0, steps - 1 - step) / max(1, steps - 1))


def growth_factor(growth_left: float, steps_left: int) -> float:
    """By how much λ1 grows from one step to the next, where `steps_left` more such moves lead to the last step.

    growth_left: how many times it still grows altogether. 1 where nothing is left.
    """
    return growth_left ** (1 / steps_left) if steps_left > 0 and growth_left > 1 else 1.0


def strengths_ahead(lambda1: float, growth_left: float, step: int, steps: int) -> dict[int, float]:
    """λ1 of every step that is still to be taken, if nobody sets it by hand.

    Parameters
    ----------
    lambda1 : float
        Strength at the step that comes.
    growth_left : float
        How many times it still grows, as the learner has it at this moment.
    step : int
        Steps taken.
    steps : int
        Steps of the whole run.

    Returns
    -------
    dict
        {number of the step, 1 for the first: λ1}, empty where all steps are taken.

    Examples
    --------
    >>> strengths_ahead(0.1, 4.0, step=0, steps=3)
    {1: 0.1, 2: 0.2, 3: 0.4}
    """
    factor = growth_factor(growth_left, steps - 1 - step)
    return {step + 1 + later: lambda1 * factor**later for later in range(steps - step)}
