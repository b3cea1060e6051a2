// The page: its buttons, what it shows, and when it connects again.

import { Call, CallError } from "./call.js";
import { MicrophoneError, microphones, obstacle, openMicrophone, watchLevel } from "./microphone.js";
import { Turns, asJson, asSubtitles, asText } from "./turns.js";

const CALLS = "/v1/realtime/calls";
const PARTIALS = "tinyvoice.partials";
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const RELEASE_MS = 150; // the end of the last word is still under way when the key is let go
const MUTED_MS = 8000; // a microphone that gives nothing at all for so long is muted
const UNHEARD_MS = 30000; // sound without a word for so long is not what the person expects
const UNSURE = 0.6; // words below this confidence are marked
const NEAR_END_PX = 80; // whoever has scrolled up further is reading and is left alone

const $ = (id) => document.getElementById(id);
const turns = new Turns();
const shown = new Map(); // turn id → list item

let wanted = null; // while the person wants to be heard: an object, another one after each Start
let call = null;
let microphone = null; // MediaStream
let stopLevel = () => {};
let attempt = 0;
let retryTimer = 0;
let soundAt = 0; // when the microphone last gave anything at all
let wordsAt = 0; // since when sound has come without a word
let unheardTold = false; // once is enough, until words come
let answerDue = false; // the held turn is to be answered once it has been committed
let awake = null; // keeps a phone's screen on

// --- connecting ---------------------------------------------------------------------------------

async function start() {
  const own = (wanted = {});
  attempt = 0;
  unheardTold = false;
  tell(null);
  show("asking", "Waiting for the microphone");
  try {
    if (!(await openChosenMicrophone(own))) return;
    show("connecting", "Connecting…");
    stayAwake();
    await connect();
  } catch (error) {
    if (own === wanted) giveUp(error);
  }
}

/** Open the microphone; false where the person has pressed Stop before allowing it. */
async function openChosenMicrophone(own) {
  const hindrance = obstacle();
  if (hindrance) throw new MicrophoneError(hindrance);
  const opened = await openMicrophone($("microphone").value, $("processing").checked);
  if (own !== wanted) {
    opened.getTracks().forEach((track) => track.stop());
    return false;
  }
  microphone = opened;
  const [track] = microphone.getAudioTracks();
  track.addEventListener("ended", () => {
    if (own === wanted) {
      giveUp(new MicrophoneError("The microphone was unplugged.", { choose: true }));
    }
  });
  stopLevel = watchLevel(microphone, showLevel);
  await listMicrophones();
  if (own !== wanted) return false;
  hold(!$("push").checked);
  return true;
}

async function connect() {
  call?.close(); // there is never more than one
  const own = (call = new Call({ url: CALLS, key: $("key").value }));
  own.addEventListener("message", ({ detail }) => own === call && receive(detail));
  own.addEventListener("voice", ({ detail }) => own === call && ($("speaker").srcObject = detail));
  own.addEventListener("lost", () => own === call && reconnect("The connection was lost."));
  try {
    await own.open(microphone.getAudioTracks()[0], microphone);
  } catch (error) {
    own.close();
    if (own !== call) return; // it was hung up on
    if (error instanceof CallError && error.retry) return reconnect(error.message);
    throw error;
  }
}

function reconnect(why) {
  call = null;
  leaveTurns();
  const delay = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
  attempt += 1;
  show("connecting", "Connecting again…");
  const written = turns.all.length ? " What has been written stays." : "";
  tell(`${why} Trying again…${written}`, { kind: "wait" });
  clearTimeout(retryTimer);
  retryTimer = setTimeout(() => connect().catch(giveUp), delay);
}

function giveUp(error) {
  stop();
  const action = error.wantsKey ? ["Enter the key", "key"] : error.choose ? ["Choose a microphone", "microphone"] : null;
  tell(error.message, { action });
  if (!(error instanceof MicrophoneError || error instanceof CallError)) console.error(error);
}

function stop() {
  wanted = null;
  clearTimeout(retryTimer);
  call?.close();
  call = null;
  stopLevel();
  showLevel(0, true);
  leaveTurns();
  microphone?.getTracks().forEach((track) => track.stop());
  microphone = null;
  awake?.release();
  awake = null;
  tell(null);
  show("idle", "Not listening");
}

