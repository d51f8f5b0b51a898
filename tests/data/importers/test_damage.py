"""Whatever bytes a file has, an importer skips it and says why."""

import io
import json
import tarfile

import av
import fsspec
import hypothesis
import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import soundfile
from hypothesis import strategies as st
from pyarrow import parquet

from tests.helpers import sound
from tml_jax.data import source
from tml_jax.streams import document
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.document import Document


def _still():
  buffer = io.BytesIO()
  PIL.Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  ).save(buffer, "JPEG")
  return buffer.getvalue()


def _speech():
  buffer = io.BytesIO()
  soundfile.write(buffer, sound.tone(0.6), sound.RATE, format="FLAC")
  return buffer.getvalue()


def _parquet():
  buffer = io.BytesIO()
  texts = [f"text {i} ünï" for i in range(40)]
  parquet.write_table(pa.table({"text": texts}), buffer, row_group_size=10)
  return buffer.getvalue()


def _tar(files):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return buffer.getvalue()


def _lines(*rows):
  return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _call(form="FLAC", subtype=None, channels=2):
  """Somebody speaks on the left, then somebody on the right."""
  tone, silence = sound.tone(0.4), np.zeros(6_400, np.float32)
  both = np.stack([np.append(tone, silence), np.append(silence, tone)])
  buffer = io.BytesIO()
  soundfile.write(
    buffer, both[:channels].T, sound.RATE, format=form, subtype=subtype
  )
  return buffer.getvalue()


def _clip():
  """Half a second of video with sound."""
  buffer = io.BytesIO()
  with av.open(buffer, "w", format="matroska") as file:
    video = file.add_stream("mpeg4", rate=10)
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    audio = file.add_stream("flac", rate=sound.RATE, layout="mono")
    for i in range(5):
      frame = av.VideoFrame(64, 48, "yuv420p")
      frame.pts = i
      file.mux(video.encode(frame))
    frame = av.AudioFrame.from_ndarray(
      sound.tone(0.5)[None], format="fltp", layout="mono"
    )
    frame.sample_rate, frame.pts = sound.RATE, 0
    file.mux(audio.encode(frame))
    for stream in (video, audio):
      file.mux(stream.encode(None))
  return buffer.getvalue()


def _rows_of_sound():
  buffer = io.BytesIO()
  cell = {"bytes": _call(), "path": "a.flac"}
  parquet.write_table(pa.table({"audio": [cell] * 3}), buffer)
  return buffer.getvalue()


def _words(**more):
  return [{"word": "hi", "start": 0.0, "end": 0.4, **more}]


def _json(value):
  return json.dumps(value).encode()


def _cut():
  said = [
    {
      "id": str(i),
      "recording_id": "r",
      "start": 0.4 * i,
      "duration": 0.4,
      "channel": i,
      "text": "well hi",
      "speaker": speaker,
    }
    for i, speaker in enumerate(("user", "agent"))
  ]
  return {
    "id": "c",
    "start": 0,
    "duration": 0.8,
    "channel": [0, 1],
    "supervisions": said,
    "recording": {"id": "r", "path": "a.flac"},
    "type": "MultiCut",
  }


