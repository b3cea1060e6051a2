"""`openai` Python: transcription of files in every format and as a stream, speech, models."""

import argparse
import io
import wave
from pathlib import Path
from typing import Any

import openai
from feeding import run
from openai import AsyncOpenAI


def client(options: argparse.Namespace) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{options.http}/v1", api_key="none", max_retries=0)


async def formats(options: argparse.Namespace) -> dict[str, Any]:
    """One recording in each response format."""
    create = client(options).audio.transcriptions.create
    file = Path(options.speech[0])
    short = await create(file=file, model="gpt-4o-transcribe", include=["logprobs"])
    verbose = await create(
        file=file,
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
        temperature=0,
    )
    try:
        await create(
            file=file,
            model="gpt-4o-transcribe-diarize",
            response_format="diarized_json",
            chunking_strategy="auto",
        )
        refusal = ""
    except openai.BadRequestError as error:
        refusal = error.message
    return {
        "json": short.text,
        "usage": short.usage.model_dump() if short.usage else None,
        "logprobs": [entry.logprob for entry in short.logprobs or ()],
        "text": await create(file=file, model="whisper-1", response_format="text"),
        "srt": await create(file=file, model="whisper-1", response_format="srt"),
        "vtt": await create(file=file, model="whisper-1", response_format="vtt"),
        "verbose_json": verbose.model_dump(),
        "diarized_json": refusal,
    }


async def stream(options: argparse.Namespace) -> dict[str, Any]:
    """The same recording as server-sent events."""
    deltas = []
    done = None
    events = await client(options).audio.transcriptions.create(
        file=Path(options.speech[0]), model="gpt-4o-mini-transcribe", stream=True
    )
    async for event in events:
        if event.type == "transcript.text.delta":
            deltas.append(event.delta)
        elif event.type == "transcript.text.done":
            done = event.text
    return {"deltas": deltas, "done": done}


async def speech(options: argparse.Namespace) -> dict[str, Any]:
    """Text spoken in each format that carries its own name, and the words recognised again."""
    api = client(options)
    text = "set a timer for eight hours and twelve minutes"
    sizes = {}
    for kind in ("wav", "pcm", "mp3", "opus", "aac", "flac"):
        spoken = await api.audio.speech.create(
            model="tts-1", voice="alloy", input=text, response_format=kind
        )
        (Path(options.out) / f"spoken.{kind}").write_bytes(spoken.content)
        sizes[kind] = len(spoken.content)
    with wave.open(io.BytesIO((Path(options.out) / "spoken.wav").read_bytes())) as file:
        rate = file.getframerate()
    again = {}
    for kind in ("wav", "mp3", "opus", "aac", "flac"):
        heard = await api.audio.transcriptions.create(
            file=Path(options.out) / f"spoken.{kind}", model="whisper-1"
        )
        again[kind] = heard.text
    chunks = []
    async with api.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=text, response_format="pcm"
    ) as response:
        async for chunk in response.iter_bytes():
            chunks.append(len(chunk))
    return {"said": text, "sizes": sizes, "rate": rate, "again": again, "streamed": sum(chunks)}


async def models(options: argparse.Namespace) -> dict[str, Any]:
    """What there is, one of it, and one that is not."""
    api = client(options)
    listed = [model async for model in api.models.list()]
    one = await api.models.retrieve(listed[0].id)
    try:
        await api.models.retrieve("nobody/has-this")
        missing = None
    except openai.NotFoundError as error:
        missing = error.code
    return {"ids": [model.id for model in listed], "one": one.model_dump(), "missing": missing}


async def mistakes(options: argparse.Namespace) -> dict[str, Any]:
    """A file that is no recording."""
    try:
        await client(options).audio.transcriptions.create(
            file=("noise.wav", b"this is no recording at all" * 100), model="whisper-1"
        )
    except openai.BadRequestError as error:
        return {"status": error.status_code, "type": error.type, "message": error.message}
    return {"status": 200}


if __name__ == "__main__":
    run(
        {
            "formats": formats,
            "stream": stream,
            "speech": speech,
            "models": models,
            "mistakes": mistakes,
        }
    )
