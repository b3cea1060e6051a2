"""One WebRTC peer connection that answers a caller: audio both ways and a data channel.

The offer is answered completely, with all candidates in it, as HTTP signalling wants it. What comes
in is handed to a `PeerHandler`: messages of the data channel, the microphone as pcm16. A caller who
hangs up, whose network is gone, who never connects or who does not read is noticed, and everything
the call held is given back. It knows no protocol above the messages and makes no calls itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, sdp
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcicetransport import RTCIceTransport
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.rtp import RtpPacket

from tinyvoice.webrtc.errors import MessageTooLargeError, OfferError, PeerClosedError
from tinyvoice.webrtc.incoming import IncomingAudio, IncomingStatistics
from tinyvoice.webrtc.jitter_buffer import Packet
from tinyvoice.webrtc.offer import prepared_offer
from tinyvoice.webrtc.outgoing import OutgoingTrack, Playback
from tinyvoice.webrtc.redundancy import offered_redundancy, preferring_redundancy

logger = logging.getLogger(__name__)

_TICK_S = 0.02
_LOOPBACK = "127.0.0.1"

_DEFAULT_MESSAGE_BYTES = 65_536
"""What a peer takes that does not say (RFC 8841, section 6)."""

_JITTER_BUFFER = "_RTCRtpReceiver__jitter_buffer"


@dataclass(frozen=True)
class PeerSettings:
    """Limits of a call, each of which ends it or refuses a message with an error."""

    sample_rate: int = 24_000
    """Of the pcm16 that the microphone gives, Hz."""
    offer_characters: int = 65_536
    """Longest offer."""
    setup_s: float = 15.0
    """How long the caller may take to connect, and to open the data channel it offered."""
    vanished_s: float = 10.0
    """Without any packet for so long the caller is gone; browsers send one every 2.5 seconds."""
    close_s: float = 5.0
    """How long closing may take."""
    message_bytes: int = 262_144
    """Longest message from the caller; longer ones are reported and dropped."""
    unread_bytes: int = 8 * 1024 * 1024
    """How much may wait for a caller who does not read."""
    longest_playback_s: float = 900.0
    """How much audio may wait to be played."""
    addresses: tuple[str, ...] | None = None
    """Addresses of this machine to be reached at; None is all of them."""
    loopback: bool = False
    """Whether the caller is on this machine: 127.0.0.1 is then offered too."""


class PeerHandler(Protocol):
    """What a call tells its owner; none of it may block or raise."""

    def channel_opened(self) -> None:
        """Messages can be sent from now on."""

    def message_received(self, message: str | bytes) -> None:
        """The next message of the data channel."""

    def message_refused(self, size: int) -> None:
        """A message of ``size`` bytes was longer than the settings allow, and dropped."""

    def audio_received(self, pcm16: bytes) -> None:
        """More of the microphone, mono at the settings' rate."""

    def playback_started(self, response_id: str) -> None:
        """The first audio of an answer has left."""

    def playback_finished(self, response_id: str) -> None:
        """All audio of a complete answer has left."""

    def peer_closed(self, reason: str) -> None:
        """The call is over, once."""


