"""How a model continues a text."""

from __future__ import annotations

from collections.abc import Sequence

import torch


@torch.inference_mode()
def complete(lm, prompts: Sequence[str], new_tokens: int) -> list[str]:
    """What the model says after each prompt: greedy, at most `new_tokens` tokens, without the prompt.

    lm: a LanguageModel. Greedy, so that two models differ by their weights alone.
    """
    texts = []
    for prompt in prompts:
        tokens = lm.tokenizer(prompt, return_tensors="pt").to(lm.model.device)
        end = lm.tokenizer.pad_token_id if lm.tokenizer.pad_token_id is not None else lm.tokenizer.eos_token_id
        found = lm.model.generate(**tokens, max_new_tokens=new_tokens, do_sample=False, pad_token_id=end)
        texts.append(lm.tokenizer.decode(found[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts
