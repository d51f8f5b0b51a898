"""Sessions as folders: what is kept, read by importers, and played again."""

import asyncio
import json
import pathlib
import threading

import numpy as np
import pytest

from tests.helpers import served
from tml_jax import errors
from tml_jax.data.importers import sessions
from tml_jax.live import conversation, replay, user
from tml_jax.live.server import formats, recording
from tml_jax.streams.timeline import EventKind, Role, Timeline


def _recorder(path):
  def make(pool):
    return recording.Recorder(
      path,
      about=recording.About("small", 3, pool.fingerprint),
      tokenizer=served.TOKENIZER,
      config=served.config().streams,
    )

  return make


class _Soft:
  """The pool, heard from further away: random weights shout and clip."""

  def __init__(self, pool):
    self._pool = pool

  def __getattr__(self, name):
    return getattr(self._pool, name)

  def tick(self, inputs, **more):
    ticked = self._pool.tick(inputs, **more)
    for session, sound in ticked.sounds.items():
      ticked.sounds[session] = 0.1 * sound
    return ticked


async def _talk(client, *, windows):
  """Noise, a line, a picture and a lost window."""
  for k in range(windows):
    if k == 3:
      await client.send(
        type="conversation.item.create",
        item={
          "type": "message",
          "role": "user",
          "content": [{"type": "input_text", "text": "tea?"}],
        },
      )
    if k in (4, 8, 12):  # one that comes late is not seen
      await client.send(type="tml.video.append", image=served.picture("red"))
    if k != 6:
      await client.say(served.noise(k, seconds=0.2))
    await client.next("tml.tick")


@served.run
async def test_a_session_is_kept_and_replays_to_the_same_tokens(pool, tmp_path):
  record = tmp_path / "record"
  with served.serving(
    tmp_path / "rest", made_pool=_Soft(pool), recorder=_recorder(record)
  ) as server:
    async with served.client(server, query="?seed=11") as client:
      await client.send(type="tml.record", allowed=True)
      await _talk(client, windows=20)
      await client.send(type="tml.close")
      with pytest.raises(ConnectionError):
        await client.next("none")
    async with served.client(server) as silent:
      await silent.send(type="response.create")
      await silent.windows(3)  # nobody allowed it
  (folder,) = record.iterdir()
  header, *records = [
    json.loads(line) for line in (folder / "inputs.jsonl").open()
  ]
  assert (header["seed"], header["first_window"]) == (11, 0)
  assert len(records) >= 20
  walls = np.diff([r["wall_s"] for r in records])
  assert (walls > 0).all()
  assert any(r["is_absent"] for r in records)
  assert sum(len(r["typed"]) for r in records) == 1
  images = sum(len(r["images"]) for r in records)
  assert 1 <= images <= 3

  # The importer reads both sides and what was typed.
  streams = served.config().streams
  size = f"{streams.video_height}x{streams.video_width}"
  found = sessions.open_folder(str(record), options={"size": size})
  (part,) = found.parts()
  (timeline,) = found.read(part)
  assert isinstance(timeline, Timeline), timeline
  assert timeline.duration == pytest.approx(0.2 * len(records))
  left = timeline.track(Role.USER).audio
  right = timeline.track(Role.AGENT).audio
  typed = [e for e in timeline.events if e.kind == EventKind.USER_TEXT]
  assert [event.text for event in typed] == ["tea?"]
  assert len(timeline.video) == images
  assert timeline.video[0].image.shape == (40, 80, 3)
  assert (timeline.video[0].image == [255, 0, 0]).all()
  muted = round(sum(s.end - s.start for s in timeline.muted) / 0.2)
  assert muted == sum(r["is_absent"] for r in records)
  assert timeline.metadata["wall_s"] == [r["wall_s"] for r in records]
  played = np.frombuffer(served.sound_of(client.events), "<i2")
  assert len(played) > 4800 and np.abs(right).max() > 1e-3
  # What the client sent is there, to the sample, up to its window's end.
  sent = np.concatenate(
    [served.noise(k, seconds=0.2) for k in range(20) if k != 6]
  )
  sent = formats.Decoder(formats.PCM_24).push(sent.astype("<i2").tobytes())
  at = int(np.flatnonzero(np.abs(left) > 0)[0])
  heard = formats.to_pcm(left[at : at - at % 3200 + 3200])
  assert len(heard) > 8
  windows = np.lib.stride_tricks.sliding_window_view(sent, len(heard))
  assert (windows[:, :8] == heard[:8]).all(axis=1).any()
  assert (windows == heard).all(axis=1).any()

  # Played to the same model, the same is decided.
  again = replay.Replay(str(folder), config=served.config())
  assert len(again) == len(records) and again.fingerprint == pool.fingerprint
  recorded = user.Recorded(again)
  room = conversation.Room(pool, tokenizer=served.TOKENIZER)
  conversation.hold(room, [conversation.Guest(recorded, seed=again.seed)])
  assert again.same(recorded.frames) == len(records)
  assert len({tuple(record["outputs"]) for record in records}) > 3
  line = again.timeline(served.TOKENIZER)
  assert len(line.video) == images and line.events[0].text == "tea?"


