"""The recogniser in a Pipecat pipeline: a recording goes through, transcripts come out.

python examples/pipecat_pipeline.py tinyvoice/cli/demo.flac
"""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from tinyvoice.audio import load_audio
from tinyvoice.integrations import PipecatASRService


class Printer(FrameProcessor):
    """Where a language model would stand."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Show texts, and pass everything on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterimTranscriptionFrame):
            print(f"… {frame.text}")
        elif isinstance(frame, TranscriptionFrame):
            print(frame.text)
        await self.push_frame(frame, direction)


async def main(path: str) -> None:
    """Run one recording through a pipeline."""
    await PipecatASRService.load()  # before the pipeline: nobody waits for weights in a call
    worker = PipelineWorker(
        Pipeline([PipecatASRService(turn_mode="model"), Printer()]),
        params=PipelineParams(audio_in_sample_rate=16_000),
        enable_rtvi=False,
    )
    pcm = (load_audio(path).samples * 32767).astype("<i2")
    for start in range(0, len(pcm), 320):
        await worker.queue_frame(InputAudioRawFrame(pcm[start : start + 320].tobytes(), 16_000, 1))
    await worker.queue_frame(EndFrame())
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("recording", help="a sound file")
    asyncio.run(main(parser.parse_args().recording))
