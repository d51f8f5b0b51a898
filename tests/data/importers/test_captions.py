"""Stills and clips with captions, in every layout."""

import io
import json
import tarfile

import numpy as np
import PIL.Image
import pytest
import soundfile

from experiments import interaction
from tests.helpers import media_files, sound, streamed
from tests.helpers.frames import ByteTokenizer
from tml_jax import errors
from tml_jax.config import text as config_text
from tml_jax.data.source import Reason
from tml_jax.streams import framing
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import EventKind, Role

SIZE = {"size": "40x80"}


def still(color, *, form="PNG", size=(64, 48), mode="RGB", **how):
  buffer = io.BytesIO()
  PIL.Image.new(mode, size, color).save(buffer, form, **how)
  return buffer.getvalue()


def aloud(seconds=1.0):
  buffer = io.BytesIO()
  soundfile.write(buffer, sound.tone(seconds), sound.RATE, format="FLAC")
  return buffer.getvalue()


FILES = {
  "a/red.png": still((200, 0, 0)),
  "a/red.txt": "\ufeffa red\r\nplane".encode(),
  "b.jpg": still((0, 0, 200), form="JPEG"),
  "b.txt": b"a blue plane",
  "b.flac": aloud(),
  "c.webp": still((0, 200, 0), form="WEBP"),
  "d.txt": b"nothing to see",
  "e.jpg": still((0, 0, 200), form="JPEG")[:200],
  "e.txt": b"cut",
  "f.png": b"no picture",
  "f.txt": b"x",
  "g.png": still((1, 1, 1)),
  "g.txt": b" \n",
  "h.png": still((1, 1, 1)),
  "h.txt": b"caf\xe9",
  "readme.md": b"",
}
BAD = sorted(
  [Reason.NO_CAPTION] * 2
  + [Reason.NO_PICTURE, Reason.NOT_UTF8]
  + [Reason.UNREADABLE] * 2
)


def as_folder(path):
  for name, data in FILES.items():
    file = path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
  return "folder"


def as_tar(path):
  with tarfile.open(path / "00000.tar", "w") as tar:
    for name, data in FILES.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return "webdataset"


def as_lines(path):
  as_folder(path)
  rows = [{"image": "no.png", "caption": "x"}]
  for name in FILES:
    stem, _, end = name.rpartition(".")
    if end in ("png", "jpg", "webp"):
      text = FILES.get(f"{stem}.txt", b"").decode("utf-8-sig", "replace")
      row = {"image": name, "caption": text or None}
      rows.append(row | ({"speech": "b.flac"} if stem == "b" else {}))
  rows[-1]["caption"] = float("nan")
  data = "".join(json.dumps(row) + "\n" for row in rows)
  (path / "m.jsonl").write_text(data)
  return "jsonl"


def reasons(bad):
  return sorted(str(reason) for reason, _ in bad)


@pytest.mark.parametrize("write", [as_folder, as_tar, as_lines])
def test_stills(tmp_path, write):
  layout = write(tmp_path)
  items, bad = streamed.read(
    "image_text", tmp_path, layout=layout, licence="CC0", **SIZE
  )
  if layout == "jsonl":
    assert reasons(bad) == sorted(
      [Reason.NO_CAPTION] * 3 + [Reason.UNREADABLE] * 2 + [Reason.MISSING]
    )
  else:
    assert reasons(bad) == BAD
  by_color = {int(item.video[0].image[20, 40].argmax()): item for item in items}
  red, blue = by_color[0], by_color[2]
  assert len(items) == 2
  for item in items:
    timeline_lib.validate(item)
    assert item.metadata == {
      "kind": "image_text",
      "licence": "CC0",
      "language": "",
    }
    assert item.video[0].image.shape == (40, 80, 3)
  (event,) = red.events
  assert event == timeline_lib.Event(0.4, EventKind.SHOW, "a red plane")
  assert not red.tracks
  (track,) = blue.tracks  # its caption is read aloud
  assert track.role == Role.AGENT and not blue.events
  assert [word.text for word in track.words] == ["a", "blue", "plane"]
  assert track.spans[0].start == pytest.approx(0.4)


def test_a_still_becomes_frames(tmp_path):
  layout = as_folder(tmp_path)
  items, _ = streamed.read("image_text", tmp_path, layout=layout, **SIZE)
  config = config_text.with_fields(
    interaction.get_config("tiny"),
    {"streams.video_height": 40, "streams.video_width": 80},
  ).streams
  frames = framing.frames(items[0], config=config, tokenizer=ByteTokenizer())
  assert [len(frame.patches) for frame in frames][:3] == [2, 0, 0]
  assert [bool(frame.text_out) for frame in frames][:3] == [False, False, True]


