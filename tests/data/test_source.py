import pytest

from tml_jax import errors
from tml_jax.data import source


def test_unknown_source_names_the_nearest():
  with pytest.raises(errors.UserError, match="'asterisk'"):
    source.SOURCES["asterix"]


def test_a_name_cannot_be_registered_twice():
  with pytest.raises(errors.UserError, match="another data source is named"):
    source.register("procedural")(lambda variant, *, settings: None)


@pytest.mark.parametrize("entry", ["espeak", ":en", "espeak:", "a:b/c"])
def test_malformed_entry(entry):
  with pytest.raises(errors.UserError, match="source:variant"):
    source.parse(entry)


def test_entry_with_speaker_variant():
  assert source.parse("espeak:en-us+f3").folder == "espeak-en-us+f3"


def test_bad_recording_survives_pickling():
  import pickle

  error = source.BadRecording(source.Reason.CLIPPED, "a.wav: 3 %")
  copy = pickle.loads(pickle.dumps(error))
  assert (copy.reason, copy.detail) == (error.reason, error.detail)
