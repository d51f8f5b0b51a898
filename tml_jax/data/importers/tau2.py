"""Voice logs of tau2-bench: conversations with calls of tools.

For: *.json of full-duplex simulations, each with `id` and `ticks`, alone or in
`simulations`, and the both.wav of each, in the same folder or in one that is
named by the id. Not for: simulations by text or by turns. Start at `Tau2`.

Roles are those of the format: the user is on the left of both.wav, the agent on
the right. Calls of the agent and their results are events; calls of the user
are left out.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from tml_jax.data import calls, source, stored, tick_logs
from tml_jax.data import options as options_lib
from tml_jax.data.source import BadRecording, Part, Reason
from tml_jax.streams.timeline import Role, Timeline

_BOTH = "both.wav"
_LEAST_ID = 4  # letters by which a folder is told


class Tau2(calls.Listed):
  """The simulations of a file or folder."""

  def __init__(self, src: str, *, options: options_lib.Options):
    """Lists the files.

    Raises:
      errors.UserError: there are none.
    """
    self._place, self._options = stored.Place(src), options
    files = self._place.files(ends=(".json",))
    folder = stored.Place(self._place.fs.unstrip_protocol(self._place.top))
    sounds = folder.beside(ends=(_BOTH,))
    self._sounds = [
      file.path for file in sounds if posixpath.basename(file.path) == _BOTH
    ]
    stamps = "; ".join(file.stamp for file in sounds)
    self._parts = [
      calls.call(file.name, [file], record=stamps) for file in files
    ]

  def read(self, part: Part) -> Iterator[Timeline | BadRecording]:
    assert isinstance(part, calls.Call)  # of `parts`
    try:
      content = calls.value(self._place, part.paths[0])
      with calls.reading(part.name):
        simulations = content.get("simulations") or [content]
        if not isinstance(simulations, list):
          raise TypeError("simulations are no list")
    except BadRecording as error:
      yield error
      return
    for each in simulations:
      try:
        yield from self._timelines(
          each, name=part.name, folder=posixpath.dirname(part.paths[0])
        )
      except BadRecording as error:
        yield error

  def _timelines(
    self, simulation: Mapping[str, Any], *, name: str, folder: str
  ) -> Iterator[Timeline]:
    notes = calls.Notes()
    with calls.reading(name):
      if not simulation.get("ticks"):
        raise BadRecording(Reason.NO_SPEECH, f"{name}: it has no ticks")
      id_ = str(simulation["id"])
      found = tick_logs.read(simulation["ticks"], notes=notes)
    path = self._sound(id_, folder=folder, name=name)
    sound = calls.sound(self._place, path, channels=2)
    yield from calls.timelines(
      source.as_text(f"{name}/{id_}"),
      {
        side: calls.Side(
          *(heard, found.said[side], found.spans[side]), voice=f"{id_} {side}"
        )
        for side, heard in zip(tick_logs.SIDES, sound, strict=True)
      },
      among=[{side: Role(side) for side in tick_logs.SIDES}],
      metadata=self._options.metadata(calls.KIND),
      notes=notes,
      events=tuple(found.events),
      lasts=found.seconds,
    )

  def _sound(self, id_: str, *, folder: str, name: str) -> str:
    """The both.wav of a simulation.

    Raises:
      BadRecording: there is none, or several could be it.
    """
    beside = posixpath.join(folder, _BOTH)
    if beside in self._sounds:
      return beside
    found = [
      path
      for path in self._sounds
      if len(id_) >= _LEAST_ID
      and any(id_ in part for part in path.split("/")[:-1])
    ]
    if len(found) != 1:
      raise BadRecording(
        Reason.MISSING, f"{name}: {len(found)} {_BOTH} of {id_!r:.80}"
      )
    return found[0]


@source.register_importer("tau2")
def open_logs(src: str, *, options: Mapping[str, str]) -> Tau2:
  """The file or folder at a path or URL."""
  known = options_lib.Options(options, known={}, importer="tau2")
  return Tau2(src, options=known)
