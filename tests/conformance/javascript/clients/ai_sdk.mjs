// The AI SDK: transcription of a stream, and transcription and speech over HTTP.

import { readFileSync } from 'node:fs';
import { createOpenAI } from '@ai-sdk/openai';
import {
  experimental_streamTranscribe as streamTranscribe,
  generateSpeech,
  transcribe,
} from 'ai';
import { chunks, main } from './scenario.mjs';

const scenarios = {
  async stream({ openai, recording, speed }) {
    const result = streamTranscribe({
      model: openai.transcription('gpt-realtime-whisper'),
      audio: ReadableStream.from(chunks(recording, speed)),
      inputAudioFormat: { type: 'audio/pcm', rate: 24000 },
      includeRawChunks: true,
    });
    const parts = [];
    for await (const part of result.fullStream) parts.push(part);
    return { text: await result.text, warnings: await result.warnings, parts };
  },

  async file({ openai, recording }) {
    const audio = readFileSync(recording);
    const plain = await transcribe({ model: openai.transcription('gpt-4o-transcribe'), audio });
    const timed = await transcribe({
      model: openai.transcription('whisper-1'),
      audio,
      providerOptions: { openai: { timestampGranularities: ['word'] } },
    });
    const { text, segments, durationInSeconds, language } = timed;
    return { plain: plain.text, timed: { text, segments, durationInSeconds, language } };
  },

  async speech({ openai, text }) {
    const model = openai.speech('gpt-4o-mini-tts');
    const { audio } = await generateSpeech({ model, text, voice: 'alloy', outputFormat: 'wav' });
    return { format: audio.format, base64: audio.base64 };
  },
};

await main(({ scenario, baseURL, apiKey, ...settings }) =>
  scenarios[scenario]({ openai: createOpenAI({ baseURL, apiKey }), ...settings }),
);
