"""MaxText's rows beside ours, as text.

For: the section of benchmarks/tpu.md, from reports of benchmarks/maxtext.py
and of `tml_jax.aot`. Not for: making them, nor finding ours
(`maxtext_ours.py`). Start at `section`.
"""

import json
import pathlib
import re
import textwrap
from typing import Any

from benchmarks import maxtext_rows

Report = dict[str, Any]

_WIDTH = 80
_GROUPED = re.compile(r"gmm|ragged_dot")
HEADING = "## MaxText's nearest configuration"
_HEAD = (
  "| row | slice | mesh | tokens a chip | HBM, GiB | KiB a token |"
  " FLOP ratio | ICI, GB | of it synchronous | bound, s | MFU bound |"
  " exposed | reachable | exposed | compile, s | host, GiB |",
  "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
)
# What two programs are compared by: key, words, whether more is better, and
# how a value is written.
_FULL = 1.5  # of a buffer that is fuller, FLOPs say what is done
_MEASURES = (
  ("kib_per_token", "HBM a token, KiB", False, "{:,.0f}"),
  ("flop_ratio", "FLOPs over those needed", False, "{:.2f}"),
  ("ici_gb_per_chip", "GB over ICI", False, "{:,.0f}"),
  ("mfu_bound", "MFU bound", True, "{:.2f}"),
  ("mfu_bound_exposed", "exposed", True, "{:.2f}"),
  ("mfu_bound_reachable", "reachable", True, "{:.2f}"),
  ("mfu_bound_reachable_exposed", "reachable, exposed", True, "{:.2f}"),
  ("compile_s", "seconds to compile", False, "{:.0f}"),
  ("host_rss_gib", "GiB of the host", False, "{:.1f}"),
)


_ABOUT = """
Compiled by `python -m benchmarks.maxtext`, on a machine like that of our
rows, with the same libtpu ({versions}), and read by the same reader. The
configuration: qwen3_moe, d_model 4096, 42 layers, 32 / 8 heads x 128, 256
experts top 8 of width 2048, vocabulary 201,024, sequence 8,192, bfloat16
compute, float32 weights; flags are in `benchmarks/maxtext_rows.py`. FLOPs
needed are those of MaxText's model by our rule: attention sees half of the
sequence, every position is a target, forward and twice that backward. Rows of
MaxText begin with `maxtext`; compile times are of a machine that others used
too.
"""
_GROUPED_ABOUT = """
Grouped products of MaxText's experts state FLOPs and HBM bytes, these by
their tiles, and bounds rest on what they state: those of tokamax more than
twice what `megablox` does, as it has no tuned tiles for these shapes. And the
reachable time fills products up to whole matrix units, also those of one
column for each token by which MaxText adds up a token's experts. So reachable
bounds of MaxText may be too low; clocks of the tpu7x recipe with another
model (above) say that they are. Time of these kernels in that of all
instructions at peak, GB that they move, and reachable time that fills up
products of fewer than 8 columns:
"""


def read(directory: pathlib.Path) -> dict[str, Report]:
  """The reports of MaxText's rows in `directory`."""
  reports = {}
  for row in maxtext_rows.ROWS:
    path = directory / f"{row.name}.json"
    if path.exists():
      reports[row.name] = json.loads(path.read_text(encoding="utf-8"))
  return reports


def section(
  reports: dict[str, Report], maxtext_reports: dict[str, Report]
) -> list[str]:
  """Both at equal tokens of a chip, and who is behind in what."""
  if not maxtext_reports:
    return []
  lines = [HEADING, "", *_about(maxtext_reports), ""]
  lines += _HEAD
  against: list[str] = []
  for slice_ in dict.fromkeys(r["topology"] for r in maxtext_reports.values()):
    theirs = [r for r in maxtext_reports.values() if r["topology"] == slice_]
    tokens = {r["tokens_per_chip"] for r in theirs}
    ours = _equal(reports, topology=slice_, tokens=tokens)
    lines += _cells_of(theirs)
    lines += [_line(name, report) for name, report in ours.items()]
    against += _compared(slice_, theirs=theirs, ours=ours)
  lines += ["", *_attention(maxtext_reports), *_grouped(maxtext_reports)]
  lines += against
  lines += [*_refusals(maxtext_reports), *_DIFFERENCES]
  return lines


def kept(text: str) -> list[str]:
  """The section as benchmarks/tpu.md has it: its last.

  Raises:
    ValueError: the text has no such section, or two.
  """
  if text.count(f"\n{HEADING}\n") != 1:
    raise ValueError(f"there must be one line {HEADING!r}")
  return text[text.index(f"\n{HEADING}\n") + 1 :].splitlines()


def replaced(text: str, *, section: list[str]) -> str:
  """benchmarks/tpu.md with another section.

  Raises:
    ValueError: the text has no such section, or two.
  """
  old = "\n".join(kept(text)) + "\n"
  return text.removesuffix(old) + "\n".join(section) + "\n"


