// The microphone: asking for it, choosing it, and how loud it is.

/** Why there is no microphone, in words for the person. */
export class MicrophoneError extends Error {
  /** `choose`: whether choosing another one may help. */
  constructor(message, { choose = false } = {}) {
    super(message);
    this.choose = choose;
  }
}

const REASONS = {
  NotAllowedError:
    "The browser was not allowed to use the microphone. Allow it by the icon in the address bar, then start again.",
  NotFoundError: "No microphone was found. Plug one in, then start again.",
  NotReadableError: "The microphone is in use by another program. Close that one, then start again.",
  OverconstrainedError: "The chosen microphone is gone. Choose another one.",
};

/** What this page cannot do here, as a sentence; null where all is well. */
export function obstacle() {
  if (!window.isSecureContext) {
    return (
      "Browsers give the microphone to secure pages only: open this page as http://localhost " +
      "or http://127.0.0.1 on the same machine, or over https (tinyvoice serve --tls-self-signed)."
    );
  }
  if (!window.RTCPeerConnection) return "This browser has no WebRTC: use a current Firefox, Chrome, Edge or Safari.";
  if (!navigator.mediaDevices?.getUserMedia) return "This browser has no access to microphones.";
  return null;
}

/** Open a microphone. `processing` is the browser's echo cancellation and the like. */
export async function openMicrophone(deviceId, processing) {
  const audio = {
    echoCancellation: processing,
    noiseSuppression: processing,
    autoGainControl: processing,
    channelCount: 1,
  };
  if (deviceId) audio.deviceId = { exact: deviceId };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new MicrophoneError(REASONS[error.name] ?? `The microphone cannot be used (${error.message}).`, {
      choose: ["NotReadableError", "OverconstrainedError"].includes(error.name),
    });
  }
}

/** Microphones there are: [{id, label}]. Labels are known once one has been allowed. */
export async function microphones() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === "audioinput" && device.deviceId !== "default")
    .map((device, index) => ({
      id: device.deviceId,
      label: device.label || `Microphone ${index + 1}`,
    }));
}

/** Calls `show` with the level of a stream, 0 to 1, and whether nothing at all comes from it, as
 * long as it runs; returns how to stop. */
export function watchLevel(stream, show) {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 1024 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    const decibels = 10 * Math.log10(power + 1e-10);
    // Even a quiet room is not exactly zero; a muted microphone is.
    show(Math.min(Math.max((decibels + 60) / 55, 0), 1), power === 0);
  }, 60);
  return () => {
    clearInterval(timer);
    context.close();
  };
}
