"""An N:M checkpoint without its zeros: of every masked layer the kept values, (out, in·n/m), and one bit a weight.

A directory holds `compact.json` (which tensor lies in which file), one or more `compact*.safetensors`, the masks,
`config.json` and the tokenizer. A 2:4 layer in bf16 takes 50% + 6.25% of its dense size; all other tensors are stored
as they are, tied ones once. Reading runs no code that comes with the files and unpickles nothing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from proxsparse.errors import ProxSparseError
from proxsparse.files import COMPACT_FILE, MASKS_FILE, local_path
from proxsparse.layers import PrunableLayer, prunable_layers
from proxsparse.masks.mask import Mask
from proxsparse.masks.mask_set import MaskSet
from proxsparse.models.checks import check_causal, check_directory, check_tokenizer, drop_quantization_mark
from proxsparse.models.language_model import (
    LanguageModel,
    context_of,
    load_tokenizer,
    loading_error,
    quiet_transformers,
    resolve_device,
)

FORMAT, VERSION = "proxsparse-compact", 1


def place_values(values: Tensor, mask: Mask) -> Tensor:
    """The inverse of `keep_values`: (out, in·n/m) → (out, in), zero where the mask drops. Raises ValueError where
    `values` does not fit the mask."""
    rows, columns = mask.shape
    if tuple(values.shape) != (rows, columns * mask.n // mask.m):
        raise ValueError(
            f"kept values of shape {tuple(values.shape)} do not fit a {mask.n}:{mask.m} mask of {mask.shape}"
        )
    kept = mask.dense(values.device)
    slots = slots_of(kept, mask)
    if slots is not None:
        values = values.view(slots.shape)
        if bool(values.masked_select(~slots).count_nonzero()):
            raise ValueError("a weight is stored that the mask does not keep")
        values = values.masked_select(slots)
    return values.new_zeros(rows, columns).masked_scatter_(kept, values)


def slots_of(kept: Tensor, mask: Mask) -> Tensor | None:
    """Bool (groups, n): which of the n places of a group hold a value; None when all do."""
    counts = kept.reshape(-1, mask.m).sum(1, dtype=torch.uint8)
    if bool((counts == mask.n).all()):
        return None
    return torch.arange(mask.n, device=kept.device) < counts.unsqueeze(1)


def is_compact(directory: str | Path) -> bool:
    return (Path(directory) / COMPACT_FILE).is_file()


def load_compact(directory: str | Path, device: str | None = None, dtype: torch.dtype | None = None) -> LanguageModel:
    """Load what `export_model(..., format="compact")` wrote, as a model with dense weights and zeros among them.

    Parameters
    ----------
    directory : str or Path
        What the export wrote.
    device : str, optional
        cpu, cuda or cuda:1; default: cuda where there is one.
    dtype : torch.dtype, optional
        Of floating tensors; default: the stored ones, bit for bit.

    Returns
    -------
    LanguageModel
        In eval mode, as large in memory as the original.

    Raises
    ------
    ProxSparseError
        For files that are missing, damaged, or do not belong together.

    Examples
    --------
    >>> lm = load_compact("sparse")  # doctest: +SKIP
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.initialization import no_init_weights

    path = local_path(directory)
    if not is_compact(path):
        raise ProxSparseError(
            f"{directory} holds no {COMPACT_FILE}: give a directory that `export --format compact` wrote."
        )
    check_directory(str(directory), path)
    device = resolve_device(device)
    stored = CompactFiles(path)
    try:
        with quiet_transformers():
            tokenizer = load_tokenizer(path, local_files_only=True)
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            with no_init_weights():  # memory that nothing is written to: `fill` puts the stored tensors in its place
                model = AutoModelForCausalLM.from_config(
                    config, dtype=dtype or config.dtype or torch.float32, trust_remote_code=False
                )
            model.tie_weights()
            for tensor in model.state_dict().values():  # which layers there are is found by running the model once
                tensor.zero_()
            if (path / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        raise loading_error(str(directory), True, error) from error
    stored.fill(model, dtype)
    check_tokenizer(str(directory), model, tokenizer)
    drop_quantization_mark(model)
    try:
        model.to(device).eval()
        check_causal(str(directory), model)
    except torch.cuda.OutOfMemoryError:
        raise ProxSparseError(
            f"{directory} does not fit into the memory of {device}: choose device cpu or a smaller model."
        ) from None
    return LanguageModel(model, tokenizer, str(directory), str(path), context_of(model))


class CompactFiles:
    """The tensors of a compact directory, checked to belong together and read one at a time."""

    def __init__(self, directory: Path):
        self.directory = directory
        try:
            about = json.loads((directory / COMPACT_FILE).read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"{COMPACT_FILE} describes {about['format']!r}")
            if about["version"] != VERSION:
                raise ProxSparseError(
                    f"{directory} has version {about['version']} of the compact format and this proxsparse reads version "
                    f"{VERSION}: update proxsparse."
                )
            self.file_of, self.tied = dict(about["files"]), dict(about["tied"])
            digest = about["masks_sha256"]
            if digest_of(directory / MASKS_FILE) != digest:
                raise ValueError(f"{MASKS_FILE} is not the one that the weights were stored under")
            self.files = {}
            for name in sorted(set(self.file_of.values())):
                if Path(name).name != name:
                    raise ValueError(f"{COMPACT_FILE} names the file {name!r}")
                if not (directory / name).is_file():
                    raise ValueError(f"{name} is missing")
                self.files[name] = safe_open(directory / name, "pt")
                if (self.files[name].metadata() or {}).get("masks_sha256") != digest:
                    raise ValueError(f"{name} was stored under other masks")
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error
        self.masks = MaskSet.load(directory / MASKS_FILE)

    def tensor(self, key: str) -> Tensor:
        """What is stored under `key`, in memory of its own: the file may go."""
        try:
            return self.files[self.file_of[key]].get_tensor(key).clone()
        except KeyError as error:
            raise self._damaged(f"there is no tensor {key!r}") from error
        except (SafetensorError, OSError) as error:
            raise self._damaged(error) from error

    def matrix(self, layer: str) -> Tensor:
        """(out, in): a layer's weights, zero where its mask drops them."""
        stored = self.tensor(stored_key(layer, self.masks))
        if layer not in self.masks:
            return stored
        try:
            return place_values(stored, self.masks[layer])
        except (ValueError, RuntimeError) as error:
            raise self._damaged(f"{layer}: {error}") from error

    @torch.no_grad()
    def fill(self, model, dtype: torch.dtype | None = None) -> None:
        """Give every tensor of `model` its stored values. dtype: of floating tensors, default as stored."""
        layers = layers_by_parameter(model, self.masks)
        unused, filled = set(self.file_of), set()

        def as_wanted(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

        for key, target in model.state_dict(keep_vars=True).items():
            if id(target) in filled:
                if key not in self.file_of:
                    continue
                target = _own_parameter(model, key)  # tied by the configuration, and stored with weights of its own
            if id(target) in layers:
                values = None
                for layer in layers[id(target)]:
                    matrix = as_wanted(self.matrix(layer.name))
                    unused.discard(stored_key(layer.name, self.masks))
                    if matrix.shape != layer.matrix.shape:
                        raise self._damaged(_misfit(layer.name, matrix.shape, layer.matrix.shape))
                    if values is None:
                        values = torch.zeros(target.shape, dtype=matrix.dtype)
                    layer.matrix_of(values).copy_(matrix)
            else:
                source = self.tied.get(key, key)
                values = as_wanted(self.tensor(source))
                unused.discard(source)
                if values.shape != target.shape:
                    raise self._damaged(_misfit(key, values.shape, target.shape))
            target.data = values
            filled.add(id(target))
        if unused:
            raise self._damaged(f"{min(unused)!r} is stored, and the model of config.json has no place for it")

    def _damaged(self, why) -> ProxSparseError:
        return ProxSparseError(f"{self.directory} is damaged ({' '.join(str(why).split())}): export it again.")


def layers_by_parameter(model, masks: MaskSet) -> dict[int, list[PrunableLayer]]:
    """{id of a parameter: its layers}, of those parameters in which at least one layer has a mask."""
    layers = prunable_layers(model, masks.m)
    masks.check_fits(layers)
    return {
        id(parameter): held for parameter, held in layers.by_parameter().items()
        if any(layer.name in masks for layer in held)
    }  # fmt: skip


def _own_parameter(model, key: str) -> nn.Parameter:
    """Replace the parameter `key`, which is tied to another, by one of its own."""
    path, _, name = key.rpartition(".")
    module = model.get_submodule(path)
    setattr(module, name, nn.Parameter(torch.empty_like(getattr(module, name))))
    return getattr(module, name)


def stored_key(layer: str, masks: MaskSet) -> str:
    """Under which name a layer is stored. An expert without a mask whose neighbours have one is stored whole."""
    return f"{layer}.kept" if layer in masks else f"{layer}.whole"


def _misfit(name: str, stored, wanted) -> str:
    return f"{name} is stored with shape {tuple(stored)} and config.json asks for {tuple(wanted)}"


def digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