TICKS = [
  {
    "tick_id": k,
    "user_chunk": {"contains_speech": k < 2, "content": "hi "},
    "agent_chunk": {"contains_speech": k > 1, "content": "well "},
    "agent_tool_calls": [{"id": k, "name": "f", "arguments": {}}],
    "agent_tool_results": [{"id": k, "content": "x"}],
  }
  for k in range(4)
]
LOG = [{"schema": "tml_jax.ticks", "ticks": len(TICKS)}, *TICKS]
VAD = {
  "metadata:transcript": [{"start": 0.0, "end": 0.4, "words": _words()}],
  "metadata:vad": [{"start": 0.0, "end": 0.4}],
}
PERSON = "V0_S1_I2_P"
TURNS = b"speaker,start,stop,utterance\na,0.0,0.4,hi\nb,0.4,0.8,well hi\n"
AMI = {
  **{f"M.Headset-{i}.wav": _call("WAV", channels=1) for i in range(3)},
  "meetings.xml": b"<r><meeting observation='M'>"
  + b"".join(
    b"<speaker nxt_agent='%c' channel='%d'/>" % (b"ABC"[i], i) for i in range(3)
  )
  + b"</meeting></r>",
}
STILLS = {"a.jpg": _still(), "a.txt": b"one", "b.jpg": _still(), "b.txt": b"2"}
PAIRS = {"a.flac": _speech(), "a.txt": b"one", "b.flac": _speech()}
# Importer, options, the file that is damaged, files beside it.
CASES = {
  "jsonl": ("jsonl", {}, "a.jsonl", _lines({"text": "one"}, {"text": "2"}), {}),
  "text": ("text", {}, "a.txt", "one\r\ntwo ünï\n".encode(), {}),
  "parquet": ("parquet", {}, "a.parquet", _parquet(), {}),
  "stills": (
    "image_text",
    {"layout": "webdataset", "size": "40x80"},
    "a.tar",
    _tar(STILLS),
    {},
  ),
  "pairs": (
    "speech_text",
    {"layout": "webdataset"},
    "a.tar",
    _tar(PAIRS),
    {},
  ),
  "manifest": (
    "speech_text",
    {"layout": "jsonl"},
    "a.jsonl",
    _lines({"audio": "a.flac", "text": "one", "offset": 0.1, "duration": 0.4}),
    PAIRS,
  ),
  "table": (
    "speech_text",
    {"layout": "tsv"},
    "a.tsv",
    b"audio\ttext\na.flac\tone\n",
    PAIRS,
  ),
  "kaldi": (
    "speech_text",
    {"layout": "kaldi"},
    "wav.scp",
    b"u1 a.flac\nu2 b.flac\n",
    PAIRS | {"text": b"u1 one\nu2 two\n"},
  ),
  "two channels": ("stereo", {"user": "left"}, "a.flac", _call(), {}),
  "words": (
    "stereo",
    {"user": "left"},
    "a.json",
    _json({"words": [{"role": "user", "text": "x", "start": 0, "end": 0.4}]}),
    {"a.flac": _call()},
  ),
  "moshi": (
    "moshi_finetune",
    {},
    "data.jsonl",
    _lines({"path": "a.flac", "duration": 0.8}),
    {
      "a.flac": _call(),
      "a.json": _json({"alignments": [["hi", [0.0, 0.4], "SPEAKER_MAIN"]]}),
    },
  ),
  "moshi's words": (
    "moshi_finetune",
    {},
    "a.json",
    _json({"alignments": [["hi", [0.0, 0.4], "SPEAKER_MAIN"]]}),
    {"a.flac": _call(), "data.jsonl": _lines({"path": "a.flac"})},
  ),
  "nu": (
    "nu_dialogue",
    {"user": "each"},
    "a.json",
    _json(_words(speaker="A")),
    {"a.flac": _call()},
  ),
  "cuts": (
    "lhotse_cuts",
    {},
    "a.jsonl",
    _lines(_cut()),
    {"a.flac": _call()},
  ),
  "shar's cuts": (
    "lhotse_shar",
    {},
    "cuts.000000.jsonl",
    _lines(_cut()),
    {"recording.000000.tar": _tar({"c.flac": _call(), "c.json": b"{}"})},
  ),
  "shar": (
    "lhotse_shar",
    {},
    "recording.000000.tar",
    _tar({"c.flac": _call(), "c.json": b"{}"}),
    {"cuts.000000.jsonl": _lines(_cut())},
  ),
  "rows": (
    "hf_dataset",
    {"rows": "conversation", "user": "each"},
    "a.parquet",
    _rows_of_sound(),
    {},
  ),
  "folder": (
    "hf_dataset",
    {"rows": "conversation", "user": "left"},
    "metadata.csv",
    b"file_name,text\na.flac,one\n",
    {"a.flac": _call()},
  ),
  "calls in tars": (
    "webdataset",
    {"user": "left"},
    "a.tar",
    _tar({"a.flac": _call(), "a.json": _json(_words(speaker="left"))}),
    {},
  ),
  "clip": ("video", {"role": "user", "size": "48x64"}, "a.mkv", _clip(), {}),
  "subtitles": (
    "video",
    {"role": "user", "size": "48x64"},
    "a.srt",
    b"1\n00:00:00,000 --> 00:00:00,400\nhi\n",
    {"a.mkv": _clip()},
  ),
  "participants": (
    "seamless",
    {"user": "each"},
    f"{PERSON}1.json",
    _json(VAD),
    {f"{PERSON}{i}.wav": _call("WAV", channels=1) for i in (1, 2)},
  ),
  "behaviour": (
    "behavior_sd",
    {"user": "each"},
    "a.json",
    _json(
      {
        "utterances": [
          {
            "speaker_idx": 0,
            "start_time": 0.0,
            "end_time": 0.4,
            "tts_text": "well hi",
          }
        ]
      }
    ),
    {"a.flac": _call()},
  ),
  "sphere": (
    "fisher",
    {"user": "A"},
    "fe_03_00001.sph",
    _call("NIST", "ULAW"),
    {"fe_03_00001.txt": b"0.0 0.4 A: hi\n"},
  ),
  "fisher": (
    "fisher",
    {"user": "A"},
    "fe_03_00001.txt",
    b"# x\n\n0.0 0.4 A: hi\n",
    {"fe_03_00001.sph": _call("NIST", "ULAW")},
  ),
  "switchboard": (
    "switchboard",
    {"user": "A"},
    "sw2001A-ms98-a-trans.text",
    b"sw2001A-ms98-a-0001 0.0 0.4 hi\n",
    {
      "sw02001.sph": _call("NIST", "ULAW"),
      "sw2001B-ms98-a-trans.text": b"sw2001B-ms98-a-0001 0.4 0.8 well\n",
    },
  ),
  "meeting": (
    "ami",
    {"user": "A", "agent": "B"},
    "M.A.words.xml",
    b"<r><w starttime='0.0' endtime='0.4'>hi</w></r>",
    AMI,
  ),
  "turns": (
    "candor",
    {"user": "each", "video": "no"},
    "u/transcription/transcript_audiophile.csv",
    TURNS,
    {
      "u/processed/u.mp3": _call("MP3"),
      "u/processed/channel_map.json": _json({"L": "a", "R": "b"}),
    },
  ),
  "voice logs": (
    "tau2",
    {},
    "a.json",
    _json({"id": "a", "ticks": TICKS}),
    {"both.wav": _call("WAV")},
  ),
  "sessions": (
    "sessions",
    {},
    "ticks.jsonl",
    _lines(*LOG),
    {"conversation.wav": _call("WAV")},
  ),
  "user sides": (
    "full_duplex_bench",
    {},
    "1/interrupt.json",
    _json([{"interrupt": "stop it", "timestamp": [0.0, 0.4]}]),
    {"1/input.wav": _call("WAV", channels=1)},
  ),
  "demo": (
    "minicpm_o",
    {"size": "32x32"},
    "recording.json",
    _json(
      {
        "mode": "duplex",
        "chunks": [
          {
            "user_audio": "u.wav",
            "user_frame": "u.jpg",
            "result": {"text": "hi", "ai_audio": "u.wav"},
          }
        ]
        * 2,
      }
    ),
    {"u.wav": _call("WAV", channels=1), "u.jpg": _still()},
  ),
  "podcasts": (
    "duplexchat",
    {"user": "A"},
    "a.jsonl",
    _lines({"audio_path": "a.flac", "duration_sec": 0.8}),
    {"a.flac": _call()},
  ),
}


