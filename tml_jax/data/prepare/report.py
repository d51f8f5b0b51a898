"""What is in a corpus and what was left out, as numbers, text and a page.

For: the end of `prepare`. Not for: training. Start reading at `of`; `text` is
for a terminal, `html` a page that needs nothing besides itself. All comes from
the tables of the units and what stands beside them; no recording is read.
"""

import html as html_lib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tml_jax.data import corpus, source
from tml_jax.data.prepare import convert
from tml_jax.streams import clock

_TOKEN_SECONDS = clock.TOKEN_MS / 1000
# Counts by name with examples, and what they are called.
_COUNTED = {
  convert.SKIPPED: "skipped",
  source.NOTES: "left out",
  convert.MENDED: "mended",
}
_BINS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800)  # seconds


def of(found: Sequence[corpus.Found]) -> dict[str, Any]:
  """JSON values about a corpus of these units."""
  result: dict[str, Any] = {part: {} for part in _COUNTED}
  sizes: list[list[int]] = []
  measures: dict[str, list[float]] = {}
  for each in found:
    for name, values in each.meta.get(convert.MEASURES, {}).items():
      measures.setdefault(name, []).extend(values)
    for part in _COUNTED:
      for reason, entry in each.meta.get(part, {}).items():
        convert.count(
          result[part],
          reason,
          examples=entry["examples"],
          number=entry["count"],
        )
    if each.meta.get(convert.VIDEO):
      sizes.append(each.meta["size"])
  if sizes:
    result[convert.VIDEO] = sizes[0]
  rows = pa.concat_tables([each.rows for each in found])
  seconds = rows.column("seconds").to_numpy()
  total = float(seconds.sum())
  kinds: dict[str, Any] = {}
  languages: dict[str, Any] = {}
  licences: dict[str, Any] = {}
  voices: set[str] = set()
  columns = ("kind", "language", "licence", "voices", "letters")
  values = [rows.column(name).to_pylist() for name in columns]
  for kind, language, licence, speakers, letters, lasts in zip(
    *values, seconds.tolist(), strict=True
  ):
    _add(kinds, kind, seconds=lasts, letters=letters)
    _add(languages, language or "unknown", seconds=lasts, letters=letters)
    _add(licences, licence or "unknown", seconds=lasts, letters=letters)
    voices.update(speakers)
  tokens = {
    name: int(rows.column(f"{name}_tokens").to_numpy().sum())
    for name in ("user", "agent", "overlap")
  }
  active = (tokens["user"] + tokens["agent"] - tokens["overlap"]) * (
    _TOKEN_SECONDS
  )
  return result | {
    convert.MEASURES: {
      name: _distribution(values) for name, values in sorted(measures.items())
    },
    "recordings": rows.num_rows,
    "hours": total / 3600,
    "bytes": sum(shard.bytes for each in found for shard in each.unit.shards),
    "kinds": kinds,
    "languages": languages,
    "licences": licences,
    "voices": len(voices),
    "user_hours": tokens["user"] * _TOKEN_SECONDS / 3600,
    "agent_hours": tokens["agent"] * _TOKEN_SECONDS / 3600,
    "overlap_share": _share(tokens["overlap"] * _TOKEN_SECONDS, total),
    "silence_share": _share(max(0.0, total - active), total),
    "clipped": int((rows.column("clipped").to_numpy() > 0).sum()),
    "frames": int(rows.column("frames").to_numpy().sum()),
    "durations": {
      f"up to {most} s": int(count)
      for most, count in zip(
        [*_BINS, "more"], _histogram(seconds.tolist()), strict=True
      )
      if count
    },
  }


def _distribution(values: Sequence[float]) -> dict[str, float]:
  low, median, high = np.percentile(values, (5, 50, 95)).tolist()
  return {"count": len(values), "p5": low, "median": median, "p95": high}


def _add(
  counts: dict[str, Any], name: str, *, seconds: float, letters: int
) -> None:
  entry = counts.setdefault(name, {"recordings": 0, "hours": 0.0, "letters": 0})
  entry["recordings"] += 1
  entry["hours"] += seconds / 3600
  entry["letters"] += letters


def _share(part: float, whole: float) -> float:
  return part / whole if whole else 0.0


def _histogram(seconds: list[float]) -> list[int]:
  counts = [0] * (len(_BINS) + 1)
  for each in seconds:
    counts[sum(each > most for most in _BINS)] += 1
  return counts


