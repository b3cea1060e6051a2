"""What an SDP offer asks for, checked and made fit for an answer without trickling.

Only what the connection needs to know is looked at; the rest is aiortc's to parse.
"""

from __future__ import annotations

from tinyvoice.webrtc.errors import OfferError

MOST_CANDIDATES = 32
"""Candidates of an offer that are tried: each is an address that packets are sent to."""

_MOST_MEDIA = 8


def prepared_offer(text: str, longest: int) -> str:
    """The offer as it is given to aiortc.

    Multicast-DNS candidates go, because resolving them takes a second and the side that hides its
    address finds ours anyway; so does the end of candidates, because the one that is used may be
    learnt from a packet.

    Raises:
        OfferError: it is no offer, too long, or has more in it than a call has.
    """
    if len(text) > longest:
        raise OfferError(f"The offer has {len(text)} characters: at most {longest} are taken.")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    lines = [line for line in lines if line.strip()]
    if not lines or lines[0].strip() != "v=0":
        raise OfferError(
            "The body is no session description: send the SDP of the offer, which begins with "
            "'v=0', as application/sdp."
        )
    media = [line.partition("=")[2].split(" ")[0] for line in lines if line.startswith("m=")]
    if not {"audio", "application"} & set(media):
        raise OfferError(
            "The offer has neither audio nor a data channel: add a microphone track or a data "
            "channel before creating it."
        )
    if len(media) > _MOST_MEDIA:
        raise OfferError(f"The offer has {len(media)} media sections: at most {_MOST_MEDIA}.")
    return "\r\n".join(_with_few_candidates(lines)) + "\r\n"


def _with_few_candidates(lines: list[str]) -> list[str]:
    kept: list[str] = []
    candidates = 0
    for line in lines:
        if line.startswith("a=end-of-candidates"):
            continue
        if line.startswith("a=candidate:"):
            fields = line.split()
            hidden = len(fields) > 4 and fields[4].lower().endswith(".local")
            # TCP candidates cannot be used: there is no TCP here.
            if hidden or len(fields) < 8 or fields[2].lower() != "udp":
                continue
            candidates += 1
            if candidates > MOST_CANDIDATES:
                continue
        kept.append(line)
    return kept
