"""A model that is four times larger than the memory it may take: pruned, measured and verified block by block.

python benchmarks/streamed.py [--hidden 2048] [--blocks 72] [--limit 0.25] [--json FILE]
python benchmarks/streamed.py --hidden 1024 --blocks 24 --limit 0 --compare      a smaller one, beside the same in memory
python benchmarks/streamed.py --cgroup /sys/fs/cgroup/memory                     the kernel holds the limit (as root)

A Llama-shaped model with random weights in bf16 is written to a temporary folder, block by block. Every command is a process of its own,
which is killed once its resident memory, program and libraries included, is above the limit, as a machine without more would do. (The
system's own limit, RLIMIT_DATA, counts the files that transformers maps to look into them.) With --cgroup each command runs in a memory
control group of that size instead, in which the kernel counts files that are read as well, and lets go of them before it kills. The peak is
the kernel's, of resident memory. Last, the model is measured in memory under the same limit. No download.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path

import torch
from large import shaped_like_llama_2
from proximal import machine, print_table
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

WINDOWS, LENGTH = 4, 128


def write_model(directory: Path, hidden: int, blocks: int) -> int:
    """The bytes of the weights of a model that is written one block at a time, and never in memory as a whole."""
    config = shaped_like_llama_2(hidden, blocks, LENGTH)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    files: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in model.state_dict().items():
        files.setdefault(name.split(".")[2] if ".layers." in name else name, {})[name] = tensor
    generator, place, total = torch.Generator().manual_seed(0), {}, 0
    for number, shapes in enumerate(files.values()):
        file = f"model-{number:05}.safetensors"
        tensors = {}
        for name, tensor in shapes.items():
            drawn = (
                torch.ones(tensor.shape)
                if tensor.ndim == 1
                else torch.empty(tensor.shape).normal_(0, 0.02, generator=generator)
            )
            tensors[name], place[name] = drawn.to(torch.bfloat16), file
            total += tensors[name].nbytes
        save_file(tensors, directory / file, {"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": place}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    config.architectures, config.dtype = [type(model).__name__], "bfloat16"
    config.save_pretrained(directory)
    letters = Tokenizer(models.WordLevel({chr(code): code for code in range(128)}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?").save_pretrained(directory)
    return total


def measured(command: list[str], limit: int = 0, cgroup: Path | None = None) -> dict:
    """Seconds and the peak of resident memory of a proxsparse command. limit: bytes beyond which it is killed; 0: none. cgroup: the
    folder of control groups in which the kernel does that; None: it is watched."""
    began = time.monotonic()
    with memory_group(cgroup, limit) if cgroup and limit else nullcontext([]) as inside:
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", "proxsparse", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        guard = threading.Thread(target=kill_above, args=(process, 0 if inside else limit), daemon=True)
        guard.start()
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        guard.join()
    return {
        "exit code": process.returncode, "seconds": round(time.monotonic() - began, 1),
        "peak, GB": round(used.ru_maxrss * 1024 / 1e9, 2), "said": (said.strip().splitlines() or [""])[-1],
    }  # fmt: skip


@contextmanager
def memory_group(cgroup: Path, limit: int) -> Iterator[list[str]]:
    """What to begin a command with, so that it runs in a control group whose processes may take `limit` bytes together."""
    group = cgroup / f"proxsparse-{os.getpid()}"
    group.mkdir()
    try:
        second = (cgroup / "cgroup.controllers").exists()  # of the two versions that Linux has
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limit))
        yield ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group / "cgroup.procs")]
    finally:
        group.rmdir()


def ratio(weights: int, found: dict) -> float:
    """How many times larger the model is than the memory that was taken."""
    return round(weights / 1e9 / found["peak, GB"], 1)


def kill_above(process: subprocess.Popen, limit: int) -> None:
    """Kill a process once it takes more than `limit` bytes, looking every 10 ms."""
    pages = Path(f"/proc/{process.pid}/statm")
    while limit and process.returncode is None:
        try:
            resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):  # it has just ended
            return
        if resident > limit:
            process.kill()
            return
        time.sleep(0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=72)
    parser.add_argument("--method", default="wanda")
    parser.add_argument("--limit", type=float, default=0.25, help="of memory, as a share of the weights; 0: none")
    parser.add_argument(
        "--compare", action="store_true", help="also in memory, without a limit: three times the weights"
    )
    parser.add_argument(
        "--cgroup", type=Path, help="folder of memory control groups, in which the kernel holds the limit"
    )
    parser.add_argument("--folder", help="where the model is written (default: the system's temporary folder)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        (root / "model").mkdir()
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # a process that starts counts what its parent held
            weights = other.submit(write_model, root / "model", arguments.hidden, arguments.blocks).result()
        limit = int(arguments.limit * weights)
        print(f"weights {weights / 1e9:.2f} GB, limit {limit / 1e9:.2f} GB", flush=True)
        text = ["--corpus", "bundled", "--device", "cpu"]
        prune = ["prune", "--method", arguments.method, *text, "--length", str(LENGTH), "--calibration", str(WINDOWS)]
        evaluate = ["eval", *text, "--context", str(LENGTH), "--windows", str(WINDOWS)]
        commands = {
            "prune, export": [*prune, "--model", str(root / "model"), "--to"],
            "eval": evaluate,
            "verify": ["verify"],
        }

        def measure(name: str, way: str, target: str, flags: list[str], allowed: int) -> None:
            found = measured([*commands[name], str(root / target), *flags], allowed, arguments.cgroup)
            rows.append({"command": name, "way": way, "weights / peak": ratio(weights, found), **found})
            print(rows[-1], flush=True)

        for name in commands:
            measure(name, "streamed", "streamed", ["--stream"], limit)
        for name in commands if arguments.compare else ():
            measure(name, "in memory", "in-memory", [], 0)
        if limit:
            measure("eval", "in memory, under the limit", "model", [], limit)
    shown = ("command", "way", "exit code", "seconds", "peak, GB", "weights / peak")
    print_table([{name: row[name] for name in shown} for row in rows])
    print(machine("cpu"))
    if arguments.json:
        arguments.json.write_text(json.dumps({"weights": weights, "limit": limit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
