"""How tokens meet their experts on a mesh: collectives written by hand.

For: `experts.py`. Not for: the arithmetic of experts, nor choosing what lies on
which axis: the logical rules in force while tracing say that. Start at
`all_gather`.

All-gather and reduce-scatter over the expert axis move N * D numbers for every
device of an expert group, whatever the number of choices. With 6 to 8 choices
and 8 devices an all-to-all moves as much or more (compiled for
v5p:8x8x8: 258 against 387 GB a step), and needs room for the worst case.

Legend: B batch, T time, D d_model, N tokens of an expert group, k choices, E
experts (of this device inside the map), F expert_d_ff.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tml_jax.kernels import low_precision, mesh
from tml_jax.kernels.experts import quantized


def all_gather(
  x_BTD: jax.Array,
  *,
  weights: Any,
  names: Any,
  experts_BTk: jax.Array,
  shares_BTk: jax.Array,
  local: Callable[..., jax.Array],
  form: low_precision.Form | None = None,
) -> jax.Array:
  """Every device runs its experts on all tokens of its expert group.

  Args:
    x_BTD: tokens, cut over the axes of "batch" and "time".
    weights: arrays whose first dim is "experts".
    names: logical names of their dims, the same tree.
    experts_BTk: chosen experts.
    shares_BTk: their shares, float32.
    local: as `experts.reference`, but experts that are not here have number E;
      `low` are its weights in 8 bits, where there is a form.
    form: of products in 8 bits.

  Raises:
    ValueError: there is no mesh, or tokens are not cut over the expert axes.
  """
  frame = mesh.frame(names)
  expert = frame.experts

  def device(x_BTD, weights, experts_BTk, shares_BTk):
    with jax.named_scope("gather_tokens"):
      flat = [
        mesh.gather(array.reshape(-1, array.shape[-1]), expert, dim=0)
        for array in (x_BTD, experts_BTk, shares_BTk)
      ]
    low = quantized.gathered(weights, frame=frame, form=form)
    # With 8 bits nothing reads these: no gather, but the sum of gradients.
    weights = frame.whole(weights)
    here = jax.tree.leaves(weights)[0].shape[0]
    first = jax.lax.axis_index(expert) * here if expert else 0
    own_Nk = flat[1] - first
    own_Nk = jnp.where((own_Nk >= 0) & (own_Nk < here), own_Nk, here)
    y_ND = local(
      flat[0],
      weights=weights,
      low=low,
      experts_Nk=own_Nk,
      shares_Nk=flat[2],
    )
    with jax.named_scope("scatter_tokens"):
      y_ND = frame.sum_of_mlp(y_ND)
      for axis in expert:
        y_ND = jax.lax.psum_scatter(y_ND, axis, scatter_dimension=0, tiled=True)
    return y_ND.reshape(x_BTD.shape)

  return frame.map(device)(x_BTD, weights, experts_BTk, shares_BTk)
