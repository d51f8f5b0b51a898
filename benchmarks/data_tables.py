"""The tables of benchmarks.data: its numbers to benchmarks/data.md.

For: benchmarks.data. Not for: measuring. Start reading at `markdown`. A part
that was not measured keeps what the document said of it.
"""

import pathlib
import re
from typing import Any

_TPU = pathlib.Path(__file__).with_name("tpu.md")
_CHIPS = 4  # of a host


def tpu_host() -> dict[str, float]:
  """Positions that a host of v5p eats a second at the bound of tpu.md."""
  row = next(
    line
    for line in _TPU.read_text(encoding="utf-8").splitlines()
    if line.startswith("| v5p |")
  )
  cells = [cell.strip() for cell in row.strip("|").split("|")]
  tokens = float(re.match(r"[\d.]+(?= M)", cells[4]).group()) * 1e6
  chips, seconds = int(cells[2]), float(cells[9])
  return {"positions": tokens / chips * _CHIPS / seconds, "bound_s": seconds}


def markdown(result: dict[str, Any], *, before: str) -> str:
  """The whole document; `before` is what it was."""
  parts = {
    "open": ("Opening", _open),
    "prepare": ("Preparing", _prepare),
    "killed": ("Killed while it prepares", _killed),
    "faults": ("Faults", _faults),
    "loader": ("Loading", _loader),
    "augment": ("Changing recordings", _augment),
    "importers": ("Importers of recordings", _importers),
    "hosts": ("Hosts that come and go", _hosts),
  }
  lines = [
    "# Data, from a source to the train loop",
    "",
    "`python -m benchmarks.data`; what is measured is said there.",
  ]
  kept = dict(re.findall(r"^## (.*)\n\n((?:(?!## ).*\n)*)", before, re.M))
  for part, (title, section) in parts.items():
    lines += ["", f"## {title}", ""]
    made = result.get("made", {}).get(part)
    if made:
      lines += [made, "", *section(result)]
    else:
      lines += [kept.get(title, "Not measured.").rstrip()]
  return "\n".join(lines) + "\n"


def _open(result: dict[str, Any]) -> list[str]:
  base = result["open_base"]
  lines = [
    "A fresh process opens two corpora of half as many typed lines each, mixes"
    " them and makes the first batch of `tiny`; the files are in memory. MiB"
    " is the peak beyond what the process had before. The aim was under 2 s"
    " and 300 MiB at a million.",
    "",
    "| recordings | s to open and mix | s to the first batch | MiB |"
    " 0a9b157: s | MiB |",
    "|--:|--:|--:|--:|--:|--:|",
  ]
  for size, seconds in result["open_seconds"].items():
    lines.append(
      f"| {int(size):,} | {result['opened'][size]:.2f} | {seconds:.2f} |"
      f" {result['open_mib'][size]:.0f} | {_of_base(base, size)} |"
    )
  if base["seconds"]:
    lines += [
      "",
      "0a9b157 decodes every recording to learn its id. What is marked with ~"
      " was not run: it is the time of the largest that was, in proportion.",
    ]
  return lines


def _faults(result: dict[str, Any]) -> list[str]:
  found = result["faults"]
  prepared = found["prepare_hours_per_core_minute"]
  lines = [
    f"{found['calls']} calls of {found['seconds']:g} s of recorded prompts,"
    " words wrong by 50 ms, noise of -60 dBFS; each is measured without a fault"
    " and with each of these. Found is: skipped for that fault, by the"
    " thresholds of [docs/mend.md](../docs/mend.md). Intervals are of Clopper"
    " and Pearson, 95 %.",
    "",
    f"**Of calls without a fault** {_share(found['clean'])} were skipped.",
    "",
    "| fault | recall |",
    "|---|--:|",
  ]
  for name, share in found["sizes"].items():
    lines.append(f"| {name} | {_share(share)} |")
  lines += ["", "| fault | precision |", "|---|--:|"]
  for name, share in found["precision"].items():
    lines.append(f"| {name} | {_share(share)} |")
  lines += [
    "",
    f"**Speed**: `--check=all` measures"
    f" {found['checked_hours_per_core_minute']:.1f} hours of two channels a"
    " core-minute, in calls of 5 minutes; reading them alone does"
    f" {found['read_hours_per_core_minute']:.1f}. The command `prepare`, its"
    f" start included, makes {prepared['all']:.2f} hours of them a core-minute"
    f" with `--check=all` and {prepared['none']:.2f} with `--check=none`.",
  ]
  return lines


