"""Full-Duplex-Bench, MiniCPM-o-Demo and DuplexChat."""

import json

import numpy as np
import PIL.Image
import pytest
import soundfile

from tests.helpers import streamed, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import EventKind, Role

GIVEN = {"language": "en", "licence": "CC0"}


def dump(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


def example(folder, **files):
  two_sides.write(folder / "input.wav", channels=slice(0, 1))
  for name, value in files.items():
    dump(folder / f"{name}.json", value)


def test_user_sides_of_full_duplex_bench(tmp_path):
  turn = [{"text": "[TURN-TAKING]", "timestamp": [1.2, 1.6]}]
  words = [
    {"speaker": 0, "item": [{"text": "I", "timestamp": [0.2, 0.4]}]},
    {"speaker": 0, "item": [{"text": "do", "timestamp": [0.5, 1.2]}]},
  ]
  v1 = tmp_path / "v1.0" / "candor_turn_taking"
  example(v1 / "1", turn_taking=turn, transcription=words)
  interrupt = [
    {"context": "far away", "interrupt": "stop it", "timestamp": [0.2, 1.2]}
  ]
  example(tmp_path / "v1.0" / "x" / "2", interrupt=interrupt)
  about = {"current_turn_text": "wait", "timestamps": [0.2, 1.2]}
  example(tmp_path / "v1.5" / "3", metadata=about)
  two_sides.write(tmp_path / "v1.5" / "3" / "clean_input.wav")
  example(tmp_path / "v3" / "4", metadata={"tools": []})
  example(tmp_path / "v1.0" / "x" / "5", interrupt=[{"timestamp": [1]}])
  example(tmp_path / "v1.0" / "x" / "6", pause={"a": 1})
  items, bad = streamed.read("full_duplex_bench", tmp_path, **GIVEN)
  assert [str(r) for r, _ in bad] == [Reason.BROKEN_METADATA] * 2
  said = {}
  for item in items:
    timeline_lib.validate(item)
    (track,) = item.tracks
    assert track.role == Role.USER and item.metadata["kind"] == "user_side"
    said[item.id[-1]] = [w.text for w in track.words]
  assert said == {"1": ["I", "do"], "2": ["stop", "it"], "3": ["wait"], "4": []}
  (event,) = items[0].events
  assert (event.time, event.kind) == (1.2, EventKind.NOTE)
  with pytest.raises(errors.UserError, match="ends in input.wav"):
    streamed.read("full_duplex_bench", v1 / "1" / "turn_taking.json")


def demo(folder, *, merged=False, **changes):
  """Three chunks of a second; the model answers in the second."""
  both = two_sides.samples(rate=16_000)
  chunks = []
  for i in range(3):
    (folder / "user_audio").mkdir(parents=True, exist_ok=True)
    (folder / "user_frames").mkdir(exist_ok=True)
    (folder / "ai_audio").mkdir(exist_ok=True)
    part = both[0][16_000 * i : 16_000 * (i + 1)]
    soundfile.write(folder / "user_audio" / f"{i:03d}.wav", part, 16_000)
    PIL.Image.new("RGB", (64, 48), (80 * i, 0, 0)).save(
      folder / "user_frames" / f"{i:03d}.jpg"
    )
    chunks.append(
      {
        "index": i,
        "receive_ts_ms": 1_000 * i + 37,
        "user_audio": f"user_audio/{i:03d}.wav",
        "user_frame": f"user_frames/{i:03d}.jpg",
        "result": {"mode": "LISTEN", "timing": {}},
      }
    )
  answer = two_sides.samples(rate=24_000)[1][24_000:]
  for number in range(2):
    name = f"ai_audio/turn_0_chunk_{number:03d}.wav"
    soundfile.write(
      folder / name, answer[24_000 * number : 24_000 * (number + 1)], 24_000
    )
    chunks[1 + number]["result"] = {
      "mode": "SPEAK",
      "text": ["yes", " sir"][number],
      "ai_audio": name,
      "ai_audio_duration_ms": 1000,
    }
  content = {"session_id": folder.name, "mode": "duplex", "chunks": chunks}
  if merged:
    two_sides.write(folder / "merged_replay.wav")
    content["merged_replay"] = "merged_replay.wav"
  dump(folder / "recording.json", content | changes)
  dump(folder / "meta.json", {"session_id": folder.name})


@pytest.mark.parametrize("merged", [False, True])
def test_sessions_of_minicpm_o(tmp_path, merged):
  demo(tmp_path / "data" / "sessions" / "omni_a1b2c3", merged=merged)
  (item,), bad = streamed.read("minicpm_o", tmp_path, size="48x64", **GIVEN)
  assert not bad and item.id == "data/sessions/omni_a1b2c3"
  timeline_lib.validate(item)
  assert {str(t.role): two_sides.side_of(t) for t in item.tracks} == {
    "user": "left",
    "agent": "right",
  }
  for track in item.tracks:
    two_sides.check_spans(track)
  words = item.track(Role.AGENT).words
  assert [(w.text, w.start, w.end) for w in words] == [
    ("yes", 1.0, 2.0),
    ("sir", 2.0, 3.0),
  ]
  assert [frame.time for frame in item.video] == [0.0, 1.0, 2.0]
  assert item.metadata["received_ms"] == [37, 1037, 2037]


def test_sessions_of_minicpm_o_that_are_broken(tmp_path):
  demo(tmp_path / "chat", mode="chat")
  demo(tmp_path / "none", chunks=[])
  demo(tmp_path / "text", chunks="abc")
  demo(tmp_path / "gone")
  (tmp_path / "gone" / "user_audio" / "001.wav").unlink()
  demo(tmp_path / "far", merged=True)
  dump(
    tmp_path / "far" / "recording.json",
    json.loads((tmp_path / "far" / "recording.json").read_text())
    | {"merged_replay": "../../../x.wav"},
  )
  demo(tmp_path / "still")
  (tmp_path / "still" / "user_frames" / "001.jpg").write_bytes(b"no")
  (item,), bad = streamed.read("minicpm_o", tmp_path, size="48x64")
  assert item.id == "still" and len(item.video) == 2
  assert item.metadata["left out"] == {"pictures that cannot be read": 1}
  assert [str(r) for r, _ in bad] == [
    *[Reason.BROKEN_METADATA] * 3,
    *[Reason.MISSING] * 2,
  ]


def rows(path, *found):
  path.write_text("".join(json.dumps(row) + "\n" for row in found))


def test_duplexchat(tmp_path):
  two_sides.write(tmp_path / "sounds" / "d.flac")
  episode = np.concatenate(
    [np.zeros((2, 32_000), np.float32), two_sides.samples()], axis=1
  )
  soundfile.write(tmp_path / "sounds" / "e.flac", episode.T, 16_000)
  row = {
    "language": "pt",
    "rss_url": "https://x/rss",
    "audio_url": "https://x/e.mp3",
    "dialogue_idx": 3,
    "episode_start_sec": 2.0,
    "episode_end_sec": 5.0,
    "duration_sec": 3.0,
    "speakers": ["SPEAKER_00", "SPEAKER_01"],
    "episode_duration_sec": 5.0,
  }
  rows(
    tmp_path / "m.jsonl",
    row | {"local": "d.flac"},
    row | {"local": "e.flac"},
    row | {"local": "e.flac", "episode_duration_sec": 50.0},
    row | {"local": "e.flac", "episode_start_sec": "x"},
    row | {"local": "gone.flac"},
    row,
  )
  items, bad = streamed.read(
    "duplexchat",
    tmp_path / "m.jsonl",
    user="A",
    audio="local",
    root=tmp_path / "sounds",
    licence="own",
  )
  assert len(items) == 2
  for item in items:
    timeline_lib.validate(item)
    assert item.duration == 3.0
    assert two_sides.side_of(item.track(Role.USER)) == "left"
    for track in item.tracks:
      two_sides.check_spans(track)
    assert item.metadata == {
      "kind": "conversation",
      "language": "pt",
      "licence": "own",
      "left out": {"recordings without words": 1},
    }
  assert sorted(str(r) for r, _ in bad) == [
    *[Reason.BROKEN_METADATA] * 2,
    *[Reason.MISSING] * 2,
  ]
  with pytest.raises(errors.UserError, match="one of A, B, each"):
    streamed.read("duplexchat", tmp_path)
