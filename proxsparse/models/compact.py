"""An N:M checkpoint without its zeros: of every masked layer the kept values, (out, in·n/m), and one bit a weight.

A directory holds `compact.json` (which tensor lies in which file), one or more `compact*.safetensors`, the masks,
`config.json` and the tokenizer. A 2:4 layer in bf16 takes 50% + 6.25% of its dense size; all other tensors are stored
as they are, tied ones once. Reading runs no code that comes with the files and unpickles nothing.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from proxsparse.errors import ProxSparseError
from proxsparse.export.verification import MASKS_FILE
from proxsparse.files import write_json
from proxsparse.layers import PrunableLayer, prunable_layers
from proxsparse.masks.mask import Mask, MaskSet
from proxsparse.models.load import LanguageModel, context_of, loading_error, quiet_transformers, resolve_device

COMPACT_FILE = "compact.json"
FORMAT, VERSION = "proxsparse-compact", 1
SHARD_BYTES = 5_000_000_000  # as `save_pretrained` cuts; so much is held beside the model while a file is written


def keep_values(weight: Tensor, mask: Mask) -> Tensor:
    """(out, in) → (out, in·n/m): the kept weights of every group in their order, zeros after them where fewer than n
    are kept."""
    kept = mask.dense(weight.device)
    values = weight.masked_select(kept)
    slots = _slots(kept, mask)
    if slots is not None:
        values = weight.new_zeros(slots.shape).masked_scatter_(slots, values)
    return values.view(mask.shape[0], -1)


def place_values(values: Tensor, mask: Mask) -> Tensor:
    """The inverse of `keep_values`: (out, in·n/m) → (out, in), zero where the mask drops. Raises ValueError where
    `values` does not fit the mask."""
    rows, columns = mask.shape
    if tuple(values.shape) != (rows, columns * mask.n // mask.m):
        raise ValueError(
            f"kept values of shape {tuple(values.shape)} do not fit a {mask.n}:{mask.m} mask of {mask.shape}"
        )
    kept = mask.dense(values.device)
    slots = _slots(kept, mask)
    if slots is not None:
        values = values.view(slots.shape)
        if bool(values.masked_select(~slots).count_nonzero()):
            raise ValueError("a weight is stored that the mask does not keep")
        values = values.masked_select(slots)
    return values.new_zeros(rows, columns).masked_scatter_(kept, values)


def _slots(kept: Tensor, mask: Mask) -> Tensor | None:
    """Bool (groups, n): which of the n places of a group hold a value; None when all do."""
    counts = kept.reshape(-1, mask.m).sum(1, dtype=torch.uint8)
    if bool((counts == mask.n).all()):
        return None
    return torch.arange(mask.n, device=kept.device) < counts.unsqueeze(1)


@dataclass(frozen=True)
class _Entry:
    """One tensor to be written. make: the tensor, made when its file is."""

    key: str
    bytes: int
    make: Callable[[], Tensor]


def write_compact(
    model, masks: MaskSet, directory: Path, progress: Callable[[int, int, str], None] | None = None
) -> None:
    """Write weights, masks and configuration of `model`, with its original weights, under `masks` into `directory`.

    The model is only read. At most one file's tensors are held beside it.
    """
    directory = Path(directory)
    masks.save(directory / MASKS_FILE)
    digest = _digest(directory / MASKS_FILE)
    entries, tied = _entries(model, masks)
    shards = _shards(entries)
    files = {}
    for index, shard in enumerate(shards):
        if progress:
            progress(index, len(shards), "writing the weights")
        name = "compact.safetensors" if len(shards) == 1 else f"compact-{index + 1:05}-of-{len(shards):05}.safetensors"
        save_file(
            {entry.key: entry.make() for entry in shard}, directory / name, {"format": "pt", "masks_sha256": digest}
        )
        files |= {entry.key: name for entry in shard}
    first = next(iter(masks.values()))
    about = {
        "format": FORMAT, "version": VERSION, "pattern": f"{first.n}:{first.m}", "masks_sha256": digest,
        "files": files, "tied": tied,
    }  # fmt: skip
    write_json(directory / COMPACT_FILE, about)
    config = copy.deepcopy(model.config)
    config.dtype, config.architectures = str(model.dtype).removeprefix("torch."), [type(model).__name__]
    config.save_pretrained(directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)


def is_compact(directory: str | Path) -> bool:
    return (Path(directory) / COMPACT_FILE).is_file()


def load_compact(directory: str | Path, device: str | None = None, dtype: torch.dtype | None = None) -> LanguageModel:
    """Load what `export_model(..., format="compact")` wrote, as a model with dense weights and zeros among them.

    device: default cuda where there is one, else cpu. dtype: default the stored ones, bit for bit. Raises
    ProxSparseError, one sentence, for files that are missing, damaged, or do not belong together.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.initialization import no_init_weights

    path = Path(directory).expanduser()
    if not is_compact(path):
        raise ProxSparseError(
            f"{directory} holds no {COMPACT_FILE}: give a directory that `export --format compact` wrote."
        )
    device = resolve_device(device)
    stored = CompactFiles(path)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            with no_init_weights():  # memory that nothing is written to: `fill` puts the stored tensors in its place
                model = AutoModelForCausalLM.from_config(
                    config, dtype=dtype or config.dtype or torch.float32, trust_remote_code=False
                )
            model.tie_weights()
            if (path / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        raise loading_error(str(directory), True, error) from error
    stored.fill(model, dtype)
    try:
        model.to(device).eval()
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
            if _digest(directory / MASKS_FILE) != digest:
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
        stored = self.tensor(_key(layer, self.masks))
        if layer not in self.masks:
            return stored
        try:
            return place_values(stored, self.masks[layer])
        except (ValueError, RuntimeError) as error:
            raise self._damaged(f"{layer}: {error}") from error

    @torch.no_grad()
    def fill(self, model, dtype: torch.dtype | None = None) -> None:
        """Give every tensor of `model` its stored values. dtype: of floating tensors, default as stored."""
        layers = _layers_by_parameter(model, self.masks)
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
                    unused.discard(_key(layer.name, self.masks))
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


def stored_tensors(model) -> Iterator[tuple[str, Tensor, str | None]]:
    """(key, tensor, key of an earlier entry that shares its memory) of all that a checkpoint of `model` holds."""
    first = {}
    for key, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        same = first.setdefault(place, key) if tensor.numel() else key
        yield key, tensor, None if same == key else same


def _entries(model, masks: MaskSet) -> tuple[list[_Entry], dict[str, str]]:
    """What is to be written, in the model's order, and {key: key it shares its weights with}."""
    layers = _layers_by_parameter(model, masks)
    parameters = model.state_dict(keep_vars=True)
    entries, tied = [], {}
    for key, tensor, same in stored_tensors(model):
        if same is not None:
            tied[key] = same
        elif id(parameters[key]) in layers:
            entries += [_layer_entry(layer, masks) for layer in layers[id(parameters[key])]]
        else:
            entries.append(_Entry(key, tensor.nbytes, lambda tensor=tensor: _alone(tensor)))
    return entries, tied


def _layer_entry(layer: PrunableLayer, masks: MaskSet) -> _Entry:
    matrix = layer.matrix
    if layer.name not in masks:
        return _Entry(_key(layer.name, masks), matrix.nbytes, lambda: _alone(matrix))
    mask = masks[layer.name]
    return _Entry(_key(layer.name, masks), matrix.nbytes * mask.n // mask.m, lambda: keep_values(matrix, mask).cpu())


def _layers_by_parameter(model, masks: MaskSet) -> dict[int, list[PrunableLayer]]:
    """{id of a parameter: its layers}, of those parameters in which at least one layer has a mask."""
    layers = prunable_layers(model, next(iter(masks.values())).m)
    masks.check_fits(layers)
    return {
        id(parameter): held for parameter, held in layers.by_parameter().items()
        if any(layer.name in masks for layer in held)
    }  # fmt: skip


def _shards(entries: list[_Entry]) -> list[list[_Entry]]:
    """Consecutive entries of at most SHARD_BYTES together, or one alone that is larger."""
    shards, room = [], 0
    for entry in entries:
        if entry.bytes > room or not shards:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(entry)
        room -= entry.bytes
    return shards


def _own_parameter(model, key: str) -> nn.Parameter:
    """Replace the parameter `key`, which is tied to another, by one of its own."""
    path, _, name = key.rpartition(".")
    module = model.get_submodule(path)
    setattr(module, name, nn.Parameter(torch.empty_like(getattr(module, name))))
    return getattr(module, name)


def _alone(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, and in a storage that holds nothing else: what safetensors writes."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _key(layer: str, masks: MaskSet) -> str:
    """Under which name a layer is stored. An expert without a mask whose neighbours have one is stored whole."""
    return f"{layer}.kept" if layer in masks else f"{layer}.whole"


def _misfit(name: str, stored, wanted) -> str:
    return f"{name} is stored with shape {tuple(stored)} and config.json asks for {tuple(wanted)}"


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