def _share(of: dict[str, Any]) -> str:
  if not of["of"]:
    return "-"
  return f"{of['found']} of {of['of']} ({of['low']:.3f} to {of['high']:.3f})"


def _of_base(base: dict[str, Any], size: str) -> str:
  seconds, mib = base["seconds"], base["mib"]
  if size in seconds:
    return f"{seconds[size]:.2f} | {mib[size]:.0f}"
  if not seconds:
    return "- | -"
  largest = max(seconds, key=int)
  return f"~ {seconds[largest] * int(size) / int(largest):,.0f} | -"


def _prepare(result: dict[str, Any]) -> list[str]:
  rows = result["prepare"]
  raw = result["bytes_per_hour"]["raw PCM"]
  first = rows["pool of 1"]
  lines = [
    f"{first['hours']:.1f} h of calls of 5 minutes with words, made of recorded"
    " prompts, a track for each side, by the command `prepare`, its start"
    " included. Under both sides is noise of -60 dBFS where nothing else is"
    " said. Core-minutes are those of all its processes.",
    "",
    "| | wall s | core s | hours a core-minute | MB an hour | of raw PCM |",
    "|---|--:|--:|--:|--:|--:|",
  ]
  for name, row in rows.items():
    lines.append(
      f"| {name} | {row['wall']:.1f} | {row['cpu']:.1f} |"
      f" {row['hours_per_core_minute']:.2f} |"
      f" {row['bytes_per_hour'] / 1e6:.1f} | {row['bytes_per_hour'] / raw:.2f}"
      " |"
    )
  beam = rows["Beam, DirectRunner"]
  lines += [
    "",
    f"Raw PCM, which 0a9b157 wrote, is {raw / 1e6:.1f} MB an hour; the aim was"
    f" half. Beam takes {beam['cpu'] - first['cpu']:+.1f} core seconds beside"
    " the pool of 1. Others used the machine: read the core seconds.",
  ]
  return lines


def _augment(result: dict[str, Any]) -> list[str]:
  rows = result["augment_seconds_per_core_second"]
  seconds = result["augment_call_seconds"]
  lines = [
    f"Seconds of conversation that a core-second changes, of calls of"
    f" {seconds:.0f} s in memory, with the defaults of"
    " [augmentation.md](../docs/augmentation.md); only the user's sound where"
    " that is the default. Others used the machine.",
    "",
    "| | s a core-second |",
    "|---|--:|",
  ]
  lines += [
    f"| {name} | {rate:,.0f} |"
    for name, rate in rows.items()
    if name != "together"
  ]
  return [
    *lines,
    "",
    f"`{result['augment_together']}` together change {rows['together']:,.0f} s:"
    f" {3600 / rows['together']:.1f} core-seconds an hour.",
  ]


def _killed(result: dict[str, Any]) -> list[str]:
  killed = result["killed"]
  return [
    f"{killed['files']:,} calls of 15 s, {killed['units']} units; `prepare` and"
    f" its processes were killed {len(killed['finished'])} times with signal 9"
    " at random moments of their work, when"
    f" {', '.join(map(str, killed['finished']))} units were finished, and run"
    " once more. Files that differ from those of an undisturbed run:"
    f" {len(killed['differs'])}{''.join(': ' + f for f in killed['differs'])}.",
  ]


def _loader(result: dict[str, Any]) -> list[str]:
  rows, train, tpu = result["loader"], result["train"], result["tpu_host"]
  eaten = train["slots"] / train["step"]
  lines = [
    "Filled positions from a loader whose reader does nothing else, with 0 (two"
    " threads), 1 and 2 worker processes on two cores that others use, too:"
    " read the core-seconds, of all its processes. `pretrain.py:tiny_pretrain`"
    " with 288 patches a sequence and one logical shard. The calls are those"
    " above; video is a picture of 120 x 160 a second; text is this"
    " repository's.",
    "",
    "| | of slots filled | a second, 0 workers | 1 | 2 | a core-second,"
    " 0 workers | 1 | 2 | hours of conversation a core-hour, 0 workers |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
  ]
  for name, each in rows.items():
    found = list(each.values())
    filled = sum(row["filled"] for row in found) / len(found)
    cells = [f"{filled:.2f}"]
    for key in ("positions", "positions_per_core_second"):
      cells += [f"{row[key]:,.0f}" for row in found]
    hours = 3600 * found[0]["hours_per_core_second"]
    cells.append(f"{hours:,.0f}" if hours else "-")
    lines.append(f"| {name} | {' | '.join(cells)} |")
  per_core = rows["all three"]["1"]["positions_per_core_second"]
  return [
    *lines,
    "",
    f"**`tiny`** takes {train['step']:.2f} s a step of {train['slots']:,}"
    f" slots, {eaten:,.0f} a second, on the same two cores. In a run of 40"
    " steps on all three (`data.workers=0`), of which the first 20 are left"
    f" out, it waits {1000 * train['data']:.1f} ms a step for its batch,"
    f" {100 * result['input_wait_share']:.2f} % of the time; the aim was below"
    " 1 %.",
    "",
    f"**A v5p host** of {_CHIPS} chips eats {tpu['positions']:,.0f} positions"
    f" a second at the bound of [tpu.md](tpu.md) ({tpu['bound_s']} s a step):"
    f" {tpu['positions'] / per_core:.1f} cores like these make as many of all"
    " three. This is arithmetic, from streams of `tiny`: no such host was"
    " there.",
    "",
    *_lhotse(result),
  ]


