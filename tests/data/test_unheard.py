"""Voices that are kept for tests: training refuses them, and has none."""

import pytest

from experiments import data, interaction
from tests.helpers import small_data
from tml_jax import errors
from tml_jax.config import text as config_text
from tml_jax.data import mixture, source, unheard
from tml_jax.data.splits import Split
from tml_jax.vocoder import clips


def test_no_experiment_has_one():
  for voices in (data.REAL_VOICES, data.PROCEDURAL_VOICES, small_data.VOICES):
    assert not unheard.VOICES & {*voices}
  for name in interaction.SIZES:
    unheard.check(interaction.get_config(name))


def test_every_language_of_the_experiments_has_some():
  config = interaction.get_config("interactive")
  found = unheard.of(config)
  assert {*found} == unheard.VOICES
  assert unheard.says(config) is source.Says.TRANSCRIPTS
  procedural = small_data.config()
  assert unheard.of(procedural) == unheard.BY_LANGUAGE["en"]
  assert unheard.says(procedural) is source.Says.PHRASES
  german = config_text.with_fields(config, {"data.voices": ("espeak:de",)})
  with pytest.raises(errors.UserError, match="'de'; there are some for en, es"):
    unheard.of(german)


@pytest.mark.parametrize(
  "field, value, name",
  [
    ("voices", (*small_data.VOICES, "flite:awb"), "data.voices.*'flite:awb'"),
    ("mixture", ("reply:1.0", "flite-awb:1.0"), "data.mixture.*'flite-awb'"),
    ("mixture", ("espeak-es+f3:1.0",), r"data.mixture.*'espeak-es\+f3'"),
  ],
)
def test_training_refuses_them(field, value, name, data_dir):
  config = small_data.config(**{field: value})
  with pytest.raises(errors.UserError, match=f"{name}.*must not be trained"):
    mixture.check(config, data_dir=data_dir)
  with pytest.raises(errors.UserError, match=name):
    mixture.open_mixture(config, data_dir=data_dir, split=Split.TRAIN)


def test_so_does_the_vocoder(data_dir):
  options = dict(data_dir=str(data_dir), share=0.1, seed=0)
  with pytest.raises(errors.UserError, match="data.voices names 'flite:kal'"):
    clips.Clips(("flite:kal",), split=Split.TRAIN, **options)


def test_they_are_prepared_before_anybody_speaks_with_them(data_dir):
  with pytest.raises(
    errors.UserError, match="lacks the voices flite:awb.*--unh"
  ):
    unheard.open_voices(small_data.config(), data_dir=str(data_dir))