def text(name: str, report: dict[str, Any]) -> str:
  """The report for a terminal, a few lines."""
  lines = [
    f"{name}: {report['recordings']} recordings, {report['hours']:.2f} h,"
    f" {report['bytes'] / 2**20:.1f} MiB"
  ]
  for what in ("kinds", "languages", "licences"):
    parts = [
      f"{key} {entry['recordings']} ({entry['hours']:.2f} h,"
      f" {entry['letters']} letters)"
      for key, entry in sorted(report[what].items())
    ]
    lines.append(f"  {what}: {', '.join(parts)}")
  if report["hours"]:
    lines.append(
      f"  user speaks {report['user_hours']:.2f} h, agent"
      f" {report['agent_hours']:.2f} h, both at once"
      f" {100 * report['overlap_share']:.1f} % of the time, nobody"
      f" {100 * report['silence_share']:.1f} %; {report['clipped']} recordings"
      " reach full scale"
    )
  for name, entry in report[convert.MEASURES].items():
    lines.append(
      f"  {name}: {entry['median']:.4g} (p5 {entry['p5']:.4g}, p95"
      f" {entry['p95']:.4g}) in {entry['count']}"
    )
  for part, word in _COUNTED.items():
    for reason, entry in sorted(report[part].items()):
      lines.append(
        f"  {word}: {entry['count']} {reason}, for instance"
        f" {'; '.join(entry['examples'][:2])}"
      )
  return "\n".join(lines)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .75rem; border-bottom: 1px solid #ccc;
  text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #2a6fb0; height: .8rem; min-width: 1px }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 }
  td, th { border-color: #444 } }
"""


def html(name: str, report: dict[str, Any]) -> str:
  """The report as a page."""
  facts = {
    "Recordings": f"{report['recordings']:,}",
    "Hours": f"{report['hours']:.2f}",
    "MiB on disk": f"{report['bytes'] / 2**20:.1f}",
    "User speaks, hours": f"{report['user_hours']:.2f}",
    "Agent speaks, hours": f"{report['agent_hours']:.2f}",
    "Both at once": f"{100 * report['overlap_share']:.1f} %",
    "Nobody speaks": f"{100 * report['silence_share']:.1f} %",
    "Recordings that reach full scale": str(report["clipped"]),
    "Voices": str(report["voices"]),
    "Frames of video": f"{report['frames']:,}",
  }
  parts = [_table(("", ""), [[key, value] for key, value in facts.items()])]
  for title in ("kinds", "languages", "licences"):
    rows = [
      [
        key,
        f"{entry['recordings']:,}",
        f"{entry['hours']:.2f}",
        f"{entry['letters']:,}",
      ]
      for key, entry in sorted(report[title].items())
    ]
    parts.append(f"<h2>{title.capitalize()}</h2>")
    parts.append(_table(("", "Recordings", "Hours", "Letters"), rows))
  parts.append("<h2>Durations</h2>" + _bars(report["durations"]))
  for part, title in (
    (convert.SKIPPED, "Skipped"),
    (source.NOTES, "Left out of recordings that are kept"),
    (convert.MENDED, "Mended, or written into them"),
  ):
    rows = [
      [reason, f"{entry['count']:,}", "; ".join(entry["examples"])]
      for reason, entry in sorted(report[part].items())
    ]
    nothing = "" if rows else "<p>Nothing.</p>"
    parts.append(f"<h2>{title}</h2>{nothing}")
    if rows:
      parts.append(_table(("Reason", "Count", "For instance"), rows))
  rows = [
    [key, f"{e['count']:,}", *(f"{e[p]:.4g}" for p in ("p5", "median", "p95"))]
    for key, e in report[convert.MEASURES].items()
  ]
  if rows:
    parts.append("<h2>Measures</h2>")
    parts.append(_table(("", "Recordings", "p5", "Median", "p95"), rows))
  title = html_lib.escape(name)
  return (
    "<!doctype html>\n<html lang=en><meta charset=utf-8>"
    '<meta name=viewport content="width=device-width">'
    f"<title>{title}</title><style>{_STYLE}</style>"
    f"<h1>{title}</h1>\n" + "\n".join(parts) + "</html>\n"
  )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = ["<table>"]
  if any(head):
    lines.append(
      "<tr>" + "".join(f"<th scope=col>{each}</th>" for each in head)
    )
  for first, *others in rows:
    cells = "".join(
      f"<td class={'number' if each[:1].isdigit() else 'text'}>"
      f"{html_lib.escape(each)}</td>"
      for each in others
    )
    lines.append(f"<tr><th scope=row>{html_lib.escape(first)}</th>{cells}")
  return "\n".join([*lines, "</table>"])


def _bars(counts: dict[str, int]) -> str:
  most = max(counts.values(), default=1)
  rows = "".join(
    f"<tr><th scope=row>{name}</th><td class=number>{count:,}</td>"
    f"<td style='width:20rem'><div class=bar"
    f" style='width:{100 * count / most:.1f}%'></div></td>"
    for name, count in counts.items()
  )
  return f"<table>{rows}</table>"