def read(name, src, options):
  """Everything, and that what can be used is valid."""
  opened = source.IMPORTERS[name](src, options=options)
  found = [item for part in opened.parts() for item in opened.read(part)]
  for item in found:
    if isinstance(item, Document):
      document.validate(item)
    elif not isinstance(item, source.BadRecording):
      timeline_lib.validate(item)
    else:
      str(item).encode()  # can be written
  return found


@pytest.fixture
def bucket():
  """An empty bucket."""
  fs = fsspec.filesystem("memory")
  fs.store.clear()
  return fs


@pytest.mark.parametrize("case", CASES)
def test_sources_are_read_from_a_bucket(case, bucket):
  name, options, file, data, beside = CASES[case]
  for path, content in {**beside, file: data}.items():
    bucket.pipe(f"/bucket/{path}", content)
  found = read(name, "memory://bucket", options)
  assert any(not isinstance(item, source.BadRecording) for item in found)


@pytest.mark.parametrize("case", CASES)
@hypothesis.settings(
  deadline=None,
  max_examples=hypothesis.settings.default.max_examples // 4,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
def test_damaged_files_are_skipped(case, bucket, data):
  name, options, file, good, beside = CASES[case]
  bad = bytearray(good)
  for _ in range(data.draw(st.integers(0, 8))):
    bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(
      st.integers(0, 255)
    )
  cut = data.draw(st.integers(0, len(bad)))
  if data.draw(st.booleans()):
    del bad[cut:]
  elif data.draw(st.booleans()):
    bad[cut:cut] = data.draw(st.binary(max_size=40))
  bucket.store.clear()
  for path, content in {**beside, file: bytes(bad)}.items():
    bucket.pipe(f"/bucket/{path}", content)
  try:
    read(name, "memory://bucket", options)
  except source.errors.UserError as error:
    # A column that is not called so any more.
    assert case in ("parquet", "rows") and "no column" in str(error)
