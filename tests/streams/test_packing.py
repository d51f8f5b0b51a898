"""Documents fill what conversations leave of their sequences."""

import dataclasses

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers.frames import CONFIG, ByteTokenizer, recording
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import packing
from tml_jax.streams.frame import Control, Frame, Kind
from tml_jax.streams.packing import Text

WIDE = dataclasses.replace(
  CONFIG, seq_len=256, max_audio=200, max_targets=100, document_weight=0.5
)
DOCUMENT, END = (
  frame_lib.token_id(each, config=CONFIG)
  for each in (Control.DOCUMENT, Control.END)
)
texts = st.lists(
  st.lists(st.integers(0, 299), max_size=400).map(
    lambda tokens: Text.of(tokens, config=CONFIG)
  ),
  max_size=5,
)


def used_of(sequence, *, config):
  return sequence.targets.positions < config.seq_len


@pytest.mark.parametrize("config", [CONFIG, WIDE], ids=["small", "wide"])
@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.lists(recording(), max_size=4), texts, st.randoms())
def test_every_token_is_a_target_once_and_nothing_else_changes(
  config, recordings, documents, random
):
  items = [*recordings, *documents]
  random.shuffle(items)
  numbers = list(range(len(items)))
  sequences = packing.pack(items, config=config, sources=numbers)
  shapes = jax.tree.map(np.shape, packing.empty_sequence(config))
  goes_on = {}  # target by the token before it, of each document
  for sequence in sequences:
    assert jax.tree.map(np.shape, sequence) == shapes
    targets, used = sequence.targets, used_of(sequence, config=config)
    segments = sequence.packed.segment_ids
    positions, tokens = targets.positions[used], targets.tokens[used]
    np.testing.assert_array_equal(
      sequence.packed.inputs.tokens[positions + 1], tokens
    )
    np.testing.assert_array_equal(segments[positions], segments[positions + 1])
    assert (segments[positions] > 0).all()
    assert len({*positions.tolist()}) == len(positions)
    is_text = targets.kinds[used] == Kind.TEXT
    assert (targets.weights[used][is_text] == config.document_weight).all()
    assert (targets.weights[~used] == 0).all()
    for number in {*targets.sources[used][is_text].tolist()}:
      of_it = is_text & (targets.sources[used] == number)
      for segment in {*segments[positions[of_it]].tolist()}:
        here = tokens[of_it & (segments[positions] == segment)]
        goes_on.setdefault(number, []).append(here.tolist())
    # Every segment begins at 0.
    for segment in range(1, segments.max() + 1):
      span = sequence.packed.positions[segments == segment]
      np.testing.assert_array_equal(span, np.arange(len(span)))
  for number, item in zip(numbers, items, strict=True):
    if isinstance(item, Text):
      want = item.tokens[1:].tolist()
      assert sorted(sum(goes_on[number], [])) == sorted(want)
      assert in_some_order(goes_on[number], want)
      lengths = [len(piece) for piece in goes_on[number]]
      least = min(32, (min(config.seq_len - 1, config.max_targets)) // 2)
      assert min(lengths) >= min(least, len(want))
  check_recordings(
    [each for each in items if not isinstance(each, Text)],
    sequences,
    config=config,
  )


def in_some_order(pieces, want):
  """Whether pieces, one after the other, are the whole."""
  if not pieces:
    return not want
  return any(
    want[: len(piece)] == piece
    and in_some_order(pieces[:i] + pieces[i + 1 :], want[len(piece) :])
    for i, piece in enumerate(pieces)
  )


def check_recordings(recordings, sequences, *, config):
  """They lie where they would lie without documents, bit for bit."""
  alone = packing.pack(recordings, config=config)
  mixed = [
    s
    for s in sequences
    if (s.targets.kinds[used_of(s, config=config)] != Kind.TEXT).any()
  ]
  assert len(alone) == len(mixed)
  for one, other in zip(alone, mixed, strict=True):
    length = int((one.packed.segment_ids > 0).sum())
    count = int(used_of(one, config=config).sum())
    for name in ("segment_ids", "positions"):
      np.testing.assert_array_equal(
        getattr(one.packed, name)[:length],
        getattr(other.packed, name)[:length],
      )
    for a, b in zip(
      one.packed.inputs[:2], other.packed.inputs[:2], strict=True
    ):
      np.testing.assert_array_equal(a[:length], b[:length])
    jax.tree.map(
      np.testing.assert_array_equal,
      one.packed.inputs[2:],
      other.packed.inputs[2:],
    )
    for a, b in zip(one.targets[:4], other.targets[:4], strict=True):
      np.testing.assert_array_equal(a[:count], b[:count])
    jax.tree.map(
      np.testing.assert_array_equal, one.speech[:3], other.speech[:3]
    )


def quiet(count):
  return [
    Frame(k, None, None, frame_lib.no_patches(), ()) for k in range(count)
  ]


def test_a_document_goes_on_in_the_next_place_and_comes_back():
  text = Text.of(range(200), config=WIDE)
  # 50 windows of 2 positions and a target: 156 and 50 are left.
  (second, first, third) = packing.pack(
    [text, quiet(50)], config=WIDE, sources=[4, 7]
  )
  frames, piece = packing.unpack(first, config=WIDE)
  assert len(frames) == 50 and piece.tokens.tolist() == [DOCUMENT, *range(50)]
  assert first.targets.sources.tolist() == [7] * 50 + [4] * 50
  assert first.packed.segment_ids[[0, 100, 150, 151]].tolist() == [1, 2, 2, 0]
  (piece,) = packing.unpack(second, config=WIDE)
  assert piece.tokens.tolist() == [*range(49, 150)]
  assert second.packed.positions[:101].tolist() == [*range(101)]
  assert second.packed.inputs.windows[:101].tolist() == [*range(101)]
  (piece,) = packing.unpack(third, config=WIDE)
  assert piece.tokens.tolist() == [*range(149, 200), END]


def test_no_piece_is_short():
  # 100 fit a sequence: 110 are not cut into 100 and 10.
  text = Text.of([1] * 109, config=WIDE)
  first, second = packing.pack([text], config=WIDE)
  counts = [int(used_of(s, config=WIDE).sum()) for s in (first, second)]
  assert counts == [78, 32]
  # A short document goes whole, a long one leaves so little room alone.
  short = Text.of([2] * 20, config=WIDE)
  sequences = packing.pack([quiet(79), text, short], config=WIDE)
  (mixed,) = [s for s in sequences if s.targets.kinds[0] == Kind.SILENCE]
  (frames, piece) = packing.unpack(mixed, config=WIDE)
  assert len(frames) == 79 and piece.tokens[-1] == END


def test_sequences_of_text_come_between_the_others():
  items = [quiet(90) for _ in range(4)]
  items += [Text.of([3] * 99, config=WIDE) for _ in range(4)]
  kinds = [int(s.targets.kinds[0]) for s in packing.pack(items, config=WIDE)]
  assert kinds == [Kind.SILENCE, Kind.TEXT] * 4


def test_an_empty_sequence_holds_nothing():
  assert packing.unpack(packing.empty_sequence(CONFIG), config=CONFIG) == []


def test_bytes_of_a_text_come_back():
  text = "ünï ✓\r\n\ttext"
  tokens = ByteTokenizer().encode(text)
  (sequence,) = packing.pack([Text.of(tokens, config=CONFIG)], config=CONFIG)
  (piece,) = packing.unpack(sequence, config=CONFIG)
  assert ByteTokenizer().decode(piece.tokens[1:-1].tolist()) == text