def test_a_tar_that_was_cut_gives_what_it_has(tmp_path):
  as_tar(tmp_path)
  path = tmp_path / "00000.tar"
  data = path.read_bytes()
  path.write_bytes(data[: data.index(b"b.txt") + 520])
  items, bad = streamed.read(
    "image_text", tmp_path, layout="webdataset", **SIZE
  )
  assert len(items) == 1 and reasons(bad) == [Reason.TRUNCATED]


def test_pictures_of_all_kinds(tmp_path):
  turned = PIL.Image.Exif()
  turned[0x112] = 6  # to be turned by 90 degrees
  halves = np.zeros((48, 64, 3), np.uint8)
  halves[:, :32] = 255  # white on the left: above, once it is turned
  buffer = io.BytesIO()
  PIL.Image.fromarray(halves).save(buffer, "JPEG", exif=turned)
  files = {
    "clear": still((0, 0, 0, 0), mode="RGBA"),
    "gray": still(128, mode="L"),
    "palette": still(0, mode="P"),
    "print": still((0, 0, 0, 0), mode="CMYK", form="JPEG"),
    "turned": buffer.getvalue(),
  }
  for name, data in files.items():
    (tmp_path / f"{name}.png").write_bytes(data)
    (tmp_path / f"{name}.txt").write_text(name)
  items, bad = streamed.read("image_text", tmp_path, **SIZE)
  images = {item.id: item.video[0].image for item in items}
  assert not bad and images.keys() == files.keys()
  assert (images["clear"] == 255).all() and (images["gray"] == 128).all()
  assert (images["print"] > 250).all()
  assert images["turned"][2].min() > 200 and images["turned"][-3].max() < 50


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
  (tmp_path / "b.txt").write_text("x")
  for side, detail in (
    (9_000, "b.png: 9000 x 9000 pixels"),
    (20_000, "400000000 pixels"),
  ):
    image = still(0, mode="1", size=(side, side))
    (tmp_path / "b.png").write_bytes(image)
    _, ((reason, found),) = streamed.read("image_text", tmp_path)
    assert reason == Reason.TOO_LARGE and detail in found


def test_clips(tmp_path):
  kind = media_files.Kind("mp4", "mpeg4", "aac")
  media_files.write(tmp_path / "a.mp4", kind)
  (tmp_path / "a.txt").write_text("a flash and a click")
  media_files.write(tmp_path / "b.mp4", kind)
  (tmp_path / "b.txt").write_text("it flashes")
  (tmp_path / "b.flac").write_bytes(aloud())
  (tmp_path / "c.mp4").write_bytes(b"no clip")
  (tmp_path / "c.txt").write_text("x")
  items, bad = streamed.read("video_text", tmp_path, fps="5", **SIZE)
  shown, said = items
  assert [reason for reason, _ in bad] == [Reason.UNREADABLE]
  for item in items:
    timeline_lib.validate(item)
    assert item.metadata["kind"] == "video_text"
    assert len(item.video) == 15 and item.video[0].image.shape == (40, 80, 3)
    heard = item.track(Role.ENVIRONMENT)
    assert np.abs(heard.audio).argmax() / sound.RATE == pytest.approx(
      media_files.CLICK, abs=0.05
    )
  (event,) = shown.events
  assert event.kind == EventKind.SHOW
  assert event.time == pytest.approx(3.4, abs=0.15)
  assert not said.events
  assert said.track(Role.AGENT).spans[0].start == pytest.approx(3.4, abs=0.15)
  short, _ = streamed.read("video_text", tmp_path, seconds="1", **SIZE)
  assert len(short[0].video) == 1
  assert short[0].events[0].time == pytest.approx(1.4, abs=0.01)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"size": "40"}, "size='40'; write HEIGHTxWIDTH"),
    ({"size": "0x40"}, "write pixels from 1x1"),
    ({"layout": "zip"}, "one of folder, webdataset, jsonl"),
    ({"delay": "x"}, "delay='x'; write a number"),
    ({"fps": "1"}, "image_text has no option 'fps'"),
  ],
)
def test_options_are_checked(tmp_path, options, message):
  as_folder(tmp_path)
  with pytest.raises(errors.UserError, match=message):
    streamed.read("image_text", tmp_path, **options)
