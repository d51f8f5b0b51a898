"""A few recordings of two procedural voices, prepared in a moment."""

import pathlib

import pytest

from experiments import interaction as sizes
from tml_jax.data import corpus, source, transcripts
from tml_jax.streams import tokenizer


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
  root = tmp_path_factory.mktemp("prepared")
  settings = source.Settings(root=pathlib.Path("/"))
  texts = set()
  for voice in ("low", "high"):
    recordings = source.SOURCES["procedural"](voice, settings=settings)
    few = [recordings[i] for i in range(3)]
    texts |= {text for item in few for text in transcripts.texts_of(item)}
    corpus.write(
      map(corpus.Record.of, few), path=root / f"procedural-{voice}", report={}
    )
  streams = sizes.get_config("tiny_procedural").streams
  tokenizer.train(sorted(texts), path=tokenizer.path(str(root)), config=streams)
  return str(root)
