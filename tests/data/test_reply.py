import pickle

import msgpack
import numpy as np
import pytest

from tests.helpers import small_data
from tml_jax import errors
from tml_jax.data import corpus, mixture, splits
from tml_jax.data.corpus import coding
from tml_jax.data.scenarios import family, reply
from tml_jax.data.splits import Split
from tml_jax.data.voices import phrases
from tml_jax.streams import annotation, clock, timeline
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role

SHARE = 0.1
COUNT = 150


def scenario(data_dir, *, split=Split.TRAIN, seed=0, voices=small_data.VOICES):
  return reply.ReplyScenario(
    {v: corpus.RecordSource(data_dir / v.replace(":", "-")) for v in voices},
    split=split,
    seed=seed,
    heldout_share=SHARE,
    length=1000,
    video_size=family.VideoSize(120, 160),
  )


@pytest.fixture(scope="module")
def items(data_dir):
  replies = scenario(data_dir)
  return [replies[i] for i in range(COUNT)]


def exchanges(items):
  """Every item with each of its annotations: one an exchange."""
  return [(item, a) for item in items for a in annotation.of(item)]


def words_of(item, a):
  """What the user says in an exchange: the instruction, the prompt."""
  words = [
    w for w in item.track(Role.USER).words if a.start - 1e-6 <= w.start < a.end
  ]
  count = 2 if a.kind is Kind.TIMED else 0
  return words[:count], words[count:]


def test_the_rule_of_timing(items):
  """Measured on the audio, not on what the scenario says about itself."""
  seconds = {"one": 1, "two": 2, "three": 3}
  for item, a in exchanges(items):
    instruction, _ = words_of(item, a)
    delay = 5 * seconds[instruction[1].text] if instruction else 1
    spoken = [s for s in item.track(Role.USER).spans if s.end <= a.end + 1e-6]
    last_sample = round(spoken[-1].end * clock.SAMPLE_RATE) - 1
    onset = last_sample // clock.TICKS.samples + 1 + delay
    assert a.due == pytest.approx(onset * clock.TICKS.seconds)
    agent = item.track(Role.AGENT).audio
    start = onset * clock.TICKS.samples
    assert not agent[round(a.start * clock.SAMPLE_RATE) : start].any()
    assert np.abs(agent[start : start + clock.TICKS.samples]).max() > 0.01
    # It is over before the user speaks again.
    stop = round(a.until * clock.SAMPLE_RATE)
    assert not agent[stop - clock.TICKS.samples : stop].any()


def test_an_instruction_comes_before_the_prompt(items):
  found = [
    words_of(item, a) for item, a in exchanges(items) if a.kind is Kind.TIMED
  ]
  assert found
  for instruction, prompt in found:
    assert instruction[0].text == "wait"
    assert 0.4 <= prompt[0].start - instruction[1].end <= 1.1


def test_the_agent_says_the_prompt_back(items):
  for item in items:
    found = annotation.of(item)
    for a, prompt in zip(found, item.metadata["asked"], strict=True):
      said = [
        w.text
        for w in item.track(Role.AGENT).words
        if a.due - 1e-6 <= w.start < a.until
      ]
      asked = [w.text for w in words_of(item, a)[1]]
      assert " ".join(said) == a.text == phrases.PHRASES[prompt]
      assert said == asked
    assert item.track(Role.USER).voice != item.track(Role.AGENT).voice


def test_timelines_are_valid(items):
  for item in items:
    timeline.validate(item)
    assert 8 <= item.duration <= 20
    assert len(annotation.of(item)) in (2, 3)
    assert msgpack.unpackb(msgpack.packb(item.metadata)) == (item.metadata)
    for track in item.tracks:
      assert len(track.audio) == round(item.duration * clock.SAMPLE_RATE)
      assert np.abs(track.audio).max() <= 1


def test_noise_is_on_the_user_only(items):
  kinds = {item.metadata["noise"] for item in items}
  assert kinds == {"none", "white", "pink", "brown", "babble"}
  for item in items:
    for track in item.tracks:
      outside = np.ones(len(track.audio), bool)
      for span in track.spans:
        start, stop = round(span.start * 16_000), round(span.end * 16_000)
        outside[start:stop] = False
      level = 10 * np.log10(np.mean(track.audio[outside] ** 2) + 1e-12)
      if track.role == Role.USER and item.metadata["noise"] != "none":
        assert -59 < level < -36  # -23 - 35 .. -23 - 15, and a margin
      else:
        assert level < -100


