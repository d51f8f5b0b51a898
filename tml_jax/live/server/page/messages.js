/**
 * What the page says when something is not as it should be, and what helps.
 *
 * For: `main.js` and `panel.js`. Pure: values to text.
 */

export const INSECURE =
  "Browsers give microphone, camera and sound only to https:// pages and to " +
  "localhost. You can type, and read what the model says. To talk, start the " +
  "server with --tls_cert and --tls_key, or forward its port: " +
  "ssh -L 8080:localhost:8080 HOST, then open http://localhost:8080.";
export const MICROPHONE_LOST =
  "The microphone went away. The model hears nothing until you choose " +
  "another one, or press “Mute” to try this one again.";
export const NOT_RESUMED =
  "The conversation from before has rested too long. This is a new one.";
export const STOPPED = "You ended the conversation.";

const RETRY =
  "The model hears nothing; you can type. Press “Mute” to try again.";

/** Why there is no microphone. */
export function microphone(error) {
  const says = {
    NotAllowedError:
      "The microphone was refused. Allow it in the browser's settings of " +
      "this site (beside the address).",
    NotFoundError: "There is no microphone.",
    NotReadableError:
      "Another program holds the microphone, or the system does.",
    OverconstrainedError: "This microphone is not there any more.",
  };
  return `${says[error.name] ?? `No microphone: ${error.message}.`} ${RETRY}`;
}

/** Why there is no picture of "camera" or "screen". */
export function picture(source, error) {
  if (!globalThis.isSecureContext) return INSECURE;
  const says = {
    NotAllowedError: `The ${source} was refused.`,
    NotFoundError: `There is no ${source}.`,
    NotReadableError: `Another program holds the ${source}.`,
  };
  return says[error.name] ?? `No ${source}: ${error.message}.`;
}

/** Why a loudspeaker cannot be used. */
export function speaker(error) {
  return `This loudspeaker cannot be used: ${error.message}.`;
}

/** Why nothing is heard. */
export function soundless(error) {
  return `No sound: ${error.message}. Load the page again; typing works.`;
}

/** The line is down for now; `seconds` are left before the session is gone. */
export function broken({ seconds }) {
  const left = `the session rests for ${Math.ceil(seconds)} s`;
  return `The line broke. Connecting again; ${left}.`;
}

/** Why there is no conversation any more, or never was. */
export function over(name, { code, reason, session }) {
  const more = reason ? ` (${reason})` : "";
  if (session.status === 401)
    return "This server asks for a token, and yours is none of its.";
  if (name === "ended") {
    if (code === 1000) return `The conversation has ended${more}.`;
    if (code === 1006) {
      return "The line was down for longer than the session rests. It is over.";
    }
    return `The server ended the conversation${more}.`;
  }
  if (session.status === 0) return "The server does not answer. Is it running?";
  if (session.is_draining) return "The server is going down.";
  if (code === 1013 || session.slots_free === 0) return full(session) + more;
  if (code === 1006) {
    return (
      "The server lets nobody else in just now: too many conversations from " +
      "your address, or its decisions take too long. Try again in a minute."
    );
  }
  return `The server refused the conversation${more || `, with code ${code}`}.`;
}

/** All places are taken. */
export function full({ slots, seconds_to_wait: wait } = {}) {
  const all = slots > 1 ? `All ${slots} places are` : "Every place is";
  const when = wait ? `in about ${Math.ceil(wait)} s` : "in a while";
  return `${all} taken. Try again ${when}.`;
}

/** What a small run can do; "" for one that is not. */
export function tiny(run) {
  if (!run?.is_tiny) return "";
  const size = run.parameters ? ` (${count(run.parameters)} parameters)` : "";
  return `The run behind this page is tiny${size}: ${run.says ?? ""}`;
}

/** A run in one line. */
export function about(run) {
  if (!run) return "";
  const parts = [run.name, run.step !== undefined ? `step ${run.step}` : ""];
  if (run.parameters) parts.push(`${count(run.parameters)} parameters`);
  return parts.filter(Boolean).join(", ");
}

/** What the server offers, for whoever looks it up. */
export function server({ run, tools = [], limits = {} }) {
  const parts = [about(run), run?.says];
  if (tools.length) {
    parts.push(`It may call: ${tools.map(({ name }) => name).join(", ")}.`);
  }
  if (limits.seconds) {
    const minutes = Math.round(limits.seconds / 60);
    parts.push(`A conversation lasts at most ${minutes} minutes.`);
  }
  return parts.filter(Boolean).join(". ").replaceAll("..", ".");
}

function count(number) {
  return new Intl.NumberFormat("en", {
    notation: "compact",
    maximumSignificantDigits: 3,
  }).format(number);
}