/** What the call has left unfinished stays as it is. */
function leaveTurns() {
  speech(false);
  $("hold").ariaPressed = "false";
  answerDue = false;
  turns.leave().forEach(showTurn);
}

async function stayAwake() {
  try {
    const lock = await navigator.wakeLock.request("screen");
    if (wanted) awake = lock;
    else await lock.release();
  } catch {
    // not every browser can, and none need to
  }
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
      soundAt = wordsAt = performance.now();
      show("live", $("push").checked ? "Ready: hold to talk" : "Listening");
      // The key that started it would stop it again: the space bar is to be held now.
      if ($("push").checked && document.activeElement === $("start")) $("hold").focus();
      break;
    case "input_audio_buffer.speech_started":
      // What went wrong in the turn before has been read; that nothing is understood may stay so.
      if ($("notice").dataset.kind !== "unheard") tell(null);
      speech(true);
      break;
    case "input_audio_buffer.committed":
      if (answerDue) call?.send({ type: "response.create" });
      answerDue = false;
      break;
    case "input_audio_buffer.speech_stopped":
      speech(false);
      break;
    case "error":
      answerDue = false;
      tell(
        event.error.code === "input_audio_buffer_commit_empty"
          ? "Nothing was heard: hold the button for as long as you speak."
          : event.error.message,
      );
      break;
    case "response.done":
      if (event.response.status === "failed") {
        tell(event.response.status_details?.error?.message ?? "The agent could not answer.");
      }
      break;
  }
  const turn = turns.take(event);
  if (turn) showTurn(turn);
  if (turn?.who === "person" && (turn.stable || turn.tail)) wordsCame();
}

/** Let the microphone through, or not. */
function hold(open) {
  microphone?.getAudioTracks().forEach((track) => (track.enabled = open));
}

function press() {
  if ($("hold").hidden || $("hold").disabled || $("hold").ariaPressed === "true") return;
  $("hold").ariaPressed = "true";
  invite();
  call.send({ type: "input_audio_buffer.clear" });
  call.send({ type: "output_audio_buffer.clear" }); // talking is interrupting
  hold(true);
  speech(true);
}

function release() {
  if ($("hold").ariaPressed !== "true") return;
  $("hold").ariaPressed = "false";
  invite();
  setTimeout(() => {
    hold(!$("push").checked);
    speech(false);
    answerDue = talking();
    call?.send({ type: "input_audio_buffer.commit" });
  }, RELEASE_MS);
}

// --- what is shown ------------------------------------------------------------------------------

function show(state, words) {
  document.body.dataset.state = state;
  $("state").textContent = words;
  $("start").textContent = ["idle", "unable"].includes(state) ? "Start" : "Stop";
  invite();
}

/** What is to be done now, where nothing has been said yet. */
function invite() {
  const state = document.body.dataset.state;
  const held = $("push").checked;
  $("hold").hidden = !held;
  $("hold").disabled = state !== "live";
  const answers = "The agent answers in its own voice. Speak while it does, and it stops.";
  const explanation = talking() ? answers : "Words appear while you speak.";
  const touched = matchMedia("(hover: none)").matches;
  const pressed = $("hold").ariaPressed === "true";
  $("hold").textContent = pressed ? "Speak, then let go" : "Hold to talk";
  const [invitation, more] = {
    unable: ["This page cannot hear you", "Above is why, and what helps."],
    idle: ["Press Start and speak", explanation],
    asking: ["May this page use the microphone?", "Your browser asks you now: choose “Allow”."],
    connecting: ["Connecting…", "You can speak as soon as it says “Listening”."],
    live: held
      ? [pressed ? "Speak, then let go" : "Hold the button and speak", touched ? "" : "The space bar does the same."]
      : ["Say something", explanation],
  }[state];
  $("invitation").textContent = invitation;
  $("explanation").textContent = more;
}

/** Tell what is wrong; `kind` is "bad" or "wait", `action` [words, setting to go to]. */
function tell(message, { kind = "bad", action = null } = {}) {
  const parts = [message ?? ""];
  if (message && action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action[0];
    button.addEventListener("click", () => openSettings(action[1]));
    parts.push(button);
  }
  $("notice").hidden = !message;
  $("notice").dataset.kind = kind;
  $("notice").replaceChildren(...parts);
}

