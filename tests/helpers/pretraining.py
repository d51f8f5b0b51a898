"""Corpora of `pretrain.py:tiny_pretrain`: documents and recorded prompts.

For: tests that train on every kind of data. Start at `write`.
"""

import dataclasses
import json
import pathlib

import pytest

from tml_jax import errors
from tml_jax import prepare as prepare_lib
from tml_jax.config import Config
from tml_jax.data import corpus, source, transcripts
from tml_jax.data.voices import asterisk
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams import tokenizer
from tml_jax.streams.timeline import Timeline

ROOT = pathlib.Path(__file__).parent.parent.parent


def manifest(path: pathlib.Path, *, count: int) -> pathlib.Path:
  """JSON lines of recorded English prompts; skips without the package."""
  try:
    texts = asterisk.transcripts("en", root=pathlib.Path("/"))
    folder = asterisk._sounds_directory("en", root=pathlib.Path("/"))
  except errors.UserError as error:
    pytest.skip(str(error))
  rows = []
  for file in sorted(folder.rglob("*.g722")):
    name = str(file.relative_to(folder).with_suffix(""))
    text = asterisk.spoken_text(texts.get(name, ""))
    if any(letter.isalpha() for letter in text):
      rows.append({"audio": str(file), "text": text})
  data = "".join(json.dumps(row) + "\n" for row in rows[:count])
  path.write_text(data, encoding="utf-8")
  return path


def items(name: str, src: object, **options: str) -> list:
  """What an importer finds that can be used."""
  opened = source.IMPORTERS[name](str(src), options=options)
  return [
    item
    for part in opened.parts()
    for item in opened.read(part)
    if not isinstance(item, source.BadRecording)
  ]


def write(root: pathlib.Path, config: Config, *, count: int) -> None:
  """Voices, `texts`, `heard` and `spoken` of so many prompts, a tokenizer."""
  lines = manifest(root / "prompts.jsonl", count=count)
  pairs = dict(layout="jsonl", root="/", language="en")
  corpora = {
    "texts": items("text", ROOT / "docs", ends=".md", language="en"),
    "heard": items("speech_text", lines, **pairs),
    "spoken": items("speech_text", lines, direction="speak", **pairs),
  }
  texts: set[str] = set()
  for name, found in corpora.items():
    for item in found:
      if isinstance(item, Timeline):
        timeline_lib.validate(item)
    corpus.write(found, path=root / name)
    texts |= {*corpus.RecordSource(root / name).texts()}
  tokenizer.train(
    sorted(texts), path=tokenizer.path(root), config=config.streams
  )
  content = transcripts.Record(tuple(corpora), len(texts))
  record = json.dumps(dataclasses.asdict(content))
  (root / transcripts.RECORD).write_text(record, encoding="utf-8")
  prepare_lib.prepare(config, data_dir=str(root), sounds_root="/", processes=2)