def rows_of(maxtext_reports: list[Report]) -> list[str]:
  """The table of these alone."""
  return [*_HEAD, *_cells_of(maxtext_reports)]


def _about(maxtext_reports: dict[str, Report]) -> list[str]:
  versions = ", ".join(
    sorted(
      {
        " ".join((name, version))
        for r in maxtext_reports.values()
        for name, version in r["versions"].items()
        if name in ("maxtext", "jax", "libtpu")
      }
    )
  )
  return _wrapped(_ABOUT.format(versions=versions))


def _wrapped(text: str) -> list[str]:
  """Lines of a paragraph."""
  return textwrap.wrap(" ".join(text.split()), width=_WIDTH)


def _cells_of(maxtext_reports: list[Report]) -> list[str]:
  return [_line(r["row"], r) for r in maxtext_reports]


def _line(name: str, r: Report) -> str:
  tokens = _tokens(r)
  if "status" in r:
    hbm = "refused"
    if "needed_gib" in r:
      hbm = f"refused: {r['needed_gib']:.1f} of {r['limit_gib']:.2f} a device"
    blank = [""] * 9
    compiled = [
      f"{r[key]:{form}}" if key in r else ""
      for key, form in (("compile_s", ".0f"), ("host_rss_gib", ".1f"))
    ]
    cells = [name, r["topology"], r["note"], f"{tokens:,}", hbm, *blank]
    return "| " + " | ".join([*cells, *compiled]) + " |"
  mesh = " ".join(f"{a} {n}" for a, n in r["mesh"].items() if n > 1)
  synchronous = "-"
  if "collectives" in r:
    parts = (c["ici_gb"] for c in r["collectives"] if not c["asynchronous"])
    synchronous = f"{sum(parts):,.0f}"
  cells = [
    name,
    r["topology"],
    mesh + (f" ({r['note']})" if "note" in r else ""),
    f"{tokens:,}",
    f"{r['hbm_gib_per_chip']:.1f} of {r['hbm_limit_gib']:.2f}",
    f"{_value(r, 'kib_per_token'):,.0f}",
    f"{r['flop_ratio']:.2f}",
    f"{r['ici_gb_per_chip']:,.0f}",
    synchronous,
    f"{r['roofline_s']:.2f}",
    f"{r['mfu_bound']:.2f}",
    f"{r['mfu_bound_exposed']:.2f}",
    *(
      f"{r[key]:.2f}" if key in r else "-"
      for key in ("mfu_bound_reachable", "mfu_bound_reachable_exposed")
    ),
    f"{r['compile_s']:.0f}",
    f"{r['host_rss_gib']:.1f}",
  ]
  return "| " + " | ".join(cells) + " |"


def _tokens(r: Report) -> int:
  """Of a chip and step."""
  if "tokens_per_chip" in r:
    return r["tokens_per_chip"]
  return r["tokens_per_step"] // r["chips"]


def _equal(
  reports: dict[str, Report], *, topology: str, tokens: set[int]
) -> dict[str, Report]:
  """Our train steps on a slice that take as many tokens at once."""
  equal = {}
  for name, r in reports.items():
    if (
      "status" in r
      or r["program"] != "step"
      or r["config"] != "tml_interaction_small"
      or r["topology"] != topology
      or r["num_slices"] > 1
    ):
      continue
    if "tokens_shown" in r:
      for count in tokens:  # as the table rounds it
        if f"{count * r['chips'] / 1e6:.1f}" == r["tokens_shown"]:
          equal[name] = r | {"tokens_per_step": count * r["chips"]}
    elif _tokens(r) in tokens:
      equal[name] = r
  return equal


def _value(r: Report, key: str) -> float | None:
  if key == "kib_per_token":
    return r["hbm_gib_per_chip"] * 2**20 / _tokens(r)
  return r.get(key)


def _compared(
  topology: str, *, theirs: list[Report], ours: dict[str, Report]
) -> list[str]:
  """Sentences for a slice: our first row against each of MaxText's.

  A row in 8 bits, which its name says, is compared with one in 8 bits.
  """
  lines = [f"{topology}:", ""]
  if not ours:
    return [*lines, "- no report of ours at these tokens of a chip.", ""]
  for r in theirs:
    in_8_bits = "fp8" in r["row"]
    alike = [name for name in ours if ("fp8" in name) == in_8_bits]
    if not alike:
      lines.append(
        f"- `{r['row']}`: no report of ours in"
        f" {'8 bits' if in_8_bits else 'bfloat16'} at these tokens of a chip."
      )
      continue
    name, mine = alike[0], ours[alike[0]]
    if "status" in r:
      lines.append(f"- `{r['row']}` does not compile; `{name}` does.")
      continue
    behind, ahead, equal = [], [], []
    for key, words, more_is_better, form in _MEASURES:
      my, other = _value(mine, key), _value(r, key)
      if my is None or other is None:
        continue
      if r["buffer"] > _FULL and key.startswith(("flop", "mfu")):
        continue
      shown = form.format(my), form.format(other)
      text = f"{words} {shown[0]} (MaxText {shown[1]})"
      if shown[0] == shown[1]:
        equal.append(text)
      else:
        (ahead if (my > other) == more_is_better else behind).append(text)
    parts = [
      f"{word}: {', '.join(several)}"
      for word, several in (
        ("behind", behind),
        ("ahead", ahead),
        ("equal", equal),
      )
      if several
    ]
    line = f"- `{name}` against `{r['row']}`. We are {'; '.join(parts)}."
    if r["buffer"] > _FULL:
      line += (
        f" Its kernels state FLOPs and bytes of a buffer {r['buffer']:g} times"
        " as large as what fills it, so those and bounds are not compared."
      )
    if r["host_gb_per_chip"]:
      line += (
        f" It moves {r['host_gb_per_chip']:.0f} GB of a chip to and from the"
        " host in a step"
      )
      if "host_gb_per_chip" in mine:
        line += f", ours {mine['host_gb_per_chip']:.0f}"
      line += "."
    lines.append(line)
  return [*lines, *_least(theirs, ours=ours), ""]