function openSettings(setting = "microphone") {
  $("settings").showModal();
  $(setting).focus();
}

function showLevel(level, silent) {
  const percent = Math.round(100 * level);
  $("level").firstElementChild.style.width = `${percent}%`;
  $("level").ariaValueNow = String(percent);
  if (!silent || document.body.dataset.state !== "live" || $("push").checked) {
    if ($("notice").dataset.kind === "muted") {
      tell(null);
      wordsAt = performance.now();
    }
    soundAt = performance.now();
    watchWords();
  } else if (performance.now() - soundAt > MUTED_MS && $("notice").hidden) {
    tell("The microphone gives no sound at all: it is muted, or not the one you speak into.", {
      kind: "muted",
      action: ["Choose a microphone", "microphone"],
    });
  }
}

/** Tell, once until words come, that they do not although there is sound. */
function watchWords() {
  const answering = turns.all.some((turn) => turn.playsFrom !== null); // whoever listens is silent
  if (document.body.dataset.state !== "live" || $("push").checked || answering) {
    wordsAt = performance.now();
  } else if (performance.now() - wordsAt > UNHEARD_MS && !unheardTold && $("notice").hidden) {
    unheardTold = true;
    tell("There is sound, but no words in it for half a minute. If you speak, come closer or speak up.", {
      kind: "unheard",
      action: ["Choose a microphone", "microphone"],
    });
  }
}

function wordsCame() {
  if ($("notice").dataset.kind === "unheard") tell(null);
  wordsAt = performance.now();
  unheardTold = false;
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
  const reading = $("transcript").scrollHeight - $("transcript").clientHeight - $("transcript").scrollTop > NEAR_END_PX;
  item.firstElementChild.replaceChildren(...heading(turn));
  item.lastElementChild.replaceChildren(...words(turn));
  if (!reading) $("transcript").scrollTop = $("transcript").scrollHeight;
  if (turn.who === "person" && turn.state === "final") $("announcer").textContent = turn.text;
  offer();
}

function heading(turn) {
  const who = document.createElement("strong");
  who.textContent = turn.who === "agent" ? "Agent" : "You";
  const parts = [who];
  if (turn.startMs !== null) parts.push(span("", clock(turn.startMs + turn.offsetMs)));
  if (turn.state === "interrupted") parts.push(span("", "interrupted"));
  if (turn.state === "cut") parts.push(span("mark", "cut off"));
  if (turn.state === "failed") parts.push(span("mark", "failed"));
  if (turn.latencyMs === null) return parts;
  const agent = turn.who === "agent";
  const latency = span("latency", `${agent ? "answered" : "text"} after ${Math.round(turn.latencyMs)} ms`);
  latency.title = agent
    ? "From the end of your speech to the first sound of the answer"
    : "From the decision that the speech is over to its text";
  return [...parts, latency];
}

function words(turn) {
  if (turn.who === "agent") {
    const heard = turns.heard(turn);
    return [span("heard", turn.stable.slice(0, heard)), span("unheard", turn.stable.slice(heard))];
  }
  if (turn.text !== null && turn.words.length) {
    return turn.words.flatMap((word, index) => {
      const shownWord = span(word.confidence < UNSURE ? "word unsure" : "word", word.word);
      shownWord.dataset.about = `${seconds(turn.offsetMs + word.start_ms)} to ${seconds(turn.offsetMs + word.end_ms)}, ${Math.round(100 * word.confidence)} % sure`;
      shownWord.tabIndex = index ? -1 : 0; // one stop a turn; arrow keys go on from there
      return index ? [" ", shownWord] : [shownWord];
    });
  }
  if (turn.state === "failed") return [turn.text ?? "", span("reason", turn.failure)];
  if (turn.text !== null) return [turn.text];
  return [span("stable", turn.stable), span("tail", turn.tail)];
}

const clock = (milliseconds) => {
  const whole = Math.floor(milliseconds / 1000);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};
const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;

function span(kind, text) {
  const element = document.createElement("span");
  if (kind) element.className = kind;
  element.textContent = text;
  return element;
}

