"""What is evaluated of prepared data, and what is refused."""

import dataclasses

import numpy as np
import pytest

from tml_jax import errors
from tml_jax.data import corpus
from tml_jax.data.splits import Split
from tml_jax.evals import excerpt, kept, suites, sums
from tml_jax.streams import annotation, clock
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  Word,
)


def suite(config, data_dir, **fields):
  arguments = dict(data_dir=str(data_dir), split=Split.HELDOUT, count=3)
  return suites.Interactivity(config, **(arguments | fields))


def mixed(config, *mixture):
  data = dataclasses.replace(config.data, mixture=mixture)
  return dataclasses.replace(config, data=data)


def test_items_of_the_mixture_or_of_families(config, data_dir):
  both = mixed(config, "reply:1.0", "draw:0.1")
  for split in (Split.HELDOUT, Split.FRESH):
    items = suite(both, data_dir, split=split).items()
    assert [(item.family, item.seed) for item in items] == [
      (family, i) for family in ("reply", "draw") for i in range(3)
    ]
    loaded = [item.load() for item in items]
    assert len({timeline.id for timeline in loaded}) == 6
    assert {timeline.id.split("/")[1] for timeline in loaded} == {str(split)}
    assert all(annotation.of(timeline) for timeline in loaded)
  named = suite(config, data_dir, families=("tool_call",), count=2)
  assert [item.family for item in named.items()] == ["tool_call"] * 2


def test_inside_training_there_are_few(config, data_dir):
  assert len(suites.quick(config, data_dir=str(data_dir)).items()) == 16
  many = mixed(config, "reply:1", "draw:1", "tool_call:1")
  assert len(suites.quick(many, data_dir=str(data_dir)).items()) == 15


def _call(index: int, *, seconds: float) -> Timeline:
  """A recorded conversation, without annotations."""
  samples = np.zeros(round(seconds * clock.SAMPLE_RATE), np.float32)
  words = (Word(0.2, 0.6, "hello"), Word(0.8, seconds, "well"))
  tracks = tuple(
    Track(role, samples, words, (Span(at, seconds),), str(role))
    for role, at in ((Role.USER, 0.2), (Role.AGENT, 1.0))
  )
  return Timeline(
    id=f"call-{index}",
    duration=seconds,
    tracks=tracks,
    events=(Event(seconds - 0.1, EventKind.USER_TEXT, "bye"),),
    muted=(Span(0.1, seconds),),
  )


def test_recorded_conversations_are_compared_without_annotations(
  config, data_dir, tmp_path
):
  for path in data_dir.iterdir():
    (tmp_path / path.name).symlink_to(path)
  calls = [_call(i, seconds=1.5 if i else 130.0) for i in range(60)]
  corpus.write(calls, path=tmp_path / "calls")
  both = suite(mixed(config, "calls:1", "reply:1"), tmp_path, count=100)
  assert both.corpora == ("calls",)
  items = [item for item in both.items() if item.family == "calls"]
  loaded = [item.load() for item in items]
  assert all(both.asks(timeline) for timeline in loaded)
  held = {timeline.id for timeline in loaded}
  assert 0 < len(held) < 20  # held out by their ids, a share of all
  suites.check_annotations(items)
  # Also one that the mixture of the training does not name.
  named = suite(config, tmp_path, families=("calls",))
  assert {item.family for item in named.items()} == {"calls"}
  # Voices are for scenarios: calls alone are evaluated without any.
  calls_alone = mixed(config, "calls:1")
  corpus.write(calls, path=tmp_path / "alone" / "calls")
  assert suite(calls_alone, tmp_path / "alone", count=1).items()
  # Without the recorded agent nothing says what to compare with.
  one = loaded[0]
  assert not both.asks(dataclasses.replace(one, tracks=one.tracks[:1]))


def test_calls_that_were_mended_are_others(config, data_dir, tmp_path):
  """Under the same ids; neither logs nor predictions of old sound are used."""
  calls = [_call(i, seconds=1.5) for i in range(60)]

  def of(name, calls):
    corpus.write(calls, path=tmp_path / name / "calls")
    (item,) = suite(mixed(config, "calls:1"), tmp_path / name, count=1).items()
    script = item.load()
    return script.id, kept.of_item(item, script=script)

  def mended(**fields):
    return [
      dataclasses.replace(
        call,
        tracks=(dataclasses.replace(call.tracks[0], **fields), call.tracks[1]),
      )
      for call in calls
    ]

  louder = np.full(len(calls[0].tracks[0].audio), 0.1, np.float32)
  name, first = of("first", calls)
  assert of("again", calls) == (name, first)
  folder = kept.Kept(tmp_path, provenance={"step": 1})
  folder.write_content(sums.nothing(), family="calls", of={name: first})
  assert folder.find_content("calls", {name: first}) is not None
  for k, fields in enumerate(
    ({"audio": louder}, {"spans": (Span(0.3, 1.5),)}, {"words": ()})
  ):
    other, found = of(str(k), mended(**fields))
    assert other == name and found != first
    assert folder.find_content("calls", {name: found}) is None


def test_of_a_long_recording_the_beginning_is_held():
  long, short = _call(0, seconds=130.0), _call(1, seconds=1.5)
  assert excerpt.beginning(short) is short
  cut = excerpt.beginning(long)
  timeline_lib.validate(cut)
  assert cut.duration == 120 and not cut.events
  assert cut.muted == (Span(0.1, 120.0),)
  for track in cut.tracks:
    assert len(track.audio) == 120 * clock.SAMPLE_RATE
    assert track.words[-1].end == track.spans[-1].end == 120


def test_what_is_refused(config, data_dir):
  with pytest.raises(errors.UserError, match="--families=repply: .*'reply'"):
    suite(config, data_dir, families=("repply",))
  with pytest.raises(errors.UserError, match="=draw,reply,draw .*'draw' twice"):
    suite(config, data_dir, families=("draw", "reply", "draw"))
  with pytest.raises(errors.UserError, match="--suite=fdp: no such suite"):
    suites.check_name("fdp")
  suites.check_name("interactivity")
  plain = suite(mixed(config, "procedural-low:1.0"), data_dir)
  with pytest.raises(errors.UserError, match="no item of procedural-low says"):
    suites.check_annotations(plain.items())
  both = suite(mixed(config, "procedural-low:1", "reply:1"), data_dir)
  suites.check_annotations(both.items())
