"""Calls of procedural voices, which need nothing installed.

For: tests of `data.mend`. Start at `call`.
"""

import functools

from benchmarks import made_calls, planted
from tml_jax.streams.timeline import Role


@functools.cache
def voices():
  return {
    Role.USER: made_calls.prompts("low", voice="procedural"),
    Role.AGENT: made_calls.prompts("high", voice="procedural"),
  }


@functools.cache
def call(number=0, *, seconds=120.0):
  return planted.call(number, voices(), seconds=seconds)
