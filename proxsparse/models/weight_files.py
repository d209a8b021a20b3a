"""How large the weights of a model are, as its files say: known before any of them is downloaded or loaded, without torch."""

from __future__ import annotations

from pathlib import Path

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path

HUB_SECONDS = 5  # in which the Hub has to answer
WEIGHTS = ".safetensors"  # no others are read


def weight_bytes(name: str) -> int:
    """Bytes of the weights of a model, on disk.

    Parameters
    ----------
    name : str
        As for `load_model`.

    Returns
    -------
    int
        Of all its safetensors files, or of its .gguf file; 0 for the embedded model, which is here already.

    Raises
    ------
    ProxSparseError
        For a model on the Hub that is not in the local cache, where the Hub does not say how large it is.

    Examples
    --------
    >>> weight_bytes("embedded")
    0
    """
    path = local_path(name)
    if name == "embedded":
        return 0
    if path.is_dir():
        return _bytes_in(path)
    if path.is_file():
        return path.stat().st_size
    return _bytes_on_the_hub(name)


def _bytes_in(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob(f"*{WEIGHTS}") if file.is_file())


def _bytes_on_the_hub(name: str) -> int:
    """As the local cache, else the Hub, says."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = _bytes_in(Path(snapshot_download(name, local_files_only=True)))
        if cached:
            return cached
    except LocalEntryNotFoundError:
        pass  # then it would be downloaded
    except HFValidationError as error:
        raise ProxSparseError(f"There is no model {name!r}: give the Hub id of one, such as org/model.") from error
    try:
        files = HfApi().model_info(name, files_metadata=True, timeout=HUB_SECONDS).siblings or []
    except Exception as error:  # of whichever HTTP library this version of huggingface_hub is built on
        raise ProxSparseError(
            f"The Hub does not say how large the model {name} is ({type(error).__name__}): check its name, or try again when the Hub "
            "can be reached."
        ) from error
    return sum(file.size or 0 for file in files if file.rfilename.endswith(WEIGHTS))