/** Show what is known of a word, above it, or below where there is no room. */
function tellAbout(word) {
  const about = $("about");
  $("turns").querySelector("[aria-describedby]")?.removeAttribute("aria-describedby");
  about.hidden = !word;
  if (!word) return;
  word.setAttribute("aria-describedby", "about");
  about.textContent = word.dataset.about;
  const at = word.getBoundingClientRect();
  const { width, height } = about.getBoundingClientRect();
  const left = Math.min(Math.max(at.left + at.width / 2 - width / 2, 8), innerWidth - width - 8);
  const above = at.top - height - 6;
  about.style.translate = `${left}px ${above > 8 ? above : at.bottom + 6}px`;
}

/** The word before or after another one, over the ends of turns. */
function neighbour(word, step) {
  const all = [...$("turns").querySelectorAll(".word")];
  return all[all.indexOf(word) + step] ?? word;
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
  $("take").hidden = !turns.all.some((turn) => turn.text);
}

function download(kind) {
  const [write, type] = FORMATS[kind];
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write(turns.all)], { type }));
  link.download = `transcript.${kind}`;
  link.click();
  URL.revokeObjectURL(link.href);
  closeDownload();
}

function closeDownload() {
  if (!$("download").open) return;
  const within = $("download").contains(document.activeElement);
  $("download").open = false;
  if (within) $("download").firstElementChild.focus();
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
  $("announcer").textContent = "";
  tellAbout(null);
  offer();
  $("start").focus(); // the button that was pressed is gone
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
  input.addEventListener("change", () => {
    configure();
    invite();
  }),
);
$("push").addEventListener("change", () => {
  hold(!$("push").checked);
  configure();
  invite();
});
$("open-settings").addEventListener("click", () => openSettings());
$("close-settings").addEventListener("click", () => $("settings").close());
$("settings").addEventListener("click", (event) => {
  if (event.target === $("settings")) $("settings").close(); // beside it
});
addEventListener("click", (event) => !$("download").contains(event.target) && closeDownload());
for (const input of [$("microphone"), $("processing")]) {
  input.addEventListener("change", async () => {
    if (!wanted) return;
    stop();
    await start();
  });
}
$("hold").addEventListener("pointerdown", (event) => {
  $("hold").setPointerCapture(event.pointerId); // a finger that slips is still held down
  press();
});
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
  $("hold").addEventListener(name, release);
}
$("hold").addEventListener("contextmenu", (event) => event.preventDefault());
const typing = (event) => event.target.closest?.("input, select, button, summary, dialog");
const holds = ({ code, target }) => code === "Space" || (code === "Enter" && target === $("hold"));
addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    closeDownload();
    tellAbout(null);
  }
  if (!holds(event) || !$("push").checked) return;
  if (event.target !== $("hold") && typing(event)) return;
  event.preventDefault();
  if (!event.repeat) press();
});
addEventListener("keyup", (event) => holds(event) && release());
addEventListener("blur", release); // the key is let go where we do not see it

// Pointing, tapping and arrow keys go to words.
for (const name of ["mouseover", "focusin"]) {
  $("turns").addEventListener(name, ({ target }) => tellAbout(target.closest(".word")));
}
$("turns").addEventListener("mouseleave", () => tellAbout(null));
$("turns").addEventListener("focusout", () => tellAbout(null));
$("turns").addEventListener("pointerdown", ({ target }) => target.closest(".word")?.focus({ preventScroll: true }));
$("transcript").addEventListener("scroll", () => tellAbout(null));
$("turns").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || !event.target.matches(".word")) return;
  event.preventDefault();
  neighbour(event.target, step).focus();
});
addEventListener("online", () => {
  if (wanted && microphone && !call) {
    clearTimeout(retryTimer);
    connect().catch(giveUp);
  }
});
addEventListener("resize", () => tellAbout(document.activeElement.closest(".word")));
addEventListener("pagehide", stop);
document.addEventListener("visibilitychange", () => {
  if (wanted && document.visibilityState === "visible") stayAwake(); // it ends with being hidden
});
navigator.mediaDevices?.addEventListener("devicechange", listMicrophones);

invite();
const hindrance = obstacle();
if (hindrance) {
  show("unable", "Cannot listen");
  $("start").disabled = true;
  tell(hindrance);
}
