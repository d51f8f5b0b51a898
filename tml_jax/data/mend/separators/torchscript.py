"""A separator that PyTorch has saved as TorchScript.

For: `--separate=torchscript:PATH`, a network of yours. Not for: loading
anything else that PyTorch saves, which may hold code of Python. Start reading
at `open_model`. The module is given [1, n] float32 at 16 kHz and returns
[1, 2, n] or [2, n]; it sees a recording as a whole, so that a speaker stays in
one output.
"""

import functools
import importlib.util
import pathlib
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data.mend import separation


class TorchScript:
  """A module on the CPU,."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    _ = self._module  # what is broken is said before any work

  def __call__(self, audio: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
      found = self._module(torch.from_numpy(np.ascontiguousarray(audio))[None])
    sound = found.detach().cpu().numpy()
    return sound[0] if sound.ndim == 3 and len(sound) == 1 else sound

  @functools.cached_property
  def _module(self) -> Any:
    import torch

    try:
      return torch.jit.load(str(self._path), map_location="cpu").eval()
    except RuntimeError as error:
      raise errors.UserError(
        f"--separate=torchscript:{self._path}: {str(error).splitlines()[0]};"
        " save a module with torch.jit.save"
      ) from error


@separation.register_separator("torchscript")
def open_model(argument: str) -> TorchScript:
  """The module in the file `argument`.

  Raises:
    errors.UserError: there is none, it is broken, or PyTorch is missing.
  """
  path = pathlib.Path(argument)
  if not argument or not path.is_file():
    raise errors.UserError(
      f"--separate=torchscript:{argument}: there is no such file; name one that"
      " torch.jit.save has written"
    )
  if importlib.util.find_spec("torch") is None:
    raise errors.UserError(
      "--separate=torchscript needs PyTorch: pip install 'tml_jax[torch]'"
    )
  return TorchScript(path)
