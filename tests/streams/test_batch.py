"""One layout of a frame, in a packed sequence and in the chunk of a tick."""

import dataclasses
import itertools

import hypothesis
import numpy as np
from hypothesis import strategies as st

from tests.helpers import small_session
from tests.helpers.frames import CONFIG, recording
from tml_jax.live import tick
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import packing


def slots(inputs, *, start, count):
  """What lies at `count` positions of one row, slot by slot."""
  found = [each[start : start + count] for each in inputs[:2]]
  for positions, *values in (
    (inputs.audio_positions, inputs.audio_dmel, inputs.audio_streams),
    (inputs.patch_positions, inputs.patches),
  ):
    here = (positions >= start) & (positions < start + count)
    found += [positions[here] - start, *(each[here] for each in values)]
  return found


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(recording(), min_size=1, max_size=4))
def test_packer_and_tick_place_a_frame_alike(recordings):
  small = small_session.config()
  rows = (
    CONFIG.text_vocab_size + small.model.vocab_size - small_session.TEXT_ROWS
  )
  config = dataclasses.replace(
    small,
    streams=CONFIG,
    model=dataclasses.replace(small.model, vocab_size=rows),
  )
  for sequence in packing.pack(recordings, config=CONFIG):
    start = 0
    for frame in itertools.chain(*packing.unpack(sequence, config=CONFIG)):
      layout = frame_lib.layout(frame, config=CONFIG)
      count = layout.num_inputs
      chunk = tick.empty_chunk(
        config, batch_size=3, size=32, audio=8, patches=2
      )
      tick.write_inputs(chunk, frame, row=1, config=config)
      assert chunk.lengths.tolist() == [0, count, 0]
      row = batch_lib.Inputs(*(array[1] for array in chunk.inputs))
      for packed, live in zip(
        slots(sequence.packed.inputs, start=start, count=count),
        slots(row, start=0, count=count),
        strict=True,
      ):
        np.testing.assert_array_equal(packed, live)
      assert (row.tokens[count:] == CONFIG.text_vocab_size).all()
      for positions in (row.audio_positions, row.patch_positions):
        assert (positions[positions >= count] == 32).all()
      start += len(layout.tokens)
    assert start == (sequence.packed.segment_ids > 0).sum()


def test_stack_fills_up_what_is_short():
  like = packing.empty_sequence(CONFIG)
  short = like._replace(targets=like.targets._replace(tokens=np.arange(1, 4)))
  stacked = batch_lib.stack([short, like], like=like)
  assert stacked.targets.tokens.shape == (2, CONFIG.max_targets)
  assert stacked.targets.tokens[0, :4].tolist() == [1, 2, 3, 0]
  assert (stacked.packed.inputs.audio_positions == CONFIG.seq_len).all()
  assert stacked.packed.inputs.patches.dtype == np.uint8
