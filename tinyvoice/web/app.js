// The page: its buttons, what it shows, and when it connects again.

import { Call, CallError } from "./call.js";
import { MicrophoneError, microphones, obstacle, openMicrophone, watchLevel } from "./microphone.js";
import { Turns, asJson, asSubtitles, asText } from "./turns.js";

const CALLS = "/v1/realtime/calls";
const PARTIALS = "tinyvoice.partials";
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const RELEASE_MS = 150; // the end of the last word is still under way when the key is let go

const $ = (id) => document.getElementById(id);
const turns = new Turns();
const shown = new Map(); // turn id → list item

let wanted = false; // whether the person wants to be heard
let call = null;
let microphone = null; // MediaStream
let stopLevel = () => {};
let attempt = 0;
let retryTimer = 0;

// --- connecting ---------------------------------------------------------------------------------

async function start() {
  wanted = true;
  attempt = 0;
  tell(null);
  show("connecting", "Connecting…");
  try {
    await openChosenMicrophone();
    await connect();
  } catch (error) {
    giveUp(error);
  }
}

async function openChosenMicrophone() {
  const hindrance = obstacle();
  if (hindrance) throw new MicrophoneError(hindrance);
  microphone = await openMicrophone($("microphone").value, $("processing").checked);
  microphone.getAudioTracks()[0].addEventListener("ended", () => {
    if (wanted) giveUp(new MicrophoneError("The microphone was unplugged."));
  });
  stopLevel = watchLevel(microphone, showLevel);
  await listMicrophones();
  hold(!$("push").checked);
}

async function connect() {
  const own = new Call({ url: CALLS, key: $("key").value });
  call = own;
  own.addEventListener("message", ({ detail }) => own === call && receive(detail));
  own.addEventListener("voice", ({ detail }) => ($("speaker").srcObject = detail));
  own.addEventListener("lost", () => own === call && reconnect("The connection was lost."));
  try {
    await own.open(microphone.getAudioTracks()[0], microphone);
  } catch (error) {
    own.close();
    if (wanted && error instanceof CallError && error.retry) return reconnect(error.message);
    throw error;
  }
  if (!wanted) own.close();
}

function reconnect(why) {
  call = null;
  speech(false);
  if (!wanted) return;
  const delay = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
  attempt += 1;
  show("connecting", "Connecting again…");
  tell(`${why} Trying again; what has been written stays.`);
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => connect().catch(giveUp), delay);
}

function giveUp(error) {
  stop();
  tell(error.message);
  if (!(error instanceof MicrophoneError || error instanceof CallError)) console.error(error);
}

function stop() {
  wanted = false;
  clearTimeout(retryTimer);
  call?.close();
  call = null;
  stopLevel();
  showLevel(0);
  speech(false);
  microphone?.getTracks().forEach((track) => track.stop());
  microphone = null;
  show("idle", "Not listening");
}

// --- the session --------------------------------------------------------------------------------

const talking = () => document.querySelector("input[name=mode]:checked").value === "talk";

function configure() {
  const detection = {
    type: "server_vad",
    silence_duration_ms: Number($("silence").value),
    create_response: talking(),
    interrupt_response: true,
  };
  call?.send({
    type: "session.update",
    session: {
      type: "realtime",
      audio: {
        input: {
          transcription: { model: "tinyvoice" },
          turn_detection: $("push").checked ? null : detection,
        },
      },
      include: [PARTIALS],
    },
  });
}

function receive(event) {
  switch (event.type) {
    case "session.created":
      configure();
      break;
    case "session.updated":
      attempt = 0;
      tell(null);
      show("live", $("push").checked ? "Ready: hold to talk" : "Listening");
      break;
    case "input_audio_buffer.speech_started":
      speech(true);
      break;
    case "input_audio_buffer.speech_stopped":
      speech(false);
      break;
    case "error":
      tell(event.error.message);
      break;
    case "response.done":
      if (event.response.status === "failed") {
        tell(event.response.status_details?.error?.message ?? "The agent could not answer.");
      }
      break;
  }
  const turn = turns.take(event);
  if (turn) showTurn(turn);
}

/** Let the microphone through, or not. */
function hold(open) {
  microphone?.getAudioTracks().forEach((track) => (track.enabled = open));
}

function press() {
  if (!call || !$("push").checked || $("hold").ariaPressed === "true") return;
  $("hold").ariaPressed = "true";
  call.send({ type: "input_audio_buffer.clear" });
  call.send({ type: "output_audio_buffer.clear" }); // talking is interrupting
  hold(true);
  speech(true);
}

function release() {
  if ($("hold").ariaPressed !== "true") return;
  $("hold").ariaPressed = "false";
  setTimeout(() => {
    hold(!$("push").checked);
    speech(false);
    call?.send({ type: "input_audio_buffer.commit" });
    if (talking()) call?.send({ type: "response.create" });
  }, RELEASE_MS);
}

// --- what is shown ------------------------------------------------------------------------------

function show(state, words) {
  document.body.dataset.state = state;
  $("state").textContent = words;
  $("start").textContent = state === "idle" ? "Start" : "Stop";
  $("start").ariaPressed = String(state !== "idle");
}