class Peer:
    """The answering end of one call.

    Args:
        handler: is told what happens.
        label: of the data channel that is listened to; others are left alone.
        settings: limits.
    """

    def __init__(
        self, handler: PeerHandler, label: str, settings: PeerSettings | None = None
    ) -> None:
        self.settings = settings or PeerSettings()
        self.playback = Playback(
            handler.playback_started, handler.playback_finished, self.settings.longest_playback_s
        )
        self.closed = asyncio.Event()
        self._handler = handler
        self._label = label
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("datachannel", self._channel_offered)
        self._channel: RTCDataChannel | None = None
        self._incoming: IncomingAudio | None = None
        self._track: OutgoingTrack | None = None
        self._remote_message_bytes = _DEFAULT_MESSAGE_BYTES
        self._expects_channel = False
        self._connected = False
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._heard_at = self._loop.time()

    @property
    def connected(self) -> bool:
        """Whether media and data flow."""
        return self._connected and self._closing is None

    @property
    def has_channel(self) -> bool:
        """Whether the caller has offered a data channel."""
        return self._expects_channel

    @property
    def longest_message(self) -> int:
        """Bytes of the longest message that the caller takes."""
        return self._remote_message_bytes

    @property
    def statistics(self) -> IncomingStatistics:
        """What has come in from the microphone."""
        return self._incoming.statistics if self._incoming else IncomingStatistics()

    async def answer(self, offer: str) -> str:
        """Answer an SDP offer; the caller connects to what is returned.

        Raises:
            OfferError: it is no offer, or has nothing in common with what is possible here. The
                peer is closed.
        """
        try:
            text = prepared_offer(offer, self.settings.offer_characters)
            description = await self._negotiate(text)
        except OfferError:
            await self.close("the offer was refused")
            raise
        except Exception as error:
            # aiortc raises whatever parsing runs into: IndexError, KeyError, AssertionError, …
            logger.debug("offer refused: %r", error)
            await self.close("the offer was refused")
            raise OfferError(
                f"The offer cannot be answered ({type(error).__name__}: {error}): send the SDP "
                "that createOffer() returned."
            ) from error
        self._began = self._heard_at = self._loop.time()
        self._watching = asyncio.create_task(self._watch())
        return description

    def send(self, text: str) -> None:
        """Send a message over the data channel, after those sent before.

        Raises:
            MessageTooLargeError: the caller takes no message so long; nothing is sent.
            PeerClosedError: there is no open data channel.
        """
        channel = self._channel
        if channel is None or channel.readyState != "open" or self._closing:
            raise PeerClosedError("The call has no open data channel.")
        size = len(text.encode())
        if size > self._remote_message_bytes:
            raise MessageTooLargeError(
                f"A message of {size} bytes is longer than the {self._remote_message_bytes} that "
                "the other side takes.",
                limit=self._remote_message_bytes,
            )
        if self._unread() + size > self.settings.unread_bytes:
            self.end("the caller does not read")
            raise PeerClosedError("The caller does not read the data channel: the call is closed.")
        channel.send(text)

    async def close(self, reason: str = "closed here") -> None:
        """End the call and give everything back; safe to call again."""
        self.end(reason)
        assert self._closing is not None
        await asyncio.shield(self._closing)

    def end(self, reason: str) -> None:
        """End the call without waiting for it; `closed` says when it is over."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(reason))

    async def room(self, waiting: int) -> None:
        """Return when no more than so many bytes of messages wait, or the call is over.

        With 0 the caller has acknowledged everything.
        """
        while self._closing is None and self._channel is not None:
            if self._channel.readyState != "open" or self._unread() <= waiting:
                return
            await asyncio.sleep(_TICK_S)

    def _unread(self) -> int:
        """Bytes of messages that the caller has not got."""
        sctp = self._connection.sctp
        if self._channel is None or sctp is None:
            return 0
        chunks = (*sctp._outbound_queue, *sctp._sent_queue)
        return self._channel.bufferedAmount + sum(len(chunk.user_data) for chunk in chunks)

    async def _negotiate(self, text: str) -> str:
        connection = self._connection
        offered = sdp.SessionDescription.parse(text)
        _check_sections(offered)
        for media in offered.media:
            if media.kind == "application":
                self._expects_channel = True
                if media.sctpCapabilities is not None:
                    # 0 stands for any size.
                    self._remote_message_bytes = media.sctpCapabilities.maxMessageSize or 1 << 30
        await connection.setRemoteDescription(RTCSessionDescription(sdp=text, type="offer"))
        voice = self._choose_transceiver()
        if voice is not None:
            self._track = OutgoingTrack(self.playback)
            connection.addTrack(self._track)
            redundancy = _accept_redundancy(voice, offered)
        for transport in self._ice_transports():
            self._attach(transport)
        await connection.setLocalDescription(await connection.createAnswer())
        answer = str(connection.localDescription.sdp)
        if voice is not None:
            self._listen(voice)
            if redundancy is not None:
                answer = preferring_redundancy(answer, redundancy)
        return answer

    def _choose_transceiver(self) -> RTCRtpTransceiver | None:
        """The first audio section; all others, and video, are declined."""
        chosen: RTCRtpTransceiver | None = None
        for transceiver in self._connection.getTransceivers():
            if transceiver.kind == "audio" and chosen is None:
                chosen = transceiver
            else:
                transceiver.direction = "inactive"
        return chosen

    def _ice_transports(self) -> set[RTCIceTransport]:
        transports = {each.receiver.transport for each in self._connection.getTransceivers()}
        if self._connection.sctp is not None:
            transports.add(self._connection.sctp.transport)
        return {transport.transport for transport in transports if transport is not None}

    def _attach(self, transport: RTCIceTransport) -> None:
        """Choose the addresses of a transport, and hear when anything arrives on it.

        aiortc has a setting for neither, so two methods of the ICE connection are wrapped.
        """
        connection: Any = transport.iceGatherer._connection
        gather = connection.get_component_candidates

        async def gather_chosen(component: int, addresses: list[str], timeout: int = 5) -> Any:
            return await gather(component, self._addresses(addresses), timeout)

        connection.get_component_candidates = gather_chosen
        connection.data_received = self._noting_arrival(connection.data_received)
        connection.request_received = self._noting_arrival(connection.request_received)

    def _addresses(self, found: list[str]) -> list[str]:
        if self.settings.addresses is not None:
            return list(self.settings.addresses)
        # A machine without a network still has callers of its own.
        return [*found, _LOOPBACK] if self.settings.loopback or not found else found

    def _noting_arrival(self, receive: Callable[..., None]) -> Callable[..., None]:
        def noting(*arguments: Any) -> None:
            self._heard_at = self._loop.time()
            receive(*arguments)

        return noting

    def _listen(self, voice: RTCRtpTransceiver) -> None:
        """Take the microphone's packets instead of aiortc's jitter buffer.

        That one serves a loudspeaker: it holds back 80 ms always and 320 ms after the first loss,
        and what is lost disappears from the audio clock. A recogniser wants neither.
        """
        local = sdp.SessionDescription.parse(self._connection.localDescription.sdp)
        codecs = next(media.rtp.codecs for media in local.media if media.rtp.muxId == voice.mid)
        self._incoming = IncomingAudio(codecs, self.settings.sample_rate)
        if not hasattr(voice.receiver, _JITTER_BUFFER):
            raise RuntimeError("this release of aiortc has no jitter buffer where one is expected")
        setattr(voice.receiver, _JITTER_BUFFER, _PacketTap(self._packet_received))

    def _packet_received(self, packet: RtpPacket) -> None:
        if self._incoming is None or self._closing is not None:
            return
        received = Packet(
            sequence_number=packet.sequence_number,
            timestamp=packet.timestamp,
            payload_type=packet.payload_type,
            payload=packet.payload,
            source=packet.ssrc,
        )
        self._hand_over(self._incoming.receive(received, self._loop.time()))

    def _hand_over(self, pcm16: bytes) -> None:
        if pcm16:
            self._handler.audio_received(pcm16)

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._connected = True
        elif state == "failed":
            self.end("the connection failed")
        elif state == "closed":
            self.end("the caller hung up")

    def _channel_offered(self, channel: RTCDataChannel) -> None:
        if channel.label != self._label or self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._message_received)
        channel.on("close", lambda: self.end("the caller hung up"))
        self._handler.channel_opened()

    def _message_received(self, message: str | bytes) -> None:
        if self._closing is not None:
            return
        size = len(message.encode()) if isinstance(message, str) else len(message)
        if size > self.settings.message_bytes:
            self._handler.message_refused(size)
        else:
            self._handler.message_received(message)

    async def _watch(self) -> None:
        """Make silence where none comes, and look for reasons to end the call."""
        while True:
            await asyncio.sleep(_TICK_S)
            now = self._loop.time()
            if self._incoming is not None:
                self._hand_over(self._incoming.elapse(now))
            reason = self._trouble(now)
            if reason is not None:
                self.end(reason)
                return

    def _trouble(self, now: float) -> str | None:
        set_up = self._connected and not (self._expects_channel and self._channel is None)
        if not set_up and now - self._began > self.settings.setup_s:
            return "the caller did not connect"
        if self._connected and now - self._heard_at > self.settings.vanished_s:
            return "the caller vanished"
        # Data that waits for the rest of its message counts against the receive window.
        sctp = self._connection.sctp
        if sctp is not None and sctp._advertised_rwnd < 0:
            return "the caller sent more data than it may"
        return None

    async def _close(self, reason: str) -> None:
        logger.debug("call ends: %s", reason)
        if self._watching is not None:
            self._watching.cancel()
        if self._track is not None:
            self._track.stop()
        try:
            await asyncio.wait_for(self._connection.close(), self.settings.close_s)
        except Exception as error:
            logger.warning("closing a call failed: %r", error)
            for transport in self._ice_transports():
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(transport.stop(), 1.0)
        finally:
            self.closed.set()
            self._handler.peer_closed(reason)


def _accept_redundancy(voice: RTCRtpTransceiver, offered: sdp.SessionDescription) -> int | None:
    """Agree to redundant audio data if it is offered; its payload type.

    aiortc does not know it: it comes last of what it has agreed on, where it is let through to the
    receiver and not looked at by the sender.
    """
    found = next(media.rtp.codecs for media in offered.media if media.rtp.muxId == voice.mid)
    redundancy = offered_redundancy(found, voice._codecs)
    if redundancy is None:
        return None
    voice._codecs.append(redundancy)
    return redundancy.payloadType


def _check_sections(offered: sdp.SessionDescription) -> None:
    """What aiortc would only stumble over later.

    Raises:
        OfferError: sections cannot be told apart or belong to none, or one is not encrypted.
    """
    names = [media.rtp.muxId for media in offered.media]
    bundled = {
        name for group in offered.group for name in group.items if group.semantic == "BUNDLE"
    }
    if len(set(names)) < len(names) or not bundled <= set(names):
        raise OfferError("The offer's media sections and its BUNDLE group do not agree.")
    if any(media.dtls is None or not media.dtls.fingerprints for media in offered.media):
        raise OfferError("The offer has no DTLS fingerprint: calls are always encrypted.")
    if [media.kind for media in offered.media].count("application") > 1:
        raise OfferError("The offer has several data channel sections: one holds all channels.")


class _PacketTap:
    """Stands where aiortc has its jitter buffer; hands packets on and releases none to it."""

    def __init__(self, receive: Callable[[RtpPacket], None]) -> None:
        self._receive = receive

    def add(self, packet: RtpPacket) -> tuple[bool, None]:
        self._receive(packet)
        return False, None
