"""Every importer of recordings is timed, on a form that it reads whole."""

import functools

import numpy as np
import pytest

from benchmarks import data_importers, data_tables, layouts
from tests.helpers import planted_calls, streamed
from tml_jax.data import source
from tml_jax.streams import timeline as timeline_lib

# Of text, and of pairs of text and something else: docs/pretraining_data.md.
OTHERS = {
  *("text", "jsonl", "parquet", "speech_text", "image_text", "video_text")
}


@functools.cache
def calls():
  return layouts.calls(planted_calls.voices(), count=2, seconds=12.0)


def test_no_importer_is_forgotten():
  assert set(layouts.LAYOUTS) == set(source.IMPORTERS) - OTHERS
  assert set(source.IMPORTERS) > OTHERS
  assert {row.name for row in data_importers.rows()} == set(layouts.LAYOUTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_layout_holds_the_calls(name, tmp_path):
  """Sound and words of every side come back, on the same clock."""
  layout = layouts.LAYOUTS[name]
  layout.write(tmp_path, calls())
  items, bad = streamed.read(name, tmp_path, size="40x80", **layout.options)
  assert not bad and len(items) == len(calls())
  for item, call in zip(items, calls(), strict=True):
    timeline_lib.validate(item)
    assert item.duration == pytest.approx(call.duration, abs=0.1)
    assert {t.role for t in item.tracks} >= set(layout.heard)
    for role in layout.heard:
      found, track = item.track(role), call.track(role)
      count = min(len(found.audio), len(track.audio))
      alike = np.corrcoef(found.audio[:count], track.audio[:count])[0, 1]
      assert alike > 0.9  # 8 kHz and 64 kbit/s leave 0.96
      words = [w.text for w in track.words] if role in layout.said else []
      assert [w.text for w in found.words] == words


def test_a_row_is_measured_and_shown(tmp_path):
  row = data_importers.Row("stereo", {})
  layouts.LAYOUTS[row.name].write(tmp_path, calls())
  found = data_importers.prepared(row, src=tmp_path, dst=tmp_path / "c" / "x")
  assert found.recordings == 2 and found.cpu > 0
  assert found.hours == pytest.approx(2 * 12 / 3600)
  assert found.bytes > 10_000


def test_what_is_skipped_is_an_error(tmp_path):
  row = data_importers.Row("stereo", {})
  layouts.LAYOUTS[row.name].write(tmp_path, calls())
  path = sorted(tmp_path.glob("*.wav"))[0]
  path.write_bytes(path.read_bytes()[:5000])
  with pytest.raises(RuntimeError, match="stereo, --check=all: skipped"):
    data_importers.prepared(row, src=tmp_path, dst=tmp_path / "c" / "x")


def test_the_table_keeps_the_other_parts():
  row = {
    "hours_per_core_minute": {"none": 9.0, "all": 4.5},
    "source_bytes_per_hour": 2e8,
    "corpus_bytes_per_hour": 1e8,
    **{"kept": 2, "of": 2},
  }
  result = {
    "made": {"importers": "Made at 0000000."},
    "importers": {"stereo": row},
    "importers_calls": {"count": 2, "seconds": 180.0},
  }
  text = data_tables.markdown(result, before="## Opening\n\nAs it was.\n\n")
  assert "| stereo | 9.0 | 4.5 | 200.0 | 100.0 | 2 of 2 |" in text
  assert "## Opening\n\nAs it was.\n" in text