@pytest.mark.slow
@served.run
async def test_nothing_is_kept_before_and_after_it_is_allowed(pool, tmp_path):
  record = tmp_path / "record"
  with served.serving(
    tmp_path / "rest", made_pool=pool, recorder=_recorder(record)
  ) as server:
    async with served.client(server) as client:
      await client.send(type="response.create")
      await client.windows(3)
      await client.send(type="tml.record", allowed=True)
      await client.windows(5)
      await client.send(type="tml.record", allowed=False)
      await client.windows(4)
  (folder,) = record.iterdir()
  header, *records = [
    json.loads(line) for line in (folder / "inputs.jsonl").open()
  ]
  assert header["first_window"] >= 3
  assert 4 <= len(records) <= 7
  with pytest.raises(errors.UserError, match="recorded from window"):
    replay.Replay(str(folder), config=served.config())


@pytest.mark.parametrize(
  "line, words",
  [
    ("nonsense", "inputs.jsonl"),
    ('{"schema": "other", "version": 1}', "inputs.jsonl"),
    ('{"schema": "tml_jax.inputs", "version": 2}', "version 2"),
  ],
)
def test_a_folder_of_something_else(line, words, tmp_path):
  (tmp_path / "inputs.jsonl").write_text(line + "\n")
  with pytest.raises(errors.UserError, match=words):
    replay.Replay(str(tmp_path), config=served.config())
  with pytest.raises(errors.UserError, match="inputs.jsonl"):
    replay.Replay(str(tmp_path / "nowhere"), config=served.config())


def test_a_disk_that_is_full_ends_the_recording(pool, tmp_path):
  async def go():
    record = tmp_path / "record"
    with served.serving(
      tmp_path / "rest", made_pool=pool, recorder=_recorder(record)
    ) as server:
      async with served.client(server) as client:
        await client.send(type="tml.record", allowed=True)
        await client.send(type="response.create")
        await client.windows(2)
        (folder,) = record.iterdir()
        _remove(folder)
        (folder).write_text("a file in its place")
        await client.send(type="tml.record", allowed=False)
        assert len(await client.windows(3)) == 3

  asyncio.run(asyncio.wait_for(go(), 120))


def _remove(folder: pathlib.Path):
  for path in sorted(folder.rglob("*"), reverse=True):
    path.rmdir() if path.is_dir() else path.unlink()
  folder.rmdir()


def test_a_folder_without_its_sound(tmp_path):
  header = {
    "schema": recording.SCHEMA,
    "version": recording.VERSION,
    "id": "s",
    "seed": 1,
    "first_window": 0,
    "window_ms": 200,
    "name": "small",
    "step": 1,
    "fingerprint": "f",
  }
  (tmp_path / "inputs.jsonl").write_text(json.dumps(header) + "\n")
  with pytest.raises(errors.UserError, match="has no conversation.wav"):
    replay.Replay(str(tmp_path), config=served.config())


def test_the_users_side_is_read_in_blocks(tmp_path, monkeypatch):
  monkeypatch.setattr(recording, "_BLOCK", 7)
  samples = np.arange(40, dtype="<i2").reshape(20, 2)
  path = tmp_path / "conversation.wav"
  path.write_bytes(recording.wav_header(20) + samples.tobytes() + b"x")
  np.testing.assert_array_equal(
    recording.user_side(path), formats.to_float(samples[:, 0])
  )


@served.run
async def test_a_recording_that_ends_keeps_nobody_waiting(
  pool, tmp_path, monkeypatch
):
  """The other one is written while it is finished."""
  record, go_on = tmp_path / "record", threading.Event()
  finish = recording._Folder.close

  def slow(folder, made):
    go_on.wait(60)
    finish(folder, made)

  monkeypatch.setattr(recording._Folder, "close", slow)
  with served.serving(
    tmp_path / "rest", made_pool=pool, recorder=_recorder(record)
  ) as server:
    async with served.client(server) as one, served.client(server) as two:
      for client in (one, two):
        await client.send(type="tml.record", allowed=True)
        await client.send(type="response.create")
        await client.windows(2)
      await one.send(type="tml.record", allowed=False)
      await one.windows(2)
      name = two.events[1]["session_id"]
      path = record / name / "inputs.jsonl"
      before = len(path.read_text().splitlines())
      await two.windows(4)
      assert len(path.read_text().splitlines()) >= before + 2
    go_on.set()
  for folder in record.iterdir():
    assert (folder / "ticks.jsonl").stat().st_size