def _lhotse(result: dict[str, Any]) -> list[str]:
  if "lhotse" not in result:
    return ["lhotse's loader was not timed (`--lhotse_python`)."]
  lhotse = result["lhotse"]
  lines = [
    f"**lhotse** {lhotse['version']} on the same calls, in the same run: Shar"
    " files of FLAC that it wrote, in pieces of 20 s, four a batch, by a"
    " PyTorch `DataLoader`. Ours reads whole calls of 5 minutes, and makes"
    " dMel, mel to be said, tokens and packed sequences of them.",
    "",
    "| hours of calls | a clock hour, 0 workers | 1 | 2 | a core-hour,"
    " 0 workers | 1 | 2 |",
    "|---|--:|--:|--:|--:|--:|--:|",
  ]
  forms = {f"lhotse, {name}": each for name, each in lhotse["rows"].items()}
  forms["ours, packed batches"] = result["loader"]["calls"]
  for name, each in forms.items():
    cells = [
      f"{3600 * row[key]:,.0f}"
      for key in ("hours", "hours_per_core_second")
      for row in each.values()
    ]
    lines.append(f"| {name} | {' | '.join(cells)} |")
  alone = 3600 * result["read_hours_per_core_second"]
  lines.append(
    f"| ours, read and decoded alone | - | - | - | {alone:,.0f} | - | - |"
  )
  return lines


def _importers(result: dict[str, Any]) -> list[str]:
  calls = result["importers_calls"]
  lines = [
    f"{calls['count']} calls of {calls['seconds']:g} s with noise of -60 dBFS,"
    " made of recorded prompts, in every form: its rates, codecs and texts, as"
    " `benchmarks/layouts/` writes them. One process prepares them, once with"
    " `--check=none`, except what is mostly pictures, and once with"
    " `--check=all`; its start and imports are not counted, as a short call"
    " comes first. Hours are of conversation, whatever its channels. Pictures"
    " of people are H.264 of 640 x 360, a ninth of 1080p, 25 a second; one a"
    " second is kept, of 160 x 120. Others used the machine.",
    "",
    "| importer | hours a core-minute, no checks | all checks | source, MB an"
    " hour | corpus, MB an hour | kept |",
    "|---|--:|--:|--:|--:|--:|",
  ]
  for name, row in result["importers"].items():
    speeds = row["hours_per_core_minute"]
    without = f"{speeds['none']:.1f}" if "none" in speeds else "-"
    lines.append(
      f"| {name} | {without} | {speeds['all']:.1f} |"
      f" {row['source_bytes_per_hour'] / 1e6:.1f} |"
      f" {row['corpus_bytes_per_hour'] / 1e6:.1f} |"
      f" {row['kept']} of {row['of']} |"
    )
  return [
    *lines,
    "",
    "The source is every file of the form, whether it is read or not. `ami` has"
    " a third track, of whoever else is in the room; `video` and"
    " `full_duplex_bench` have one, the user's.",
  ]


def _hosts(result: dict[str, Any]) -> list[str]:
  found = result["hosts"]
  least, most = found["used"]
  return [
    "35 corpora of documents, pairs, calls and calls with video; 15 batches on"
    " one host, 15 on two, 15 on four, each going on from the merged state of"
    f" those before. Of {found['elements']:,} recordings and documents"
    f" ({100 * least:.0f} to {100 * most:.0f} % of an epoch),"
    f" {found['things']:,} frames and targets of text:",
    "",
    "| lost | repeated | recordings that came twice in an epoch |",
    "|--:|--:|--:|",
    f"| {found['lost']} | {found['repeated']} | {found['again']} |",
  ]
