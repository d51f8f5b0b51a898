"""Conversations in WAV files: every layout on disk, and what is refused."""

import json
import os

import numpy as np
import pytest

from tests.helpers import small_data, sound, streamed
from tml_jax import errors
from tml_jax.data import corpus, loader, source, transcripts
from tml_jax.data.source import Reason
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


def opened(folder, **options):
  return source.IMPORTERS["stereo"](str(folder), options=options)


def one(folder, **options):
  """The only conversation of a folder; left is the user."""
  given = options if options.pop("apart", False) else {"user": "left"} | options
  (item,), bad = streamed.read("stereo", folder, **given)
  assert not bad
  return item


def test_a_folder_is_prepared_and_packed(tmp_path):
  calls = tmp_path / "calls"
  (calls / "more").mkdir(parents=True)
  for i in range(8):
    write_call(
      calls / "more" / f"{i}.wav", onset=1.4, rate=8_000 if i % 2 else 16_000
    )
  first = calls / "more" / "0.wav"
  (calls / "8.wav").write_bytes(first.read_bytes()[:20_000])
  (calls / "9.wav").write_bytes(first.read_bytes())
  late = {"role": "user", "start": 98, "end": 99, "text": "late"}
  for name, sidecar in (("a", []), ("b", {"words": [late]})):
    write_call(calls / f"{name}.wav", onset=1.4)
    (calls / f"{name}.json").write_text(json.dumps(sidecar))
  data_dir = tmp_path / "data"
  report = streamed.prepare(
    "stereo", calls, data_dir / "calls", user="left", language="en"
  )
  assert report["recordings"] == 8
  assert report["kinds"].keys() == {"conversation"}
  assert {k: v["count"] for k, v in report["skipped"].items()} == {
    "truncated": 1,
    "broken metadata": 2,
    "no transcript": 1,
  }
  for item in corpus.RecordSource(data_dir / "calls"):
    assert item.id.startswith("more/")
    assert [t.role for t in item.tracks] == [Role.USER, Role.AGENT]
    agent = item.track(Role.AGENT)
    assert [w.text for w in agent.words] == ["hello", "there"]
    assert agent.spans[0].start == pytest.approx(1.4, abs=0.02)
    assert item.track(Role.USER).spans[0].end == pytest.approx(1, abs=0.02)
  config = small_data.config(mixture=("calls:1.0",), heldout_share=0.01)
  transcripts.train(data_dir, folders=["calls"], streams=config.streams)
  batches = loader.Loader(config, data_dir=data_dir, split=Split.TRAIN)
  batch = next(batches)
  batches.close()
  assert (batch.speech.weights.sum(axis=1) > 0).all()


def test_the_other_way_round_in_two_files_and_without_words(tmp_path):
  write_call(tmp_path / "a.wav", onset=1.4)
  usual = one(tmp_path)
  other_way = one(tmp_path, user="right")
  (tmp_path / "channels.json").write_text('["agent", "user"]')
  turned = one(tmp_path, apart=True)
  for role, other in ((Role.USER, Role.AGENT), (Role.AGENT, Role.USER)):
    assert (turned.track(role).audio == usual.track(other).audio).all()
    assert (other_way.track(role).audio == usual.track(other).audio).all()
    assert turned.track(role).words == usual.track(role).words
  (tmp_path / "channels.json").unlink()
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
  apart = one(tmp_path, apart=True)
  assert apart.id == usual.id and apart.duration == usual.duration
  for role in (Role.USER, Role.AGENT):
    assert apart.track(role).words == usual.track(role).words
    assert apart.track(role).spans == usual.track(role).spans
  (tmp_path / "a.json").unlink()
  wordless = one(tmp_path, apart=True)
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
    {"role": "agent", "start": float("nan"), "end": 2, "text": "nan"},
    {"role": "agent", "start": 12.9, "end": 13.4, "text": "last"},
    {"role": "agent", "start": 13.1, "end": 13.4, "text": "beyond"},
    {"role": "agent", "start": 5, "end": 4, "text": "backwards"},
    {"role": "agent", "start": 5, "end": 6, "text": None},
    {"role": "agent", "start": 5, "end": 6, "text": "two words"},
    {"role": "user", "text": "where"},
  ]
  path = tmp_path / "a.json"
  path.write_text(json.dumps({"words": words}), encoding="utf-8-sig")
  item = one(tmp_path / "a.wav", language="en", licence="own")
  assert [(w.start, w.text) for w in item.track(Role.AGENT).words] == [
    (1.0, "first"),
    (5.0, "two"),
    (pytest.approx(5.375), "words"),
    (9.25, "second"),
    (10.5, "third"),
    (12.9, "last"),
  ]
  assert item.track(Role.AGENT).words[-1].end == item.duration == 13.0
  assert item.track(Role.USER).words == ()
  assert item.metadata == {
    "kind": "conversation",
    "language": "en",
    "licence": "own",
    "left out": {
      "words without times": 3,
      "words without text": 1,
      "words that end before they begin": 1,
      "words beyond the end": 1,
      "words spread over a stretch that has times": 2,
    },
  }
  (tmp_path / "channels.json").write_text(
    '["user", "agent"]', encoding="utf-8-sig"
  )
  assert one(tmp_path, apart=True).tracks[0].role == Role.USER


