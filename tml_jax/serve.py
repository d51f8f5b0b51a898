"""Talk to a run, live: `python -m tml_jax.serve --workdir=RUN`.

For: many people at once behind a microphone, a camera and a keyboard, in the
page that this serves or any client of the Realtime protocol (docs/serve.md).
Not for: recorded users (`sample`) or numbers (`evaluate`). Ends with SIGTERM
or Ctrl-C, after which sessions can be resumed. Only a run without a tokenizer
of its own needs --data_dir, for that of the data.
"""

import asyncio
import contextlib
import dataclasses
import math
import os
import pathlib
import re
import resource
import signal
import ssl
import statistics
import tempfile
from typing import Any

from absl import flags

from tml_jax import errors, files
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.tools import flags as tool_flags
from tml_jax.training import run_tokenizer, trained
from tml_jax.vocoder import flags as vocoder_flags

_TOKEN_VARIABLE = "TML_JAX_SERVE_TOKEN"
_TOKEN_LETTERS = re.compile(r"[A-Za-z0-9._~-]+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_TINY = 50e6  # parameters
_REHEARSAL = 25  # windows

_HOST = flags.DEFINE_string(
  "host", "127.0.0.1", "Address to listen at; 0.0.0.0 is all of them."
)
_PORT = flags.DEFINE_integer(
  "port", 8765, "Port to listen at; 0 takes a free one.", 0, 65535
)
_SLOTS = flags.DEFINE_integer(
  "slots", 4, "Sessions at a time: rows of the tick.", 1, 4096
)
_TOKEN = flags.DEFINE_string(
  "token",
  "",
  f"What clients must name; also from ${_TOKEN_VARIABLE}, where other users of"
  " the machine do not see it. `none` lets in everybody.",
)
_ORIGINS = flags.DEFINE_list(
  "origins", [], "Pages of others that may connect: https://HOST[:PORT],..."
)
_TLS_CERT = flags.DEFINE_string("tls_cert", "", "Certificate chain, PEM.")
_TLS_KEY = flags.DEFINE_string("tls_key", "", "Its key, PEM.")
_RECORD = flags.DEFINE_string(
  "record",
  "",
  "Directory for sessions whose person allows it; nothing is kept without.",
)
_REST_DIR = flags.DEFINE_string(
  "rest_dir",
  "",
  "Directory for sessions whose client has gone. If not given they do not"
  " survive the server.",
)
_REST_SECONDS = flags.DEFINE_float(
  "rest_seconds", 300.0, "That they may be resumed for.", 0.0, 1e7
)
_REST_SESSIONS = flags.DEFINE_integer(
  "rest_sessions",
  256,
  "That rest at a time, in all, and four times --client_sessions of one"
  " address; the oldest are forgotten.",
  1,
  1_000_000,
)
_HOURS = flags.DEFINE_float(
  "hours", 1.0, "That a session lasts at most.", 1e-4, 1e4
)
_MESSAGE_BYTES = flags.DEFINE_integer(
  "message_bytes", 1 << 20, "Of one message.", 1 << 10, 1 << 26
)
_MESSAGES = flags.DEFINE_float(
  "messages", 200.0, "A second, that a client may send.", 1.0, 1e6
)
_CLIENT_SESSIONS = flags.DEFINE_integer(
  "client_sessions", 4, "Sessions of one address at a time.", 1, 4096
)
_BUSY = flags.DEFINE_float(
  "busy",
  0.9,
  "Share of a window that ticks may take (their 90th percentile) for one more"
  " session to be let in.",
  0.01,
)
_TOOL_SECONDS = flags.DEFINE_float(
  "client_tool_seconds", 60.0, "That a client's tool may take.", 0.1, 3600.0
)

flags.adopt_module_key_flags(tool_flags)  # `--help` shows them, too
flags.adopt_module_key_flags(vocoder_flags)


@dataclasses.dataclass(frozen=True)
class _Places:
  """Directories, proved.

  Attributes:
    rest: where sessions rest.
    record: where they are recorded; None records nothing.
  """

  rest: pathlib.Path
  record: pathlib.Path | None


def main(config: Config) -> None:
  workdir = config_flags.WORKDIR.value
  trained.check(workdir)
  vocoder_flags.check(is_live=True)
  token, tls = _token(), _tls()
  # A run that keeps its tokenizer needs nothing of the data.
  data_dir = config_flags.data_dir(is_needed=not run_tokenizer.kept(workdir))
  tokenizer_file = run_tokenizer.of_run(
    workdir, given=config_flags.TOKENIZER.value, data_dir=data_dir
  )
  with contextlib.ExitStack() as stack:
    places = _places(stack)
    runner = tool_flags.runner()
    asyncio.run(
      _serve(
        config,
        workdir=workdir,
        data_dir=data_dir,
        tokenizer_file=tokenizer_file,
        runner=runner,
        places=places,
        token=token,
        tls=tls,
      )
    )


def _places(stack: contextlib.ExitStack) -> _Places:
  """The directories of the flags; what is temporary goes with the stack.

  Raises:
    errors.UserError: one cannot be written.
  """
  rest = _REST_DIR.value or stack.enter_context(
    tempfile.TemporaryDirectory(prefix="tml_jax")
  )
  places = _Places(
    rest=pathlib.Path(rest),
    record=pathlib.Path(_RECORD.value) if _RECORD.value else None,
  )
  files.make(places.rest, what=f"--rest_dir={rest}")
  if places.record is not None:
    files.make(places.record, what=f"--record={_RECORD.value}")
  return places


async def _serve(
  config: Config,
  *,
  workdir: str,
  data_dir: str,
  tokenizer_file: str,
  runner: Any,
  places: _Places,
  token: str,
  tls: ssl.SSLContext | None,
) -> None:
  """Loads the run, and serves until a signal comes."""
  try:
    from aiohttp import web

    from tml_jax.live.server import app as app_lib
    from tml_jax.live.server import beat as beat_lib
    from tml_jax.live.server import house as house_lib
    from tml_jax.live.server import operations, recording, resting
  except ModuleNotFoundError as error:
    raise errors.UserError(
      f"serve needs the package {error.name}: pip install 'tml_jax[serve]'"
    ) from error
  from tml_jax.live import pool as pool_lib
  from tml_jax.live import session
  from tml_jax.streams import tokenizer as tokenizer_lib
  from tml_jax.tools import background

  mesh = _mesh(config)
  tokenizer = tokenizer_lib.load(tokenizer_file, config=config.streams)
  rest = resting.Resting(
    places.rest,
    seconds=_REST_SECONDS.value,
    most=_REST_SESSIONS.value,
    most_of_address=4 * _CLIENT_SESSIONS.value,
  )
  agent = trained.load(
    config, path=workdir, data_dir=data_dir, tokenizer_file=tokenizer_file
  )
  pool = pool_lib.SessionPool(
    _program(config, agent=agent, mesh=mesh, text_pieces=tokenizer.num_pieces),
    variables=agent.variables,
    voice=vocoder_flags.voice(),
  )
  recorder = None
  if places.record is not None:
    recorder = recording.Recorder(
      places.record,
      about=recording.About(
        name=config.name, step=agent.step, fingerprint=pool.fingerprint
      ),
      tokenizer=tokenizer,
      config=config.streams,
    )
  pool.warm_up({*session.Senses})
  rehearsed = beat_lib.rehearse(pool, windows=_REHEARSAL)
  usual = 1000 * statistics.median(rehearsed)
  print(
    f"a tick of {_SLOTS.value} sessions and their sound takes {usual:.0f} ms of"
    f" {config.streams.turn_ms}",
    flush=True,
  )
  if usual > _BUSY.value * config.streams.turn_ms:
    print(
      "this machine does not keep up with so many: give less --slots, or it"
      " lets in one session at a time and is late",
      flush=True,
    )
  runner = runner or background.Runner({})
  house = house_lib.open_house(
    pool,
    tokenizer=tokenizer,
    runner=runner,
    resting=rest,
    recorder=recorder,
    limits=_limits(operations.Limits),
    rules=house_lib.Rules(
      slots=_SLOTS.value, busy=_BUSY.value, patience=_TOOL_SECONDS.value
    ),
    rehearsed=rehearsed,
  )
  house.setting.metrics.voice.info({"vocoder": vocoder_flags.VOCODER.value})
  application = app_lib.create(
    house,
    access=operations.Access(
      token=token,
      origins=frozenset(_ORIGINS.value),
      hosts=frozenset((*_LOOPBACK, _HOST.value))
      if _is_local()
      else frozenset(),
    ),
    facts=_facts(config, agent=agent, runner=runner),
  )
  _raise_open_files()
  loop, stop = asyncio.get_running_loop(), asyncio.Event()
  for number in (signal.SIGTERM, signal.SIGINT):
    loop.add_signal_handler(number, stop.set)
  web_runner = app_lib.runner(application)
  await web_runner.setup()
  site = web.TCPSite(web_runner, _HOST.value, _PORT.value, ssl_context=tls)
  try:
    await site.start()
  except OSError as error:
    raise errors.of_system(
      error,
      f"--host={_HOST.value} --port={_PORT.value}: nobody can listen there"
      f" ({error.strerror}): give another",
    ) from error
  port = web_runner.addresses[0][1]
  operations.log("listening", host=_HOST.value, port=port, slots=_SLOTS.value)
  kind = "https" if tls else "http"
  name = "localhost" if _is_local() else _HOST.value
  print(f"open {kind}://{name}:{port}/ in a browser; Ctrl-C ends", flush=True)
  await stop.wait()
  operations.log("draining", sessions=len(house.talks))
  await house.drain()
  await web_runner.cleanup()
  house.setting.beat.close()
  runner.close()
  operations.log("ended")


def _mesh(config: Config) -> Any:
  """The mesh of the config over all devices; None for one device.

  Raises:
    errors.UserError: there are not so many devices, or the slots cannot be
      divided among them.
  """
  import jax

  from tml_jax.parallel import mesh as mesh_lib

  if math.prod(mesh_lib.shape(config.mesh)) == 1:
    return None
  mesh = mesh_lib.create(config.mesh, devices=jax.devices())
  mesh_lib.sharding(
    ("batch",),
    shape=(_SLOTS.value,),
    mesh=mesh,
    rules=config.mesh.axis_rules,
    what="--slots",
  )
  return mesh


def _program(
  config: Config, *, agent: trained.Trained, mesh: Any, text_pieces: int
) -> Any:
  """The tick of all slots, on one device or on a mesh."""
  from tml_jax.live import program as program_lib
  from tml_jax.training import state as state_lib

  if mesh is None:
    return program_lib.on_device(
      config,
      model=agent.model,
      sessions=_SLOTS.value,
      text_pieces=text_pieces,
    )
  return program_lib.on_mesh(
    config,
    mesh=mesh,
    sessions=_SLOTS.value,
    model=state_lib.create_model(config),
    example=state_lib.example_batch(config, batch_size=1).packed,
    text_pieces=text_pieces,
  )


def _raise_open_files() -> None:
  """A socket is a file, and the usual limit is 1,024."""
  _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _is_local() -> bool:
  return _HOST.value in _LOOPBACK


def _limits(kind: Any) -> Any:
  return kind(
    message_bytes=_MESSAGE_BYTES.value,
    messages=_MESSAGES.value,
    sessions_per_client=_CLIENT_SESSIONS.value,
    seconds=3600 * _HOURS.value,
  )


def _facts(config: Config, *, agent: trained.Trained, runner: Any) -> Any:
  """What tml.session and /v1/session say of the run and the server."""
  import jax

  count = sum(x.size for x in jax.tree.leaves(agent.variables["params"]))
  is_tiny = count < _TINY
  says = f"{config.name}, {count / 1e6:.1f} million parameters"
  if is_tiny:
    says = (
      f"This is a tiny model ({count / 1e6:.1f} million parameters, a few"
      " minutes of training): it shows when such a model listens, speaks, draws"
      " and gives way, and understands no language."
    )
  streams = config.streams
  return {
    "window_ms": streams.turn_ms,
    "sample_rate_in": 24_000,
    "sample_rate_out": 24_000,
    "video": {
      "width": streams.video_width,
      "height": streams.video_height,
      "frames_per_window": 2,
    },
    "voice": "phases"
    if vocoder_flags.VOCODER.value == vocoder_flags.PHASES
    else "trained",
    "run": {
      "name": config.name,
      "step": agent.step,
      "parameters": count,
      "is_tiny": is_tiny,
      "says": says,
    },
    "tools": [
      {"name": name, "description": "", "where": "server"}
      for name in runner.names
    ],
    "recording": {"offered": bool(_RECORD.value)},
    "limits": {
      "seconds": 3600 * _HOURS.value,
      "max_message_bytes": _MESSAGE_BYTES.value,
    },
  }


def _token() -> str:
  """What clients must name; "" lets in everybody.

  Raises:
    errors.UserError: everybody can reach the server, and it has none.
  """
  token = _TOKEN.value or os.environ.get(_TOKEN_VARIABLE, "")
  if token == "none":
    return ""
  if not token and not _is_local():
    raise errors.UserError(
      f"--host={_HOST.value} lets others in: give a --token, or set"
      f" ${_TOKEN_VARIABLE}; --token=none means everybody"
    )
  if token and not _TOKEN_LETTERS.fullmatch(token):
    raise errors.UserError(
      "--token: browsers send it as the name of a subprotocol, which has the"
      " letters and digits of English and . _ ~ - and nothing else"
    )
  return token


def _tls() -> ssl.SSLContext | None:
  """The context of --tls_cert and --tls_key.

  Raises:
    errors.UserError: one without the other, or no such thing.
  """
  if bool(_TLS_CERT.value) != bool(_TLS_KEY.value):
    raise errors.UserError("--tls_cert and --tls_key go together")
  if not _TLS_CERT.value:
    return None
  context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
  try:
    context.load_cert_chain(_TLS_CERT.value, _TLS_KEY.value)
  except OSError as error:  # SSLError is one
    raise errors.UserError(
      f"--tls_cert={_TLS_CERT.value} --tls_key={_TLS_KEY.value}: {error}: give"
      " PEM files that belong together"
    ) from error
  return context


if __name__ == "__main__":
  config_flags.run(main, config_from=config_flags.ConfigFrom.WORKDIR)
