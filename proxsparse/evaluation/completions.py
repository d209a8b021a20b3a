"""How a model continues a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers.generation.streamers import BaseStreamer


@torch.inference_mode()
def complete(lm, prompts: Sequence[str], new_tokens: int) -> list[str]:
    """What the model says after each prompt: greedy, at most `new_tokens` tokens, without the prompt.

    lm: a LanguageModel. Greedy, so that two models differ by their weights alone.
    """
    return [complete_aloud(lm, prompt, new_tokens) for prompt in prompts]


@torch.inference_mode()
def complete_aloud(lm, prompt: str, new_tokens: int, tell: Callable[[str], None] = lambda piece: None) -> str:
    """The same for one prompt, piece by piece.

    Parameters
    ----------
    lm : LanguageModel
    prompt : str
        With one token or more.
    new_tokens : int
        At most so many tokens are added; 1 or more.
    tell : callable
        Called with each piece of text as soon as it is known; what it raises ends the completion.

    Returns
    -------
    str
        All pieces together, without the prompt.
    """
    tokens = lm.tokenizer(prompt, return_tensors="pt").to(lm.model.device)
    end = lm.tokenizer.pad_token_id if lm.tokenizer.pad_token_id is not None else lm.tokenizer.eos_token_id
    pieces = _Pieces(lm.tokenizer, tell)
    lm.model.generate(**tokens, max_new_tokens=new_tokens, do_sample=False, pad_token_id=end, streamer=pieces)
    return pieces.told


class _Pieces(BaseStreamer):
    """Takes tokens from `generate` and hands on the text that they add. A character that takes several tokens is handed
    on when it is whole."""

    def __init__(self, tokenizer, tell: Callable[[str], None]):
        self.tokenizer, self.tell = tokenizer, tell
        self.tokens: list[int] | None = None  # None until the prompt has passed
        self.told = ""

    def put(self, value: torch.Tensor) -> None:
        if self.tokens is None:
            self.tokens = []
            return
        self.tokens.extend(value.flatten().tolist())
        text = self._text()
        if not text.endswith("\ufffd") and text.startswith(self.told):
            self._hand_on(text)

    def end(self) -> None:
        self._hand_on(self._text())

    def _text(self) -> str:
        return self.tokenizer.decode(self.tokens or [], skip_special_tokens=True)

    def _hand_on(self, text: str) -> None:
        if piece := text[len(self.told) :]:
            self.told = text
            self.tell(piece)
