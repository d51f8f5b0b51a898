"""Families of synthetic conversations, composed from the prepared voices."""

from tml_jax.data.scenarios import draw, reply, tool_call

FAMILIES = {
  family.name: family
  for family in (
    reply.ReplyScenario,
    tool_call.ToolCallScenario,
    draw.DrawScenario,
  )
}
