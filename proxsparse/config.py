"""What can be set: one flat dataclass for the learner, one for the job around it.

Every field carries its help line and unit, so that the command line, the app's form and the documentation
say the same thing. Nothing here imports torch: reading a configuration costs nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import pydantic

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.settings import setting, settings

OWN_TEXT = "self"  # what the dense model writes itself
MIXED = "mixed"  # that and the bundled corpus
CORPORA = (MIXED, "bundled", OWN_TEXT, "wikitext2", "c4")
# Text of another kind than `bundled`, on which masks are judged and nothing ever learns.
JUDGED_ONLY = ("bundled-other",)
# {corpus on the Hugging Face Hub: (data set, configuration, commit)}; the commit is named, so that a text is the same whenever it is read
DATASETS = {
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "b08601e04326c79dfdd32d625aee71d232d685c3"),
    "c4": ("allenai/c4", "en", "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"),
}
JUDGED_BY_DEFAULT = {
    MIXED: JUDGED_ONLY,
    "bundled": JUDGED_ONLY,
    OWN_TEXT: ("bundled", *JUDGED_ONLY),
}  # {text learned on: what a mask is judged on besides}
CORPUS = (
    "mixed (bundled and self), bundled, self (what the model writes itself), wikitext2, c4, or a .txt or .jsonl file"
)
EVALUATE_ON = (
    "further texts on which the result is judged, beside the held-out part of the text that it was made on (of mixed: of "
    "bundled): "
    f"{', '.join((*CORPORA, *JUDGED_ONLY))} (of these the held-out part), or .txt or .jsonl files (all of it that was not learned on)"
)
BOS = (
    "where the BOS token stands: at the beginning of every window, which Gemma models need, or once, before the text; auto: "
    "every for these models"
)
# Beyond these nobody can mean what they ask for. Within them, what the text, the model and the machine have room for counts.
MOST_STEPS, MOST_WINDOWS, MOST_TOKENS, MOST_SEED = 1_000_000, 1_000_000, 2**20, 2**32 - 1
MOST_TEXTS = 16  # to judge on
MOST_PROCESSES = 1024
TRACKERS = ("trackio", "tensorboard", "wandb")  # each the name of its package, and of an extra
TRIALS = 20  # of a sweep that is no grid
NAMES = ("embedded", *CORPORA, *JUDGED_ONLY)  # whatever a directory may be called


def _check_pattern(n: int, m: int) -> None:
    if n >= m:
        raise ProxSparseError(f"n is {n} and m is {m}: keep fewer weights than a group has.")


def check_learnable(corpus: str) -> None:
    """Raise ProxSparseError for a text that is there to judge masks on, and not to make them."""
    if corpus in JUDGED_ONLY:
        raise ProxSparseError(
            f"corpus is {corpus!r}, a text that masks are judged on and nothing learns from: give {CORPUS}, and {corpus} "
            "with --evaluate-on."
        )


def checked_texts(corpus: str, evaluate_on: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The texts to judge on besides, each once. Raises ProxSparseError where tables could not tell two texts apart."""
    check_learnable(corpus)
    if evaluate_on is None:
        return None
    texts = tuple(dict.fromkeys(evaluate_on))
    if len(texts) > MOST_TEXTS:
        raise ProxSparseError(f"evaluate-on names {len(texts)} texts: give {MOST_TEXTS} or fewer.")
    named: dict[str, str] = {}
    for text in dict.fromkeys((corpus, *texts)):
        other = named.setdefault(text_name(text), text)
        if other != text:
            raise ProxSparseError(f"The texts {other} and {text} have the same name: rename one of the files.")
    return texts


def check_launch(launch: int, device: str | None = None) -> None:
    """Raise ProxSparseError for a number of processes that cannot be, or that are all to work on one GPU."""
    if not 1 <= launch <= MOST_PROCESSES:
        raise ProxSparseError(f"launch is {launch}: give from 1 to {MOST_PROCESSES} processes.")
    if launch > 1 and device is not None and device.startswith("cuda:"):
        raise ProxSparseError(
            f"launch is {launch} and device {device}, a single one: give cuda, of which each process takes one, or launch 1."
        )


def text_name(corpus: str) -> str:
    """What tables call a text: its name, or that of its file."""
    return corpus.rstrip("/").rsplit("/", 1)[-1]


def judged_by(corpus: str) -> str:
    """What tables call the text whose held-out part judges a mask: of mixed it is the bundled one."""
    return "bundled" if corpus == MIXED else text_name(corpus)


