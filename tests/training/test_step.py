"""The train step: its sums, and that cutting and sharding change nothing."""

import dataclasses
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import small_run
from tests.helpers.step import fresh, gradient_of
from tml_jax import errors
from tml_jax.config import Dtype, Optimizer, RematPolicy, Schedule
from tml_jax.models import interaction
from tml_jax.parallel import mesh as mesh_lib
from tml_jax.streams import batch as batch_lib
from tml_jax.streams.frame import Kind
from tml_jax.training import checkpoint, flops, losses, metrics, muon, optim
from tml_jax.training import program as program_lib
from tml_jax.training import state as state_lib
from tml_jax.training import step as step_lib


@pytest.fixture(scope="module")
def one_device():
  cfg = small_run.config()
  return gradient_of(cfg, jax.devices()[:1], small_run.batch(cfg, seed=0))


def _assert_close(got, want, atol=1e-5):
  for (path, a), (_, b) in zip(
    jax.tree_util.tree_leaves_with_path(got),
    jax.tree_util.tree_leaves_with_path(want),
    strict=True,
  ):
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
  "axes",
  [
    dict(fsdp=2, expert=2, tensor=2),
    pytest.param(dict(data=2, fsdp=2, tensor=2), marks=pytest.mark.slow),
    pytest.param(dict(data=8), marks=pytest.mark.slow),
    pytest.param(dict(fsdp=8), marks=pytest.mark.slow),
    pytest.param(dict(data=2, expert=4), marks=pytest.mark.slow),
  ],
  ids=lambda axes: "-".join(f"{k}{v}" for k, v in axes.items()),
)
def test_eight_devices_equal_one(axes, one_device):
  cfg = small_run.config(**axes)
  got = gradient_of(cfg, jax.devices(), small_run.batch(cfg, seed=0))
  gradient, loss, sums = got
  np.testing.assert_allclose(loss, one_device[1], atol=1e-5)
  _assert_close(gradient, one_device[0])
  _assert_close(sums, one_device[2], atol=1e-3)


@pytest.mark.slow
def test_state_is_sharded_at_birth():
  cfg = small_run.config(fsdp=4, tensor=2)
  _, _, _, state = fresh(cfg, jax.devices())
  query = state.params["trunk"]["layer_00"]["attention"]["query"]
  assert query.sharding.shard_shape(query.shape) == (8, 2, 8)
  moments = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
    if "'layer_00'" in jax.tree_util.keystr(path)
    and "'query'" in jax.tree_util.keystr(path)
  ]
  assert moments and all(
    leaf.sharding.shard_shape(leaf.shape) == (8, 2, 8) for leaf in moments
  )
  ema = state.ema["embed"]["dmel"]["table"]
  assert ema.sharding.shard_shape(ema.shape) == (1280, 8)


def test_mesh_errors_name_sizes():
  with pytest.raises(errors.UserError, match="need 3 devices.*there are 8"):
    mesh_lib.create(small_run.config(data=3).mesh)
  cfg = small_run.config(tensor=8)
  with pytest.raises(errors.UserError, match="size 2 cannot.*8 devices"):
    fresh(cfg, jax.devices())


@pytest.mark.slow
def test_accumulation_is_weighted_by_valid_targets(one_device):
  """Microbatches with different counts add up to the whole batch's mean."""
  cfg = small_run.config()
  train = dataclasses.replace(cfg.train, accumulation_steps=4)
  got = gradient_of(
    dataclasses.replace(cfg, train=train),
    jax.devices()[:1],
    small_run.batch(cfg, seed=0),
  )
  np.testing.assert_allclose(got[1], one_device[1], atol=1e-5)
  _assert_close(got[0], one_device[0])
  _assert_close(got[2], one_device[2], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
  "policy", [RematPolicy.BLOCK, RematPolicy.SAVE_MATMULS]
)
def test_remat_changes_nothing(policy, one_device):
  cfg = small_run.config()
  train = dataclasses.replace(cfg.train, remat_policy=policy)
  got = gradient_of(
    dataclasses.replace(cfg, train=train),
    jax.devices()[:1],
    small_run.batch(cfg, seed=0),
  )
  _assert_close(got[0], one_device[0])


@pytest.mark.slow
def test_bfloat16_keeps_float32_state_and_a_near_loss(one_device):
  cfg = small_run.config()
  train = dataclasses.replace(cfg.train, dtype=Dtype.BFLOAT16)
  gradient, loss, _ = gradient_of(
    dataclasses.replace(cfg, train=train),
    jax.devices()[:1],
    small_run.batch(cfg, seed=0),
  )
  assert all(g.dtype == np.float32 for g in jax.tree.leaves(gradient))
  np.testing.assert_allclose(loss, one_device[1], rtol=0.01)


