"""What a model does with each of its weights: seen in one forward pass over a few tokens, not guessed from names.

Every operation of the pass is recorded as an edge between pieces of memory: from what it reads to what it writes. A
matrix product with a weight is a node of its own, named after the weight. Questions about roles are then questions
about paths: a router is a map whose outputs are ranked, feature against feature, or that reaches the logits through such
a ranking only. A model on the meta device is looked at without memory, see `known_values`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from proxsparse.errors import ProxSparseError
from proxsparse.layers.known_values import KnownValues

LENGTHS = 13, 257  # tokens of the pass, and of a second one where the first did not use everything
POSITIONS = ("max_position_embeddings", "max_target_positions", "n_positions", "max_seq_len")

aten = torch.ops.aten
PRODUCTS = {  # operation: which two of its arguments are multiplied
    aten.mm: (0, 1), aten.addmm: (1, 2), aten.bmm: (0, 1), aten.baddbmm: (1, 2), aten.addbmm: (1, 2), aten.mv: (0, 1),
    aten.addmv: (1, 2), aten.dot: (0, 1), aten.linear: (0, 1),
}  # fmt: skip
RANKINGS = (aten.topk, aten.sort, aten.max, aten.argmax, aten.argsort, aten.gather)
COPIES = (aten._to_copy, aten.clone)


@dataclass
class Use:
    """What is done with one parameter.

    products: how it is multiplied, (in, out, whether it is stored as (in, out); None for a piece that does not lie in
    memory at one). operations: names of all others that it enters together with something that depends on the tokens.
    computed: it is not multiplied as it is, but after a computation.
    """

    products: set[tuple[int, int, bool | None]] = field(default_factory=set)
    operations: set[str] = field(default_factory=set)
    computed: bool = False

    def __bool__(self) -> bool:
        return bool(self.products or self.operations)


@dataclass
class Roles:
    """What was seen of a model.

    uses: {parameter: Use}, of those that were used. routers: the maps whose outputs are ranked, or picked by token, one
    against another, as routers do with experts, and those that only lead to such maps. selectors: those that lead to the
    logits through other choices only. tokens: how many were passed through.
    """

    uses: dict[str, Use]
    routers: set[str]
    selectors: set[str]
    tokens: int


_seen: WeakKeyDictionary = WeakKeyDictionary()


def roles_of(model) -> Roles:
    """The roles of the parameters of `model`; looked at once, for as long as the parameters have the same names.

    Raises ProxSparseError for a model that token ids alone do not run.
    """
    names = tuple(name for name, _ in model.named_parameters())
    if model not in _seen or _seen[model][0] != names:
        roles = _look(model, LENGTHS[0])
        lists = {name.split(".0.")[0] for name in roles.uses if ".0." in name}  # of blocks that a text runs
        idle = [name for name, tensor in model.named_parameters() if tensor.ndim > 1 and not roles.uses.get(name)]
        if any(name.split(f".{index}.")[0] in lists for name in idle for index in re.findall(r"\.(\d+)\.", name)[:1]):
            with suppress(ProxSparseError):  # fewer positions than the configuration says; the short pass stands
                roles = _look(model, _most_tokens(model))
        _seen[model] = names, roles
    return _seen[model][1]


def _most_tokens(model) -> int:
    """LENGTHS[1], or as many as the model has positions."""
    config = model.config.get_text_config(decoder=True)
    positions = [getattr(config, name, None) or 0 for name in POSITIONS]
    return min([LENGTHS[1], *(number for number in positions if number > LENGTHS[0])])


@contextmanager
def experts_one_by_one(model) -> Iterator[None]:
    """Fused kernels multiply all experts at once, where no single weight can be seen."""
    if not model._can_set_experts_implementation():
        yield
        return
    before = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


@torch.no_grad()
def _look(model, tokens: int) -> Roles:
    device = next(model.parameters()).device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = ((vocabulary // 3 + 5 * torch.arange(tokens)) % vocabulary).unsqueeze(0)
    trace, modes = _Trace(model), [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), experts_one_by_one(model), trace:
            ids = ids.to(device)
            trace.begin_at(ids)
            logits = model(input_ids=ids, use_cache=False).logits
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a model raises when it is given no more than tokens
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ProxSparseError(
            f"{type(model).__name__} cannot be run on a text alone ({first_line[:200]}): choose a causal language model of text."
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    return trace.roles(logits, tokens)


class _Trace(TorchDispatchMode):
    """Records a forward pass; see the module."""

    def __init__(self, model):
        super().__init__()
        self.parameters = dict(model.named_parameters())
        self.known = KnownValues() if any(tensor.is_meta for tensor in self.parameters.values()) else None
        self.spans: dict[int, list[tuple[int, int, str]]] = defaultdict(list)  # bytes of a storage, by its address
        for name, parameter in self.parameters.items():
            start = parameter.storage_offset() * parameter.itemsize
            self.spans[parameter.untyped_storage()._cdata].append((start, start + parameter.nbytes, name))
        self.uses: dict[str, Use] = defaultdict(Use)
        self.sources: dict[Hashable, set[Hashable]] = defaultdict(set)  # {node: the nodes it was made from}
        self.made_of: dict[Hashable, set[str]] = {}  # {node: parameters}, of what depends on parameters alone
        self.copies: set[Hashable] = set()  # of these, what is but a copy of a whole parameter
        self.integers: set[Hashable] = set()  # nodes that hold no real numbers: no gradient passes them
        self.mixed: set[Hashable] = set()  # made of several features at once, in another way than by a map
        self.dependent: set[Hashable] = set()  # on the tokens
        self.rankings: list[tuple[Hashable, int, Hashable]] = []  # what is ranked, how many, and what was chosen

    def begin_at(self, ids: Tensor) -> None:
        """Let all that is computed of `ids` from here on depend on the tokens, and nothing that was before."""
        self.dependent = {self._node(ids)}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = self.known.compute(function, args, kwargs) if self.known else function(*args, **kwargs)
        self._note(
            getattr(function, "overloadpacket", function),
            args,
            tree_flatten((args, kwargs))[0],
            tree_flatten(result)[0],
        )
        return result

    # Tensors

    def _node(self, tensor: Tensor) -> Hashable:
        # Its address is not given to another one while this one is kept.
        node = StorageWeakRef(tensor.untyped_storage())
        if not tensor.is_floating_point() and not tensor.is_complex():
            self.integers.add(node)
        return node

    def _owner(self, tensor: Tensor) -> str | None:
        """The parameter in whose memory `tensor` lies."""
        place = tensor.storage_offset() * tensor.itemsize
        spans = self.spans.get(tensor.untyped_storage()._cdata, ())
        return next((name for start, end, name in spans if start <= place < end), None)

    def _made_of(self, tensor: Tensor) -> set[str]:
        """The parameters that `tensor` is, or is computed from, where it depends on nothing else."""
        owner = self._owner(tensor)
        return {owner} if owner else self.made_of.get(self._node(tensor), set())

    # Operations

    def _note(self, operation, args, inputs, outputs) -> None:
        read = [tensor for tensor in inputs if isinstance(tensor, Tensor)]
        made = [tensor for tensor in outputs if isinstance(tensor, Tensor) and not self._owner(tensor)]
        written = [self._node(tensor) for tensor in made]
        if not written or (operation in PRODUCTS and self._product(operation, args, read, written[0])):
            return
        used = set().union(*map(self._made_of, read))
        others = {self._node(tensor) for tensor in read if not self._made_of(tensor)}
        if operation is aten.embedding or others & self.dependent:
            for name in used:
                self.uses[name].operations.add(operation.__name__)
        if others & self.dependent:
            mixes = operation in PRODUCTS or any(
                word in operation.__name__ for word in ("attention", "conv", "embedding")
            )
            mixes |= operation is aten.mul and any(self.parameters[name].ndim > 1 for name in used)
            for node in written:
                self.made_of.pop(node, None)
                self.dependent.add(node)
                self.sources[node] |= others - {node}
                if mixes:
                    self.mixed.add(node)
            if operation in RANKINGS:
                self._ranking(operation, args, written)
        elif used and not self.dependent & set(written):
            for node in written:
                self.made_of[node] = self.made_of.get(node, set()) | used
                if operation in COPIES and self._is_weight(read[0]) and read[0].stride() == made[0].stride():
                    self.copies.add(node)

    def _is_weight(self, tensor: Tensor) -> bool:
        """Whether `tensor` holds values of a parameter as they are, and where they are."""
        return self._owner(tensor) is not None or self._node(tensor) in self.copies

    def _product(self, operation, args, read, result) -> bool:
        """Note a product of a weight with something else; False for any other."""
        left, right = (args[place] for place in PRODUCTS[operation])
        of_left, of_right = self._made_of(left), self._made_of(right)
        if bool(of_left) == bool(of_right):
            return False
        weight, other = (left, right) if of_left else (right, left)
        summed, made = (-1, -2) if of_left or operation is aten.linear else (-2, -1)  # dimensions of the weight
        product = _product_with(weight, summed, made) if weight.ndim > 1 else (weight.numel(), 1, False)
        for name in of_left or of_right:
            self.uses[name].products.add(product)
            self.uses[name].computed |= not self._is_weight(weight)
            self.sources[name].add(self._node(other))
            self.sources[result].add(name)
        for added in read:
            if added is not weight and added is not other:
                for name in self._made_of(added):
                    self.uses[name].operations.add("add")
                self.sources[result] |= set() if self._made_of(added) else {self._node(added)}
        self.dependent.add(result)
        return True

    def _ranking(self, operation, args, written) -> None:
        ranked = args[0]
        default = None if operation in (aten.max, aten.argmax) else -1
        position = 2 if operation is aten.topk else 1
        dimension = args[position] if len(args) > position else default
        if operation is aten.gather and self._node(args[2]) not in self.dependent:
            return  # picked by position
        if isinstance(dimension, int) and ranked.ndim and dimension % ranked.ndim == ranked.ndim - 1:
            self.rankings.append((self._node(ranked), ranked.shape[-1], written[-1]))

    # Paths

    def roles(self, logits: Tensor, tokens: int) -> Roles:
        end = self._node(logits)
        behind = self._behind([end])
        routers = set()
        for ranked, count, chosen in self.rankings:
            if chosen in behind and count > 1:
                routers |= {
                    name
                    for name in self._maps_before(ranked)
                    if any(count <= out for _, out, _ in self.uses[name].products)
                }
        contributing = self._behind([end], closed=routers | self.integers)
        maps = {name for name, use in self.uses.items() if use.products}
        before_routers = self._behind(routers, closed=self.integers)
        without_gradient = (maps & behind) - contributing - routers
        routers |= without_gradient & before_routers
        return Roles(dict(self.uses), routers, without_gradient - routers, tokens)

    def _behind(self, ends: Iterable[Hashable], closed: set = frozenset()) -> set[Hashable]:
        """All nodes from which a path leads to one of `ends`, through none that is closed."""
        found, waiting = set(ends), list(ends)
        while waiting:
            for source in self.sources.get(waiting.pop(), ()):
                if source not in found and source not in closed:
                    found.add(source)
                    waiting.append(source)
        return found

    def _maps_before(self, node: Hashable) -> set[str]:
        """The maps of which `node` holds the outputs, perhaps normalized, biased, masked or in part; none where it depends
        on features in other ways too, as the scores of an attention do."""
        found, waiting, maps = {node}, [node], set()
        while waiting:
            here = waiting.pop()
            sources = self.sources.get(here, set())
            own = {source for source in sources if isinstance(source, str)}
            if here in self.mixed and not own:
                return set()
            maps |= own
            for source in set() if own else sources - found - self.integers:
                found.add(source)
                waiting.append(source)
        return maps


def _product_with(weight: Tensor, summed: int, made: int) -> tuple[int, int, bool | None]:
    """(in, out, stored as (in, out)) of a weight of which dimension `summed` is multiplied away and `made` stays."""
    shape, strides = weight.shape, weight.stride()
    transposed = strides[made] < strides[summed] or shape[summed] == 1
    faster, slower = (made, summed) if transposed else (summed, made)
    whole = (shape[faster] == 1 or strides[faster] == 1) and (shape[slower] == 1 or strides[slower] == shape[faster])
    return shape[summed], shape[made], transposed if whole else None