def _judged_on(corpus: str, evaluate_on: tuple[str, ...] | None) -> tuple[str, ...]:
    texts = JUDGED_BY_DEFAULT.get(corpus, ()) if evaluate_on is None else evaluate_on
    return tuple(text for text in texts if text != corpus)


@settings
class LearnConfig:
    """Hyper-parameters of `MaskLearner` (Liu et al. 2025, arXiv 2502.00258, sections 3 and 4)."""

    steps: int = setting(80, "optimizer steps in the whole run", "steps", ge=1, le=MOST_STEPS)
    lambda1: float = setting(
        0.2,
        "strength of the N:M regularizer at the last step; by default relative to the RMS of each layer's scaled weights",
        ge=0,
    )
    ramp: float = setting(
        1000.0,
        "how many times stronger lambda1 is at the last step than at the first; it grows by a constant factor a step; 1: "
        "constant, as in the paper",
        ge=1,
        le=1e12,
    )
    relative: bool = setting(True, "divide lambda1 by each layer's RMS; off: the paper's absolute lambda1")
    metric: Literal["activation", "weight"] = setting(
        "activation", "scale in which magnitudes compete: |w|·‖x‖ (activation) or the paper's |w| (weight)"
    )
    loss_at: Literal["masked", "soft"] = setting(
        "masked",
        "weights at which the loss is taken: the original ones under the projected mask, which is the result, or the soft "
        "ones, as in the paper",
    )
    distill: float = setting(
        0.75,
        "share of the loss that is the KL divergence from the dense model's predictions, which takes a second forward pass; the "
        "rest is the language-model loss",
        ge=0,
        le=1,
    )
    metric_windows: int = setting(
        16, "windows on which the activation metric is measured", "windows", ge=1, le=MOST_WINDOWS
    )
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW", gt=0)
    warmup: float = setting(0.1, "share of the steps that raise the learning rate linearly", ge=0, le=1)
    decay: Literal["linear", "cosine", "none"] = setting("linear", "how the learning rate falls after warm-up")
    batch: int = setting(3, "windows in one forward pass", "windows", ge=1, le=MOST_WINDOWS)
    accumulation: int = setting(1, "forward passes whose gradients make one step", "passes", ge=1, le=MOST_WINDOWS)
    clip: float = setting(1.0, "largest gradient norm; 0: no clipping", ge=0)
    lambda2: float = setting(0.0, "strength of the frozen-weight penalty, which holds kept weights in place", ge=0)
    epsilon: float = setting(0.1, "epsilon of the frozen-weight penalty, in units of weight", gt=0)
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "arithmetic of forward and backward, whatever weights are kept in; auto: bf16 where the device has it"
    )
    memory: Literal["auto", "full", "lean"] = setting(
        "auto",
        "full: 20 bytes a prunable weight of a bf16 model; lean: 8, or 12 on several GPUs together, as bf16 with stochastic rounding, and "
        "each block computed twice; auto: lean where a GPU has no room for full",
    )
    recompute: bool = setting(
        False,
        "compute the activations of each block again in backward in place of keeping them: for long windows, in less memory and with one "
        "more forward pass a step; memory lean does so anyway",
    )
    offload: bool = setting(
        False,
        "where several processes share the model: keep what is learned and the original weights in the machine's memory, and on GPUs only "
        "the blocks that compute; slower",
    )
    seed: int = setting(0, "seed of the order in which windows are drawn", ge=0, le=MOST_SEED)
    n: int = setting(2, "weights kept in a group", "weights", ge=1, le=254)
    m: int = setting(4, "weights in a group", "weights", ge=2, le=255)  # counted in bytes

    def __post_init__(self):
        _check_pattern(self.n, self.m)
        if self.memory == "lean" and self.accumulation > 1:
            raise ProxSparseError(
                f"accumulation is {self.accumulation} and memory lean, which updates in every pass: set accumulation to 1 "
                "and a larger batch, or memory to full."
            )
        if self.memory == "lean" and self.precision == "fp32":
            raise ProxSparseError("precision is fp32 and memory lean, whose weights are bf16: set precision to auto.")

    @property
    def pattern(self) -> str:
        """As it is written: 2:4."""
        return f"{self.n}:{self.m}"

    @property
    def windows_per_step(self) -> int:
        return self.batch * self.accumulation