def test_loss_is_the_weighted_mean_by_hand():
  """Text loss against log-softmax written out, on one sequence."""
  cfg = small_run.config()
  cfg = dataclasses.replace(
    cfg,
    train=dataclasses.replace(
      cfg.train, flow_loss_weight=0.0, feedback_noise=0.0
    ),
  )
  _, model, _, state = fresh(cfg, jax.devices()[:1])
  batch = small_run.batch(cfg, seed=0)
  variables = {"params": state.params, "router": state.router}
  hidden, _ = jax.jit(model.apply, static_argnames="method")(
    variables, batch.packed, method="hidden"
  )
  logits_BTV = np.asarray(
    model.apply(variables, hidden, method="logits"), np.float64
  )
  total = weight = 0.0
  for row in range(len(batch.targets.tokens)):
    for position, target, w in zip(
      batch.targets.positions[row],
      batch.targets.tokens[row],
      batch.targets.weights[row],
      strict=True,
    ):
      if position == cfg.streams.seq_len:
        continue
      logits = logits_BTV[row, position]
      total += w * (np.log(np.exp(logits).sum()) - logits[target])
      weight += w
  keys = jax.random.split(jax.random.key(0), len(batch.targets.tokens))
  loss = jax.jit(functools.partial(losses.loss, model=model, config=cfg))
  value, _ = loss(
    state.params,
    collections=state.collections,
    batch=batch,
    keys_B=keys,
    denominators=losses.denominators(batch),
  )
  np.testing.assert_allclose(value, total / weight, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [Optimizer.MUON, Optimizer.ADAMW])
def test_steps_reduce_the_loss(name):
  cfg = small_run.config()
  cfg = dataclasses.replace(
    cfg,
    train=dataclasses.replace(
      cfg.train,
      optim=dataclasses.replace(cfg.train.optim, name=name),
    ),
  )
  _, model, optimizer, state = fresh(cfg, jax.devices()[:1])
  step = jax.jit(step_lib.create(cfg, model=model, optimizer=optimizer))
  batch = small_run.batch(cfg, seed=0)
  first = last = None
  for _ in range(12):
    state, values = step(state, batch)
    values = jax.device_get(values)
    last = {"loss": values["loss"]} | metrics.summarise(values["sums"])
    first = first or last
  assert last["loss"] < 0.8 * first["loss"]
  assert last["loss/flow"] < first["loss/flow"]
  assert int(state.step) == 12


def test_router_bias_evens_out_the_load():
  """Overloaded experts lose, idle ones gain, by exactly the rate."""
  load = jnp.zeros((2, 1, 4)).at[:, 0].set(jnp.array([4.0, 0.0, 2.0, 2.0]))
  router = {"trunk": {"layer_00": {"mlp": {"bias": jnp.zeros(4)}}}}
  moved = step_lib.balance(router, load, rate=0.5)
  bias = moved["trunk"]["layer_00"]["mlp"]["bias"]
  assert bias.tolist() == [-0.5, 0.5, 0.0, 0.0]


@pytest.mark.slow
def test_router_balance_works_in_training():
  cfg = small_run.config()
  optim_config = dataclasses.replace(
    cfg.train.optim,
    router_bias_rate=0.02,
    learning_rate=1e-30,  # nothing else moves
    muon_learning_rate=1e-30,
    weight_decay=0.0,
  )
  cfg = dataclasses.replace(
    cfg, train=dataclasses.replace(cfg.train, optim=optim_config)
  )
  _, model, optimizer, state = fresh(cfg, jax.devices()[:1])
  step = jax.jit(step_lib.create(cfg, model=model, optimizer=optimizer))
  # From a router that prefers the first expert.
  state = state.replace(
    router=jax.tree.map(lambda bias: bias.at[0].set(0.5), state.router)
  )
  batch = small_run.batch(cfg, seed=0)
  imbalance = []
  for _ in range(60):
    state, values = step(state, batch)
    scalars = metrics.summarise(jax.device_get(values["sums"]))
    imbalance.append(scalars["router/all/max_over_mean"])
  assert imbalance[0] > 1.5 and imbalance[-1] < 1.25


def test_own_audio_noise_moves_one_level_of_own_audio_only():
  cfg = small_run.config()
  batch = small_run.batch(cfg, seed=0)
  inputs = batch.packed.inputs
  keys = jax.random.split(jax.random.key(1), len(inputs.tokens))
  noisy = losses.disturb_own_audio(batch, keys, share=0.2).packed.inputs
  moved = np.abs(np.asarray(noisy.audio_dmel, int) - inputs.audio_dmel)
  own = (inputs.audio_streams == batch_lib.OWN) & (
    inputs.audio_positions < cfg.streams.seq_len
  )
  user = inputs.audio_streams == batch_lib.USER
  assert moved.max() == 1 and moved[user].max() == 0
  assert 0.1 < moved[own].mean() < 0.2  # clipping at the ends takes some


