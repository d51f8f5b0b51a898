"""MaxText's nearest configuration, in figures recorded earlier.

For: benchmarks/tpu.py, which sets them beside ours. Not for: running MaxText.
Start at `section`. Source: its own AOT script on that machine.
"""

# From the same kind of machine, MaxText at commit e591f30: run, tokens a step
# in millions, arguments + temporaries and live peak in GiB, compile seconds,
# host GiB. FLOPs of a layer and chip, from programs of 2 and 3 unrolled layers,
# by tokens of a chip; its attention kernel states none.
_LAYER_FLOPS = {8192: 1.60e13, 32768: 6.41e13}
_LAYERS = 42
# What a layer needs for a token, forward: q and o, k and v, experts, router.
_FORWARD = 2 * (
  2 * 4096**2 + 2 * 4096 * 1024 + 3 * 8 * 4096 * 2048 + 4096 * 256
)
_BUFFER = 1.125  # ours, over the experts' mean load
_RUNS = (
  ("v5p:8x8x8, FSDP 512", 4.2, "6.0 + 30.3", "", 97, 2.4),
  ("v5p:8x8x8, FSDP 512, tiled loss", 16.8, "6.0 + 50.9", "", 144, 2.5),
  ("v5p:8x8x8, FSDP 64, EP 8", 4.2, "6.0 + 30.7", "", 150, 2.9),
  ("v5p:8x8x8, EP 8, ring", 4.2, "6.0 + 34.8", 33.7, 169, 2.6),
  ("v6e:16x16, FSDP", 2.1, "refused, 32.14 in 31.24", "", "", 1.1),
  ("v6e:16x16, FSDP, tiled loss", 2.1, "12.0 + 25.3", "", 201, 2.6),
  ("v6e:16x16, EP 16, buffer 1.5", 2.1, "12.0 + 21.4", 26.0, 202, 2.9),
)


def _against(reports: dict[str, dict]) -> list[str]:
  """HBM per token and FLOP ratios of both, where ours were compiled."""
  lines = [
    "",
    "| step | tokens of a chip | HBM, KiB a token | FLOP ratio of layers |"
    " without empty rows |",
    "|---|--:|--:|--:|--:|",
  ]

  def row(what, tokens, gib, full, filled):
    lines.append(
      f"| {what} | {tokens:,} | {gib * 2**20 / tokens:,.0f} | {full:.2f} |"
      f" {filled:.2f} |"
    )

  hbm = {8192: 6.0 + 30.3, 32768: 6.0 + 50.9}
  for tokens, gib in hbm.items():
    ratio = _LAYER_FLOPS[tokens] / (3 * _FORWARD * tokens)
    row("MaxText, v5p:8x8x8, FSDP 512", tokens, gib, ratio, ratio)
    if tokens == 8192:  # on the line between the two
      between = hbm[8192] + (hbm[32768] - hbm[8192]) / 3
      row("between its two", 16384, between, ratio, ratio)
  for name, what in (
    ("v5p", "ours, v5p:8x8x8"),
    ("v5p-save_outputs", "ours, remat_policy=save_outputs"),
    ("v5p-block", "ours, remat_policy=block"),
  ):
    r = reports.get(name, {"status": 1})
    if "status" not in r:
      tokens = r["tokens_per_step"] // r["chips"]
      row(what, tokens, r["hbm_gib_per_chip"], *_layer_ratios(r, tokens))
  return [
    *lines,
    "",
    "Ratios are of layers without attention scores, which MaxText's kernel",
    "does not state. Ours counts a buffer of 1.125 times the experts' mean",
    "load as full; the kernels skip what is empty of it. HBM of MaxText is",
    "arguments and temporaries, of ours the live peak. Any step can take its",
    "batch in pieces, which divides HBM a token: compare at equal tokens of a",
    "chip.",
  ]


def _layer_ratios(r: dict, tokens: int) -> tuple[float, float]:
  """FLOPs of our layers over those needed, with and without empty rows."""
  flops = experts = 0.0
  for part in r["by_module"]:
    if part["scope"].startswith("trunk") and "attention_" not in part["scope"]:
      flops += part["flops"]
      experts += part["flops"] * ("/experts/" in part["scope"])
  needed = 3 * _LAYERS * _FORWARD * tokens
  return flops / needed, (flops - experts * (1 - 1 / _BUFFER)) / needed


def section(reports: dict[str, dict]) -> list[str]:
  """Recorded figures, and what differs."""
  lines = """## MaxText's nearest configuration

Recorded earlier with the same versions of jax and libtpu, not in the run
above: qwen3_moe, d_model 4096, 42 layers, 32 / 8 heads x 128, 256 experts top
8 of width 2048, vocabulary 201,024, sequence 8,192, bfloat16 compute, float32
weights, default remat.

| run | tokens a step, M | HBM: arguments + temporaries, GiB | live peak, GiB \
| compile, s | host, GiB |
|---|--:|---|--:|--:|--:|""".splitlines()
  for run_name, *cells in _RUNS:
    lines.append("| " + " | ".join([run_name, *map(str, cells)]) + " |")
  lines += _against(reports)
  lines += """
Equal: width, depth, heads, vocabulary, sequence length, 8 active experts of
width 2048 a layer, dtypes of compute and weights.
Not equal: ours has 6 routed and 2 shared experts where MaxText has 8 routed;
relative bias, short convolutions, audio and image inputs and the flow head,
which it has not; attention in 35 of 42 layers sees 512 positions, there all;
Muon and an average of the weights, there AdamW; the loss at 2,560 of 8,192
positions, there at all.""".splitlines()
  return lines
