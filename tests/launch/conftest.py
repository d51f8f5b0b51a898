"""A few recordings of two procedural voices, prepared in a moment."""

import pathlib

import pytest

from experiments import interaction as sizes
from tml_jax.data import corpus, source
from tml_jax.streams import tokenizer


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
  root = tmp_path_factory.mktemp("prepared")
  settings = source.Settings(root=pathlib.Path("/"))
  texts = set()
  for voice in ("low", "high"):
    recordings = source.SOURCES["procedural"](voice, settings=settings)
    few = [recordings[i] for i in range(3)]
    corpus.write(few, path=root / f"procedural-{voice}")
    texts |= {*corpus.RecordSource(root / f"procedural-{voice}").texts()}
  streams = sizes.get_config("tiny_procedural").streams
  tokenizer.train(sorted(texts), path=tokenizer.path(str(root)), config=streams)
  return str(root)
