"""One mixed channel becomes two, by a real TorchScript module."""

import json

import numpy as np
import pytest
import soundfile
import torch

from tests.helpers import plugin_files, streamed, two_sides
from tml_jax import errors, plugins
from tml_jax.data import source
from tml_jax.data.mend import measures, options, separation, stage
from tml_jax.data.source import Reason
from tml_jax.streams.timeline import Role


class Split(torch.nn.Module):
  """What is below and above a frequency, of which a share leaks."""

  def __init__(self, leak: float, edge: float = 500.0):
    super().__init__()
    self.leak, self.edge = leak, edge

  def forward(self, audio: torch.Tensor) -> torch.Tensor:
    spectrum = torch.fft.rfft(audio)
    frequency = torch.linspace(0.0, 8000.0, spectrum.shape[-1])
    low = torch.fft.irfft(spectrum * (frequency < self.edge), audio.shape[-1])
    high = audio - low
    return torch.stack([low + self.leak * high, high + self.leak * low], dim=1)


class Odd(torch.nn.Module):
  """Gives one channel."""

  def forward(self, audio: torch.Tensor) -> torch.Tensor:
    return audio


def saved(folder, module):
  path = folder / "module.pt"
  torch.jit.save(torch.jit.script(module), str(path))
  return f"torchscript:{path}"


@pytest.fixture
def calls(tmp_path):
  """One mixed call of two tones: the left side's is the low one."""
  folder = tmp_path / "calls"
  folder.mkdir()
  mixed = two_sides.samples().sum(axis=0)
  soundfile.write(folder / "a.wav", mixed, 16_000)
  words = [{"role": "user", "start": 0.3, "end": 1.0, "text": "la"}]
  (folder / "a.json").write_text(json.dumps({"words": words}))
  return folder


def test_a_mixed_channel_is_separated(tmp_path, calls):
  chosen = saved(tmp_path, Split(0.01))
  (item,), bad = streamed.read("stereo", calls, user="left", separate=chosen)
  assert not bad and item.metadata[measures.SEPARATED] == chosen
  user, agent = item.track(Role.USER), item.track(Role.AGENT)
  assert two_sides.side_of(user) == "left"
  assert two_sides.side_of(agent) == "right"
  assert [w.text for w in user.words] == ["la"]
  (other,), _ = streamed.read("stereo", calls, user="right", separate=chosen)
  np.testing.assert_array_equal(other.track(Role.AGENT).audio, user.audio)


@pytest.mark.parametrize("leak", [0.01, 0.1, 0.5])
def test_leakage_is_measured(tmp_path, calls, leak):
  chosen = saved(tmp_path, Split(leak))
  (item,), _ = streamed.read("stereo", calls, user="left", separate=chosen)
  (result,) = stage.apply(item, mending=options.DEFAULT)
  level = 20 * np.log10(leak)
  if level < options.MAX_LEAKAGE_DB:
    assert result.values[measures.LEAKAGE] == pytest.approx(level, abs=1)
    strict = options.Mending(max_leakage_db=level - 3)
    (result,) = stage.apply(item, mending=strict)
  assert result.reason is Reason.LEAKS
  assert f"{level:.0f}" in result.detail.replace(".", " ").split(" dB")[0]
  assert "--max_leakage_db" in result.detail


def test_a_mixed_channel_without_a_separator(calls):
  _, ((reason, detail),) = streamed.read("stereo", calls, user="left")
  assert reason is Reason.WRONG_CHANNELS and "1, want 2" in detail


def test_two_channels_are_not_separated(tmp_path, calls):
  soundfile.write(calls / "a.wav", two_sides.samples().T, 16_000)
  chosen = saved(tmp_path, Split(0.5))
  (item,), _ = streamed.read("stereo", calls, user="left", separate=chosen)
  assert measures.SEPARATED not in item.metadata
  soundfile.write(calls / "a.wav", np.zeros((800, 3)), 16_000)
  _, ((reason, detail),) = streamed.read(
    "stereo", calls, user="left", separate=chosen
  )
  assert reason in (Reason.WRONG_CHANNELS, Reason.SILENT)


def test_a_module_that_gives_something_else(tmp_path, calls):
  chosen = saved(tmp_path, Odd())
  _, ((reason, detail),) = streamed.read(
    "stereo", calls, user="left", separate=chosen
  )
  assert reason is Reason.FAILED and "want finite (2, 48000)" in detail


def test_separators_that_are_none(tmp_path, calls):
  (tmp_path / "broken.pt").write_bytes(b"no zip file")
  for chosen, text in (
    ("torchscrpt:a", "did you mean 'torchscript'"),
    ("torchscript", "there is no such file"),
    ("torchscript:/nowhere", "there is no such file"),
    (f"torchscript:{tmp_path / 'broken.pt'}", "torch.jit.save"),
  ):
    with pytest.raises(errors.UserError, match=text):
      streamed.read("stereo", calls, user="left", separate=chosen)


def test_an_importer_that_does_not_separate(calls):
  with pytest.raises(errors.UserError, match="no option 'separate'"):
    source.IMPORTERS["behavior_sd"](str(calls), options={"separate": "x"})


def test_a_separator_of_a_plugin(tmp_path, calls):
  plugins.load([plugin_files.write("halves", tmp_path)])
  (item,), bad = streamed.read("stereo", calls, user="left", separate="halves")
  assert not bad and item.metadata[measures.SEPARATED] == "halves"
  assert separation.SEPARATORS["halves"]
