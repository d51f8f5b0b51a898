"""MaxText's nearest configuration, in figures recorded earlier.

For: benchmarks/tpu.py, which sets them beside ours. Not for: running MaxText.
Start at `section`. Source: reference/maxtext.md.
"""

# From the same kind of machine, MaxText at commit e591f30: run, tokens a step
# in millions, arguments + temporaries and live peak in GiB, compile seconds,
# host GiB. FLOPs of its layers, from programs of 2 and 3 unrolled layers:
# 1.60e13 a layer and chip at 8,192 tokens a chip, 6.41e13 at 32,768; attention
# states none.
_FLOPS = {8192: 7.1e14, 32768: 42 * 6.41e13}
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
  # Of a layer and token: q and o, k and v, experts, router.
  forward = 2 * (
    2 * 4096**2 + 2 * 4096 * 1024 + 3 * 8 * 4096 * 2048 + 4096 * 256
  )
  lines = ["", "| step | tokens of a chip | HBM, KiB a token | FLOP ratio |"]
  lines.append("|---|--:|--:|--:|")

  def row(what, tokens, gib, ratio):
    lines.append(
      f"| {what} | {tokens:,} | {gib * 2**20 / tokens:,.0f} | {ratio:.2f} |"
    )

  for tokens, gib in ((8192, 6.0 + 30.3), (32768, 6.0 + 50.9)):
    ratio = _FLOPS[tokens] / (3 * 42 * forward * tokens)
    row("MaxText, v5p:8x8x8, FSDP 512", tokens, gib, ratio)
  for name, what in (("v5p", "ours, v5p:8x8x8"), ("v5p-block", "same, block")):
    r = reports.get(name, {"status": 1})
    if "status" not in r:
      tokens = r["tokens_per_step"] // r["chips"]
      row(what, tokens, r["hbm_gib_per_chip"], r["flop_ratio"])
  return [
    *lines,
    "",
    "MaxText's ratio is of its layers alone and without attention scores,",
    "which its kernel does not state; ours is of the whole step, a buffer of",
    "1.125 times the experts' mean load counted as full. HBM of MaxText is",
    "arguments and temporaries, of ours the live peak. Any step can take its",
    "batch in pieces, which divides HBM a token: compare at equal tokens of a",
    "chip, or `block`.",
  ]


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