@settings
class LearnJob:
    """A learner with everything around it: weights, text, evaluation and what is kept on disk."""

    model: str = setting("embedded", "embedded, a Hub id, a directory, or a .gguf file")
    corpus: str = setting(MIXED, CORPUS)
    length: int = setting(256, "length of a calibration window", "tokens", ge=2, le=MOST_TOKENS)
    context: int = setting(
        512, "length of a held-out window, on which perplexity is measured", "tokens", ge=2, le=MOST_TOKENS
    )
    bos: Literal["auto", "every", "once"] = setting("auto", BOS)
    samples: int = setting(
        0,
        "calibration windows to draw from, spread evenly over the text where it has more; of c4 so many are read; 0: all, of c4 as many as "
        "a million tokens make",
        "windows",
        ge=0,
        le=MOST_WINDOWS,
    )
    windows: int = setting(40, "held-out windows measured at the end; 0: all of them", "windows", ge=0, le=MOST_WINDOWS)
    live_windows: int = setting(2, "held-out windows measured while the run goes on", "windows", ge=1, le=MOST_WINDOWS)
    evaluate_every: int = setting(
        10, "steps between two live measurements; 0: only at the end", "steps", ge=0, le=MOST_STEPS
    )
    checkpoint_every: int = setting(
        40, "steps between two checkpoints; 0: only when paused or ended", "steps", ge=0, le=MOST_STEPS
    )
    history: float = setting(
        1000.0,
        "largest size on disk of the history of the masks, which near this limit takes fewer steps; 0: none is recorded",
        "MB",
        ge=0,
        le=1e9,
    )
    history_blocks: int = setting(
        1,
        "the history takes one decoder block in so many; more where the start masks would fill half the limit",
        "blocks",
        ge=1,
        le=1_000_000,
    )
    tile_rows: int = setting(
        8, "rows of the tile of each layer whose soft weights the history tracks", "rows", ge=1, le=1024
    )
    tile_columns: int = setting(16, "columns of that tile, rounded up to whole groups", "columns", ge=1, le=1024)
    device: str | None = setting(None, "cpu, cuda, or cuda:1; default: cuda where there is one")
    evaluate_on: tuple[str, ...] | None = None  # EVALUATE_ON; None: the default of the text that is learned on
    track: str | None = None  # one of TRACKERS, which is told what the records say; not on the page's form
    launch: pydantic.StrictInt = 1  # processes that share the model, one a GPU; not on the page's form
    max_restarts: pydantic.StrictInt = 0  # of all of them, after one was lost; not on the page's form
    learn: LearnConfig = pydantic.Field(default_factory=LearnConfig)

    def __post_init__(self):
        object.__setattr__(self, "evaluate_on", checked_texts(self.corpus, self.evaluate_on))
        check_launch(self.launch, self.device)
        if self.max_restarts < 0:
            raise ProxSparseError(f"max-restarts is {self.max_restarts}: give 0 or more.")
        if self.max_restarts and self.launch == 1:
            raise ProxSparseError(
                f"max-restarts is {self.max_restarts} and launch 1: a process that is alone is not started again; give launch 2 or more, "
                "or max-restarts 0."
            )
        if self.track not in (None, *TRACKERS):
            raise ProxSparseError(f"track is {self.track!r}: choose one of {', '.join(TRACKERS)}.")

    @property
    def judged_on(self) -> tuple[str, ...]:
        """The texts on which the final mask is judged besides the held-out part of the text that was learned on."""
        return _judged_on(self.corpus, self.evaluate_on)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> LearnJob:
        """What `to_dict` gave; settings that are not named take their defaults. Raises ProxSparseError for others."""
        values = dict(values)
        learn = values.pop("learn", {})
        if not isinstance(learn, dict):
            raise ProxSparseError(f"learn is {learn!r}: give the settings of the learner by name.")
        return cls(learn=LearnConfig(**learn), **values)


