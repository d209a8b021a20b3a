"""What `torch.distributed.checkpoint` is told to write and to read: the part of each tensor that one process holds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner, HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from proxsparse.runs.checkpoints.checksums import checksum


class PartsToSave(DefaultSavePlanner):
    """Of each tensor of a state, where it lies in the whole, and the whole's shape.

    checksums: {name: crc32 of the values}, of what has been written.
    """

    def __init__(self, places: Mapping[str, tuple[Sequence[int], Sequence[int]]]):
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._places, self.checksums = places, dict[str, int]()

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan([self._item(name, tensor) for name, tensor in self.state_dict.items()])
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        """What is written: on the CPU, where its checksum is taken."""
        name = write_item.index.fqn
        found = self.state_dict[name].detach().cpu().contiguous()
        self.checksums[name] = checksum(found)
        return found

    def _item(self, name: str, tensor: Tensor) -> WriteItem:
        offsets, shape = (torch.Size(each) for each in self._places[name])
        about = TensorWriteData(
            ChunkStorageMetadata(offsets, tensor.shape), TensorProperties.create_from_tensor(tensor), shape
        )
        return WriteItem(MetadataIndex(name, offsets), WriteItemType.SHARD, tensor_data=about)


class PartsToLoad(DefaultLoadPlanner):
    """Of each tensor of a state, where in the stored whole the values lie that it takes."""

    def __init__(self, offsets: Mapping[str, Sequence[int]]):
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._offsets = offsets

    def create_local_plan(self) -> LoadPlan:
        found = []
        for name, tensor in self.state_dict.items():
            wanted = ChunkStorageMetadata(torch.Size(self._offsets[name]), tensor.shape)
            found += create_read_items_for_chunk_list(name, self.metadata.state_dict_metadata[name], [wanted])
        return LoadPlan(found)

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        return self.state_dict[index.fqn]


class PartsReader(HuggingFaceStorageReader):
    """Reads slices of the tensors in a directory of parts; what is in the headers of all files only once."""

    def __init__(self, path: Path):
        super().__init__(str(path))
        self._metadata = super().read_metadata()

    def read_metadata(self) -> Metadata:
        return self._metadata

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(about.size) for name, about in self._metadata.state_dict_metadata.items()}

    def read(self, name: str, offsets: Sequence[int], sizes: Sequence[int]) -> Tensor:
        found = torch.empty(sizes, dtype=self._metadata.state_dict_metadata[name].properties.dtype)
        with warnings.catch_warnings():  # it takes `no_dist`, by which a rank reads for itself alone, for a mistake
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            dcp.load({name: found}, storage_reader=self, planner=PartsToLoad({name: offsets}), no_dist=True)
        return found
