"""Families of synthetic conversations, composed from the prepared voices."""

from tml_jax.data.scenarios import reply

FAMILIES = {reply.FAMILY: reply.ReplyScenario}
