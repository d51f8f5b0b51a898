"""Game-Time's layout, written from recorded prompts at test time.

An instruction of each family. What the recorded words say is no matter: the
alignments are those of the texts below.
"""

import json
import pathlib

import numpy as np

from tests.helpers import full_duplex_bench, speech

RATE = 16_000
# Words of 0.3 s; "|" is half a second, "-" a tenth of silence.
TEXTS = {
  "basic_instructions/1-a-Sequence-Number": "count-from-one-to-three",
  "basic_instructions/5-b-Open-Ended-QA": "why-is-the-sky-blue",
  "advanced_instructions/A-1-Time-Fast-Sequence": ("count-to-ten-in-3-seconds"),
  "advanced_instructions/B-1-Time-Slow-Sequence": (
    "take-at-least-two-and-a-half-seconds-to-count"
  ),
  "advanced_instructions/C-1-Time-Silence-Repeat": (
    "wait-for-four-seconds-and-say-hello"
  ),
  "advanced_instructions/D-1-Tempo-Interval-Sequence": (
    "count-with-one-second-between-numbers"
  ),
  "advanced_instructions/E-1-Tempo-Adhere-Sequence": (
    "count-like-me-one||two||three"
  ),
  "advanced_instructions/F-1-Simul-Shadow": "say-with-me-red-green-blue",
  "advanced_instructions/G-1-Simul-Cue": "rock||paper||scissors||shoot",
}
WORD, GAPS = 0.3, {"|": 0.5, "-": 0.1}


def write(root: pathlib.Path) -> None:
  """Writes all of it; ID is 0 everywhere."""
  sound = np.concatenate(speech.clips())
  for k, (name, text) in enumerate(TEXTS.items()):
    kind, task = name.split("/")
    words = timed(text)
    count = round((words[-1][1][1] + 0.1) * RATE)
    path = root / kind / "audios" / task / "test" / "0.wav"
    path.parent.mkdir(parents=True)
    full_duplex_bench.write_wav(
      path,
      sound[k * RATE : k * RATE + count],
      rate=(RATE, 24_000)[k % 2],
      channels=1,
    )
    lines = path.parents[3] / "alignments" / task
    # Both places, and both nestings, that are known of published files.
    if k % 2:
      lines /= "test"
    lines.mkdir(parents=True)
    found = {"alignments": words} if k % 3 else words
    (lines / "0.jsonl").write_text(json.dumps(found) + "\n")


def timed(text: str) -> list:
  """[word, [start, end], speaker] of a text with its gaps."""
  result, now, word = [], 0.2, ""
  for letter in text + "-":
    if letter not in GAPS:
      word += letter
      continue
    if word:
      result.append([word, [round(now, 2), round(now + WORD, 2)], "USER"])
      now, word = now + WORD, ""
    now += GAPS[letter]
  return result
