"""Tokens as text for people.

For: windows and sequences on a page. Not for: HTML. Start at `spell`.
"""

import itertools
from collections.abc import Sequence

from tml_jax.config import StreamsConfig
from tml_jax.streams.frame import Control
from tml_jax.streams.tokenizer import Tokenizer


def spell(
  tokens: Sequence[int], *, config: StreamsConfig, tokenizer: Tokenizer
) -> str:
  """Text in quotes, controls by name, neighbours of one name counted."""
  base = config.text_vocab_size
  found = []
  for is_control, run in itertools.groupby(tokens, key=lambda t: t >= base):
    if not is_control:
      found.append(f"“{decode(list(run), tokenizer=tokenizer)}”")
      continue
    for token, same in itertools.groupby(run):
      count = sum(1 for _ in same)
      found.append(name(token, config=config) + f" ×{count}" * (count > 1))
  return " ".join(found)


def name(token: int, *, config: StreamsConfig) -> str:
  """A control token as docs write it, for instance <turn>."""
  offset = token - config.text_vocab_size
  known = offset in Control.__members__.values()
  return f"<{Control(offset).name.lower() if known else f'control {offset}'}>"


def decode(tokens: list[int], *, tokenizer: Tokenizer) -> str:
  """Text of tokens; those that the tokenizer does not have are named."""
  try:
    return tokenizer.decode(tokens)
  except IndexError:
    return " ".join(f"[{token}]" for token in tokens)
