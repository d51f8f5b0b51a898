"""Conversations in WAV files: every layout on disk, and what is refused."""

import json

import numpy as np
import pytest

from tests.helpers import small_data, sound
from tml_jax import errors, prepare
from tml_jax.data import corpus, loader, source
from tml_jax.data.splits import Split
from tml_jax.streams.timeline import Role


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


def test_a_folder_is_prepared_and_packed(tmp_path):
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
  assert entry["recordings"] == 8
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
  assert (batch.speech.weights.sum(axis=1) > 0).all()


def open_folder(folder):
  settings = source.Settings(root=folder.parent)
  return source.SOURCES["stereo_wav"](folder.name, settings=settings)


def test_the_other_way_round_in_two_files_and_without_words(tmp_path):
  write_call(tmp_path / "a.wav", onset=1.4)
  (usual,) = open_folder(tmp_path)
  (tmp_path / "channels.json").write_text('["agent", "user"]')
  (turned,) = open_folder(tmp_path)
  for one, other in ((Role.USER, Role.AGENT), (Role.AGENT, Role.USER)):
    assert (turned.track(one).audio == usual.track(other).audio).all()
    assert turned.track(one).words == usual.track(one).words
  # The same conversation in a file for each, of other lengths and rates.
  (tmp_path / "a.wav").unlink()
  silence = np.zeros(round(1.4 * 8_000))
  user, agent = sound.tone(1.0), sound.tone(1.0, rate=8_000)
  sound.write_wav(tmp_path / "a.user.wav", user[None])
  sound.write_wav(
    tmp_path / "a.agent.wav",
    np.concatenate([silence, agent])[None],
    rate=8_000,
  )
  (apart,) = open_folder(tmp_path)
  assert apart.id == usual.id and apart.duration == usual.duration
  for role in (Role.USER, Role.AGENT):
    assert apart.track(role).words == usual.track(role).words
    assert apart.track(role).spans == usual.track(role).spans
  (tmp_path / "a.json").unlink()
  (wordless,) = open_folder(tmp_path)
  assert wordless.track(Role.AGENT).words == ()
  assert wordless.track(Role.AGENT).spans == usual.track(Role.AGENT).spans


def test_words_as_other_programs_write_them(tmp_path):
  """Times as text and in any order, a byte order mark, words without times."""
  silence = np.zeros(16_000 * 12)
  sound.write_wav(
    tmp_path / "a.wav",
    np.stack([np.concatenate([sound.tone(1.0), silence])] * 2),
  )
  words = [
    {"role": "agent", "start": "10.5", "end": "11.0", "text": "third"},
    {"role": "agent", "start": "9.25", "end": "9.5", "text": "second"},
    {"role": "agent", "start": 1, "end": 2, "text": "first"},
    {"role": "agent", "start": None, "end": 2, "text": "when"},
    {"role": "user", "text": "where"},
  ]
  path = tmp_path / "a.json"
  path.write_text(json.dumps({"words": words}), encoding="utf-8-sig")
  (item,) = open_folder(tmp_path)
  assert [(w.start, w.text) for w in item.track(Role.AGENT).words] == [
    (1.0, "first"),
    (9.25, "second"),
    (10.5, "third"),
  ]
  assert item.track(Role.USER).words == ()
  assert item.metadata == {"left out": {"words without times": 2}}
  (tmp_path / "channels.json").write_text(
    '["user", "agent"]', encoding="utf-8-sig"
  )
  assert open_folder(tmp_path)[0].tracks[0].role == Role.USER


@pytest.mark.parametrize(
  "text",
  [
    *("", "null", "7", "[]", "{}", '{"words": 7}', '{"words": [7]}'),
    *('{"words": [null]}', '{"words": {"a": 1}}', '{"words": [[]]}'),
    '{"words": [{"role": "nobody", "start": 1, "end": 2, "text": "a"}]}',
    '{"words": [{"role": "user", "start": "soon", "end": 2, "text": "a"}]}',
    '{"words": [{"role": "user", "start": [1], "end": 2, "text": "a"}]}',
    '{"words": [{"role": "user", "start": 1, "end": 2}]}',
    '{"words": [{"role": "user", "start": %s, "end": 2, "text": ""}]}'
    % ("9" * 4000),
    '{"words": [{"role": "user", "start": %s, "end": 2, "text": ""}]}'
    % ("9" * 5000),
    '{"words":' + "[" * 100_000,
    b"\xff\xfe",
  ],
)
def test_words_that_are_none(tmp_path, text):
  write_call(tmp_path / "a.wav", onset=1.4)
  data = text if isinstance(text, bytes) else text.encode()
  (tmp_path / "a.json").write_bytes(data)
  with pytest.raises(source.BadRecording, match=r"broken metadata: a\.json"):
    open_folder(tmp_path)[0]


def test_what_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match="no \\*.wav in .*--sounds_root"):
    open_folder(tmp_path)
  write_call(tmp_path / "a.wav", onset=1.4)
  for text, words in (
    ("user, agent", "channels.json is broken"),
    ('["user", "user"]', "names user, user: write"),
    ('["user", "caller"]', "'caller' is not a valid Role"),
    ("7", "channels.json is broken"),
  ):
    (tmp_path / "channels.json").write_text(text)
    with pytest.raises(errors.UserError, match=words):
      open_folder(tmp_path)
  (tmp_path / "channels.json").unlink()
  mono = sound.tone(1.0)[None]
  sound.write_wav(tmp_path / "b.wav", mono)
  sound.write_wav(tmp_path / "c.user.wav", mono)
  opened = open_folder(tmp_path)
  with pytest.raises(
    source.BadRecording, match="wrong channel.*b.wav: 1, want"
  ):
    opened[1]
  with pytest.raises(source.BadRecording, match="cannot be read: c.agent.wav"):
    opened[2]
  sound.write_wav(tmp_path / "a.agent.wav", mono)
  with pytest.raises(
    errors.UserError, match="a.wav and also a.agent.wav: keep"
  ):
    open_folder(tmp_path)
