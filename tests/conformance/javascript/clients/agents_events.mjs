// The agents SDK's own reading of server events.

// Its exports leave the parser out, so it is taken from its file.
const { parseRealtimeEvent } = await import(
  new URL('../node_modules/@openai/agents-realtime/dist/openaiRealtimeEvents.mjs', import.meta.url)
);

/** The types of those events that the SDK does not recognise. */
export function unrecognised(events) {
  const generic = (event) => parseRealtimeEvent({ data: JSON.stringify(event) }).isGeneric;
  return [...new Set(events.filter(generic).map((event) => event.type))];
}
