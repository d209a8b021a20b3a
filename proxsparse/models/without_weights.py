"""A model of which only the configuration is read: its shapes, on torch's meta device, and no memory."""

from __future__ import annotations

import torch

from proxsparse.errors import ProxSparseError
from proxsparse.files import local_path
from proxsparse.models.checks import check_decoder
from proxsparse.models.language_model import loading_error, quiet_transformers
from proxsparse.models.load import hub_answers, source_of

MOST_BLOCKS = (
    1000  # no model has so many; a configuration is a few lines that anybody can write, and each block is built
)


def load_without_weights(name: str):
    """The model that a configuration describes, in eval mode, with parameters that have a shape and no memory.

    Parameters
    ----------
    name : str
        What `load_model` takes, or a config.json.

    Returns
    -------
    transformers model
        On the meta device, in the dtype that the configuration names; float32 where it names none.

    Raises
    ------
    ProxSparseError
        Where there is no configuration, or none of a causal language model that transformers knows.

    Examples
    --------
    >>> model = load_without_weights("embedded")  # doctest: +SKIP
    """
    from transformers import AutoConfig

    is_local = True
    try:
        with quiet_transformers():
            if name.endswith(".json"):
                source = str(local_path(name))
                if not local_path(name).is_file():
                    raise ProxSparseError(f"There is no file {name!r}: check the path.")
            else:
                source, is_local = source_of(name)
            offline = is_local or not hub_answers()
            config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=offline)
            check_decoder(name, config)
            return without_weights(name, config)
    except ProxSparseError:
        raise
    except Exception as error:  # transformers reads what a stranger wrote, and there is nothing that it may not raise
        raise loading_error(name, is_local, error) from error


def without_weights(name: str, config):
    """As `load_without_weights`, of a configuration that was read."""
    from transformers import AutoModelForCausalLM

    blocks = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(blocks, int) and blocks > MOST_BLOCKS:
        raise ProxSparseError(
            f"config.json of {name} asks for {blocks:,} layers: give that of a model, of at most {MOST_BLOCKS:,}."
        )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
