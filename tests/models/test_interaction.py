"""The whole model: packing, caches, kinds, further tokens, remat."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import small_trunk
from tml_jax.config import Position, RematPolicy
from tml_jax.models import cache as cache_lib
from tml_jax.models import embed
from tml_jax.streams.batch import Chunk, Packed

LENGTH, CHUNK = 40, 7


@functools.cache
def setup(**changes):
  model = small_trunk.model(small_trunk.config(**changes))
  variables = small_trunk.variables(model)

  @jax.jit
  def hidden(batch):
    return model.apply(variables, batch, method="hidden")

  @jax.jit
  def extend(chunk, cache):
    return model.apply(variables, chunk, cache, method="extend")

  return model, variables, hidden, extend


def new_cache(config, *, rows, horizon=LENGTH, sinks=0):
  return cache_lib.init_cache(
    config,
    batch_size=rows,
    horizon=horizon,
    sinks=sinks,
    chunk=CHUNK,
    dtype="float32",
    drafts=config.num_mtp_layers,
  )


def cut(batch, *, start_B, count_B, size):
  """Positions [start, start + count) of each row as a chunk of `size`."""

  def part(values):
    result = np.zeros((len(start_B), size), np.int32)
    for row, (start, count) in enumerate(zip(start_B, count_B, strict=True)):
      result[row, :count] = values[row, start : start + count]
    return result

  def move(positions):
    moved = positions - start_B[:, None]
    inside = (moved >= 0) & (moved < count_B[:, None])
    return np.where(inside, moved, size).astype(np.int32)

  inputs = batch.inputs
  inputs = inputs._replace(
    tokens=part(inputs.tokens),
    windows=part(inputs.windows),
    audio_positions=move(inputs.audio_positions),
    patch_positions=move(inputs.patch_positions),
  )
  return Chunk(inputs, count_B.astype(np.int32))


@pytest.mark.parametrize(
  "position",
  [
    Position.RELATIVE_BIAS,
    pytest.param(Position.TIME_ROPE, marks=pytest.mark.slow),
  ],
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_chunking_equals_the_packed_forward(position, data):
  _, _, hidden, extend = setup(position=position)
  seed = data.draw(st.integers(0, 99))
  lengths = np.array([LENGTH, data.draw(st.integers(1, LENGTH)), 17])
  batch = small_trunk.batch([[n] for n in lengths], length=LENGTH, seed=seed)
  expected = np.asarray(hidden(batch)[0])
  cache = new_cache(small_trunk.CONFIG, rows=3)
  done = np.zeros(3, np.int64)
  rng = np.random.default_rng(seed)
  while (done < lengths).any():
    # Rows advance by their own amounts, 0 included, also when not finished.
    count = np.minimum(rng.integers(0, CHUNK + 1, 3), lengths - done)
    chunk = cut(batch, start_B=done, count_B=count, size=CHUNK)
    h, cache = extend(chunk, cache)
    for row in range(3):
      span = slice(done[row], done[row] + count[row])
      np.testing.assert_allclose(
        h[row, : count[row]], expected[row, span], atol=1e-5, rtol=1e-5
      )
    done += count
    np.testing.assert_array_equal(cache.lengths_B, done)


@functools.partial(jax.jit, static_argnums=0)
def run_extend(model, variables, chunk, cache):
  return model.apply(variables, chunk, cache, method="extend")


def extended(model, variables, batch, *, cache, length):
  """Hidden states [T, D] of row 0 of a batch, chunk by chunk."""
  rng, done, states = np.random.default_rng(0), 0, []
  while done < length:
    count = min(int(rng.integers(1, CHUNK + 1)), length - done)
    chunk = cut(
      batch, start_B=np.array([done]), count_B=np.array([count]), size=CHUNK
    )
    h, cache = run_extend(model, variables, chunk, cache)
    states.append(np.asarray(h[0, :count]))
    done += count
  return np.concatenate(states)


def test_a_horizon_is_a_sliding_window():
  """Fifteen times round the rings, also those of global layers."""
  length = 120
  window = small_trunk.CONFIG.sliding_window
  same = dict(rel_extent=window, log_scaling_floor=0)
  sliding = small_trunk.model(small_trunk.config(attention_pattern="L", **same))
  variables = small_trunk.variables(sliding)
  batch = small_trunk.batch([[length]], length=length)
  expected, _ = jax.jit(
    lambda batch: sliding.apply(variables, batch, method="hidden")
  )(batch)
  for pattern in ("L", "G"):
    config = small_trunk.config(attention_pattern=pattern, **same)
    states = extended(
      small_trunk.model(config),
      variables,
      batch,
      cache=new_cache(config, rows=1, horizon=window),
      length=length,
    )
    np.testing.assert_allclose(states, expected[0], atol=1e-5, rtol=1e-5)


def test_a_chunk_is_turned_by_its_own_times():
  config = small_trunk.config(
    num_layers=1, attention_pattern="G", position=Position.TIME_ROPE
  )
  model = small_trunk.model(config)
  variables = small_trunk.variables(model)
  batch = small_trunk.batch([[LENGTH]], length=LENGTH)
  expected = jax.jit(
    lambda batch: model.apply(variables, batch, method="hidden")
  )(batch)[0]
  states = extended(
    model,
    variables,
    batch,
    cache=new_cache(config, rows=1),
    length=LENGTH,
  )
  np.testing.assert_allclose(states, expected[0], atol=1e-5, rtol=1e-5)


def test_sinks_stay_and_what_was_evicted_is_never_seen():
  """One global layer: what an embedding reaches is what its key reaches."""
  length, horizon, sinks = 60, 12, 5
  config = small_trunk.config(num_layers=1, attention_pattern="G")
  model = small_trunk.model(config)
  variables = small_trunk.variables(model)
  batch = small_trunk.batch([[length]], length=length)

  def run(batch, sinks):
    cache = new_cache(config, rows=1, horizon=horizon, sinks=sinks)
    return extended(model, variables, batch, cache=cache, length=length)

  for kept in (0, sinks):
    base = run(batch, kept)
    assert np.isfinite(base).all()
    for position in (1, 20):
      inputs = batch.inputs
      tokens = inputs.tokens + (np.arange(length) == position)
      other = small_trunk.changed(
        batch,
        tokens=tokens % small_trunk.CONFIG.vocab_size,
        **{
          name: np.where(slots == position, length, slots).astype(np.int32)
          for name, slots in (
            ("audio_positions", inputs.audio_positions),
            ("patch_positions", inputs.patch_positions),
          )
        },
      )
      moved = np.abs(run(other, kept) - base).max(-1) > 0
      # Each of three short convolutions in a row carries it 3 positions on.
      reach = position + horizon - 1 + 3 * 3
      assert not moved[:position].any()
      assert moved[position : position + horizon].all()
      assert moved[reach + 1 :].any() == (position < kept)


def test_a_resting_row_keeps_its_cache():
  _, _, _, extend = setup()
  batch = small_trunk.batch([[20], [20]], length=LENGTH)
  cache = new_cache(small_trunk.CONFIG, rows=2)
  start, full = np.zeros(2, np.int64), np.array([7, 7])
  _, cache = extend(cut(batch, start_B=start, count_B=full, size=7), cache)
  _, after = extend(
    cut(batch, start_B=full, count_B=np.array([5, 0]), size=7), cache
  )
  for old, new in zip(
    jax.tree.leaves(cache), jax.tree.leaves(after), strict=True
  ):
    np.testing.assert_array_equal(old[1], new[1])
    assert not np.array_equal(old[0], new[0])


@settings(max_examples=8, deadline=None)
@given(first=st.integers(1, LENGTH - 1), seed=st.integers(0, 99))
def test_packed_segments_equal_segments_alone(first, seed):
  _, _, hidden, _ = setup()
  batch = small_trunk.batch([[first, LENGTH - first]], length=LENGTH, seed=seed)

  # The second segment moved to the front, the rest padding.
  def roll(values):
    return np.roll(values, -first, axis=1)

  def move(positions):
    inside = (positions >= first) & (positions < LENGTH)
    return np.where(inside, positions - first, LENGTH).astype(np.int32)

  inputs = batch.inputs
  alone = Packed(
    inputs._replace(
      tokens=roll(inputs.tokens),
      windows=roll(inputs.windows),
      audio_positions=move(inputs.audio_positions),
      patch_positions=move(inputs.patch_positions),
    ),
    segment_ids=(np.arange(LENGTH) < LENGTH - first).astype(np.int32)[None],
    positions=roll(batch.positions),
  )
  packed, single = hidden(batch)[0], hidden(alone)[0]
  np.testing.assert_allclose(
    packed[:, first:], single[:, : LENGTH - first], atol=1e-5, rtol=1e-5
  )
  assert np.isfinite(single).all()


def test_without_clock_and_bias_only_differences_of_time_count():
  batch = small_trunk.batch([[LENGTH]], length=LENGTH)
  windows = np.sort(batch.inputs.windows % 40)
  batch.inputs.tokens[:, ::5] = small_trunk.TURN
  batch = small_trunk.changed(batch, windows=windows)
  later = small_trunk.changed(batch, windows=windows + 30)
  slower = small_trunk.changed(batch, windows=windows * 2)
  for changes, by_later, by_slower in (
    ({}, True, True),  # the clock
    (dict(clock_features=0), False, False),
    (dict(clock_features=0, position=Position.TIME_ROPE), False, True),
  ):
    hidden = setup(num_layers=1, **changes)[2]
    base, *others = (hidden(b)[0] for b in (batch, later, slower))
    moved = [np.abs(other - base).max() > 1e-3 for other in others]
    assert moved == [by_later, by_slower], changes


@pytest.mark.parametrize("position", [5, 20])
def test_nothing_depends_on_what_comes_later(position):
  _, _, hidden, _ = setup()
  batch = small_trunk.batch([[LENGTH]], length=LENGTH)
  inputs, later = batch.inputs, np.arange(LENGTH) > position
  moved = (inputs.audio_positions > position)[..., None]
  other = small_trunk.changed(
    batch,
    tokens=np.where(later, 11, inputs.tokens).astype(np.int32),
    windows=inputs.windows + later.astype(np.int32),
    audio_dmel=np.where(moved, 15 - inputs.audio_dmel, inputs.audio_dmel),
  )
  a, b = hidden(batch)[0], hidden(other)[0]
  np.testing.assert_allclose(
    a[:, : position + 1], b[:, : position + 1], atol=1e-5
  )
  assert np.abs(a[:, position + 1 :] - b[:, position + 1 :]).max() > 0.01


def test_loads_count_every_choice_of_every_kind():
  _, _, hidden, _ = setup()
  batch = small_trunk.batch([[12, 20], [30]], length=LENGTH)
  aux = hidden(batch)[1]
  inputs, valid = batch.inputs, batch.segment_ids > 0
  kinds = np.where(valid, int(embed.Kind.TEXT), -1)
  for row in range(2):
    for position, stream in zip(
      inputs.audio_positions[row], inputs.audio_streams[row], strict=True
    ):
      if position < LENGTH:
        kinds[row, position] = 1 + stream
    for position in inputs.patch_positions[row]:
      if position < LENGTH:
        kinds[row, position] = int(embed.Kind.PATCH)
  expected = [2 * (kinds == kind).sum() for kind in embed.Kind]
  assert aux.load_KLE.shape == (4, 2, 4)  # kinds, MoE layers, experts
  for layer in range(2):
    np.testing.assert_array_equal(aux.load_KLE[:, layer].sum(-1), expected)
  np.testing.assert_array_equal(aux.load_LE, aux.load_KLE.sum(0))


def gradient(policy):
  """Loss and gradients of a two-layer model on a batch with padding."""
  config = small_trunk.config(num_layers=2, attention_pattern="LG")
  model = small_trunk.model(config, remat_policy=policy)
  variables = small_trunk.variables(model)
  batch = small_trunk.batch([[13, 4], [11]], length=20)
  # Else the clock would not matter.
  batch.inputs.tokens[:, ::5] = small_trunk.TURN
  mel = np.random.default_rng(0).standard_normal((2, 16, 80))
  t = jnp.full(2, 0.3)

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    apply = functools.partial(
      model.apply, dict(params=params, router=variables["router"])
    )
    h, _ = apply(batch, method="hidden")
    logits = apply(h[:, ::2], method="logits")
    null = apply(method="null_condition")
    cond = jnp.stack([h[0, 3], null])
    velocity = apply(mel.astype(np.float32), t, cond, method="velocity")
    return jnp.mean(jnp.sin(logits)) + jnp.mean(jnp.sin(velocity))

  return loss(variables["params"])


def test_gradients_are_finite_and_reach_every_parameter():
  value, gradients = gradient(RematPolicy.NONE)
  assert np.isfinite(value)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
    name = jax.tree_util.keystr(path)
    assert np.isfinite(leaf).all(), name
    assert np.abs(leaf).max() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize(
  "policy", [RematPolicy.BLOCK, RematPolicy.SAVE_MATMULS]
)
def test_remat_changes_no_gradient(policy):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5),
    gradient(policy),
    gradient(RematPolicy.NONE),
  )


def test_further_tokens_are_causal_and_stay_in_their_segment():
  config = small_trunk.config(num_mtp_layers=2, num_layers=1)
  model = small_trunk.model(config)
  variables = small_trunk.variables(model)
  batch = small_trunk.batch([[9, 8]], length=20)

  @jax.jit
  def run(tokens):
    changed = small_trunk.changed(batch, tokens=tokens)
    h, _ = model.apply(variables, batch, method="hidden")
    return model.apply(variables, changed, hidden_BTD=h, method="mtp_hidden")

  base = run(batch.inputs.tokens)
  assert base.shape == (2, 1, 20, 32)
  tokens = batch.inputs.tokens.copy()
  tokens[0, 6] = (tokens[0, 6] + 1) % 40
  moved = np.abs(run(tokens) - base).max(-1)[:, 0] > 1e-6
  for layer in range(2):
    # The token at 6 enters the state at 6 - (layer + 1), not before.
    first = 6 - (layer + 1)
    assert not moved[layer, :first].any()
    assert moved[layer, first]
    assert not moved[layer, 9:].any()


def test_drafts_come_from_the_states_of_the_packed_forward():
  """Whatever the chunks; told the true tokens, at every place but the last."""
  layers, lengths = 3, np.array([LENGTH, 23])
  config = small_trunk.config(
    num_mtp_layers=layers, mtp_attention_pattern="LGL", num_layers=2
  )
  model = small_trunk.model(config)
  variables = small_trunk.variables(model)
  batch = small_trunk.batch([[n] for n in lengths], length=LENGTH)

  @jax.jit
  def packed(batch):
    h, _ = model.apply(variables, batch, method="hidden")
    return model.apply(variables, batch, hidden_BTD=h, method="mtp_hidden")

  @jax.jit
  def read(chunk, cache):
    return model.apply(variables, chunk, cache, method="extend")[1]

  @jax.jit
  def drafted(cache, ahead_BN):
    """States [layers, B, D] by which layers draft, told the tokens ahead."""
    states = []

    def draw(hidden_BD):
      states.append(hidden_BD)
      return ahead_BN[:, len(states)]

    model.apply(
      variables, ahead_BN[:, 0], cache=cache, draw=draw, method="draft"
    )
    return jnp.stack(states)

  expected = np.asarray(packed(batch))
  # They are not normed, and sums of other lengths round otherwise: by 1.2e-6
  # of the largest with AVX2.
  tolerance = 1e-5 * np.abs(expected).max()
  cache, done = new_cache(config, rows=2), np.zeros(2, np.int64)
  rng, checked = np.random.default_rng(0), 0
  while (done < lengths).any():
    count = np.minimum(rng.integers(0, CHUNK + 1, 2), lengths - done)
    cache = read(cut(batch, start_B=done, count_B=count, size=CHUNK), cache)
    done += count
    tokens = np.pad(batch.inputs.tokens, ((0, 0), (0, layers + 1)))
    ahead = np.stack(
      [tokens[row, n : n + layers + 1] for row, n in enumerate(done)]
    )
    states = drafted(cache, ahead)
    for row, n in enumerate(done):
      for k in range(layers):
        if n and n + k < lengths[row]:
          np.testing.assert_allclose(
            states[k, row], expected[k, row, n - 1], atol=tolerance, rtol=0
          )
          checked += 1
  assert checked > 20


def test_padded_rows_of_the_vocabulary_are_left_out():
  model = small_trunk.model(small_trunk.config(vocab_padding=7))
  _, variables, _, _ = setup()
  h = np.random.default_rng(0).standard_normal((2, 3, 32))
  logits = model.apply(variables, h.astype(np.float32), method="logits")
  assert logits.shape == (2, 3, 33) and logits.dtype == jnp.float32
  expected = h / 2.0 @ variables["params"]["unembedding"][:, :33]
  np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_bfloat16_runs_and_stays_near():
  _, variables, hidden, _ = setup()
  batch = small_trunk.batch([[30]], length=LENGTH)
  model = small_trunk.model(small_trunk.CONFIG, dtype="bfloat16")
  h, _ = jax.jit(lambda batch: model.apply(variables, batch, method="hidden"))(
    batch
  )
  assert h.dtype == jnp.bfloat16
  exact = np.asarray(hidden(batch)[0])[:, :30]
  error = np.abs(np.asarray(h, np.float32)[:, :30] - exact)
  # Routing may flip a choice at a near tie; most positions must agree.
  assert np.median(error) < 0.1 * exact.std()
