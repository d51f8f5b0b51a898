"""A user who reacts, as a client of a server."""

import numpy as np

from tests.helpers import scripts, served
from tests.helpers.drawn import asks
from tml_jax.live.reacting import Reacting
from tml_jax.streams.annotation import Kind

_SCRIPT = scripts.script(
  "..uu..aa..uu..aa..",
  asks(Kind.TURN, 2, 4, due=6, until=10),
  asks(Kind.TURN, 10, 12, due=14, until=18),
)
_TIMES = np.arange(4800) * 2 / 3  # of a window at 24 kHz, in samples of 16 kHz


@served.run
async def test_the_same_user_talks_to_a_socket(pool, tmp_path):
  user, sounds = Reacting(_SCRIPT), False
  with served.serving(tmp_path / "rest", made_pool=pool) as server:
    async with served.client(server) as client:
      while user.next(sounds) is not None:
        heard = user.heard(len(user.steps) - 1)
        sound = np.interp(_TIMES, np.arange(len(heard)), heard)
        await client.say((32767 * np.clip(sound, -1, 1)).astype(np.int16))
        tick = await client.next("tml.tick")
        sounds = tick["is_speaking"]
      ticks = [e for e in client.events if e["type"] == "tml.tick"]
      await client.send(type="tml.close")
  assert [t["window"] for t in ticks] == list(range(len(user.steps)))
  assert 18 <= len(user.steps) <= user.most_ticks
  said = [False, *(t["is_speaking"] for t in ticks)]
  again = scripts.play(_SCRIPT, said)
  assert again.steps == user.steps
