"""A preparation that is killed, and what the next one makes of it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.helpers import (
  bad_source,
  commands,
  small_data,
  sound,
)
from tml_jax import errors
from tml_jax.data import corpus
from tml_jax.streams import tokenizer


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("BAD_SOURCE_FOLDER", str(tmp_path))


def test_a_killed_decoding_process_ends_the_run(tmp_path):
  with pytest.raises(errors.UserError, match="fewer than --processes=1"):
    small_data.prepare(tmp_path / "data", "bad:fast", "killed:a")
  assert corpus.verify(tmp_path / "data/bad-fast").records == bad_source.GOOD
  assert not (tmp_path / "data/killed-a" / corpus.INDEX).exists()


_SLOW = """
from tests.helpers import bad_source, small_data
import sys
if __name__ == "__main__":
  small_data.prepare(sys.argv[1], "bad:fast", "bad:slow")
"""


@pytest.mark.slow
def test_killed_prepare_is_completed_by_the_next(tmp_path):
  """Kill -9 during the second of two corpora."""
  script, path = tmp_path / "slow.py", tmp_path / "data"
  script.write_text(_SLOW)
  process = subprocess.Popen(
    [sys.executable, str(script), str(path)],
    env=os.environ | {"PYTHONPATH": str(commands.ROOT)},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
    start_new_session=True,  # a process group of its own
  )
  deadline = time.time() + 60
  while not (
    (path / "bad-fast" / corpus.INDEX).exists()
    and any((path / "bad-slow/units").glob(".partial-*"))
  ):
    assert time.time() < deadline and process.poll() is None
    time.sleep(0.02)
  process.kill()
  process.wait()
  commands.wait_until_gone(process.pid)  # its pool dies with it
  assert corpus.verify(path / "bad-fast").records == bad_source.GOOD
  assert not (path / "bad-slow" / corpus.INDEX).exists()
  assert not (path / tokenizer.FILENAME).exists()
  finished = (path / "bad-fast" / corpus.INDEX).stat().st_mtime_ns
  small_data.prepare(path, "bad:fast", "bad:slow", processes=2)
  assert (path / "bad-fast" / corpus.INDEX).stat().st_mtime_ns == finished
  digest = corpus.verify(path / "bad-slow").digest
  assert digest == corpus.read_index(path / "bad-fast").digest
  assert not list(path.rglob(".partial-*"))


_CALLS = """
import pathlib, sys
from tml_jax import prepare
from tml_jax.data import source
from tml_jax.data.importers import stereo
from tml_jax.data import options as options_lib
from tml_jax.data.prepare import plan

class Slow(stereo.Stereo):
  def read(self, part):
    import time
    time.sleep(0.1)
    return super().read(part)

@source.register_importer("slow_calls")
def open_calls(src, *, options):
  given = options_lib.Options(
    {"user": "left"} | dict(options), known=stereo._KNOWN, importer="slow"
  )
  return Slow(src, options=given)

if __name__ == "__main__":
  plan.UNIT_BYTES = 200_000  # some 15 units
  prepare.prepare_source(
    "slow_calls",
    src=sys.argv[1],
    dst=sys.argv[2],
    options={},
    size=(120, 160),
    runner=prepare.Runner.LOCAL,
    beam_options=(),
    processes=2,
    verify=False,
    rebuild=False,
  )
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path):
  script, calls = tmp_path / "calls.py", tmp_path / "wav"
  script.write_text(_CALLS)
  calls.mkdir()
  for number in range(60):
    tones = [sound.tone(1.0, frequency=200 + 5 * number + i) for i in (0, 1)]
    sound.write_wav(calls / f"{number:02d}.wav", np.stack(tones))

  def start(dst):
    return subprocess.Popen(
      [sys.executable, str(script), str(calls), str(dst)],
      env=os.environ | {"PYTHONPATH": str(commands.ROOT)},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,  # a process group of its own
    )

  def contents(dst):
    return {
      str(path.relative_to(dst)): path.read_bytes()
      for path in dst.rglob("*")
      if path.is_file()
    }

  def units_of(dst):
    return len(list(dst.glob("units/*.parquet")))

  whole, cut = tmp_path / "whole/calls", tmp_path / "cut/calls"
  assert start(whole).wait() == 0
  assert corpus.verify(whole).records == 60
  random, finished = np.random.default_rng(0), [0]
  for _ in range(3):
    process = start(cut)
    while units_of(cut) == finished[-1]:
      assert process.poll() is None
      time.sleep(0.01)
    time.sleep(random.uniform(0, 0.4))  # as long as a unit takes
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    commands.wait_until_gone(process.pid)
    assert not (cut / corpus.INDEX).exists()
    finished.append(units_of(cut))
  assert finished[-1] < 15
  assert start(cut).wait() == 0
  assert contents(cut) == contents(whole)
