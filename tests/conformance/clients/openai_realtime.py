"""`openai` Python: conversations and transcription over its realtime client, GA protocol."""

import argparse
import asyncio
import base64
import time
from pathlib import Path
from typing import Any

from feeding import base64_text, chunks, read_pcm, run, silence, write_pcm
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection

QUESTION = "What is the weather in Paris?"
LONG = "Please repeat after me. " + " ".join(
    f"This is sentence number {n}, and it goes on for a while before it ends." for n in range(40)
)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Look up the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
PCM = {"type": "audio/pcm", "rate": 24000}
INTERIM = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"
MARKS = ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped")


def client(options: argparse.Namespace) -> AsyncOpenAI:
    """The client as its documentation has it, pointed at another server."""
    return AsyncOpenAI(base_url=f"{options.relay}/v1", api_key="none", max_retries=0)


class Heard:
    """What the client's iterator gave, gathered by kind."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.types: list[str] = []
        self.classes: dict[str, str] = {}
        self.deltas: dict[str, str] = {}
        self.transcripts: dict[str, str] = {}
        self.marks: list[list[Any]] = []
        self.errors: list[Any] = []
        self.audio = bytearray()

    async def until(self, *wanted: str) -> Any:
        """Read on to the first event of one of these types."""
        async for event in self.connection:
            self.note(event)
            if event.type in wanted:
                return event
        raise RuntimeError(f"the connection closed before {wanted}: {self.types}")

    def note(self, event: Any) -> None:
        self.types.append(event.type)
        self.classes[event.type] = type(event).__name__
        if event.type == "error":
            self.errors.append(event.error.model_dump())
        elif event.type == INTERIM:
            self.deltas[event.item_id] = self.deltas.get(event.item_id, "") + event.delta
        elif event.type == COMPLETED:
            self.transcripts[event.item_id] = event.transcript
        elif event.type == "response.output_audio.delta":
            self.audio += base64.b64decode(event.delta)
        elif event.type in MARKS:
            at = getattr(event, "audio_start_ms", None)
            self.marks.append([event.type, event.audio_end_ms if at is None else at, event.item_id])

    def report(self, **more: Any) -> dict[str, Any]:
        return {
            "types": self.types,
            "classes": self.classes,
            "deltas": self.deltas,
            "transcripts": self.transcripts,
            "marks": self.marks,
            "errors": self.errors,
            "audio_seconds": len(self.audio) / 48000,
            **more,
        }


async def feed(connection: AsyncRealtimeConnection, pcm: bytes, speed: float) -> None:
    async for chunk in chunks(pcm, speed):
        await connection.input_audio_buffer.append(audio=base64_text(chunk))


async def say(connection: AsyncRealtimeConnection, text: str, **more: Any) -> None:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content, **more}
    await connection.conversation.item.create(item=item)


async def text_answer(options: argparse.Namespace) -> dict[str, Any]:
    """A typed question, an answer in writing; an item that the client names, read back, deleted."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        created = await heard.until("session.created")
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        updated = await heard.until("session.updated")
        await say(connection, "Hello there, how are you?", id="item_of_mine")
        added = await heard.until("conversation.item.added")
        await connection.response.create()
        text = await heard.until("response.output_text.done")
        done = await heard.until("response.done")
        await connection.conversation.item.retrieve(item_id="item_of_mine")
        retrieved = await heard.until("conversation.item.retrieved")
        await connection.conversation.item.delete(item_id="item_of_mine")
        deleted = await heard.until("conversation.item.deleted")
        return heard.report(
            session=created.session.id,
            modalities=updated.session.output_modalities,
            added=added.item.id,
            text=text.text,
            status=done.response.status,
            output=[item.model_dump() for item in done.response.output],
            usage=done.response.usage.model_dump(),
            retrieved=retrieved.item.content[0].text,
            deleted=deleted.item_id,
        )


async def audio_answer(options: argparse.Namespace) -> dict[str, Any]:
    """A typed question, a spoken answer."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await say(connection, "Hello there, how are you?")
        await connection.response.create()
        spoken = await heard.until("response.output_audio_transcript.done")
        done = await heard.until("response.done")
        write_pcm(Path(options.out) / "answer.wav", bytes(heard.audio))
        return heard.report(transcript=spoken.transcript, status=done.response.status)


async def spoken_turn(options: argparse.Namespace) -> dict[str, Any]:
    """Speech in, the server finds where it ends, speech out."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {
                    "input": {
                        "format": PCM,
                        "transcription": {"model": "gpt-4o-mini-transcribe"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                    }
                },
            }
        )
        await heard.until("session.updated")
        pcm = read_pcm(options.speech[0]) + silence()
        feeding = asyncio.create_task(feed(connection, pcm, options.speed))
        spoken = await heard.until("response.output_audio_transcript.done")
        done = await heard.until("response.done")
        await feeding
        return heard.report(answer=spoken.transcript, status=done.response.status)


