"""A corpus on a page: its numbers as tables and charts.

For: the first part of `data.html`. Not for: counting (`facts`, `budget`) or
recordings one by one (`recording`). Start at `section`.
"""

import numpy as np

from tml_jax.config import Config
from tml_jax.config import streams as streams_config
from tml_jax.data import source as source_lib
from tml_jax.page import charts, floor, html, positions
from tml_jax.page.budget import Budget
from tml_jax.page.charts import Bar
from tml_jax.page.facts import Facts, Share
from tml_jax.streams import frame as frame_lib

_SECONDS = (0, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800, np.inf)
_LETTERS = (0, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, np.inf)
_PERCENT = (0, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_OFFSETS = (-np.inf, -1, -0.5, -0.2, 0, 0.2, 0.5, 1, 2, np.inf)
_OVERLAPPING = _OFFSETS.index(0)  # bars before the one from 0 on
_NAMED = 15  # lines of a table of languages or voices
_BUDGETS = {
  "seq_len": "positions",
  "max_audio": "sound",
  "max_patches": "patches of video",
  "max_speak": "windows of speech to make",
  "max_targets": "tokens with a loss",
}


def section(
  facts: Facts,
  *,
  transfers: tuple[list[floor.Transfer], int],
  budget: Budget,
  config: Config,
) -> html.Section:
  """What a corpus holds.

  Args:
    facts: of its tables.
    transfers: of the floor, and in how many recordings.
    budget: of some recordings.
    config: that they were packed with.
  """
  body = [
    _headline(facts),
    "<div class=columns>",
    *_spoken(facts, transfers=transfers),
    *(
      _named(facts, title, found)
      for title, found in (
        ("Kinds", facts.kinds),
        ("Languages", facts.languages),
        ("Voices", facts.voices),
        ("Licences", facts.licences),
      )
      if found
    ),
    "</div>",
    _budget(budget, config=config),
    _prepared(facts),
  ]
  return html.Section(f"Corpus {facts.name}", "\n".join(body))


def _headline(facts: Facts) -> str:
  seconds = facts.seconds[facts.seconds > 0]
  rows: list[tuple[str, object]] = [
    ("recordings", len(facts.seconds)),
    ("hours", facts.hours),
    ("MiB on disk", facts.bytes / 2**20),
    ("letters said, typed or shown", int(facts.letters.sum())),
  ]
  if len(seconds):
    total = float(seconds.sum())
    rows += [
      ("shortest, seconds", float(seconds.min())),
      ("median, seconds", float(np.median(seconds))),
      ("longest, seconds", float(seconds.max())),
      ("user speaks, hours", float(facts.user.sum()) / 3600),
      ("agent speaks, hours", float(facts.agent.sum()) / 3600),
      ("both at once, % of time", 100 * float(facts.overlap.sum()) / total),
      ("nobody speaks, % of time", 100 * float(facts.silence.sum()) / total),
      ("frames of video", facts.frames),
      ("recordings that reach full scale", facts.clipped),
    ]
  return html.facts(rows)


def _spoken(
  facts: Facts, *, transfers: tuple[list[floor.Transfer], int]
) -> list[str]:
  """Charts of durations, of who speaks, and of the floor."""
  has_sound = facts.seconds > 0
  seconds = facts.seconds[has_sound]
  if not len(seconds):
    return [
      charts.histogram(
        facts.letters, edges=_LETTERS, unit="letters", caption="Lengths"
      )
    ]
  both = float(facts.overlap.sum())
  result = [
    charts.histogram(seconds, edges=_SECONDS, unit="s", caption="Durations"),
    charts.stacked(
      [
        _hours("user alone", facts.user.sum() - both, "c-blue"),
        _hours("both", both, "c-purple"),
        _hours("agent alone", facts.agent.sum() - both, "c-red"),
        _hours("nobody", facts.silence.sum(), "c-none"),
      ],
      caption="Hours in which",
    ),
  ]
  for name, values, colour in (
    ("the user speaks", facts.user, "c-blue"),
    ("the agent speaks", facts.agent, "c-red"),
    ("both speak", facts.overlap, "c-purple"),
    ("nobody speaks", facts.silence, "c-black"),
  ):
    result.append(
      charts.histogram(
        100 * values[has_sound] / seconds,
        edges=_PERCENT,
        unit="%",
        caption=f"Recordings by the part of their time in which {name}",
        colours=[colour] * (len(_PERCENT) - 1),
      )
    )
  return [*result, _floor(*transfers)]


def _hours(name: str, seconds: float, colour: str) -> Bar:
  return Bar(name, float(seconds), f"{seconds / 3600:.2f} h", colour)


def _floor(found: list[floor.Transfer], count: int) -> str:
  """Gaps and overlaps at changes of the floor."""
  if not found:
    return f"<p class=note>The floor does not change in {count} recordings.</p>"
  offsets = np.array([each.offset for each in found])
  to_agent = np.array([each.to_agent for each in found])
  colours = ["c-purple"] * _OVERLAPPING
  colours += ["c-green"] * (len(_OFFSETS) - 1 - _OVERLAPPING)
  medians = [
    f"{name} {np.median(offsets[of]):.2f} s in {int(of.sum()):,}"
    for name, of in (("agent", to_agent), ("user", ~to_agent))
    if of.any()
  ]
  chart = charts.histogram(
    offsets,
    edges=_OFFSETS,
    unit="s",
    caption="Changes of the floor by their gap (below 0: both speak)",
    colours=colours,
  )
  return (
    f"<div>{chart}<p class=note>{len(found):,} changes in {count:,} recordings"
    " whose turns were looked at, without their sound. The median where the"
    f" floor is taken by the {', by the '.join(medians)}. Pauses of up to"
    f" {floor.JOINED} s are within an utterance.</p></div>"
  )


def _named(facts: Facts, title: str, found: dict[str, Share]) -> str:
  """A table of shares; the last line sums up the rest."""
  shown = list(found.items())[:_NAMED]
  rows: list[tuple[object, ...]] = [
    (name, share.recordings, share.hours, share.letters)
    for name, share in shown
  ]
  rest = list(found.values())[_NAMED:]
  if rest:
    rows.append(
      (
        f"{len(rest):,} others",
        sum(share.recordings for share in rest),
        sum(share.hours for share in rest),
        sum(share.letters for share in rest),
      )
    )
  head = ("", "recordings", "hours", "letters")
  return html.table(head, rows, caption=f"{title}: {len(found):,}")


def _budget(budget: Budget, *, config: Config) -> str:
  """Positions, targets and padding."""
  streams = config.streams
  names = streams_config.LIMITS
  rows = [
    (
      f"{_BUDGETS[name]} (streams.{name})",
      int(used),
      int(limit),
      100 * used / limit,
      100 * (1 - used / limit),
    )
    for name, used, limit in zip(
      names, budget.used.tolist(), budget.limits.tolist(), strict=True
    )
  ]
  weights = frame_lib.loss_weights(streams)
  total = max(1e-9, float(budget.weights.sum()))
  all_targets = max(1, int(budget.targets.sum()))
  kinds = [
    (
      positions.KINDS[kind],
      int(budget.targets[kind]),
      100 * budget.targets[kind] / all_targets,
      float(weights[kind]),
      100 * budget.weights[kind] / total,
    )
    for kind in frame_lib.Kind
    if budget.targets[kind]
  ]
  flow = (
    f"<p class=note>Sound: {budget.speech:,} windows to make, each of weight 1;"
    " its loss is added times train.flow_loss_weight ="
    f" {config.train.flow_loss_weight:g}.</p>"
  )
  return "\n".join(
    (
      "<h3>What a model would be fed</h3>",
      f"<p class=note>{budget.recordings:,} recordings from all over the corpus"
      f" (of long ones {config.data.stretch_seconds:g} s), packed into"
      f" {budget.sequences:,} sequences of {streams.seq_len:,} positions with"
      f" the config {html.text(config.name)}.</p>",
      html.table(
        ("", "used", "of", "% used", "% padding"), rows, caption="Budgets"
      ),
      charts.stacked(
        [
          Bar(
            positions.NAMES[part],
            float(budget.parts[part]),
            f"{int(budget.parts[part]):,}",
            positions.COLOURS[part][0],
          )
          for part in positions.Part
        ],
        caption="Positions",
      ),
      html.table(
        ("", "tokens", "% of tokens", "weight of each", "% of the weight"),
        kinds,
        caption="Tokens with a loss",
      ),
      flow,
    )
  )


def _prepared(facts: Facts) -> str:
  """What `prepare` has left out."""
  parts = ["<h3>What was left out when it was prepared</h3>"]
  for part, title in (
    ("skipped", "Recordings that were skipped"),
    (source_lib.NOTES, "Left out of recordings that are kept"),
  ):
    rows = [
      (reason, entry["count"], "; ".join(map(str, entry["examples"])))
      for reason, entry in sorted(facts.report.get(part, {}).items())
    ]
    if rows:
      parts.append(
        html.table(("", "count", "for instance"), rows, caption=title)
      )
    else:
      parts.append(f"<p>{title}: none.</p>")
  return "\n".join(parts)
