"""What `from proxsparse import …` gives, for type checkers; at run time the names are imported on first use."""

from proxsparse import figures as figures
from proxsparse.config import PRESETS as PRESETS
from proxsparse.config import CompareJob as CompareJob
from proxsparse.config import LearnConfig as LearnConfig
from proxsparse.config import LearnJob as LearnJob
from proxsparse.errors import ProxSparseError as ProxSparseError
from proxsparse.evaluation.next_token import next_tokens as next_tokens
from proxsparse.evaluation.perplexity import perplexity as perplexity
from proxsparse.evaluation.what_if import layer_costs as layer_costs
from proxsparse.evaluation.what_if import what_if as what_if
from proxsparse.export.acceleration import accelerate as accelerate
from proxsparse.export.verification import verify as verify
from proxsparse.export.write import export_model as export_model
from proxsparse.layers import prunable_layers as prunable_layers
from proxsparse.learning.learner import MaskLearner as MaskLearner
from proxsparse.learning.learner import StepReport as StepReport
from proxsparse.masks.mask import Mask as Mask
from proxsparse.masks.mask_set import MaskSet as MaskSet
from proxsparse.methods import admm as admm
from proxsparse.methods import fisher as fisher
from proxsparse.methods import magnitude as magnitude
from proxsparse.methods import maskllm as maskllm
from proxsparse.methods import random_mask as random_mask
from proxsparse.methods import ria as ria
from proxsparse.methods import sparsegpt as sparsegpt
from proxsparse.methods import swaps as swaps
from proxsparse.methods import wanda as wanda
from proxsparse.models.compact import load_compact as load_compact
from proxsparse.models.load import load_model as load_model
from proxsparse.proximal.operator import prox as prox
from proxsparse.proximal.operator import prox_ as prox_
from proxsparse.proximal.regularizer import regularizer as regularizer
from proxsparse.reordering.write import reorder_model as reorder_model
from proxsparse.runs import Comparison as Comparison
from proxsparse.runs import Run as Run
from proxsparse.runs import Sweep as Sweep
from proxsparse.runs import list_runs as list_runs
from proxsparse.text import load_heldout as load_heldout
from proxsparse.text import load_windows as load_windows

__version__: str