async def conversation(options: argparse.Namespace) -> dict[str, Any]:
    """Spoken turns and their answers; who speaks waits for the answer before the next turn."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {
                    "input": {
                        "format": PCM,
                        "transcription": {"model": "gpt-4o-mini-transcribe"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                    }
                },
            }
        )
        await heard.until("session.updated")
        answers = []
        for path in options.speech:
            feeding = asyncio.create_task(
                feed(connection, read_pcm(path) + silence(), options.speed)
            )
            done = await heard.until("response.done")
            await feeding
            answers.append([done.response.status, done.response.output[0].content[0].transcript])
        return heard.report(answers=answers)


async def manual_turn(options: argparse.Namespace) -> dict[str, Any]:
    """Push to talk: the client commits and asks for an answer; then it commits nothing."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await connection.session.update(
            session={
                "type": "realtime",
                "output_modalities": ["text"],
                "audio": {"input": {"transcription": {"model": "x"}, "turn_detection": None}},
            }
        )
        updated = await heard.until("session.updated")
        await feed(connection, read_pcm(options.speech[0]), options.speed)
        await connection.input_audio_buffer.commit()
        committed = await heard.until("input_audio_buffer.committed")
        await connection.response.create()
        done = await heard.until("response.done")
        await connection.input_audio_buffer.clear()
        await heard.until("input_audio_buffer.cleared")
        await connection.input_audio_buffer.commit(event_id="too_soon")
        await heard.until("error")
        return heard.report(
            turn_detection=updated.session.audio.input.turn_detection,
            committed=committed.item_id,
            answer=done.response.output[0].content[0].text,
        )


async def tool(options: argparse.Namespace) -> dict[str, Any]:
    """The model calls a function, the client answers, the model says so."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "tools": [WEATHER]}
        )
        updated = await heard.until("session.updated")
        await say(connection, QUESTION)
        await connection.response.create()
        call = await heard.until("response.function_call_arguments.done")
        first = await heard.until("response.done")
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        await connection.conversation.item.create(item=output)
        await connection.response.create()
        second = await heard.until("response.done")
        return heard.report(
            tools=[tool.name for tool in updated.session.tools],
            name=call.name,
            arguments=call.arguments,
            item=first.response.output[0].model_dump(),
            answer=second.response.output[0].content[0].text,
        )


async def interrupted_by_speech(options: argparse.Namespace) -> dict[str, Any]:
    """The user talks into a long answer; the client says how much of it was heard."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {
                    "input": {
                        "transcription": {"model": "x"},
                        "turn_detection": {
                            "type": "server_vad",
                            "create_response": False,
                            "interrupt_response": True,
                        },
                    }
                },
            }
        )
        await heard.until("session.updated")
        await say(connection, LONG)
        await connection.response.create()
        delta = await heard.until("response.output_audio.delta")
        pcm = read_pcm(options.speech[0]) + silence()
        feeding = asyncio.create_task(feed(connection, pcm, options.speed))
        done = await heard.until("response.done")
        await connection.conversation.item.truncate(
            item_id=delta.item_id, content_index=0, audio_end_ms=900
        )
        truncated = await heard.until("conversation.item.truncated")
        if COMPLETED not in heard.types:
            await heard.until(COMPLETED)
        await feeding
        await connection.conversation.item.retrieve(item_id=delta.item_id)
        retrieved = await heard.until("conversation.item.retrieved")
        return heard.report(
            asked=LONG,
            status=done.response.status,
            reason=done.response.status_details.reason,
            audio_end_ms=truncated.audio_end_ms,
            kept=retrieved.item.content[0].transcript,
        )


async def cancelled(options: argparse.Namespace) -> dict[str, Any]:
    """The client stops an answer, and stops once more when there is none; the next one is whole."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await say(connection, LONG)
        await connection.response.create()
        await heard.until("response.output_audio.delta")
        await connection.response.cancel()
        done = await heard.until("response.done")
        await connection.response.cancel(event_id="nothing_to_cancel")
        await heard.until("error")
        await say(connection, "Thank you.")
        await connection.response.create()
        second = await heard.until("response.done")
        return heard.report(
            status=done.response.status,
            reason=done.response.status_details.reason,
            second=second.response.status,
            answer=second.response.output[0].content[0].transcript,
        )


async def out_of_band(options: argparse.Namespace) -> dict[str, Any]:
    """A response beside the conversation, with a context and metadata of its own."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        content = [{"type": "input_text", "text": "Only this counts"}]
        await connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "metadata": {"purpose": "aside"},
                "input": [{"type": "message", "role": "user", "content": content}],
            }
        )
        created = await heard.until("response.created")
        done = await heard.until("response.done")
        return heard.report(
            conversation=created.response.conversation_id,
            metadata=done.response.metadata,
            answer=done.response.output[0].content[0].text,
        )


