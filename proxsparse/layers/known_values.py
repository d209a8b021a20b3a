"""A pass over a model without memory: what the tokens decide is computed, what the weights decide is drawn.

On torch's meta device a tensor has a shape and no values, and a model cannot be run that looks at one: which token is
padding, which tokens an expert was given. Here every tensor that no weight entered (token ids, positions, masks) has a
twin on the CPU with its values. Of the others only shapes are known. Where the model makes a choice of those, such as
which experts a token goes to, the operation is computed on random numbers, as a model with random weights would choose.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

CPU, META = torch.device("cpu"), torch.device("meta")


class KnownValues:
    """The twins of meta tensors. `compute` takes the place of calling an operation of aten."""

    def __init__(self):
        # By address of the storage: both storages, so that neither address is given to another one. Views need no entry.
        self._twins: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # of a meta storage
        self._originals: dict[int, torch.UntypedStorage] = {}  # the meta storage of a twin
        self._random = torch.Generator().manual_seed(0)

    def compute(self, function, args: tuple, kwargs: dict):
        """What `function(*args, **kwargs)` gives: meta tensors where it takes or asks for some."""
        flat, _ = tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        if all(map(self._is_known, tensors)):
            device = kwargs.get("device")
            on_meta = device == META or (device is None and any(tensor.is_meta for tensor in tensors))
            result = self._on_cpu(function, args, kwargs)
            return self._returned(function, args, tree_map(self._as_meta, result) if on_meta else result)
        shapes = self._shapes(function, args, kwargs)
        made, structure = tree_flatten(shapes)
        if shapes is not None and all(isinstance(value, Tensor) and _is_real(value) for value in made):
            for tensor in _written(function, args, kwargs):
                self._forget(tensor)
            return shapes
        drawn, drawn_structure = tree_flatten(self._on_cpu(function, args, kwargs))
        if kwargs.get("device") == CPU:  # somebody reads it
            return tree_unflatten(drawn, drawn_structure)
        if shapes is None:
            made, structure = [None] * len(drawn), drawn_structure
        values = [self._of_both(shape, value) for shape, value in zip(made, drawn, strict=True)]
        return self._returned(function, args, tree_unflatten(values, structure))

    # One operation

    def _shapes(self, function, args: tuple, kwargs: dict):
        """The operation on the meta device; None where it depends on values."""
        try:
            return function(*tree_map(_to_meta, args), **tree_map(_to_meta, kwargs))
        except (NotImplementedError, RuntimeError):
            return None

    def _on_cpu(self, function, args: tuple, kwargs: dict):
        """The operation on twins, and on random numbers in place of unknown ones: the same ones where it takes a tensor twice."""
        kwargs = {name: CPU if value == META else value for name, value in kwargs.items()}
        flat, structure = tree_flatten((args, kwargs))
        values = {id(value): self._value(value) for value in flat}
        args, kwargs = tree_unflatten([values[id(value)] for value in flat], structure)
        return function(*args, **kwargs)

    def _returned(self, function, args: tuple, result):
        """An operation that writes into its first argument returns it, and no other view of it."""
        returns = function._schema.returns
        written = len(returns) == 1 and returns[0].alias_info is not None and returns[0].alias_info.is_write
        return args[0] if written and args else result

    # Values

    def _is_known(self, tensor: Tensor) -> bool:
        """Integers that were there before, such as a buffer of positions, count as zeros."""
        if tensor.is_meta and not _is_real(tensor) and tensor.untyped_storage()._cdata not in self._twins:
            storage = tensor.untyped_storage()
            self._pair(storage, torch.zeros(storage.nbytes(), dtype=torch.uint8).untyped_storage())
        return not tensor.is_meta or tensor.untyped_storage()._cdata in self._twins

    def _value(self, value):
        """A tensor on the CPU in place of one on the meta device."""
        if not isinstance(value, Tensor) or not value.is_meta:
            return value
        if self._is_known(value):
            return _view(value, self._twins[value.untyped_storage()._cdata][1], CPU)
        return torch.randn(value.shape, dtype=value.dtype, generator=self._random)

    def _as_meta(self, value):
        """The meta tensor whose twin a tensor on the CPU is."""
        if not isinstance(value, Tensor):
            return value
        twin = value.untyped_storage()
        if twin._cdata not in self._originals:
            self._pair(torch.UntypedStorage(twin.nbytes(), device=META), twin)
        return _view(value, self._originals[twin._cdata], META)

    def _of_both(self, shape: Tensor | None, value):
        """Real numbers that a weight entered stay unknown, though an operation was computed for what else it gives."""
        if not isinstance(value, Tensor) or not _is_real(value):
            return self._as_meta(value)
        return value.to(META) if shape is None else shape

    def _pair(self, original: torch.UntypedStorage, twin: torch.UntypedStorage) -> None:
        self._twins[original._cdata], self._originals[twin._cdata] = (original, twin), original

    def _forget(self, tensor: Tensor) -> None:
        _, twin = self._twins.pop(tensor.untyped_storage()._cdata, (None, None))
        if twin is not None:
            del self._originals[twin._cdata]


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _to_meta(value):
    return value.to(META) if isinstance(value, Tensor) and not value.is_meta else value


def _view(like: Tensor, storage: torch.UntypedStorage, device: torch.device) -> Tensor:
    """A tensor as `like`, in another storage."""
    empty = torch.empty(0, dtype=like.dtype, device=device)
    return empty.set_(storage, like.storage_offset(), like.size(), like.stride())


def _written(function, args: tuple, kwargs: dict) -> Iterator[Tensor]:
    """The tensors that an operation writes into."""
    arguments = function._schema.arguments
    for place, argument in enumerate(arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
            yield value
