"""Where somebody speaks in a finished recording.

Network and state machine are those of live streams, so that a recording is cut as it would be if it
were played into one. What is said is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

from tinyvoice.vad.segmentation import MAX_SECONDS
from tinyvoice.vad.settings import EndpointingSettings
from tinyvoice.vad.silero import WINDOW_SAMPLES, SileroVAD
from tinyvoice.vad.utterance import Decision, Ended, Extent, Samples, UtteranceDetector

BLOCK_WINDOWS = 1024
"""Windows that the network takes at once, half a minute: more are not faster."""


def find_utterances(
    samples: Samples,
    max_utterance_s: float = MAX_SECONDS,
    heard: Callable[[int], None] | None = None,
) -> Iterator[Extent]:
    """The utterances of a recording, in order; none where nobody speaks.

    Each comes as soon as the search is past it. Memory does not grow with the recording.

    Args:
        samples: ``(n,)`` float32 at 16 kHz, mono.
        max_utterance_s: longest utterance, to a second; what is longer is cut at its quietest
            point.
        heard: called now and then with the number of samples heard since the last call.

    Raises:
        CheckpointError: the weights of the network are missing or laid out differently.
    """
    network, detector = _network(), UtteranceDetector(EndpointingSettings(), max_utterance_s)
    state = network.new_state()
    whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
    for begin in range(0, whole, BLOCK_WINDOWS * WINDOW_SAMPLES):
        block = samples[begin : min(begin + BLOCK_WINDOWS * WINDOW_SAMPLES, whole)]
        windows = block.reshape(-1, WINDOW_SAMPLES)
        (found,) = network.probabilities([state], [windows])
        for window, probability in zip(windows, found.tolist(), strict=True):
            yield from _ended(detector.hear(window, probability))
        if heard is not None:
            heard(len(block))
    yield from _ended(detector.hear(samples[whole:], None))
    yield from _ended(detector.commit())
    if heard is not None:
        heard(len(samples) - whole)


def _ended(decisions: Iterable[Decision]) -> Iterator[Extent]:
    return (decision.extent for decision in decisions if isinstance(decision, Ended))


@cache
def _network() -> SileroVAD:
    """One for all recordings: it keeps nothing of them."""
    return SileroVAD.load()