def test_words_in_milliseconds_are_refused(tmp_path):
  write_call(tmp_path / "a.wav", onset=1.4)
  words = [
    {"role": "agent", "start": 1400 + i, "end": 1500 + i, "text": "a"}
    for i in range(9)
  ]
  (tmp_path / "a.json").write_text(json.dumps({"words": words}))
  _, ((reason, detail),) = streamed.read("stereo", tmp_path, user="left")
  assert reason == Reason.BROKEN_METADATA and "milliseconds" in detail


def test_names_of_all_kinds(tmp_path):
  names = ["a b", "-x", "100%d", "ünï", "x..y", "#1", "a.b.c"]
  for name in names:
    write_call(tmp_path / f"{name}.wav", onset=1.4)
  (tmp_path / "far").mkdir()
  write_call(tmp_path / "far" / "z.wav", onset=1.4)
  (tmp_path / "link.wav").symlink_to(tmp_path / "far" / "z.wav")
  (tmp_path / "link.json").symlink_to(tmp_path / "far" / "z.json")
  (tmp_path / "nowhere.json").write_text('{"words": []}')
  (tmp_path / "nowhere.wav").symlink_to(tmp_path / "nowhere")
  os.mkfifo(tmp_path / "pipe.wav")
  items, bad = streamed.read("stereo", tmp_path, user="left")
  assert {item.id for item in items} == {*names, "far/z", "link"}
  assert bad == [(Reason.MISSING, "nowhere.wav")]


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
  items, ((reason, detail),) = streamed.read("stereo", tmp_path, user="left")
  assert not items and reason in (Reason.BROKEN_METADATA, Reason.NOT_UTF8)
  assert detail.startswith("a")


def test_what_is_refused(tmp_path):
  with pytest.raises(errors.UserError, match="has no sound"):
    opened(tmp_path, user="left")
  write_call(tmp_path / "a.wav", onset=1.4)
  with pytest.raises(errors.UserError, match="user=''; write one of left, r"):
    opened(tmp_path)
  for text, words in (
    ("user, agent", "channels.json is broken"),
    ('["user", "user"]', "names user, user: write"),
    ('["user", "caller"]', "'caller' is not a valid Role"),
    ("7", "channels.json is broken"),
  ):
    (tmp_path / "channels.json").write_text(text)
    with pytest.raises(errors.UserError, match=words):
      opened(tmp_path)
  (tmp_path / "channels.json").write_text('["user", "agent"]')
  with pytest.raises(errors.UserError, match="which says it too"):
    opened(tmp_path, user="left")
  (tmp_path / "channels.json").unlink()
  mono = sound.tone(1.0)[None]
  sound.write_wav(tmp_path / "b.wav", mono)
  (tmp_path / "b.json").write_text('{"words": []}')
  sound.write_wav(tmp_path / "c.user.wav", mono)
  _, bad = streamed.read("stereo", tmp_path, user="left")
  assert bad == [
    (Reason.MISSING, "c: no file of the agent"),
    (Reason.WRONG_CHANNELS, "b.wav: 1, want 2"),
  ]
  sound.write_wav(tmp_path / "a.agent.wav", mono)
  with pytest.raises(
    errors.UserError, match=r"a.wav and also a.agent.wav: keep|a.agent.wav and"
  ):
    opened(tmp_path, user="left")