def test_shares(items):
  found = exchanges(items)
  instructed = np.mean([a.kind is Kind.TIMED for _, a in found])
  assert 0.42 < instructed < 0.58
  noisy = np.mean([item.metadata["noise"] != "none" for item in items])
  assert 0.38 < noisy < 0.62
  video = np.mean([len(item.video) > 0 for item in items])
  assert 0.04 < video < 0.18
  pairs = {tuple(track.voice for track in item.tracks) for item in items}
  assert len(pairs) == 2


def test_video_is_a_square_that_moves(items):
  with_video = [item for item in items if item.video]
  for item in with_video:
    images = [frame.image for frame in item.video]
    assert {image.shape for image in images} == {(120, 160, 3)}
    colours = {len(np.unique(i.reshape(-1, 3), axis=0)) for i in images}
    assert colours == {2}
    assert all(0 <= f.time < item.duration for f in item.video)
  assert any((i.video[0].image != i.video[1].image).any() for i in with_video)


def test_items_are_a_function_of_their_index(data_dir, items):
  again = pickle.loads(pickle.dumps(scenario(data_dir)))
  for i in (70, 3, 3):
    assert coding.encode(again[i]) == coding.encode(items[i])
  other = scenario(data_dir, seed=1)[3]
  assert coding.encode(other) != coding.encode(items[3])
  with pytest.raises(IndexError):
    again[1000]


def test_splits_never_share_an_utterance_or_a_seed(data_dir, items):
  heldout = scenario(data_dir, split=Split.HELDOUT)
  fresh = scenario(data_dir, split=Split.FRESH)

  def prompts(items):
    return {prompt for item in items for prompt in item.metadata["asked"]}

  trained = prompts(items)
  tested = prompts(heldout[i] for i in range(60))
  assert trained and tested and not trained & tested
  assert not (trained | tested) & reply.DELAY_WORDS
  assert all(splits.is_heldout(p, share=SHARE) for p in tested)
  assert not any(splits.is_heldout(p, share=SHARE) for p in trained)
  renewed = [fresh[i] for i in range(60)]
  assert not any(splits.is_heldout(p, share=SHARE) for p in prompts(renewed))
  assert all(
    annotation.of(a) != annotation.of(b)
    for a, b in zip(items, renewed, strict=False)
  )
  keys = {
    tuple(
      splits.seed_sequence(
        family="reply", split=split, seed=seed, index=i
      ).generate_state(4)
    )
    for split in Split
    for seed in range(3)
    for i in range(300)
  }
  assert len(keys) == len(Split) * 3 * 300


def test_heldout_share_is_about_what_was_asked():
  held = [splits.is_heldout(f"prompt/{i}", share=0.1) for i in range(5000)]
  assert 0.08 < np.mean(held) < 0.12


def test_one_voice_is_not_enough(data_dir):
  with pytest.raises(errors.UserError, match="no prompt that two voices"):
    scenario(data_dir, voices=small_data.VOICES[:1])


class Mute:
  """A voice of one's own: none of the words that a family asks with."""

  def __init__(self, recordings):
    self._kept = [
      r
      for r in (recordings[i] for i in range(len(recordings)))
      if r.metadata["prompt"] not in reply.DELAY_WORDS
    ]

  def __len__(self):
    return len(self._kept)

  def __getitem__(self, index):
    return self._kept[index]


def test_a_voice_without_delay_words_takes_part_and_asks_for_none(data_dir):
  voices = {
    "mute": Mute(corpus.RecordSource(data_dir / "procedural-low")),
    "procedural:high": corpus.RecordSource(data_dir / "procedural-high"),
  }
  items = reply.ReplyScenario(
    voices,
    split=Split.TRAIN,
    seed=0,
    heldout_share=SHARE,
    length=40,
    video_size=family.VideoSize(40, 40),
  )
  kinds = {"mute": set(), "procedural:high": set()}
  for i in range(40):
    item = items[i]
    kinds[item.track(Role.USER).voice] |= {a.kind for a in annotation.of(item)}
  assert kinds == {
    "mute": {Kind.TURN},
    "procedural:high": {Kind.TURN, Kind.TIMED},
  }


def test_evaluation_gets_both_test_splits(config, data_dir):
  for split in (Split.HELDOUT, Split.FRESH):
    items = mixture.build(config, data_dir=data_dir, split=split)
    found = [items[i] for i in range(5)]
    assert len({item.id for item in found}) == 5
    assert {item.id.split("/")[1] for item in found} == {str(split)}
