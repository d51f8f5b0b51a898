"""Collections of recordings: Fisher, AMI, CANDOR, Seamless and others.

For: `forms.LAYOUTS`. Not for: logs of models (`logs`). Start at any of them.
Rates and codecs are those of the collections; pictures are smaller.
"""

import csv
import io
import pathlib
from typing import Any
from xml.sax import saxutils

from benchmarks import planted
from benchmarks.layouts import forms, pictures
from tml_jax.streams.timeline import Role, Timeline

_NITE = 'xmlns:nite="http://nite.sourceforge.net/"'
_SPHERE: dict[str, Any] = {"rate": 8_000, "format": "NIST", "subtype": "ULAW"}
_MP3_64 = (320 - 64) / (320 - 32)  # libsndfile's for 64 kbit/s of 32 to 320


@forms.layout("behavior_sd", user="0")
def _behavior_sd(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    forms.write(folder / f"{name}.flac", *forms.both(item), rate=22_050)
    turns = [
      {
        "speaker_idx": forms.BOTH.index(role),
        "start_time": words[0].start,
        "end_time": words[-1].end,
        "tts_text": forms.text(words),
        "backchannels": [],
      }
      for role, words in forms.turns(item)
    ]
    forms.put_json(folder / f"{name}.json", {"utterances": turns})


@forms.layout("fisher", user="A")
def _fisher(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    stem = f"fe_03_0{name}"
    forms.write(folder / "audio" / f"{stem}.sph", *forms.both(item), **_SPHERE)
    lines = [
      f"{words[0].start:.2f} {words[-1].end:.2f} {forms.SIDES[role]}:"
      f" {forms.text(words)}"
      for role, words in forms.turns(item)
    ]
    forms.put(folder / "trans" / f"{stem}.txt", f"# {stem}.sph\n\n", *lines)


@forms.layout("switchboard", user="A")
def _switchboard(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    forms.write(
      folder / "swb1" / f"sw0{name}.sph", *forms.both(item), **_SPHERE
    )
    for role, side in forms.SIDES.items():
      stem = f"sw{name}{side}-ms98-a"
      track = forms.track(item, role)
      for end, found in (
        ("trans", forms.utterances(track)),
        ("word", [(word,) for word in track.words]),
      ):
        lines = [
          f"{stem}-{number:04d} {words[0].start:.6f} {words[-1].end:.6f}"
          f" {forms.text(words)}"
          for number, words in enumerate(found, start=1)
        ]
        forms.put(folder / "trans" / name / f"{stem}-{end}.text", *lines)


@forms.layout("ami", user="A", agent="B")
def _ami(folder: pathlib.Path, items: list[Timeline]) -> None:
  """C, who has no words here, says what the user says in the next call."""
  meetings = []
  for number, (name, item) in enumerate(forms.named(items)):
    other = planted.sound(items[(number + 1) % len(items)], Role.USER)
    for channel, sound in enumerate((*forms.both(item), other)):
      path = folder / "amicorpus" / name / "audio"
      forms.write(path / f"{name}.Headset-{channel}.wav", sound)
    speakers = "".join(
      f'<speaker nxt_agent="{letter}" channel="{channel}"/>'
      for channel, letter in enumerate("ABC")
    )
    meetings.append(f'<meeting observation="{name}">{speakers}</meeting>')
    for role, side in forms.SIDES.items():
      track = forms.track(item, role)
      words = [
        f'<w starttime="{word.start:.3f}" endtime="{word.end:.3f}">'
        f"{saxutils.escape(word.text)}</w>"
        for word in track.words
      ]
      segments = [
        f'<segment transcriber_start="{said[0].start:.3f}"'
        f' transcriber_end="{said[-1].end:.3f}"/>'
        for said in forms.utterances(track)
      ]
      _xml(folder / "words" / f"{name}.{side}.words.xml", words)
      _xml(folder / "segments" / f"{name}.{side}.segments.xml", segments)
  _xml(folder / "corpusResources" / "meetings.xml", meetings)


@forms.layout("candor", user="L")
def _candor(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    processed = folder / name / "processed"
    forms.write(
      processed / f"{name}.mp3",
      *forms.both(item),
      rate=48_000,
      format="MP3",
      bitrate_mode="CONSTANT",
      compression_level=_MP3_64,
    )
    people = {role: f"{name}{side}" for role, side in forms.SIDES.items()}
    channels = dict(zip("LR", people.values(), strict=True))
    forms.put_json(processed / "channel_map.json", channels)
    for person in people.values():
      pictures.clip(processed / f"{person}.mp4", seconds=item.duration)
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["turn_id", "speaker", "start", "stop", "utterance"])
    for turn, (role, words) in enumerate(forms.turns(item)):
      times = words[0].start, words[-1].end
      writer.writerow([turn, people[role], *times, forms.text(words)])
    texts = folder / name / "transcription"
    forms.put(texts / "transcript_audiophile.csv", table.getvalue())


@forms.layout("seamless", user="first")
def _seamless(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    for number, role in enumerate(forms.BOTH, start=1):
      track = forms.track(item, role)
      stem = folder / f"V00_S0000_I0000{name}_P000{number}"
      forms.write(stem.with_suffix(".wav"), track.audio, rate=48_000)
      pictures.clip(stem.with_suffix(".mp4"), seconds=item.duration)
      said = [
        {
          "start": words[0].start,
          "end": words[-1].end,
          "transcript": forms.text(words),
          "words": [
            {"word": w.text, "start": w.start, "end": w.end, "score": 0.9}
            for w in words
          ],
        }
        for words in forms.utterances(track)
      ]
      vad = [{"start": s.start, "end": s.end} for s in track.spans]
      forms.put_json(
        stem.with_suffix(".json"),
        {"id": stem.name, "metadata:transcript": said, "metadata:vad": vad},
      )


@forms.layout("duplexchat", said=(), user="A")
def _duplexchat(folder: pathlib.Path, items: list[Timeline]) -> None:
  rows = []
  for number, (name, item) in enumerate(forms.named(items)):
    forms.write(folder / f"{name}.flac", *forms.both(item))
    rows.append(
      {
        "language": "en",
        "dialogue_idx": number,
        "episode_start_sec": 0.0,
        "episode_end_sec": item.duration,
        "duration_sec": item.duration,
        "speakers": ["SPEAKER_00", "SPEAKER_01"],
        "episode_duration_sec": item.duration,
        "audio_path": f"{name}.flac",
      }
    )
  forms.put_lines(folder / "manifest.jsonl", rows)


def _xml(path: pathlib.Path, elements: list[str]) -> None:
  forms.put(
    path,
    '<?xml version="1.0" encoding="UTF-8"?>',
    *(f"<nite:root {_NITE}>", *elements, "</nite:root>"),
  )
