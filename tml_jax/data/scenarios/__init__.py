"""Families of synthetic conversations, composed from the prepared voices."""

from tml_jax.data.scenarios import (
  activity,
  backchannel,
  barge_in,
  correction,
  count,
  cue,
  draw,
  elapsed,
  follow,
  reminder,
  reply,
  side_talk,
  silent_until,
  timed_reply,
  tool_call,
  turns,
  typed,
)

FAMILIES = {
  family.name: family
  for family in (
    reply.ReplyScenario,
    tool_call.ToolCallScenario,
    draw.DrawScenario,
    turns.TurnsScenario,
    barge_in.BargeInScenario,
    backchannel.BackchannelScenario,
    side_talk.SideTalkScenario,
    timed_reply.TimedReplyScenario,
    reminder.ReminderScenario,
    elapsed.ElapsedScenario,
    cue.CueScenario,
    follow.FollowScenario,
    count.CountScenario,
    activity.ActivityScenario,
    silent_until.SilentUntilScenario,
    correction.CorrectionScenario,
    typed.TypedScenario,
  )
}