def test_matrices_of_muon_cover_the_trunk_and_the_dmel_bag_only():
  cfg = small_run.config()
  _, _, _, state = fresh(cfg, jax.devices()[:1])
  axes = optim.matrices(state.params)
  chosen = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, dims in jax.tree_util.tree_leaves_with_path(
      axes, is_leaf=lambda x: isinstance(x, muon.Matrix)
    )
  }
  layer = "trunk/layer_00"
  assert {
    f"{layer}/attention/{n}"
    for n in ("query", "key", "value", "relative", "output")
  } <= chosen
  assert f"{layer}/mlp/gate" in chosen and f"{layer}/mlp/shared_down" in chosen
  chosen.remove("embed/dmel/table")
  assert not any("embed" in c or "router" in c or "conv" in c for c in chosen)


def test_schedules():
  base = small_run.config().train.optim
  for kind, end in (
    (Schedule.CONSTANT, 1.0),
    (Schedule.COSINE, 0.1),
    (Schedule.LINEAR, 0.1),
  ):
    curve = optim.schedule(
      dataclasses.replace(
        base, schedule=kind, warmup_steps=10, final_learning_rate_ratio=0.1
      ),
      peak=1.0,
      steps=110,
    )
    np.testing.assert_allclose(
      [curve(0), curve(5), curve(10), curve(110)], [0, 0.5, 1, end], atol=1e-6
    )


def test_moving_average():
  ema = step_lib.moving_average(
    {"a": jnp.array(1.0)},
    {"a": jnp.array(0.0)},
    decay=0.9,
    step=jnp.array(10_000),
  )
  np.testing.assert_allclose(ema["a"], 0.9)
  assert step_lib.moving_average((), {}, decay=0.0, step=jnp.array(0)) == ()


@pytest.mark.slow
def test_step_flops_follow_xla_on_a_dense_model():
  """The formula against XLA's own count of an unrolled dense program."""
  cfg = small_run.config()
  model_config = dataclasses.replace(
    cfg.model, num_dense_layers=2, d_ff=64, attention_pattern="G"
  )
  cfg = dataclasses.replace(cfg, model=model_config)
  _, model, _, state = fresh(cfg, jax.devices()[:1])
  batch = small_run.batch(cfg, seed=0)

  def forward(params):
    hidden, _ = model.apply(
      {"params": params, "router": state.router},
      batch.packed,
      method=model.hidden,
    )
    rows = interaction.take(hidden, batch.targets.positions)
    return model.apply({"params": params}, rows, method=model.logits).sum()

  compiled = jax.jit(forward).lower(state.params).compile()
  counted = compiled.cost_analysis()["flops"]
  formula = flops.step_flops(cfg) / 3
  # XLA also counts norms, masks, embeddings and both halves of causality.
  assert 0.5 < formula / counted < 1.1, (formula, counted)


def test_metrics_name_every_kind(one_device):
  scalars = metrics.summarise(one_device[2])
  for kind in Kind:
    assert np.isfinite(scalars[f"loss/{kind.name.lower()}"])


def test_metrics_name_every_source(one_device):
  """The second entry of the mixture has the documents, the first the rest."""
  sums = one_device[2]
  scalars = metrics.summarise(sums)
  assert sums.by_source.names == ("reply", "draw")
  for name in ("loss", "accuracy"):
    np.testing.assert_allclose(
      scalars[f"{name}/source/draw"], scalars[f"{name}/text"], rtol=1e-6
    )
  others = [kind for kind in Kind if kind != Kind.TEXT]
  mean = sums.cross_entropy[others].sum() / sums.count[others].sum()
  np.testing.assert_allclose(scalars["loss/source/reply"], mean, rtol=1e-5)
  np.testing.assert_allclose(
    scalars["loss/source/reply/flow"], scalars["loss/flow"], rtol=1e-6
  )
  assert "loss/source/draw/flow" not in scalars


@pytest.mark.slow
def test_another_entry_of_the_mixture_is_another_name_alone():
  """Compiled shapes do not depend on what the sources are called."""
  shapes = []
  for other in ("draw:1.0", "count:3.0"):
    cfg = small_run.config()
    cfg = dataclasses.replace(
      cfg, data=dataclasses.replace(cfg.data, mixture=("reply:1.0", other))
    )
    _, model, _, state = fresh(cfg, jax.devices()[:1])
    batch = small_run.batch(cfg, seed=0)
    sums = jax.eval_shape(
      lambda s, b, cfg=cfg, model=model: step_lib.accumulate(
        s, b, config=cfg, model=model, objective=losses.PRETRAINING
      ),
      state,
      batch,
    )[2]
    shapes.append([leaf.shape for leaf in jax.tree.leaves(sums)])
    assert sums.by_source.names == ("reply", other.partition(":")[0])
  assert shapes[0] == shapes[1]