function tell(message) {
  $("notice").hidden = !message;
  $("notice").textContent = message ?? "";
}

function showLevel(level) {
  const percent = Math.round(100 * level);
  $("level").firstElementChild.style.width = `${percent}%`;
  $("level").ariaValueNow = String(percent);
}

function speech(on) {
  $("voice").classList.toggle("on", on);
}

function showTurn(turn) {
  let item = shown.get(turn.id);
  if (turn.state === "empty") {
    item?.remove();
    shown.delete(turn.id);
    return;
  }
  if (!turn.stable && !turn.tail && turn.text === null) return; // nothing to read yet
  if (!item) {
    item = document.createElement("li");
    item.append(document.createElement("div"), document.createElement("p"));
    item.firstElementChild.className = "who";
    $("turns").append(item);
    shown.set(turn.id, item);
  }
  item.dataset.who = turn.who;
  item.dataset.state = turn.state;
  item.firstElementChild.replaceChildren(...heading(turn));
  item.lastElementChild.replaceChildren(...words(turn));
  item.scrollIntoView({ block: "end" });
  if (turn.who === "person" && turn.state === "final") $("announcer").textContent = turn.text;
  offer();
}

function heading(turn) {
  const who = span("", turn.who === "agent" ? "Agent" : "You");
  if (turn.latencyMs === null) return [who];
  const latency = span("latency", `${Math.round(turn.latencyMs)} ms`);
  latency.title =
    turn.who === "agent"
      ? "From the end of your speech to the first sound of the answer"
      : "From the decision that the speech is over to its text";
  return [who, latency];
}

function words(turn) {
  if (turn.who === "agent") {
    const heard = turns.heard(turn);
    return [span("heard", turn.stable.slice(0, heard)), span("unheard", turn.stable.slice(heard))];
  }
  if (turn.text !== null && turn.words.length) {
    return turn.words.flatMap((word, index) => {
      const shownWord = span("word", word.word);
      shownWord.title = `${seconds(word.start_ms)} to ${seconds(word.end_ms)}, ${Math.round(100 * word.confidence)} % sure`;
      return index ? [" ", shownWord] : [shownWord];
    });
  }
  if (turn.text !== null) return [turn.text];
  return [span("stable", turn.stable), span("tail", turn.tail)];
}

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;

function span(kind, text) {
  const element = document.createElement("span");
  if (kind) element.className = kind;
  element.textContent = text;
  return element;
}

async function listMicrophones() {
  const chosen = $("microphone").value;
  const options = (await microphones()).map(({ id, label }) => new Option(label, id));
  $("microphone").replaceChildren(new Option("The system's own", ""), ...options);
  $("microphone").value = chosen;
  if ($("microphone").selectedIndex < 0) $("microphone").value = "";
}

// --- taking it along ----------------------------------------------------------------------------

const FORMATS = {
  txt: [asText, "text/plain"],
  srt: [asSubtitles, "application/x-subrip"],
  json: [asJson, "application/json"],
};

function offer() {
  const some = turns.all.some((turn) => turn.text);
  document.querySelectorAll("#take button").forEach((button) => (button.disabled = !some));
}

function download(kind) {
  const [write, type] = FORMATS[kind];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(turns.all)], { type }));
  link.download = `transcript.${kind}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(asText(turns.all));
    $("copy").textContent = "Copied";
  } catch {
    $("copy").textContent = "Not allowed";
  }
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

function clear() {
  turns.clear();
  shown.clear();
  $("turns").replaceChildren();
  offer();
}

// Answers are uncovered as they are spoken.
setInterval(() => turns.all.filter((turn) => turn.playsFrom !== null).forEach(showTurn), 100);

// --- wiring -------------------------------------------------------------------------------------

$("start").addEventListener("click", () => (wanted ? stop() : start()));
$("copy").addEventListener("click", copy);
$("clear").addEventListener("click", clear);
document.querySelectorAll("[data-download]").forEach((button) =>
  button.addEventListener("click", () => download(button.dataset.download)),
);
document.querySelectorAll("input[name=mode], #silence").forEach((input) =>
  input.addEventListener("change", configure),
);
$("push").addEventListener("change", () => {
  $("hold").hidden = !$("push").checked;
  hold(!$("push").checked);
  configure();
});
for (const input of [$("microphone"), $("processing")]) {
  input.addEventListener("change", async () => {
    if (!wanted) return;
    stop();
    await start();
  });
}
$("hold").addEventListener("pointerdown", press);
for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
  $("hold").addEventListener(name, release);
}
const typing = (event) => event.target.matches("input, select, button, summary");
addEventListener("keydown", (event) => {
  if (event.code !== "Space" || event.repeat || !$("push").checked) return;
  if (event.target !== $("hold") && typing(event)) return;
  event.preventDefault();
  press();
});
addEventListener("keyup", (event) => event.code === "Space" && release());
addEventListener("online", () => {
  if (wanted && !call) {
    clearTimeout(retryTimer);
    connect().catch(giveUp);
  }
});
addEventListener("pagehide", stop);
navigator.mediaDevices?.addEventListener("devicechange", listMicrophones);

const hindrance = obstacle();
if (hindrance) tell(hindrance);
