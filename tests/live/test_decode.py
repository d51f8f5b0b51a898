"""Every output that the masks allow is a frame; draws follow the config."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import small_session
from tml_jax.live import decode
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Control, State

_CONFIG = small_session.config(temperature=1.0, top_p=1.0)
_BASE = small_session.TEXT_ROWS
_VOCAB = _CONFIG.model.vocab_size


def _grammar(streams):
  return decode.Grammar.create(
    streams, vocab_size=_VOCAB, text_pieces=small_session.Letters.num_pieces
  )


def _row(control: Control) -> int:
  return frame_lib.token_id(control, config=_CONFIG.streams)


@settings(deadline=None, max_examples=200)
@given(st.integers(3, 9), st.lists(st.integers(0, 10**6), min_size=12))
def test_any_allowed_walk_is_a_frame_within_budget(budget, picks):
  streams = dataclasses.replace(_CONFIG.streams, max_text_out=budget)
  grammar = _grammar(streams)
  state, tokens = State.SAY, []
  while state < State.QUIET:
    assert len(tokens) <= streams.max_text_out
    allowed = np.asarray(
      grammar.allowed(jnp.array([state]), used_B=jnp.array([len(tokens)]))
    )[0]
    options = np.flatnonzero(allowed)
    assert len(options), f"nothing may follow {tokens}"
    # Control tokens as often as text, or walks would hardly meet them.
    pick = picks[len(tokens)] if len(tokens) < len(picks) else 0
    control = options[options >= _BASE]
    if pick % 2 and len(control):
      options = control
    token = int(options[pick // 2 % len(options)])
    tokens.append(token)
    state = State(grammar.next_state[state, token])
  outputs = frame_lib.parse_outputs(tokens, config=streams)
  assert outputs.speak == (state == State.SPEAK)
  assert len(tokens) - 1 <= streams.max_text_out


def test_a_bias_leans_towards_speech_where_it_may_begin():
  states = [State.SAY, State.BETWEEN, State.BURST, State.SAY]
  leaned = np.asarray(
    decode.lean(
      jnp.zeros((4, _VOCAB)),
      states_B=jnp.array(states),
      silent_B=jnp.array([True, True, True, False]),
      streams=_CONFIG.streams,
      bias=1.5,
    )
  )
  begins = np.zeros(_VOCAB)
  begins[:_BASE] = begins[_row(Control.SPEAK)] = 1.5
  # Not inside a message, nor where the agent is speaking.
  np.testing.assert_array_equal(
    leaned, [begins, begins, 0 * begins, 0 * begins]
  )


def test_a_message_opens_only_where_it_can_close():
  grammar = _grammar(_CONFIG.streams)
  budget = _CONFIG.streams.max_text_out
  allowed = np.asarray(
    grammar.allowed(
      jnp.array([State.SAY] * 3 + [State.BURST] * 2),
      used_B=jnp.array(
        [budget - 2, budget - 1, budget, budget - 2, budget - 1]
      ),
    )
  )
  assert allowed[:, _row(Control.SHOW)].tolist() == [1, 0, 0, 0, 0]
  assert allowed[:, 0].tolist() == [1, 1, 0, 1, 0]
  assert allowed[:, _row(Control.END)].tolist() == [0, 0, 0, 1, 1]
  assert allowed[:, _row(Control.QUIET)].tolist() == [1, 1, 1, 0, 0]
  assert not allowed[:, _row(Control.PAD)].any()
  assert not allowed[:, _row(Control.TURN)].any()


def test_text_rows_without_a_piece_are_never_emitted():
  grammar = _grammar(_CONFIG.streams)
  states = jnp.array([State.SAY, State.BURST, State.BETWEEN])
  allowed = np.asarray(grammar.allowed(states, used_B=jnp.zeros(3, int)))
  pieces = small_session.Letters.num_pieces
  assert 0 < pieces < _BASE
  assert allowed[:2, :pieces].all()
  assert not allowed[:, pieces:_BASE].any()


def _choose(logits, *, allowed=None, seed=0, **sample):
  logits = jnp.asarray(logits, jnp.float32)
  return np.asarray(
    decode.choose(
      logits,
      jnp.ones(logits.shape, bool) if allowed is None else allowed,
      jax.random.split(jax.random.key(seed), len(logits)),
      text_vocab_size=_BASE,
      config=dataclasses.replace(_CONFIG.sample, **sample),
    )
  )


def test_greedy_decides_to_speak_before_it_decides_on_a_word():
  logits = np.full((3, _VOCAB), -9.0)
  logits[:, _row(Control.QUIET)] = 3.0
  logits[0, :_BASE] = 2.0  # 64 words at e^2 outweigh one <quiet> at e^3
  logits[0, 17] = 2.1
  logits[1, 17] = 2.9  # one word does not
  logits[2, :_BASE] = 2.0  # more likely, but not allowed
  allowed = np.ones((3, _VOCAB), bool)
  allowed[2, :_BASE] = False
  chosen = _choose(logits, allowed=jnp.asarray(allowed), temperature=0.0)
  quiet = _row(Control.QUIET)
  assert chosen.tolist() == [17, quiet, quiet]


@pytest.mark.parametrize("top_p, kept", [(0.55, 2), (0.45, 1), (0.95, 4)])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p, kept):
  probs = np.full(_VOCAB, 1e-9)
  probs[[3, 40, 70, 9]] = [0.5, 0.25, 0.15, 0.09]
  logits = np.tile(np.log(probs), (400, 1))
  chosen = _choose(logits, temperature=1.0, top_p=top_p)
  assert set(chosen.tolist()) == set([3, 40, 70, 9][:kept])


def test_temperature_scales_the_odds():
  logits = np.full((4000, _VOCAB), -np.inf)
  logits[:, 3], logits[:, 70] = np.log(0.8), np.log(0.2)
  for temperature, share in ((1.0, 0.8), (0.5, 16 / 17), (2.0, 2 / 3)):
    chosen = _choose(logits, temperature=temperature, top_p=1.0)
    # Four standard deviations of 4000 draws.
    assert np.mean(chosen == 3) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_untrained_model_keeps_to_the_grammar(temperature):
  grammar = _grammar(_CONFIG.streams)
  random = np.random.default_rng(0)
  sessions, longest = 200, 0
  state = np.full(sessions, int(State.SAY))
  tokens = [[] for _ in range(sessions)]
  for n in range(_CONFIG.streams.max_text_out + 1):
    chosen = _choose(
      random.normal(size=(sessions, _VOCAB)) * 3,
      allowed=grammar.allowed(
        jnp.minimum(state, 2), used_B=jnp.full(sessions, n)
      ),
      temperature=temperature,
      seed=n,
    )
    for row in np.flatnonzero(state < State.QUIET):
      tokens[row].append(int(chosen[row]))
      state[row] = grammar.next_state[state[row], chosen[row]]
      longest = max(longest, len(tokens[row]))
  assert (state >= State.QUIET).all()
  assert longest == _CONFIG.streams.max_text_out + 1
  for row in tokens:
    frame_lib.parse_outputs(row, config=_CONFIG.streams)
