"""How entries of `data.augment` are written, and what is refused."""

import dataclasses

import pytest
import soundfile

from tests.helpers import augmenting, commands, plugin_files, recorded, sound
from tml_jax import errors
from tml_jax.config import augment as augment_config
from tml_jax.config import text
from tml_jax.data import mixture


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("entries")
  items = [augmenting.call(name=f"c{i}", seconds=9.0) for i in range(4)]
  recorded.write(path, **{"a-calls": items})
  return path


def config(*augment):
  return recorded.config("a-calls:1", "reply:1", augment=augment)


def test_an_entry_is_a_name_a_probability_and_options():
  parsed = augment_config.parse("noise:0.5:folder=/a:b/c=d:snr=5..20")
  assert (parsed.name, parsed.probability) == ("noise", 0.5)
  assert parsed.options == {"folder": "/a:b/c=d", "snr": "5..20"}
  assert augment_config.parse("swap:1").options == {}
  assert augment_config.parse("x:0:folder=").options == {"folder": ""}


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    ("noise", "write NAME:PROBABILITY"),
    (":0.5", "write NAME:PROBABILITY"),
    ("noise:", "write NAME:PROBABILITY"),
    ("noise:often", "'often' is no probability from 0 to 1"),
    ("noise:1.5", "'1.5' is no probability from 0 to 1"),
    ("noise:-0.1", "'-0.1' is no probability from 0 to 1"),
    ("noise:nan", "'nan' is no probability from 0 to 1"),
    ("noise:snr=5", "write NAME:PROBABILITY"),
    ("noise:0.5:snr=1:snr=2", "snr is there twice"),
  ],
)
def test_the_form_is_checked_with_the_config(entry, message):
  with pytest.raises(errors.UserError) as raised:
    config(entry)
  assert message in str(raised.value) and repr(entry) in str(raised.value)


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    ("nose:0.5", "did you mean 'noise'"),
    ("noise:0.5:sn=3", "has no option 'sn'; did you mean 'snr'"),
    ("noise:0.5:snr=20..5", "write A..B"),
    ("noise:0.5:snr=", "write A..B"),
    ("noise:0.5:folder=/nowhere", "there is no folder /nowhere"),
    ("gain:1:entry=a-call", "did you mean 'a-calls'"),
    ("gain:1:entry=reply", "scenarios draw their own sound"),
    ("g711:1:law=b", "one of mu, a, either"),
    ("gain:1:of=me", "one of user, agent, all"),
    ("band:1:low=4000", "nothing would pass"),
    ("cut:1:least=0", "a number from"),
  ],
)
def test_what_cannot_work_is_refused_before_work(root, entry, message):
  with pytest.raises(errors.UserError) as raised:
    mixture.check(config(entry), data_dir=root)
  assert message in str(raised.value) and entry in f"{raised.value} nose:0.5"


def test_one_that_can_work_is_opened(root, tmp_path):
  soundfile.write(tmp_path / "n.ogg", sound.tone(1.0), sound.RATE)
  settings = config(
    f"noise:0.5:folder={tmp_path}:entry=a-calls", "noise:1:snr=3"
  )
  first, second = mixture.transforms(settings)
  assert (first.name, first.entry, first.salt) == ("noise", "a-calls", 0)
  assert (second.entry, second.salt) == ("", 1)


@pytest.mark.slow
def test_flags_and_plugins_on_the_command_line(root, tmp_path):
  """`inspect --mixture` packs what is changed; the log counts what is not."""
  plugin = plugin_files.write("upside_down", tmp_path)
  result = commands.run(
    *("-m", "tml_jax.inspect", "--mixture=1"),
    "--config=experiments/interaction.py:tiny_procedural",
    f"--data_dir={root}",
    f"--plugins={plugin}",
    "--config.data.mixture=a-calls:1",
    "--config.data.heldout_share=0.01",
    "--config.data.augment=upside_down:0.5,noise:1:snr=5..9,speed:1:factor=0.9",
  )
  assert result.returncode == 0, result.stderr[-2000:]
  assert "a-calls" in result.stdout


def test_config_text_keeps_it():
  settings = config("gain:0.5:db=-3..3", "swap:1")
  again = text.from_text(text.to_text(settings), source="x")
  assert again == settings and dataclasses.asdict(again)["data"]["augment"]
