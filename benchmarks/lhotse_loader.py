"""lhotse's loader on calls of two channels, from Shar files that it writes.

For: benchmarks.data, which runs `main` with another interpreter: there is no
tml_jax in its environment. Calls are cut into pieces of 20 s before they are
written, so that nothing is decoded that is not used.
"""

import json
import multiprocessing
import os
import pathlib
import sys
import time

_PIECE = 20.0  # seconds, about as in a sequence of `tiny`
_BATCH = 4
_WORKERS = (0, 1, 2)


def cpu_seconds() -> float:
  """Of this process and of the workers that it has now."""
  tick, total = os.sysconf("SC_CLK_TCK"), time.process_time()
  for child in multiprocessing.active_children():
    stat = pathlib.Path(f"/proc/{child.pid}/stat").read_text()
    total += sum(map(int, stat.rpartition(")")[2].split()[11:13])) / tick
  return total


def _write(calls: pathlib.Path, shar: pathlib.Path) -> None:
  import lhotse

  recordings = lhotse.RecordingSet.from_dir(calls, "*.wav")
  cuts = lhotse.CutSet.from_manifests(recordings=recordings)
  shar.mkdir()
  cuts.cut_into_windows(_PIECE).to_shar(
    shar, fields={"recording": "flac"}, shard_size=100
  )


def _timed(shar: pathlib.Path, *, workers: int, mel: bool, seconds: float):
  """Hours of calls a second and core-second, from the first batch on."""
  import lhotse
  import torch
  from lhotse.dataset import SimpleCutSampler
  from lhotse.dataset.iterable_dataset import IterableDatasetWrapper
  from lhotse.features.kaldi.layers import Wav2LogFilterBank

  features = Wav2LogFilterBank(sampling_rate=16_000, num_filters=80)

  class Dataset(torch.utils.data.Dataset):
    def __getitem__(self, cuts):
      torch.set_num_threads(1)
      sound = [torch.from_numpy(cut.load_audio()) for cut in cuts]
      if mel:
        return sum(cut.duration for cut in cuts), [features(s) for s in sound]
      return sum(cut.duration for cut in cuts), sound

  cuts = lhotse.CutSet.from_shar(in_dir=shar, shuffle_shards=True).repeat()
  sampler = SimpleCutSampler(cuts, max_cuts=_BATCH)
  batches = iter(
    torch.utils.data.DataLoader(
      IterableDatasetWrapper(Dataset(), sampler),
      batch_size=None,
      num_workers=workers,
    )
  )
  next(batches)
  start, before, total = time.perf_counter(), cpu_seconds(), 0.0
  while (taken := time.perf_counter() - start) < seconds:
    total += next(batches)[0]
  cpu = cpu_seconds() - before
  return {
    "hours": total / 3600 / taken,
    "hours_per_core_second": total / 3600 / cpu,
  }


def main():
  """Argument: folder of calls, folder of Shar files, seconds of each row."""
  import lhotse

  calls, shar = map(pathlib.Path, sys.argv[1:3])
  if not shar.exists():
    _write(calls, shar)
  seconds = float(sys.argv[3])
  rows = {
    name: {
      str(workers): _timed(shar, workers=workers, mel=mel, seconds=seconds)
      for workers in _WORKERS
    }
    for name, mel in (("sound", False), ("sound and 80 log mel", True))
  }
  print(json.dumps({"version": lhotse.__version__, "rows": rows}))
