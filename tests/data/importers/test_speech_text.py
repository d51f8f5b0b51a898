"""Speech with transcripts in every layout, heard and spoken."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile

from tests.helpers import sound, streamed
from tests.helpers.frames import CONFIG, ByteTokenizer
from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.source import Reason
from tml_jax.streams import framing
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.document import PART_OF
from tml_jax.streams.timeline import EventKind, Role

METADATA = {"kind": "speech_text", "licence": "CC0", "language": "en"}
GIVEN = {"licence": "CC0", "language": "en"}


def speech(seconds, *, before=0.3, frequency=300.0, rate=sound.RATE):
  """A tone that comes and goes, after silence."""
  tone = sound.tone(seconds, frequency=frequency, rate=rate)
  silence = np.zeros(round(before * rate), np.float32)
  return np.concatenate([silence, tone, silence])


def write(path, samples, *, rate=sound.RATE):
  path.parent.mkdir(parents=True, exist_ok=True)
  soundfile.write(path, samples, rate)


def texts_of(items):
  return [event.text for item in items for event in item.events]


def reasons(bad):
  return sorted(str(reason) for reason, _ in bad)


def lines(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_heard_and_then_shown(tmp_path):
  write(tmp_path / "a" / "1.flac", speech(1.0, rate=24_000), rate=24_000)
  lines(tmp_path / "m.jsonl", [{"audio": "a/1.flac", "text": "hello  there"}])
  (item,), bad = streamed.read(
    "speech_text", tmp_path, layout="jsonl", delay="0.6", **GIVEN
  )
  timeline_lib.validate(item)
  assert not bad and item.metadata == METADATA
  (track,) = item.tracks
  (event,) = item.events
  assert track.role == Role.USER
  assert [word.text for word in track.words] == ["hello", "there"]
  assert (event.kind, event.text) == (EventKind.SHOW, "hello there")
  end = track.spans[-1].end
  assert event.time == pytest.approx(end + 0.6, abs=0.01)
  assert end == pytest.approx(1.0, abs=0.1)  # silence around it is cut
  frames = framing.frames(item, config=CONFIG, tokenizer=ByteTokenizer())
  shown = [frame.window for frame in frames if frame.text_out]
  assert shown[0] == int(event.time / 0.2)
  assert all(frame.user_dmel is not None for frame in frames)
  assert not any(frame.speak for frame in frames)


def test_typed_and_then_spoken(tmp_path):
  write(tmp_path / "1.wav", speech(1.0))
  lines(tmp_path / "m.jsonl", [{"audio": "1.wav", "text": "hello there"}])
  (item,), _ = streamed.read(
    "speech_text", tmp_path, layout="jsonl", direction="speak", delay="0.6"
  )
  timeline_lib.validate(item)
  (track,) = item.tracks
  (event,) = item.events
  assert track.role == Role.AGENT
  assert (event.time, event.kind) == (0.0, EventKind.USER_TEXT)
  assert track.spans[0].start == track.words[0].start == pytest.approx(0.6)
  assert not track.audio[: round(0.6 * sound.RATE)].any()
  frames = framing.frames(item, config=CONFIG, tokenizer=ByteTokenizer())
  speaking = [frame.window for frame in frames if frame.speak]
  assert speaking[0] == 2 and not frames[-1].speak
  assert frames[0].text_in and any(frame.say for frame in frames)
  assert all(frame.user_dmel is None for frame in frames)


def test_stretches_of_a_recording(tmp_path):
  high = sound.tone(1.0, frequency=900.0)
  write(tmp_path / "long.wav", np.concatenate([speech(1.0), high, speech(1.0)]))
  lines(
    tmp_path / "m.jsonl",
    [
      {"audio": "long.wav", "text": "low", "offset": 0, "duration": "1.5"},
      {"audio": "long.wav", "text": "high", "offset": 1.6, "duration": 1.0},
      {"audio": "long.wav", "text": "none", "offset": 99, "duration": 1.0},
      {"audio": "long.wav", "text": "what", "offset": "x"},
      {"audio": "long.wav", "text": "whole", "duration": 0.1},
    ],
  )
  items, bad = streamed.read("speech_text", tmp_path, layout="jsonl")
  found = dict(zip(texts_of(items), items, strict=True))
  assert found.keys() == {"low", "high", "whole"}
  spectrum = np.abs(np.fft.rfft(found["high"].tracks[0].audio[:8000]))
  assert abs(int(spectrum.argmax()) * 2 - 900) < 20
  assert found["whole"].tracks[0].spans[-1].end > 2.5
  # Stretches of one recording are of one split.
  assert {found[key].metadata[PART_OF] for key in ("low", "high")} == {
    "long.wav"
  }
  assert PART_OF not in found["whole"].metadata
  assert reasons(bad) == sorted([Reason.EMPTY, Reason.BROKEN_METADATA])


def test_what_cannot_be_used_is_counted(tmp_path):
  write(tmp_path / "ok.wav", speech(1.0))
  write(tmp_path / "silent.wav", np.zeros(16_000))
  (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
  lines(
    tmp_path / "m.jsonl",
    [
      {"audio": "ok.wav", "text": "ok"},
      {"audio": "silent.wav", "text": "x"},
      {"audio": "broken.wav", "text": "x"},
      {"audio": "no.wav", "text": "x"},
      {"audio": "../../no.wav", "text": "x"},
      {"audio": None, "text": "x"},
      {"audio": "long" * 1000, "text": "x"},
      {"audio": ".", "text": "x"},
      {"audio": "ok.wav", "text": None},
    ],
  )
  items, bad = streamed.read("speech_text", tmp_path, layout="jsonl")
  assert texts_of(items) == ["ok"]
  assert reasons(bad) == sorted(
    [Reason.SILENT, Reason.NO_TEXT]
    + [Reason.UNREADABLE] * 2
    + [Reason.MISSING] * 4
  )


def test_tables(tmp_path):
  """As Common Voice has them."""
  write(tmp_path / "clips" / "a.wav", speech(1.0))
  write(tmp_path / "clips" / "b.wav", speech(1.2))
  (tmp_path / "train.tsv").write_text(
    "client_id\tpath\tsentence\n"
    'x\ta.wav\tShe said "no\n'
    "y\tb.wav\tünï\n"
    "z\tb.wav\n"
    "z\tb.wav\t \n"
  )
  items, bad = streamed.read(
    "speech_text",
    tmp_path / "train.tsv",
    layout="tsv",
    audio="path",
    text="sentence",
    root=str(tmp_path / "clips"),
  )
  assert texts_of(items) == ['She said "no', "ünï"]
  assert reasons(bad) == sorted([Reason.BROKEN_METADATA, Reason.NO_TEXT])


@pytest.mark.parametrize("has_segments", [False, True])
def test_kaldi(tmp_path, monkeypatch, has_segments):
  data = tmp_path / "data"
  data.mkdir()
  keys = [f"spk{i % 3}-u{i:03d}" for i in range(40)]
  keys.sort()
  for key in keys[:3]:
    write(tmp_path / "wav" / f"{key}.wav", speech(1.0))
  rows = {key: f"{tmp_path}/wav/{key}.wav" for key in keys[:4]}
  rows[keys[4]] = "sox a.wav -t wav - |"
  prefix = "r-" if has_segments else ""
  recordings = {prefix + key: path for key, path in rows.items()}
  (data / "wav.scp").write_text(
    "".join(f"{k} {v}\n" for k, v in sorted(recordings.items()))
  )
  (data / "utt2spk").write_text("".join(f"{k} {k[:4]}\n" for k in keys))
  (data / "text").write_text(
    "".join(f"{k} words of {k}\n" for k in keys[:5]) + f"{keys[5]}\n"
  )
  if has_segments:
    (data / "segments").write_text(
      "".join(f"{k} r-{k} 0.3 1.2\n" for k in keys[:5])
    )
  import tml_jax.data.importers.speech_text as module

  monkeypatch.setattr(module, "_RANGE", 50)
  options = dict(layout="kaldi", root=str(tmp_path / "wav"), **GIVEN)
  opened = source.IMPORTERS["speech_text"](str(data), options=options)
  assert len(opened.parts()) > 2
  items, bad = streamed.read("speech_text", data, **options)
  assert [item.id for item in items] == keys[:3]
  assert texts_of(items) == [f"words of {key}" for key in keys[:3]]
  assert items[0].tracks[0].voice == keys[0][:4]
  end = 0.9 if has_segments else 1.0
  assert items[0].tracks[0].spans[-1].end == pytest.approx(end, abs=0.1)
  assert reasons(bad) == sorted([Reason.MISSING] * 2 + [Reason.NO_TEXT])
  assert any("commands are not run" in detail for _, detail in bad)


def test_a_key_is_found_in_a_large_sorted_file(tmp_path):
  import tml_jax.data.importers.speech_text as module
  from tml_jax.data import stored

  keys = [f"{i:07d}" for i in range(0, 200_000, 2)]
  (tmp_path / "utt2spk").write_text("".join(f"{k} speaker-{k}\n" for k in keys))
  place = stored.Place(str(tmp_path))
  (file,) = place.files(ends=("utt2spk",))
  for key in (keys[0], keys[77_777], keys[-1], "0100001", "0000009"):
    start = module._before(place, file, key.encode())
    found = stored.lines(place, stored.Range(file, start, file.size))
    first = next(found).data.split(b" ")[0].decode()
    near = int(key) - int(first) < 2 * 10_000
    assert first <= key and near


def test_librispeech(tmp_path):
  chapter = tmp_path / "dev-clean" / "84" / "121123"
  for i in range(2):
    write(chapter / f"84-121123-000{i}.flac", speech(1.0 + i))
  (chapter / "84-121123.trans.txt").write_text(
    "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN\n84-121123-0002 NO\n"
  )
  items, bad = streamed.read("speech_text", tmp_path, layout="librispeech")
  assert [item.id for item in items] == ["84-121123-0000", "84-121123-0001"]
  assert texts_of(items) == ["GO DO YOU HEAR", "BUT IN"]
  assert items[0].tracks[0].voice == "84"
  assert items[0].metadata["language"] == "en"
  assert bad == [(Reason.MISSING, "dev-clean/84/121123/84-121123-0002.flac")]


def test_emilia(tmp_path):
  write(tmp_path / "DE" / "DE_B00000" / "mp3" / "a.mp3", speech(1.0))
  lines(
    tmp_path / "DE" / "DE_B00000.jsonl",
    [
      {
        "id": "DE_B00000_S00000_W000029",
        "wav": "DE_B00000/mp3/a.mp3",
        "text": " Und es gibt",
        "duration": 3.228,
        "speaker": "DE_B00000_S00000",
        "language": "de",
        "dnsmos": 3.3697,
      }
    ],
  )
  (item,), bad = streamed.read("speech_text", tmp_path, layout="emilia")
  assert not bad and item.id == "DE_B00000_S00000_W000029"
  assert item.metadata["language"] == "de"
  assert texts_of([item]) == ["Und es gibt"]


def test_tars(tmp_path):
  """As WebDataset writes them."""
  buffer = io.BytesIO()
  soundfile.write(buffer, speech(1.0), sound.RATE, format="FLAC")
  members = {
    "a/001.flac": buffer.getvalue(),
    "a/001.json": b'{"text": "one", "language": "fr"}',
    "a/002.flac": buffer.getvalue(),
    "a/002.txt": b"two",
    "a/003.txt": b"three",
    "a/004.flac": buffer.getvalue(),
  }
  with tarfile.open(tmp_path / "s.tar", "w") as tar:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  items, bad = streamed.read("speech_text", tmp_path, layout="webdataset")
  assert texts_of(items) == ["one", "two"]
  assert [item.metadata["language"] for item in items] == ["fr", ""]
  assert reasons(bad) == sorted([Reason.MISSING, Reason.NO_TEXT])


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({}, "layout=''; write one of jsonl, tsv, kaldi"),
    ({"layout": "jsonl", "direction": "both"}, "one of hear, speak"),
    ({"layout": "jsonl", "delay": "-1"}, "delay='-1'; write a number from 0"),
    ({"layout": "jsonl", "delay": "nan"}, "delay='nan'; write a number"),
    ({"layout": "kaldi"}, "has no text: it is no data folder"),
  ],
)
def test_options_are_checked(tmp_path, options, message):
  (tmp_path / "m.jsonl").write_text("{}")
  (tmp_path / "wav.scp").write_text("a b")
  with pytest.raises(errors.UserError, match=message):
    streamed.read("speech_text", tmp_path, **options)