EXPORT_FORMATS = ("dense", "compact")


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to choose a mask.

    function: its place under `proxsparse.methods`. about: which weights it keeps, in one line. options: what it is called with there.
    learns: whether it takes steps, from a budget. each_pattern: whether it has a number for every pattern of a group. reads: whether it
    needs a text. updates: whether it moves the weights that it keeps, so that no export is made of its mask. whole: whether it needs the
    whole model at once.
    """

    function: str
    about: str
    options: dict = dataclasses.field(default_factory=dict)
    learns: bool = False
    each_pattern: bool = False
    reads: bool = True
    updates: bool = False
    whole: bool = False


# Every method by the name that tables, commands and files call it; the functions are loaded by `proxsparse.methods`.
METHODS = {
    "random": Method("random.random_mask", "weights chosen at random, the baseline of no method at all", reads=False),
    "magnitude": Method("magnitude.magnitude", "the largest weights of each group; no text is read", reads=False),
    "wanda": Method("wanda.wanda", "the largest |weight| × ‖input‖ (Sun et al. 2024)"),
    "ria": Method("ria.ria", "weights relative to their row and column, times activations (Zhang et al. 2024)"),
    "fisher": Method(
        "fisher.fisher", "the largest weight² × mean gradient², an estimate of what the loss rises by", whole=True
    ),
    "sparsegpt": Method(
        "sparsegpt.sparsegpt", "SparseGPT's mask alone, on the original weights (Frantar & Alistarh 2023)", {"update": False}
    ),
    "sparsegpt-update": Method("sparsegpt.sparsegpt", "SparseGPT's mask and its update of the weights that are kept", updates=True),
    "admm": Method("admm.admm", "mask and weights by ADMM, layer by layer (Boža 2024)", updates=True),
    "swaps": Method(
        "swaps.swaps", "Wanda's mask, refined by swaps that lower the layer's output error", each_pattern=True
    ),
    "maskllm": Method(
        "maskllm.maskllm", "learned: a probability for each pattern, by Gumbel softmax (Fang et al. 2024)", learns=True,
        each_pattern=True,
    ),
    "proxsparse-paper": Method(
        "learned.learned", "learned, as in the paper: loss at the soft weights (Liu et al. 2025)",
        {"metric": "weight", "loss_at": "soft", "distill": 0.0, "lambda1": 0.02, "ramp": 1.0},
        learns=True,
    ),
    "proxsparse": Method("learned.learned", "learned, as the Learn screen does by default", learns=True),
}  # fmt: skip
LEARNED = tuple(name for name, method in METHODS.items() if method.learns)
MASK_METHODS = tuple(name for name, method in METHODS.items() if not method.learns and not method.updates)
MOST_PATTERNS = 100  # where each has a number of its own in every group: 6 for 2:4, 70 for 4:8, 12,870 for 8:16
PROMPTS = (
    "The most important thing to know about bridges is",
    "In the year 1900, most people",
    "A recipe for bread begins with",
)


def check_format(format: str) -> None:
    """Raise ProxSparseError unless an export can be written as `format`."""
    if format not in EXPORT_FORMATS:
        raise ProxSparseError(f"format is {format!r}: give {' or '.join(EXPORT_FORMATS)}.")


def check_patterns(n: int, m: int, method: str) -> None:
    """Raise ProxSparseError where a group of n:m has more patterns than a method can have a number for each."""
    if math.comb(m, n) > MOST_PATTERNS:
        raise ProxSparseError(
            f"{n}:{m} has {math.comb(m, n):,} patterns a group and {method} has a number for each: choose a smaller group, or "
            f"leave {method} out."
        )


@settings
class CompareJob:
    """Methods and finished runs side by side: the same model, calibration text, held-out windows and pattern."""

    model: str = setting("embedded", "embedded, a Hub id, a directory, or a .gguf file")
    corpus: str = setting(MIXED, CORPUS)
    n: int = setting(2, "weights kept in a group", "weights", ge=1, le=254)
    m: int = setting(4, "weights in a group", "weights", ge=2, le=255)
    length: int = setting(256, "length of a calibration window", "tokens", ge=2, le=MOST_TOKENS)
    calibration: int = setting(
        128, "calibration windows of the methods that do not learn", "windows", ge=1, le=MOST_WINDOWS
    )
    context: int = setting(
        512, "length of a held-out window, on which perplexity is measured", "tokens", ge=2, le=MOST_TOKENS
    )
    bos: Literal["auto", "every", "once"] = setting("auto", BOS)
    windows: int = setting(40, "held-out windows measured; 0: all of them", "windows", ge=0, le=MOST_WINDOWS)
    steps: int = setting(
        80, "steps of each method that learns, on the same windows in the same order", "steps", ge=1, le=MOST_STEPS
    )
    batch: int = setting(3, "calibration windows in a step of the methods that learn", "windows", ge=1, le=MOST_WINDOWS)
    seed: int = setting(
        0, "seed of random masks, of what is sampled, and of the order of the windows", ge=0, le=MOST_SEED
    )
    new_tokens: int = setting(
        24, "tokens with which each prompt is completed; 0: no completions", "tokens", ge=0, le=4096
    )
    device: str | None = setting(None, "cpu, cuda, or cuda:1; default: cuda where there is one")
    methods: tuple[str, ...] = ("magnitude", "wanda", "sparsegpt", "sparsegpt-update", "proxsparse")
    runs: tuple[str, ...] = ()  # directories of runs whose newest masks take part
    masks: tuple[str, ...] = ()  # directories of sparse checkpoints whose zeros take part as masks
    prompts: tuple[str, ...] = PROMPTS
    tasks: tuple[str, ...] = ()  # of EleutherAI's lm-eval, by name or as the path of a .yaml file
    evaluate_on: tuple[str, ...] | None = None  # EVALUATE_ON; None: the default of the calibration text
    # Processes that measure, each with the whole model, one a GPU; not on the page's form.
    launch: pydantic.StrictInt = 1

    def __post_init__(self):
        check_launch(self.launch, self.device)
        object.__setattr__(self, "evaluate_on", checked_texts(self.corpus, self.evaluate_on))
        for name in ("methods", "runs", "masks", "prompts", "tasks"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        for name in self.methods:
            if name not in METHODS:
                raise ProxSparseError(f"There is no method {name!r}: choose among {', '.join(METHODS)}.")
        if not self.methods and not self.runs and not self.masks:
            raise ProxSparseError("There is nothing to compare: give a method, a run or a sparse checkpoint.")
        _check_pattern(self.n, self.m)
        for name in self.methods:
            if METHODS[name].each_pattern:
                check_patterns(self.n, self.m, name)
        names = self.run_names() | self.mask_names()
        if len(names) < len(self.runs) + len(self.masks) or set(names) & {"dense", *METHODS}:
            raise ProxSparseError(
                "Two of the runs and checkpoints have the same name, or one has the name of a method: rename its directory."
            )

    @property
    def judged_on(self) -> tuple[str, ...]:
        """The texts on which every method is judged besides the held-out part of the calibration text."""
        return _judged_on(self.corpus, self.evaluate_on)

    def run_names(self) -> dict[str, str]:
        """{name in the tables: directory}."""
        return {path.rstrip("/").rsplit("/", 1)[-1]: path for path in self.runs}

    def mask_names(self) -> dict[str, str]:
        """{name in the tables: directory} of the sparse checkpoints."""
        return {path.rstrip("/").rsplit("/", 1)[-1]: path for path in self.masks}

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


@settings
class SweepPlan:
    """Which settings a sweep tries, and how long each of them. lambdas and learning_rates are a grid, or the ends of ranges.

    A trial takes a run of each rung, as long as it is not pruned; the last rung takes the job's full number of steps, each rung
    below half of it.
    """

    sampler: Literal["grid", "tpe", "random"] = setting(
        "grid",
        "which settings are tried: every pair of the values given; or, between the least and the largest of them, what Optuna's TPE "
        "proposes, or chance",
    )
    trials: int | None = setting(
        None,
        f"settings that tpe and random try; default: {TRIALS}; a grid has as many as it has pairs",
        "trials",
        ge=1,
        le=10_000,
    )
    pruner: Literal["halving", "hyperband", "none"] = setting(
        "halving",
        "which trials end early: those in the worse half of a rung (successive halving), by brackets of which some prune later "
        "(Hyperband), or none",
    )
    rungs: int = setting(3, "rungs of successive halving", "rungs", ge=1, le=10)
    windows: int = setting(
        16, "calibration windows set apart to judge the settings on", "windows", ge=2, le=MOST_WINDOWS
    )
    lambdas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    # Processes that try settings, each with the whole model, one a GPU; not on the page's form.
    launch: pydantic.StrictInt = 1

    def __post_init__(self):
        check_launch(self.launch)
        for name, field_name in (("lambdas", "lambda1"), ("learning_rates", "learning_rate")):
            values = tuple(dict.fromkeys(map(float, getattr(self, name))))
            if not values:
                raise ProxSparseError(f"There is nothing to try: give at least one of {name.replace('_', '-')}.")
            for value in values:
                LearnConfig(**{field_name: value})  # checks it
            object.__setattr__(self, name, values)
        if self.sampler == "grid" and self.trials is not None:
            raise ProxSparseError(
                f"trials is {self.trials} and the sampler grid, which tries every pair: leave trials out, or choose tpe or random."
            )

    @property
    def count(self) -> int:
        """How many trials there are."""
        return len(self.lambdas) * len(self.learning_rates) if self.sampler == "grid" else self.trials or TRIALS

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def _paper(lambda1: float, learning_rate: float, length: int = 4096, lambda2: float = 0.0, epsilon: float = 0.1):
    learn = LearnConfig(
        steps=400, lambda1=lambda1, ramp=1.0, relative=False, metric="weight", loss_at="soft", distill=0.0,
        learning_rate=learning_rate, batch=1, lambda2=lambda2, epsilon=epsilon,
    )  # fmt: skip
    return LearnJob(
        samples=400, length=length, context=length, live_windows=4, evaluate_every=40, checkpoint_every=100, learn=learn
    )


PRESETS: dict[str, LearnJob] = {
    "Quick": LearnJob(),
    "Standard": LearnJob(live_windows=4, evaluate_every=20, checkpoint_every=50, learn=LearnConfig(steps=400)),
    # The paper's method within a Quick run's budget: metric, loss, constant lambda1 as in `METHODS`.
    "Paper: embedded": LearnJob(learn=LearnConfig(**METHODS["proxsparse-paper"].options)),
    # The paper's scripts, absolute lambda1: tuned for the model each one names, and for no other. They are those of
    # amazon-science/ProxSparse, script/learn_mask_<model>_prox.sh. Two models have a second one, learn_mask_<model>_full.sh
    # (llama2_13b, llama3.1_8b), with the frozen-weight penalty beside the same lambda1: theirs are the plain names.
    "Paper: Llama-2-7B": _paper(0.25, 1e-4),
    "Paper: Llama-2-13B": _paper(0.5, 1e-4, lambda2=0.25, epsilon=0.5),
    "Paper: Llama-2-13B (prox only)": _paper(0.5, 1e-4),
    "Paper: Llama-3.1-8B": _paper(0.85, 5e-5, lambda2=1.0, epsilon=0.1),
    "Paper: Llama-3.1-8B (prox only)": _paper(0.85, 5e-5),
    "Paper: Mistral-7B v0.1": _paper(20, 5e-5),
    "Paper: Mistral-7B v0.3": _paper(25, 5e-5),
    "Paper: OpenLlama-7B-v2": _paper(1.0, 1e-4, length=2048),
    "Paper: Qwen2.5-14B": _paper(0.2, 1e-4),
}

_SCRIPTS = "The settings of the paper's script, with its absolute λ1: tuned for the model named, and for no other."
_FULL = f"{_SCRIPTS} It is the _full script, with the frozen-weight penalty (λ2); (prox only) is its _prox script."
_PROX_ONLY = f"{_SCRIPTS} It is the _prox script, without the frozen-weight penalty (λ2) of the _full script."
# What one should know before choosing a preset.
PRESET_NOTES: dict[str, str] = dict.fromkeys(PRESETS, _SCRIPTS) | {
    "Paper: Llama-2-13B": _FULL,
    "Paper: Llama-2-13B (prox only)": _PROX_ONLY,
    "Paper: Llama-3.1-8B": _FULL,
    "Paper: Llama-3.1-8B (prox only)": _PROX_ONLY,
    "Quick": "80 steps of 3 × 256 tokens, learned mostly from the dense model's predictions (KL), on text that it wrote itself and the "
    "bundled text: masks that hold on other text. λ1 grows a thousandfold and mostly decides when groups commit: with another λ1, or "
    "none, the perplexity at the end hardly differs.",
    "Standard": "Quick with 400 steps.",
    "Paper: embedded": "The paper's own method on the embedded model: magnitudes compete as they are, the loss is taken at the soft "
    "weights, λ1 is constant (0.02, relative). The loss learns around what λ1 pulls to zero, and never sees what the mask cuts off at "
    "the end: so λ1 has a say in the result. Try 0.002 and 0.2.",
}


def absolute(name: str) -> str:
    """A model or corpus that is a path here, as the path that finds it from everywhere; any other name as it is. Raises
    ProxSparseError for a name that can only be a path, and is none."""
    path = local_path(name)
    if path.exists() and name not in NAMES:
        return str(path.resolve())
    if name.startswith((".", "/", "~")) or path.suffix in (".txt", ".jsonl", ".gguf"):
        raise ProxSparseError(f"There is no file or directory {name!r}: check the path.")
    return name
