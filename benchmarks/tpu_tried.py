"""What was tried on tpu7x:4x8x8 and v6e:16x16: tables and a picture.

For: `tpu.py`, which compiles FLAGS and writes what `sections` returns. Not for:
the rows that people train with (`tpu.ROWS`). Start reading at MESHES.
"""

import pathlib

import numpy as np

# Sequences of a batch, and tokens of one, of `tml_interaction_small`.
_LENGTH, _CHIPS = 8192, 256
MESHES = {
  "expert2": ("fsdp 256, expert 2", dict(fsdp=256, expert=2)),
  "expert8": ("fsdp 64, expert 8", dict(fsdp=64, expert=8)),
  "expert1": ("fsdp 512", dict(fsdp=512, expert=1)),
}
_BATCHES = (2560, 3072)
# In bfloat16, as the table by hand has them: tokens a chip, MFU bound.
_BFLOAT16 = {
  "expert2": ((65536, 0.518), (81920, 0.529)),
  "expert8": ((32768, 0.25),),
  "expert1": ((32768, 0.18),),
}
_MOST = 0.529  # where instructions bound it
PICTURE = "tpu7x.png"


def _name(mesh: str, batch: int) -> str:
  name = f"tpu7x-{mesh}-{batch}"
  return {"tpu7x-expert2-2560": "tpu7x-fp8"}.get(name, name)  # one of tpu.ROWS


def _flags(axes: dict[str, int], batch: int) -> tuple[str, ...]:
  return (
    "--topology=tpu7x:4x8x8",
    *(f"--config.mesh.{axis}={size}" for axis, size in axes.items()),
    f"--config.train.global_batch_size={batch}",
    "--config.train.low_precision=trunk/.*=fp8",
  )


# By the name of a report: what `tml_jax.aot` is told beside the config.
FLAGS = {
  _name(mesh, batch): _flags(axes, batch)
  for mesh, (_, axes) in MESHES.items()
  for batch in (_BATCHES if mesh == "expert2" else _BATCHES[:1])
  if _name(mesh, batch) != "tpu7x-fp8"
}


def sections(reports: dict[str, dict], *, directory: pathlib.Path) -> list[str]:
  """Lines of Markdown; the picture is written into `directory`."""
  lines = [
    "## tpu7x:4x8x8 by mesh and tokens a chip",
    "",
    "Products in fp8, outputs of layers saved. The mesh decides what travels:",
    "weights, as many bytes whatever the batch, or tokens, as many a token.",
    "Points are compiled; a curve scales the first of its mesh: instructions",
    "and what goes over `expert` alone with the tokens, the rest of ICI not at",
    "all. In bfloat16 that said 0.529 for 65,536 tokens, compiled were 0.518.",
    "Squares are bfloat16, of the next table, and dashed lines what becomes",
    "of them: over `expert 8` tokens travel, a flat line; over `fsdp 512`",
    "weights, until instructions take longer.",
    "",
    f"![MFU bound against tokens a chip]({PICTURE})",
    "",
    "| mesh | tokens a chip | HBM, GiB | ICI, GB | ICI, s | instructions, s |"
    " MFU bound | exposed | reachable, exposed |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
  ]
  lines += [
    _line(label, batch, reports[_name(mesh, batch)])
    for mesh, (label, _) in MESHES.items()
    for batch in _BATCHES
    if _name(mesh, batch) in reports
  ]
  _draw(reports, path=directory / PICTURE)
  return [*lines, "", *_BY_HAND]


# Of programs whose reports are not kept.
_BY_HAND = """## What was tried on tpu7x:4x8x8

256 chips, 512 devices; rows that are above are here again. The first four were
compiled by 0a9b157, the sixth at 4204729.

| mesh | saved | experts and projections | tokens a chip | HBM, GiB | \
MFU bound | exposed | what limits it |
|---|---|---|--:|--:|--:|--:|---|
| fsdp 64 expert 8 | experts | bfloat16 | 32,768 | 184.5 | 0.25 | 0.25 | ICI, \
3.77 s: tokens over the expert axis, as many a token at any batch |
| fsdp 512 | experts | bfloat16 | 32,768 | - | 0.18 | - | ICI: 5,549 GB of \
weights |
| fsdp 256 expert 2 | experts | bfloat16 | 32,768 | 6.6 too much | - | - | HBM |
| fsdp 256 expert 2 | outputs | bfloat16 | 65,536 | 135 | 0.518 | 0.503 | ICI: \
1,840 GB, mostly weights, the same for more tokens |
| fsdp 256 expert 2 | outputs | bfloat16 | 81,920 | 157.2 | 0.529 | 0.517 | \
instructions, 4.47 s, of them 0.6 s once more in the backward pass |
| fsdp 256 expert 2 | outputs | fp8, a scale for each output of an expert | \
81,920 | 174.2 | 0.512 | 0.500 | instructions, 4.62 s, of them 3.85 s in HBM: \
scales as large as what they multiply |
| fsdp 256 expert 2 | outputs | fp8, a scale for each expert | 81,920 | \
151.3 | 0.648 | 0.630 | instructions, 3.65 s; ICI 2.45 s |

98 thousand are in the table above. 131 do not fit: each further 16 thousand
took 23 GiB, so they would need 221 of 189.5. Inputs of layers in the host
(`offload_save_outputs`) would free 42 of those. That was not compiled: it
unrolls the layers of a block, and for v6e that took more memory than the
machine has. Not tried: experts' hidden rows saved in 8 bits. In fp8 54
thousand tokens a chip hide what ICI takes, so more of them gain little.

## What was tried on v6e:16x16

| step | HBM, GiB | MFU bound | exposed | seconds of collectives, of them \
synchronous |
|---|--:|--:|--:|---|
| bfloat16, `low_memory` | 30.1 | 0.250 | 0.130 | 2.41, all |
| int8, moments in the host, `async_collective_fusion` | 27.5 | 0.267 | 0.170 \
| 2.23, 1.40 |
| bfloat16, moments in the host, that and `sparsecore_beside_fusion` | 29.4 \
| 0.250 | 0.250 | 2.38, none |
| int8, the same | 29.4 | 0.271 | 0.271 | 2.20, none |

The moments make room for the buffers of asynchronous collectives. Gathers go
into matrix products, and all that fits none, reduce-scatters above all, to the
SparseCores: no collective is exposed, and a step takes 2.38 s at least, in int8
2.20, where it took 4.58. The moments themselves are 0.25 s of PCIe, which wait
for the gradient and are in none of these bounds: with all of it added, the
exposed ones are 0.226 and 0.243. With `offload_save_outputs` on top, which
unrolls the layers of a block, the compiler had taken 21 GB of a host's memory
after 16 minutes and was ended by the system, on a machine of 24. A bound of
0.35 is out of reach with 8,192 tokens a chip: it needs a step of 1.70 s, and
ICI takes 2.2, HBM 1.9. Of ICI's 367 GB, 254 are tokens on their way to experts
of a ring of 16, as many a token at any batch; two sequences a chip would halve
only the others.""".splitlines()