async def mistakes(options: argparse.Namespace) -> dict[str, Any]:
    """Events that cannot be carried out; the session goes on after each."""
    async with client(options).realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await connection.send({"type": "no.such.event", "event_id": "wrong_1"})
        await heard.until("error")
        await connection.input_audio_buffer.append(audio="%%%", event_id="wrong_2")
        await heard.until("error")
        await connection.conversation.item.retrieve(item_id="nobody", event_id="wrong_3")
        await heard.until("error")
        await connection.conversation.item.truncate(
            item_id="nobody", content_index=0, audio_end_ms=1, event_id="wrong_4"
        )
        await heard.until("error")
        await connection.session.update(
            session={"type": "realtime", "audio": {"output": {"speed": 9}}}, event_id="wrong_5"
        )
        await heard.until("error")
        await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        updated = await heard.until("session.updated")
        # What the server says of the session, said back to it, changes nothing.
        told = updated.session.model_dump(exclude_unset=True)
        await connection.session.update(session=told)
        again = await heard.until("session.updated")
        return heard.report(same=again.session.model_dump(exclude_unset=True) == told)


async def transcription(options: argparse.Namespace) -> dict[str, Any]:
    """Every recording a turn that the server's voice activity detection ends."""
    query = {"intent": "transcription"}
    async with client(options).realtime.connect(extra_query=query) as connection:
        heard = Heard(connection)
        created = await heard.until("session.created")
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": PCM,
                        "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                        "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
                    }
                },
                "include": ["item.input_audio_transcription.logprobs"],
            }
        )
        await heard.until("session.updated")
        pcm = b"".join(read_pcm(path) + silence() for path in options.speech)
        begin = time.monotonic()
        feeding = asyncio.create_task(feed(connection, pcm, options.speed))
        logprobs = []
        usage = []
        for _ in options.speech:
            completed = await heard.until(COMPLETED)
            logprobs.append([entry.logprob for entry in completed.logprobs or ()])
            usage.append(completed.usage.model_dump())
        await feeding
        return heard.report(
            kind=created.session.type,
            logprobs=logprobs,
            usage=usage,
            seconds=time.monotonic() - begin,
        )


async def transcription_committed(options: argparse.Namespace) -> dict[str, Any]:
    """Every recording a turn that the client ends, one right after the other."""
    query = {"intent": "transcription"}
    async with client(options).realtime.connect(extra_query=query) as connection:
        heard = Heard(connection)
        await heard.until("session.created")
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {"transcription": {"model": "whisper-1"}, "turn_detection": None}
                },
            }
        )
        await heard.until("session.updated")
        for path in options.speech:
            await feed(connection, read_pcm(path), options.speed)
            await connection.input_audio_buffer.commit()
        for _ in options.speech:
            await heard.until(COMPLETED)
        return heard.report()


async def with_client_secret(options: argparse.Namespace) -> dict[str, Any]:
    """A session that begins as the ephemeral key was made for."""
    maker = AsyncOpenAI(base_url=f"{options.http}/v1", api_key="none", max_retries=0)
    secret = await maker.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session={
            "type": "realtime",
            "instructions": "Only for this key.",
            "output_modalities": ["text"],
            "audio": {"input": {"turn_detection": None}},
        },
    )
    bearer = AsyncOpenAI(base_url=f"{options.relay}/v1", api_key=secret.value, max_retries=0)
    async with bearer.realtime.connect(model="tinyvoice") as connection:
        heard = Heard(connection)
        created = await heard.until("session.created")
        await say(connection, "Hello")
        await connection.response.create()
        done = await heard.until("response.done")
        return heard.report(
            value=secret.value,
            seconds=secret.expires_at - time.time(),
            described=secret.session.instructions,
            instructions=created.session.instructions,
            modalities=created.session.output_modalities,
            answer=done.response.output[0].content[0].text,
        )


if __name__ == "__main__":
    run(
        {
            scenario.__name__: scenario
            for scenario in (
                text_answer,
                audio_answer,
                spoken_turn,
                conversation,
                manual_turn,
                tool,
                interrupted_by_speech,
                cancelled,
                out_of_band,
                mistakes,
                transcription,
                transcription_committed,
                with_client_secret,
            )
        }
    )
