"""tpu7x:4x8x8 by mesh and tokens a chip: a table and a picture.

For: `tpu.py`, which compiles FLAGS and writes what `section` returns. Not for:
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


def section(reports: dict[str, dict], *, directory: pathlib.Path) -> list[str]:
  """The table; the picture is written beside it, into `directory`."""
  lines = [
    "## tpu7x:4x8x8 by mesh and tokens a chip",
    "",
    "Products in fp8, outputs of layers saved. The mesh decides what travels:",
    "weights, as many bytes whatever the batch, or tokens, as many a token.",
    "Points are compiled; a curve scales the first of its mesh: instructions",
    "and what goes over `expert` alone with the tokens, the rest of ICI not at",
    "all. In bfloat16 that said 0.529 for 65,536 tokens, compiled were 0.518.",
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
  return lines


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

  picture = figure.Figure(figsize=(7, 4), layout="constrained")
  axes = picture.subplots()
  curve = np.linspace(16, 144) * 1024
  for mesh, (label, _) in MESHES.items():
    named = ((batch, reports.get(_name(mesh, batch))) for batch in _BATCHES)
    points = [(_tokens(b), r) for b, r in named if r and "status" not in r]
    if not points:
      continue
    first, r = points[0]
    (line,) = axes.plot(
      curve, [bound_at(n, r, compiled=first) for n in curve], label=label
    )
    tokens = [n for n, _ in points]
    for key, fill in (
      ("mfu_bound", line.get_color()),
      ("mfu_bound_exposed", "white"),
    ):
      bounds = [r[key] for _, r in points]
      axes.plot(tokens, bounds, "o", mfc=fill, color=line.get_color())
  axes.plot([], [], "o", color="gray", label="compiled")
  axes.plot([], [], "o", mfc="white", color="gray", label="collectives exposed")
  axes.set(xlabel="tokens a chip", ylabel="MFU bound")
  axes.set_ylim(0)
  axes.xaxis.set_major_formatter("{x:,.0f}")
  axes.grid(alpha=0.3)
  axes.legend()
  picture.savefig(path, dpi=110)
