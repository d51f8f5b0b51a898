"""The worked source of docs/add_a_data_source.md, as it stands there."""

import importlib
import json
import re
import sys

import numpy as np
import pytest

from tests.helpers import commands, small_data, sound
from tml_jax import prepare
from tml_jax.data import corpus, loader
from tml_jax.data.splits import Split
from tml_jax.streams.timeline import Role

GUIDE = commands.ROOT / "docs" / "add_a_data_source.md"


@pytest.fixture(scope="module")
def code():
  (found,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
  return found


@pytest.fixture
def module(tmp_path, monkeypatch, code):
  (tmp_path / "stereo_wav_of_the_guide.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  yield importlib.import_module("stereo_wav_of_the_guide")
  del sys.modules["stereo_wav_of_the_guide"]


def write_call(path, *, onset, rate=16_000):
  """The user speaks for a second, then the agent."""
  silence = np.zeros(round(onset * rate))
  user = np.concatenate([sound.tone(1.0, rate=rate), silence])
  agent = np.concatenate([silence, sound.tone(1.0, rate=rate)])
  sound.write_wav(path, np.stack([user, agent]), rate=rate)
  words = [
    {"role": "agent", "start": onset + 0.5, "end": onset + 1, "text": "there"},
    {"role": "agent", "start": onset, "end": onset + 0.5, "text": "hello"},
    {"role": "user", "start": 0.0, "end": 1.0, "text": "hi"},
  ]
  path.with_suffix(".json").write_text(json.dumps({"words": words}))


def test_the_guide_is_about_sixty_lines(code):
  lines = [line for line in code.splitlines() if line.strip()]
  assert 50 <= len(lines) <= 70


def test_the_worked_source(tmp_path, module):
  calls = tmp_path / "root" / "calls"
  calls.mkdir(parents=True)
  for i in range(8):
    write_call(calls / f"{i}.wav", onset=1.4, rate=8_000 if i % 2 else 16_000)
  (calls / "8.wav").write_bytes((calls / "0.wav").read_bytes()[:20_000])
  (calls / "9.wav").write_bytes((calls / "0.wav").read_bytes())
  late = {"role": "user", "start": 98, "end": 99, "text": "late"}
  for name, sidecar in (("a", []), ("b", {"words": [late]})):
    write_call(calls / f"{name}.wav", onset=1.4)
    (calls / f"{name}.json").write_text(json.dumps(sidecar))
  config = small_data.config(
    voices=("stereo_wav:calls",),
    mixture=("stereo_wav-calls:1.0",),
    heldout_share=0.01,
  )
  data_dir = tmp_path / "data"
  report = prepare.prepare(
    config,
    data_dir=str(data_dir),
    sounds_root=str(tmp_path / "root"),
    processes=1,
  )
  entry = report["corpora"]["stereo_wav-calls"]
  assert entry["kept"] == 8
  assert {k: v["count"] for k, v in entry["skipped"].items()} == {
    "truncated": 1,
    "broken metadata": 2,
    "not a valid timeline": 1,
  }
  for i, item in enumerate(range(8)):
    recording = corpus.RecordSource(data_dir / "stereo_wav-calls")[item]
    assert recording.id == f"stereo_wav/{i}"
    assert [t.role for t in recording.tracks] == [Role.USER, Role.AGENT]
    agent = recording.track(Role.AGENT)
    assert [w.text for w in agent.words] == ["hello", "there"]
    assert agent.spans[0].start == pytest.approx(1.4, abs=0.02)
    assert recording.track(Role.USER).spans[0].end == pytest.approx(1, abs=0.02)
  batches = loader.Loader(config, data_dir=data_dir, split=Split.TRAIN)
  batch = next(batches)
  batches.close()
  assert (batch["speak_weights"].sum(axis=1) > 0).all()