def _tokens(batch: int) -> int:
  return batch * _LENGTH // _CHIPS


def _line(label: str, batch: int, r: dict) -> str:
  cells = [label, f"{_tokens(batch):,}"]
  if "status" in r:  # its last line says by how much
    refused = next((x for x in r["message"] if "too much" in x), "refused")
    return "| " + " | ".join([*cells, refused, *[""] * 6]) + " |"
  cells += [
    f"{r['hbm_gib_per_chip']:.1f} of {r['hbm_limit_gib']:.2f}",
    f"{r['ici_gb_per_chip']:,.0f}",
    f"{r['roofline']['ici_s']:.2f}",
    f"{r['roofline']['instructions_s']:.2f}",
    f"{r['mfu_bound']:.3f}",
    f"{r['mfu_bound_exposed']:.3f}",
    f"{r['mfu_bound_reachable_exposed']:.3f}",
  ]
  return "| " + " | ".join(cells) + " |"


def bound_at(tokens: float, r: dict, *, compiled: int) -> float:
  """MFU bound of the program in report `r` with another batch.

  Instructions and what travels over `expert` alone (tokens) go with the tokens;
  what travels over other axes is weights and their gradients.

  Args:
    tokens: a chip.
    r: of a step with `compiled` tokens a chip.
    compiled: tokens.
  """
  ratio, parts = tokens / compiled, r["roofline"]
  moved = sum(c["seconds"] for c in r["collectives"] if c["axes"] == ["expert"])
  exchanged = parts["ici_s"] + (ratio - 1) * moved
  seconds = max(ratio * parts["instructions_s"], exchanged)
  return r["mfu_bound"] * ratio * r["roofline_s"] / seconds


def _draw(reports: dict[str, dict], *, path: pathlib.Path) -> None:
  from matplotlib import figure

  picture = figure.Figure(figsize=(8, 3.8), layout="constrained")
  axes = picture.subplots()
  curve = np.linspace(16, 144) * 1024
  for mesh, (label, _) in MESHES.items():
    named = ((batch, reports.get(_name(mesh, batch))) for batch in _BATCHES)
    points = [(_tokens(b), r) for b, r in named if r and "status" not in r]
    (line,) = axes.plot(*zip(*_BFLOAT16[mesh], strict=True), "s", label=label)
    if not points:  # ICI bounds the one that was compiled
      (tokens, bound) = _BFLOAT16[mesh][0]
      grows = 0.0 if mesh == "expert8" else 1.0  # tokens travel, or weights
      scaled = np.minimum(bound * (curve / tokens) ** grows, _MOST)
      axes.plot(curve, scaled, "--", color=line.get_color())
      continue
    first, r = points[0]
    scaled = [bound_at(n, r, compiled=first) for n in curve]
    axes.plot(curve, scaled, color=line.get_color())
    tokens = [n for n, _ in points]
    for key, fill in (
      ("mfu_bound", line.get_color()),
      ("mfu_bound_exposed", "white"),
    ):
      bounds = [r[key] for _, r in points]
      axes.plot(tokens, bounds, "o", mfc=fill, color=line.get_color())
  for mark, fill, said in (
    ("s", "gray", "bfloat16"),
    ("o", "gray", "fp8"),
    ("o", "white", "fp8, collectives exposed"),
  ):
    axes.plot([], [], mark, mfc=fill, color="gray", label=said)
  axes.set(xlabel="tokens a chip", ylabel="MFU bound")
  axes.set_ylim(0)
  axes.xaxis.set_major_formatter("{x:,.0f}")
  axes.grid(alpha=0.3)
  picture.legend(loc="outside right upper", fontsize="small")
  picture.savefig(path, dpi=110)
