"""Every causal language model that transformers registers is pruned right, or refused in one sentence."""

import importlib.util
import re

import pytest
import transformers
from families.table import FAMILIES, PAGE, page, walk_all

NOT_CAUSAL = "what it predicts for a token depends on the tokens after it"
REFUSED = {
    "cpmant": NOT_CAUSAL,
    "emu3": "no causal language model that transformers knows",  # it saves a configuration that is not registered
    "gemma4_assistant": "inputs_embeds and shared_kv_states cannot be None",  # it drafts for another model
    "gemma4_unified_assistant": "inputs_embeds and shared_kv_states cannot be None",
    "mllama": "no causal language model that transformers knows",  # as emu3
    "reformer": "If you want to train `ReformerModel`|No gradient reaches",
    "xlm": NOT_CAUSAL,
    "xlnet": NOT_CAUSAL,
}
NOT_BUILT = {
    "gemma3n": "timm",
    "musicgen": "has no attribute 'dropout'",  # registered under a configuration that its class cannot read
    "musicgen_melody": "has no attribute 'dropout'",
}


@pytest.fixture(scope="session")
def found():
    return walk_all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_right_or_refused_in_one_sentence(name, found):
    family = found[name]
    if name in NOT_BUILT:
        if name == "gemma3n" and importlib.util.find_spec("timm"):
            pytest.skip("timm is installed, and then this family can be made")
        assert family.state == "not built" and NOT_BUILT[name] in family.why[0]
    elif name in REFUSED:
        assert family.state == "refused" and re.search(REFUSED[name], family.why[0]), family
        assert family.why[0].endswith(".") and "\n" not in family.why[0]
    else:
        assert family.state == "right", family.why


def test_the_page_says_what_was_found(found):
    text = PAGE.read_text(encoding="utf-8")
    if f"Transformers {transformers.__version__} " not in text or importlib.util.find_spec("timm"):
        pytest.skip("docs/families.md is of another version of transformers")
    assert page(found) == text, "run python tests/families/table.py"
