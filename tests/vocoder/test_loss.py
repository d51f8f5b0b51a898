"""The vocoder's training: its transforms, its loss, and a run that goes on."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import vocoder as experiment
from tests.helpers import commands
from tml_jax import errors, train_vocoder
from tml_jax.data.splits import Split
from tml_jax.streams import dmel
from tml_jax.vocoder import clips, loss, trained

VOICES = ("procedural:low", "procedural:high")


def _config(**train):
  config = experiment.get_config("small_procedural")
  return dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, width=16, depth=1, hidden=32),
    data=dataclasses.replace(config.data, voices=VOICES, windows=2),
    train=dataclasses.replace(
      config.train,
      **({"steps": 4, "global_batch_size": 8, "log_every": 1} | train),
    ),
    mesh=dataclasses.replace(config.mesh, data=8),
  )


def _noise(samples: int) -> np.ndarray:
  random = np.random.default_rng(0)
  return 0.1 * random.standard_normal((2, samples)).astype(np.float32)


def test_mel_is_that_of_the_streams():
  audio = _noise(loss.PAST + 6400)
  mel = loss.fine_mel(np.abs(loss.spectra(audio)))
  for row, found in zip(audio, mel, strict=True):
    wanted = dmel.fine_mel(row[loss.PAST :], past=row[: loss.PAST])
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_sound_inverts_the_spectra():
  audio = _noise(loss.PAST + 6400)
  sound = loss.sound(loss.spectra(audio))
  assert sound.shape == (2, 6400 - 600)
  np.testing.assert_allclose(sound, audio[:, 600:6400], atol=1e-5)


def test_distances_are_zero_for_the_same_and_grow():
  audio = _noise(6400)
  same = loss.multi_resolution(audio, wanted_BS=audio)
  other = [
    loss.multi_resolution(gain * audio, wanted_BS=audio).mean()
    for gain in (1.1, 2.0)
  ]
  assert np.abs(same).max() < 1e-2 and 0.1 < other[0] < other[1]


def _run(config, *, workdir, data_dir) -> list[dict[str, float]]:
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(workdir=str(workdir), data_dir=str(data_dir)):
    with pytest.raises(SystemExit) as ended:
      train_vocoder.main(config)
  assert ended.value.code == 0
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit(tmp_path, data_dir):
  config = _config(checkpoint_every=2)
  whole, part = tmp_path / "whole", tmp_path / "part"
  rows = _run(config, workdir=whole, data_dir=data_dir)
  # As if killed after the save of step 2.
  shutil.copytree(whole, part)
  shutil.rmtree(part / "checkpoints" / "4")
  (part / "metrics.jsonl").unlink()
  again = _run(config, workdir=part, data_dir=data_dir)
  assert [row["step"] for row in again] == [3, 4]
  for before, after in zip(rows[2:], again, strict=True):
    assert before["loss"] == after["loss"]
    assert before["grad_norm"] == after["grad_norm"]
  _, variables = trained.load(str(part))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) > 1000
  with pytest.raises(errors.UserError, match="another config"):
    _run(
      dataclasses.replace(
        config, model=dataclasses.replace(config.model, width=8)
      ),
      workdir=part,
      data_dir=data_dir,
    )


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path, data_dir):
  """Of a batch it varies by a tenth, and a network this small learns slowly."""
  config = _config(steps=600)
  optim = dataclasses.replace(config.train.optim, warmup_steps=5)
  config = dataclasses.replace(
    config, train=dataclasses.replace(config.train, optim=optim)
  )
  rows = _run(config, workdir=tmp_path, data_dir=data_dir)
  losses = [row["loss"] for row in rows]
  assert np.mean(losses[-100:]) < 0.85 * np.mean(losses[:20])


def test_pieces_depend_on_the_step_alone(data_dir):
  source = clips.Clips(
    VOICES, data_dir=data_dir, split=Split.TRAIN, share=0.1, seed=0
  )
  keywords = dict(size=4, samples=20_000, gain_db=6.0)
  first = source.batch(7, **keywords)
  source.batch(8, **keywords)
  np.testing.assert_array_equal(first, source.batch(7, **keywords))
  assert np.abs(first).max() <= 1 and first.any(axis=1).all()
  assert (first != source.batch(8, **keywords)).any()


@pytest.mark.slow
def test_bad_input_takes_one_line(tmp_path):
  result = commands.run(
    "-m",
    "tml_jax.train_vocoder",
    "--config=experiments/vocoder.py:small",
    f"--workdir={tmp_path}",
    f"--data_dir={tmp_path}",
  )
  assert result.returncode == 2
  assert "no prepared corpus" in result.stderr
  result = commands.run(
    "-m", "tml_jax.train_vocoder", "--config=experiments/interaction.py:tiny"
  )
  assert result.returncode == 2
  assert "must return a VocoderConfig" in result.stderr