@flax.struct.dataclass
class WithReference(state_lib.TrainState):
  """A state with weights that no step changes, as for post-training."""

  reference: Any = ()

  @property
  def collections(self):
    return super().collections | {"reference": self.reference}


class Advantage:
  """Advantages times a linear score, near a reference, with noise."""

  shown, counted = (), {"sequences": "sequences"}

  def denominators(self, batch):
    return batch["advantages"].shape[0]

  def loss(
    self, params, *, collections, batch, keys_B, denominators, model, config
  ):
    del config
    noise_B = jax.vmap(jax.random.normal)(keys_B)
    score_B = model(batch["x"], params["w"])
    distance_B = jnp.square(
      score_B - model(batch["x"], collections["reference"])
    )
    total = ((batch["advantages"] + noise_B) * score_B + distance_B).sum()
    return total / denominators, {"sequences": jnp.float32(len(score_B))}

  def load_KLE(self, sums):
    return None

  def scalars(self, sums):
    return {"sequences": float(sums["sequences"])}


@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_an_objective_of_its_own(accumulation_steps):
  """With a batch and a frozen reference of its own, cut in any way."""
  cfg = small_run.config()
  cfg = dataclasses.replace(
    cfg,
    train=dataclasses.replace(cfg.train, accumulation_steps=accumulation_steps),
  )
  size, rng = cfg.train.global_batch_size, np.random.default_rng(0)
  batch = {
    "x": rng.normal(size=(size, 3)).astype(np.float32),
    "advantages": rng.normal(size=size).astype(np.float32),
  }
  params, optimizer = {"w": jnp.ones(3)}, optax.sgd(0.1)
  state = WithReference(
    step=jnp.zeros((), jnp.int32),
    params=params,
    router={},
    opt_state=optimizer.init(params),
    ema=params,
    reference=jnp.arange(3.0),
  )
  step = jax.jit(
    step_lib.create(
      cfg, model=jnp.dot, optimizer=optimizer, objective=Advantage()
    )
  )
  after, values = step(state, batch)

  step_key = jax.random.fold_in(jax.random.key(cfg.train.seed), 0)
  noise = jax.vmap(jax.random.normal)(jax.random.split(step_key, size))
  weight = batch["advantages"] + np.asarray(noise)
  off = batch["x"] @ (np.ones(3) - np.arange(3.0))
  loss = np.mean(weight * batch["x"].sum(axis=1) + off**2)
  gradient = np.mean((weight + 2 * off)[:, None] * batch["x"], axis=0)
  np.testing.assert_allclose(values["loss"], loss, rtol=1e-5)
  np.testing.assert_allclose(after.params["w"], 1 - 0.1 * gradient, rtol=1e-5)
  assert values["sums"]["sequences"] == size
  assert after.reference.tolist() == [0.0, 1.0, 2.0] and after.router == {}


@pytest.mark.slow
def test_moments_in_the_host_change_nothing(tmp_path):
  """Two steps on eight devices, and a checkpoint between them."""
  cfg = small_run.config(fsdp=4, expert=2)
  optimizer = dataclasses.replace(cfg.train.optim, name=Optimizer.MUON)

  def steps(offload, path):
    train = dataclasses.replace(
      cfg.train, optim=dataclasses.replace(optimizer, offload_moments=offload)
    )
    config = dataclasses.replace(cfg, train=train)
    mesh = mesh_lib.create(config.mesh, devices=jax.devices())
    program = program_lib.create(config, mesh=mesh)
    step = program.compile(program.lower())
    batch = jax.device_put(
      small_run.batch(config, seed=0), program.batch_sharding
    )
    with mesh_lib.use(mesh, rules=config.mesh.axis_rules):
      state = state_lib.create(program.abstract, seed=0)
    state, _ = step(state, batch)
    saved = checkpoint.Checkpointer(str(path), keep=1)
    saved.save(1, state=state, loader_state={})
    saved.wait()
    state, _ = saved.restore(program.abstract.state, step=1)
    saved.close()
    return step(state, batch)

  state, values = steps(True, tmp_path / "host")
  kinds = {
    field.name: {
      leaf.sharding.memory_kind
      for leaf in jax.tree.leaves(getattr(state, field.name))
      if leaf.ndim
    }
    for field in dataclasses.fields(state)
  }
  assert kinds.pop("opt_state") == {"pinned_host"}
  assert set.union(*kinds.values()) == {"device"}
  want, want_values = steps(False, tmp_path / "device")
  assert values["loss"] == want_values["loss"]
  jax.tree.map(np.testing.assert_array_equal, state, want)
