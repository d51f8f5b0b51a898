"""Small tokenizer.json files, made by the library `tokenizers` itself."""

import json
import pathlib
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

END, BEGIN = "<|endoftext|>", "<|begin|>"
LINES = ["press one to repeat the message", "três pês e um café ☕ naïve"]


def byte_level(rows: int = 320) -> tokenizers.Tokenizer:
  """A byte-level BPE with two special tokens, one of them amid the ids."""
  result = tokenizers.Tokenizer(models.BPE())
  result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  result.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=rows - 1,
    special_tokens=[BEGIN],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  result.train_from_iterator(LINES * 9, trainer)
  result.add_special_tokens([END])
  return result


def write(
  path: pathlib.Path, *, rows: int = 320, **changes: Any
) -> tokenizers.Tokenizer:
  """Writes it, with `changes` of the JSON; returns the library's own."""
  made = byte_level(rows)
  values = json.loads(made.to_str()) | changes
  path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
  return made
