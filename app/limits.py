"""How much a visitor may ask for. What the text, the model or the machine have no room for is refused elsewhere, whoever asks; these
limits are the operator's, for the page only: what is started on the command line has none."""

from __future__ import annotations

from proxsparse import LearnJob, ProxSparseError
from proxsparse.config import SweepPlan
from proxsparse.models.weight_files import weight_bytes
from proxsparse.settings import setting, settings

NONE = "; 0: no limit"


@settings
class Limits:
    """Flags of `proxsparse app`, a field each."""

    max_steps: int = setting(10_000, f"most steps of a run{NONE}", "steps", ge=0)
    max_step_tokens: int = setting(
        131_072, f"most tokens that a step reads, batch × accumulation × length{NONE}", "tokens", ge=0
    )
    max_trials: int = setting(100, f"most trials of a sweep{NONE}", "trials", ge=0)
    max_model_gb: float = setting(60, f"largest model, as its weights lie on disk{NONE}", "GB", ge=0)
    max_run_gb: float = setting(
        200, f"most disk that a run takes, its checkpoints, history and export included{NONE}", "GB", ge=0
    )
    max_runs_gb: float = setting(1000, f"most disk that the runs and uploads take together{NONE}", "GB", ge=0)
    max_uploads: int = setting(20, f"most texts that a visitor keeps{NONE}", "texts", ge=0)
    max_uploads_mb: float = setting(200, f"most disk that the texts of a visitor take{NONE}", "MB", ge=0)
    upload_days: float = setting(30, "how long a text is kept that no run was started with; 0: for good", "days", ge=0)

    def check_sweep(self, plan: SweepPlan) -> None:
        """Raise ProxSparseError where a sweep would try more than the operator allows."""
        if 0 < self.max_trials < plan.count:
            raise ProxSparseError(
                f"The sweep has {plan.count:,} trials and may have {self.max_trials:,} here: give fewer values, or fewer trials."
            )

    def check(self, job: LearnJob) -> None:
        """Raise ProxSparseError where a run would be larger than the operator allows."""
        steps, learn = job.learn.steps, job.learn
        if 0 < self.max_steps < steps:
            raise ProxSparseError(
                f"steps is {steps:,} and a run may take {self.max_steps:,} here: give {self.max_steps:,} or less."
            )
        tokens = learn.windows_per_step * job.length
        if 0 < self.max_step_tokens < tokens:
            raise ProxSparseError(
                f"A step of {learn.batch:,} × {learn.accumulation:,} windows of {job.length:,} tokens reads {tokens:,} tokens and may read "
                f"{self.max_step_tokens:,} here: give a smaller batch, accumulation or length."
            )
        size = weight_bytes(job.model) if self.max_model_gb else 0
        if size > self.max_model_gb * 1e9:
            raise ProxSparseError(
                f"The weights of {job.model} take {size / 1e9:.3g} GB and those of a model may take {self.max_model_gb:g} GB here: choose "
                "a smaller model."
            )