def _least(theirs: list[Report], *, ours: dict[str, Report]) -> list[str]:
  """Of each side the program that takes least HBM, and what it gives for it."""
  built = {r["row"]: r for r in theirs if "status" not in r}
  parts = []
  for several in (ours, built):
    if several:
      name = min(several, key=lambda name: several[name]["hbm_gib_per_chip"])
      r = several[name]
      parts.append(
        f"`{name}` {_value(r, 'kib_per_token'):,.0f} (MFU bound"
        f" {r['mfu_bound']:.2f}, exposed {r['mfu_bound_exposed']:.2f})"
      )
  if len(parts) < 2:
    return []
  return [f"- least HBM a token, KiB: {parts[0]}; MaxText {parts[1]}."]


def _attention(maxtext_reports: dict[str, Report]) -> list[str]:
  """What of the figures is not stated by the program."""
  lines = []
  for r in maxtext_reports.values():
    if not r.get("attention_counted_here"):
      continue
    as_read = r["as_read"]
    kernels = sum(r["kernels_without_flops"].values())
    lines.append(
      f"- `{r['row']}`: {kernels:,} calls, {r['flop_ratio']:.2f} with them,"
      f" {as_read['flop_ratio']:.2f} as read; MFU bound"
      f" {r['mfu_bound']:.2f} and {as_read['mfu_bound']:.2f}."
    )
  if not lines:
    return []
  return [
    "MaxText's default attention kernel states no FLOPs. Here its matrix",
    "products are added, over half of the square of positions (forward two, of",
    "the gradients four and three, in one kernel five). FLOP ratios:",
    "",
    *lines,
    "",
  ]


def _grouped(maxtext_reports: dict[str, Report]) -> list[str]:
  """How much of a bound is what kernels of experts say of their bytes."""
  lines = []
  for r in maxtext_reports.values():
    parts = [p for p in r.get("by_module", ()) if _GROUPED.search(p["scope"])]
    if not parts:
      continue
    seconds = sum(p["seconds"] for p in parts)
    by_bytes = seconds - sum(p["compute_bound_s"] for p in parts)
    of_all = r["roofline"]["instructions_s"]
    moved = sum(p["hbm_gb"] for p in parts)
    lines.append(
      f"- `{r['row']}`: {seconds:.2f} of {of_all:.2f} s, {by_bytes:.2f} of it"
      f" bound by HBM; {moved:,.0f} GB; {r['filled_narrow_s']:.2f} s."
    )
  if not lines:
    return []
  about = _wrapped(_GROUPED_ABOUT)
  return [
    *about,
    "",
    *lines,
    "",
  ]


def _refusals(maxtext_reports: dict[str, Report]) -> list[str]:
  lines = []
  for r in maxtext_reports.values():
    if "status" in r:
      said = [line[:160] for line in r["message"][:4]]
      lines += [f"`{r['row']}` ({r['note']}) is refused:", "", "```"]
      lines += [*said, "```", ""]
  return lines


_DIFFERENCES = """Equal: width, depth, heads, vocabulary, sequence length, 8
active experts of width 2048 a layer, dtypes of compute and weights.
Not equal: ours has 6 routed and 2 shared experts where MaxText has 8 routed;
relative bias, short convolutions, audio and image inputs and the flow head,
which it has not; attention in 35 of 42 layers sees 512 positions, there all;
Muon and an average of the weights, there AdamW; the loss at 2,560 of 8,192
positions, there at all. So the FLOPs that each needs differ, and each ratio and
MFU is over its own. Ours counts a buffer of 1.125 times the experts' mean load
as full; the kernels skip what is empty of it. HBM of a MaxText row that sends
to the host is too high by up to 10.5 GiB a chip of v5p and 26.2 of tpu7x:
libtpu's peak counts what lies there too, and holes between its buffers hide how
much.
Any step can take its batch in pieces, which divides HBM a token: compare at
equal tokens of a chip.""".split("\n")
