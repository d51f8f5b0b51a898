"""Inkling weights in and out; start at `__main__` or at `model`.

`from_hf`, `text_logits` and `multimodal_logits` are those of `model`, which is
imported when one of them is asked for: a command does not start jax for it.
"""

from typing import Any

_OF_MODEL = ("from_hf", "text_logits", "multimodal_logits")


def __getattr__(name: str) -> Any:
  if name not in _OF_MODEL:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from tml_jax.interop.inkling import model

  return getattr(model, name)
