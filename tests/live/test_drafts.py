"""Drafted tokens: what is said stays the same, in fewer steps."""

import itertools

import numpy as np
import pytest

from benchmarks import session
from tests.helpers import small_session
from tml_jax.config import Config
from tml_jax.config import text as config_text

_WINDOWS = 24


def _config(drafts: int, *, temperature: float = 0.0) -> Config:
  cfg = small_session.config(temperature=temperature, horizon=96, sinks=8)
  return config_text.with_fields(
    cfg,
    {
      "model.num_mtp_layers": 2,
      "model.mtp_attention_pattern": "LG",
      "sample.draft_tokens": drafts,
    },
  )


def _variables(*, foresees: bool):
  variables = small_session.variables(_config(0))
  return session.foreseeing(variables) if foresees else variables


def _talk(cfg: Config, *, variables):
  """Frames by seed of those who join and leave, output tokens, and drafts.

  Returns:
    frames, [windows, slots] tokens of each, and of these those drafted.
  """
  pool = small_session.pool(cfg, slots=4, variables=variables)
  users, frames, counts, drafted = {}, {}, [], []
  for window in range(_WINDOWS):
    if window in (0, 5):
      for seed in range(2):
        live = pool.join(seed=10 * window + seed)
        users[live] = small_session.User(cfg, seed=live.seed)
    if window == 15:
      gone = list(users)[1]
      pool.leave(gone)
      del users[gone]
    ticked = pool.tick(
      {live: user.speak_to(live) for live, user in users.items()}
    )
    for live, frame in ticked.frames.items():
      frames.setdefault(live.seed, []).append(
        (frame.say, frame.text_out, frame.speak)
      )
    counts.append(ticked.counts)
    drafted.append(ticked.drafted)
  return frames, np.array(counts), np.array(drafted)


@pytest.mark.parametrize(
  "foresees, temperature, drafts",
  [
    (True, 0.0, 1),
    *(
      pytest.param(foresees, temperature, drafts, marks=pytest.mark.slow)
      for foresees, temperature, drafts in itertools.product(
        (True, False), (0.0, 1.0), (1, 2)
      )
      if (foresees, temperature, drafts) != (True, 0.0, 1)
    ),
  ],
)
def test_what_is_said_is_what_is_said_without(foresees, temperature, drafts):
  variables = _variables(foresees=foresees)
  want, counts, none = _talk(
    _config(0, temperature=temperature), variables=variables
  )
  assert not none.any() and counts.max() == 5 and counts.sum() > 100
  got, same, drafted = _talk(
    _config(drafts, temperature=temperature), variables=variables
  )
  assert got == want
  np.testing.assert_array_equal(same, counts)
  if foresees and drafts == 1:
    # Of every two tokens the second is foreseen.
    np.testing.assert_array_equal(drafted, counts // 2)
  elif foresees:
    assert (drafted >= counts // 2).all()
