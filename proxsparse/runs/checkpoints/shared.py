"""Writing a checkpoint by several processes, each its own part, beside the steps that follow: `torch.distributed.checkpoint`.

No process ever holds a tensor whole. Where the machine has room for it, a process copies its part into host memory and goes on while a
thread writes the copy; else it waits.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import shutil
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter
from torch.distributed.checkpoint.storage import WriteResult

from proxsparse.errors import ProxSparseError
from proxsparse.files import why_not_written, write_json
from proxsparse.layers.part import Part
from proxsparse.layers.ranks import Ranks
from proxsparse.memory import available_bytes
from proxsparse.runs.checkpoints.checksums import header_checksum, json_checksum
from proxsparse.runs.checkpoints.parts import PartsToSave
from proxsparse.runs.checkpoints.places import INDEX, VERSION, put

FILE_BYTES = 1 << 30  # of a file, about: while it is written it lies in memory twice more
SHARE_OF_MEMORY = 0.5  # of what is left on a machine, that the copies of its processes may take
LONGEST_WRITE = timedelta(days=1)  # by which one process may be later than another


class SharedCheckpoints:
    """Writes one checkpoint after the other. Each rank has one of these; all make the same calls, but for `wait`.

    Raises ProxSparseError where torch is too old to write them.
    """

    def __init__(self, ranks: Ranks):
        if "save_distributed" not in inspect.signature(HuggingFaceStorageWriter).parameters:
            raise ProxSparseError(
                f"torch is {torch.__version__} and several processes need 2.11 or newer for their checkpoints: update torch."
            )
        self.ranks = ranks
        # What the writing threads tell each other must not get between what the steps tell each other.
        self._group = dist.new_group(backend="gloo", timeout=LONGEST_WRITE)
        self._writing: Future | None = None
        self._written = Path()

    @property
    def is_writing(self) -> bool:
        return self._writing is not None and not self._writing.done()

    def begin(self, tensors: Mapping[str, Part | Tensor], rest: dict, written: Path, path: Path) -> None:
        """Write a state, which may change as soon as this returns; first wait for the checkpoint before.

        tensors, rest : what `MaskLearner.state_dict` returns
        written, path : the directory's name before it is whole, and then; on a file system that all ranks see

        Raises
        ------
        ProxSparseError
            As `wait` does.
        """
        self.wait()
        self._written = written
        parts = {
            name: Part.of(each) for name, each in tensors.items() if isinstance(each, Part) or not self.ranks.index
        }
        held = {name: part.tensor for name, part in parts.items() if part.tensor.numel()}
        about = {
            "storage_writer": _Writer(written, path, rest, _files(parts)),
            "planner": PartsToSave({name: (parts[name].offsets, parts[name].shape) for name in held}),
            "process_group": self._group,
        }
        if self._have_room_to_copy(held):
            self._writing = dcp.async_save(held, **about)
        else:
            self._saying_why(lambda: dcp.save(held, **about))

    def wait(self) -> None:
        """Wait until what was begun is whole, on this rank.

        Raises
        ------
        ProxSparseError
            Where a rank could not write its part: the same on all.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            self._saying_why(writing.result)

    def _have_room_to_copy(self, held: Mapping[str, Tensor]) -> bool:
        """Whether all machines do."""
        copies = sum(tensor.nbytes for tensor in held.values()) * self.ranks.on_this_machine
        lacks = copies > SHARE_OF_MEMORY * available_bytes(torch.device("cpu"))
        return self.ranks.sum_(torch.tensor(float(lacks))).item() == 0

    def _saying_why(self, write) -> None:
        try:
            write()
        except CheckpointException as error:  # which is no Exception
            shutil.rmtree(self._written, ignore_errors=True)
            rank, (why, _) = min(error.failures.items())
            raise ProxSparseError(
                f"Process {rank} of {self.ranks.count} (from 0) cannot write its part of a checkpoint ({why_not_written(why)}): see to "
                f"{self._written.parent}, then resume; the checkpoint before is kept."
            ) from error


class _Writer(HuggingFaceStorageWriter):
    """A part of the checkpoint; rank 0 writes down what all parts are, once they are there, and gives the directory its name."""

    def __init__(self, written: Path, path: Path, rest: dict, files: dict[str, int]):
        super().__init__(str(written), files, save_distributed=True)
        self._name, self._rest = path, rest

    def write_data(self, plan, planner):
        """What was written, in the place of DCP's `storage_data`: file, checksum of its header, and of the tensor."""
        results, future = super().write_data(plan, planner).wait(), torch.futures.Future()
        files = {result.storage_data.relative_path for result in results}
        headers = {file: header_checksum(self.path / file) for file in files}

        def written(result: WriteResult) -> WriteResult:
            file = result.storage_data.relative_path
            about = file, headers[file], planner.checksums[result.index.fqn]
            return dataclasses.replace(result, storage_data=about)

        future.set_result([written(result) for result in results])
        return future

    def finish(self, metadata, results) -> None:
        files: dict[str, dict] = {}
        for each in itertools.chain(*results):
            file, header, checksum = each.storage_data
            files.setdefault(file, {"header": header, "tensors": {}})["tensors"][each.index.fqn] = checksum
        about = {"version": VERSION, "learner": self._rest, "files": files, "crc32": json_checksum(self._rest, files)}
        write_json(self.path / INDEX, about)
        put(self.path, self._name)


def _files(parts: Mapping[str, Part]) -> dict[str, int]:
    """{tensor: the number of the file, from 1, into which each rank writes its part}, as rank 0 says for all."""
    found, number, filled = {}, 1, 0
    for name, part in parts.items():
        if filled >= FILE_BYTES:
            number, filled = number + 1, 0
        found[name] = number
        filled += part.tensor.nbytes
    return found
