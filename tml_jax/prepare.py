"""Prepares data: recordings of a source to a corpus of shards and a table.

For: `python -m tml_jax.prepare --source=NAME --src=PATH --dst=DATA/NAME`, one
corpus; and `python -m tml_jax.prepare --config=FILE.py:NAME
--data_dir=DATA`, all voices of an experiment, with the tokenizer of what is
said in them, unless one is there or --tokenizer names one. Not for: mixing
(that is the loader's). Start reading at `main`.

Work is cut into units, which processes here or Beam workers convert, each to
shards of its own. It may be killed at any time: a second run keeps what is
finished and does the rest. It says of every corpus whether it was kept, and if
not, why.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags, logging

from tml_jax import errors, files
from tml_jax import lock as lock_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import source, transcripts, unheard
from tml_jax.data.corpus import index as index_lib
from tml_jax.data.importers import stereo
from tml_jax.data.mend import options as mend_options
from tml_jax.data.mend import recognition, speech, stage
from tml_jax.data.prepare import code as code_lib
from tml_jax.data.prepare import convert, job, report, runners
from tml_jax.data.prepare.runners import Runner
from tml_jax.streams import tokenizer

REPORT = "prepare_report.json"
# What the size of video is taken from where no --config is given.
_DEFAULT = "experiments/interaction.py:tiny"

_SOURCE = flags.DEFINE_string(
  "source", "", "What --src is; a name of docs/data_formats.md."
)
_SRC = flags.DEFINE_string("src", "", "Path or URL of recordings.")
_DST = flags.DEFINE_string(
  "dst", "", "Folder or URL of the corpus, for instance data/calls."
)
_OPTION = flags.DEFINE_multi_string(
  "option", [], "NAME=VALUE for the source; may be given several times."
)
_RUNNER = flags.DEFINE_enum_class(
  "runner", Runner.LOCAL, Runner, "Who converts the units."
)
_BEAM_OPTIONS = flags.DEFINE_list(
  "beam_options", [], "Of --runner=beam, for instance --runner=FlinkRunner."
)
_SOUNDS_ROOT = flags.DEFINE_string(
  "sounds_root",
  "/",
  "Where voices look for files: / for installed packages, or a folder that"
  " holds unpacked ones (FOLDER/usr/share/asterisk/sounds/...).",
)
_UNHEARD = flags.DEFINE_bool(
  "unheard",
  False,
  "Without --source: make the voices, too, that training refuses and"
  " `evaluate --conditions` speaks with. Needs flite, festival and espeak-ng.",
)
_PROCESSES = flags.DEFINE_integer(
  "processes", os.cpu_count(), "Decoding processes.", lower_bound=1
)
_VERIFY = flags.DEFINE_bool(
  "verify",
  None,
  "Read finished shards against their checksums. By default voices are, and a"
  " corpus of --source is looked at by sizes alone.",
)
_REBUILD = flags.DEFINE_bool(
  "rebuild",
  False,
  "Make units of --source again that another version of the code has made.",
)
_CHECK = flags.DEFINE_list(
  "check",
  [mend_options.ALL],
  "Faults of recordings that are measured: all, none, or some of"
  f" {', '.join(mend_options.Check)}.",
)
_MEND = flags.DEFINE_list(
  "mend",
  [],
  "Of these, those that are mended instead of skipping the recording: some of"
  f" {', '.join(mend_options.MENDS)}.",
)
_ANNOTATE = flags.DEFINE_list(
  "annotate", [], "What is written into tracks without: speech, words."
)
_RECOGNISER = flags.DEFINE_string(
  "recogniser",
  mend_options.POCKETSPHINX,
  "Who writes words: pocketsphinx, whisper:PATH, or one of a plugin.",
)
_SEPARATE = flags.DEFINE_string(
  "separate",
  "",
  "Who makes two channels of one: torchscript:PATH, or one of a plugin.",
)
_MAX_LEAKAGE_DB = flags.DEFINE_float(
  "max_leakage_db",
  mend_options.MAX_LEAKAGE_DB,
  "Of one such channel in the other; recordings with more are skipped.",
)


def main(config: Config) -> None:
  if not _SOURCE.value:
    for flag in ("src", "dst", "mend", "annotate", "separate"):
      if flags.FLAGS[flag].value:
        raise errors.UserError(
          f"--{flag} is for one corpus of --source, which is missing; without"
          " both, --config and --data_dir prepare an experiment's voices"
        )
    prepare(
      config,
      data_dir=config_flags.data_dir_to_write(),
      sounds_root=_SOUNDS_ROOT.value,
      processes=_PROCESSES.value,
      verify=_VERIFY.value is not False,
      tokenizer_file=config_flags.TOKENIZER.value,
      with_unheard=_UNHEARD.value,
    )
    return
  if _UNHEARD.value:
    raise errors.UserError(
      "--unheard is for an experiment's voices, without --source: leave one out"
    )
  for flag in ("src", "dst"):
    if not flags.FLAGS[flag].value:
      raise errors.UserError(f"--{flag} is missing: --source needs both")
  prepare_source(
    _SOURCE.value,
    src=_SRC.value,
    dst=_DST.value,
    options=_options(_OPTION.value),
    size=_size(config),
    runner=_RUNNER.value,
    beam_options=_BEAM_OPTIONS.value,
    processes=_PROCESSES.value,
    verify=bool(_VERIFY.value),
    rebuild=_REBUILD.value,
    mending=mend_options.Mending(
      check=mend_options.checks(_CHECK.value),
      mend=mend_options.chosen(
        _MEND.value, among=mend_options.MENDS, flag="--mend"
      ),
      annotate=mend_options.chosen(
        _ANNOTATE.value, among=tuple(mend_options.Annotation), flag="--annotate"
      ),
      recogniser=_with_path(_RECOGNISER.value),
      max_leakage_db=_MAX_LEAKAGE_DB.value,
    ),
    separate=_with_path(_SEPARATE.value),
  )


def prepare_source(
  name: str,
  *,
  src: str,
  dst: str,
  options: Mapping[str, str],
  size: tuple[int, int],
  runner: Runner,
  beam_options: Sequence[str],
  processes: int,
  verify: bool,
  rebuild: bool,
  mending: mend_options.Mending = mend_options.DEFAULT,
  separate: str = "",
) -> dict[str, Any]:
  """Makes one corpus; returns its report.

  Args:
    name: of the source.
    src: path or URL of what it reads.
    dst: folder or URL of the corpus.
    options: of the source.
    size: height and width of video.
    runner: who converts.
    beam_options: of Beam.
    processes: of the local runner.
    verify: read what is finished against its checksums.
    rebuild: make again what other code has made.
    mending: what is measured, mended and annotated.
    separate: NAME or NAME:ARGUMENT of who makes two channels of one.

  Raises:
    errors.UserError: before any work, what is missing or wrong; or nothing
      of the source can be used.
  """
  importer = source.IMPORTERS[name]
  if mend_options.Annotation.SPEECH in mending.annotate:
    speech.check()
  if mend_options.Annotation.WORDS in mending.annotate:
    recognition.check(mending.recogniser, language=options.get("language", ""))
  if separate:
    options = {**options, stereo.SEPARATE: separate}
  given = {"size": f"{size[0]}x{size[1]}", **options}
  place = corpus_lib.Place(dst)
  corpus_name = os.path.basename(dst.rstrip("/"))
  if not corpus_name:
    raise errors.UserError(f"--dst={dst} names no corpus: write DATA/NAME")
  _check_name(corpus_name, dst=dst)
  task = convert.Task(
    recordings=importer(src, options=given),
    place=_absolute(dst, is_local=place.is_local),
    size=size,
    code=f"{_code(importer)}.{code_lib.code_of(stage.apply)}",
    options=" ".join(
      [f"{k}={v}" for k, v in sorted(options.items())]
      + ([str(mending)] if str(mending) else [])
    ),
    mending=mending,
  )
  wanted = job.Job(corpus_name, task=task)
  with _held([wanted], flag="--dst"), runners.pool(processes) as pool:
    looked = wanted.look(verify=verify, other_code=not rebuild)
    logging.info(
      "%s: %s; %d units, %d of them to do",
      *(dst, looked.done, len(looked.plan.units), len(looked.plan.todo)),
    )
    work = [(task, unit) for unit in looked.plan.todo]
    if work and runner is Runner.BEAM:
      runners.run_beam(work, options=beam_options)
    elif work:
      for _ in _made(pool, work):
        pass
    found = (
      wanted.report(looked.plan)
      if looked.is_kept
      else wanted.finish(looked.plan)
    )
  print(report.text(dst, found))
  print(f"  {looked.done}")
  return found


def prepare(
  config: Config,
  *,
  data_dir: str,
  sounds_root: str,
  processes: int,
  verify: bool = True,
  tokenizer_file: str = "",
  with_unheard: bool = False,
) -> dict[str, Any]:
  """Makes `data_dir` ready for training; returns the report.

  With a `tokenizer_file` none is trained: the commands that read the data are
  given the same one. `with_unheard` makes the voices of `unheard.of`, too; no
  tokenizer is trained on what they say.

  Raises:
    errors.UserError: before any work, what is missing; or a voice without a
      single usable recording.
  """
  root = pathlib.Path(data_dir)
  files.make(root, what=f"--data_dir={root}")
  settings = source.Settings(root=pathlib.Path(sounds_root))
  heard = _open_voices(
    config.data.voices, config=config, root=root, settings=settings
  )
  jobs = list(heard)
  if with_unheard:
    settings = dataclasses.replace(settings, says=unheard.says(config))
    jobs += _open_voices(
      unheard.of(config), config=config, root=root, settings=settings
    )
  with _held(jobs, flag="--data_dir"), runners.pool(processes) as pool:
    looked = {each: each.look(verify=verify, other_code=False) for each in jobs}
    transcripts.check(root, streams=config.streams, given=tokenizer_file)
    left = {each: len(looked[each].plan.todo) for each in jobs}
    finished: dict[job.Job, dict[str, Any]] = {}

    def finish_ready() -> None:
      for each in jobs:
        if each not in finished and not left[each]:
          planned = looked[each].plan
          finished[each] = (
            each.report(planned)
            if looked[each].is_kept
            else each.finish(planned)
          )

    for each in jobs:
      logging.info("%s: %s", each.place, looked[each].done)
    finish_ready()
    work = [(e.task, unit) for e in jobs for unit in looked[e].plan.todo]
    of_task = {id(each.task): each for each in jobs}
    for task in _made(pool, work):
      left[of_task[id(task)]] -= 1
      finish_ready()
    record = None
    if not tokenizer_file:
      record = transcripts.train(
        root, folders=[each.name for each in heard], streams=config.streams
      )
    result = {
      "corpora": {
        each.name: {"done": looked[each].done} | finished[each] for each in jobs
      },
      "tokenizer": tokenizer.described(
        tokenizer.path(root, given=tokenizer_file)
      ),
      "transcripts": record.transcripts if record else 0,
      "tokenizer_of": list(record.corpora) if record else [],
    }
    files.write_atomically(root / REPORT, content=index_lib.json_text(result))
  print(_table(result))
  return result


def _open_voices(
  voices: Sequence[str],
  *,
  config: Config,
  root: pathlib.Path,
  settings: source.Settings,
) -> list[job.Job]:
  """Opens every source, so that whatever is missing is said at once."""
  jobs = []
  for entry in voices:
    spec = source.parse(entry)
    factory = source.SOURCES[spec.source]
    task = convert.Task(
      recordings=factory(spec.variant, settings=settings),
      place=str(root.absolute() / spec.folder),
      size=_size(config),
      code=_code(factory),
      options="",
    )
    jobs.append(job.Job(spec.folder, task=task))
  return jobs


def _made(pool: runners.Pool, work: runners.Work) -> Iterator[convert.Task]:
  """The task of each unit that the pool has made, as it is made."""
  places = {task.place for task, _ in work}
  try:
    # Closed at once when this is interrupted, and the progress bar with it.
    with contextlib.closing(pool.run(work)) as made:
      yield from made
  except OSError as error:
    raise errors.UserError(
      f"cannot write {', '.join(sorted(places))}: {error}; mend that and run"
      " this again: what is finished stays"
    ) from error


@contextlib.contextmanager
def _held(jobs: Sequence[job.Job], *, flag: str) -> Iterator[None]:
  """One `prepare` at a time in a local folder."""
  with contextlib.ExitStack() as held:
    for each in jobs:
      if each.place.is_local:
        path = each.place.path
        if path.exists() and not path.is_dir():
          raise errors.UserError(
            f"{path} must be a folder: move that file away"
          )
        owned = lock_lib.Lock(str(path), flag=flag, does="prepares")
        owned.take()
        held.callback(_release, owned, path)
    yield


def _release(owned: lock_lib.Lock, path: pathlib.Path) -> None:
  """Lets others in; a folder in which nothing came to be is gone again."""
  owned.release()
  for folder in (path / index_lib.UNITS, path):
    with contextlib.suppress(OSError):
      folder.rmdir()  # only if it is empty


def _code(factory: Any) -> str:
  return f"{code_lib.code_of(factory)}.{corpus_lib.FORMAT}"


def _size(config: Config) -> tuple[int, int]:
  return config.streams.video_height, config.streams.video_width


def _absolute(dst: str, *, is_local: bool) -> str:
  """Beam workers need not run in this directory."""
  return os.path.abspath(corpus_lib.Place(dst).path) if is_local else dst


def _check_name(name: str, *, dst: str) -> None:
  """data.mixture has to be able to name it."""
  if set(name) & set(":, "):
    raise errors.UserError(
      f"--dst={dst}: the corpus is named {name!r}, and data.mixture would take"
      " a colon, comma or space for its end: leave those out"
    )


def _with_path(chosen: str) -> str:
  """NAME:PATH with an absolute path: workers need not run in this directory."""
  name, _, argument = chosen.partition(":")
  if argument and os.path.exists(argument):
    return f"{name}:{os.path.abspath(argument)}"
  return chosen


def _options(pairs: Sequence[str]) -> dict[str, str]:
  """Of --option.

  Raises:
    errors.UserError: one is not of the form, or given twice.
  """
  found: dict[str, str] = {}
  for pair in pairs:
    name, equals, value = pair.partition("=")
    if not equals or not name:
      raise errors.UserError(
        f"--option={pair}: write --option=NAME=VALUE, for instance"
        " --option=language=en"
      )
    if name in found:
      raise errors.UserError(f"--option={name} is given twice")
    found[name] = value
  return found


def _table(result: dict[str, Any]) -> str:
  """The report as text: one line a corpus, more for what is not as usual."""
  lines = [f"{'corpus':<28}{'kept':>7}{'minutes':>9}  skipped"]
  for name, entry in result["corpora"].items():
    reasons = [
      f"{skipped['count']} {reason}"
      for reason, skipped in sorted(entry["skipped"].items())
    ]
    lines.append(
      f"{name:<28}{entry['recordings']:>7}{60 * entry['hours']:>9.1f}  "
      + (", ".join(reasons) or "-")
    )
    lines.append(f"  {entry['done']}")
    lines += [
      f"  left out: {left['count']} {note}"
      for note, left in sorted(entry[source.NOTES].items())
    ]
  line = f"tokenizer {result['tokenizer']}"
  if result["tokenizer_of"]:
    line = (
      f"tokenizer trained on {result['transcripts']} transcripts of"
      f" {', '.join(result['tokenizer_of'])}"
    )
  lines.append(line)
  return "\n".join(lines)


if __name__ == "__main__":
  has_source = any(
    each.startswith(("--source", "-source")) for each in sys.argv
  )
  config_flags.run(main, default=_DEFAULT if has_source else "")
