"""What trainers and their tools read: stereo, Moshi, Lhotse, tables, tar files.

For: `forms.LAYOUTS`. Not for: collections of recordings (`collected`). Start at
any of them; Lhotse, datasets and WebDataset write their own forms.
"""

import pathlib
import tempfile
from typing import Any

import datasets
import lhotse
import webdataset
from lhotse.supervision import AlignmentItem

from benchmarks import planted
from benchmarks.layouts import forms
from tml_jax.streams.timeline import Role, Timeline


@forms.layout("stereo", user="left")
def _stereo(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    forms.write(folder / f"{name}.wav", *forms.both(item))
    forms.put_json(
      folder / f"{name}.json", {"words": forms.words(item, key="role")}
    )


@forms.layout("moshi_finetune", said=(Role.AGENT,))
def _moshi_finetune(folder: pathlib.Path, items: list[Timeline]) -> None:
  rows = []
  for name, item in forms.named(items):
    path = folder / "data_stereo" / f"{name}.wav"
    forms.write(path, *reversed(forms.both(item)), rate=24_000)
    words = [
      [word.text, [word.start, word.end], "SPEAKER_MAIN"]
      for word in forms.track(item, Role.AGENT).words
    ]
    forms.put_json(path.with_suffix(".json"), {"alignments": words})
    rows.append({"path": f"data_stereo/{path.name}", "duration": item.duration})
  forms.put_lines(folder / "data.jsonl", rows)


@forms.layout("nu_dialogue", user="A")
def _nu_dialogue(folder: pathlib.Path, items: list[Timeline]) -> None:
  for name, item in forms.named(items):
    forms.write(folder / f"{name}.wav", *forms.both(item), rate=24_000)
    words = [
      row | {"speaker": forms.SIDES[row["speaker"]]}
      for row in forms.words(item, key="speaker", text="word")
    ]
    forms.put_json(folder / f"{name}.json", words)


@forms.layout("lhotse_cuts")
def _lhotse_cuts(folder: pathlib.Path, items: list[Timeline]) -> None:
  _cuts(folder, items).to_file(folder / "cuts.jsonl.gz")


@forms.layout("lhotse_shar")
def _lhotse_shar(folder: pathlib.Path, items: list[Timeline]) -> None:
  with tempfile.TemporaryDirectory() as raw:
    _cuts(pathlib.Path(raw), items).to_shar(
      folder,
      fields={"recording": "flac", "target_audio": "flac"},
      shard_size=2,
    )


def _cuts(folder: pathlib.Path, items: list[Timeline]) -> lhotse.CutSet:
  """As NeMo has them: the user's recording, and the agent's as its target."""
  cuts = []
  for name, item in forms.named(items):
    recordings = {}
    for role in forms.BOTH:
      path = folder / "wav" / f"{name}.{role}.wav"
      forms.write(path, planted.sound(item, role))
      recordings[role] = lhotse.Recording.from_file(
        path, recording_id=f"{name}-{role}"
      )
    cut = lhotse.MonoCut(
      *(name, 0.0, item.duration, 0),
      recording=recordings[Role.USER],
      supervisions=[
        lhotse.SupervisionSegment(
          id=f"{name}-{number}",
          recording_id=recordings[Role.USER].id,
          start=words[0].start,
          duration=words[-1].end - words[0].start,
          text=forms.text(words),
          speaker=str(role),
          alignment={
            "word": [
              AlignmentItem(w.text, w.start, w.end - w.start) for w in words
            ]
          },
        )
        for number, (role, words) in enumerate(forms.turns(item))
      ],
    )
    cut.target_audio = recordings[Role.AGENT]
    cuts.append(cut)
  return lhotse.CutSet.from_cuts(cuts)


@forms.layout(
  "hf_dataset",
  rows="conversation",
  user_audio="user_audio",
  agent_audio="agent_audio",
  words="words",
)
def _hf_dataset(folder: pathlib.Path, items: list[Timeline]) -> None:
  columns: dict[str, list[Any]] = {
    f"{role}_audio": [
      {"bytes": forms.flac(planted.sound(item, role)), "path": f"{name}.flac"}
      for name, item in forms.named(items)
    ]
    for role in forms.BOTH
  }
  columns["words"] = [
    forms.words(item, key="speaker", text="word") for item in items
  ]
  data = datasets.Dataset.from_dict(columns)
  for role in forms.BOTH:
    data = data.cast_column(f"{role}_audio", datasets.Audio(decode=False))
  data.to_parquet(folder / "train-00000-of-00001.parquet")


@forms.layout("webdataset", user="left")
def _webdataset(folder: pathlib.Path, items: list[Timeline]) -> None:
  with webdataset.ShardWriter(
    f"{folder}/calls-%06d.tar", maxcount=2, verbose=0
  ) as sink:
    for name, item in forms.named(items):
      sink.write(
        {
          "__key__": name,
          "flac": forms.flac(*forms.both(item)),
          "json": {"words": forms.words(item, key="role")},
        }
      )
