"""What a session is set to: defaults, updates, and what an update may hold.

A configuration is the session object of the protocol in GA form without ``id``, ``object`` and
``expires_at``, complete at all times, so that it is also what is sent back. Fields that are not
known are ignored; a value that cannot be used raises and changes nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tinyvoice.realtime.errors import ProtocolError, unsupported, wrong_value
from tinyvoice.realtime.fields import (
    LONGEST_NAME,
    a_boolean,
    a_number,
    a_string,
    an_array,
    an_identifier,
    an_integer,
    an_object,
    one_of,
    required,
)
from tinyvoice.realtime.limits import SessionLimits

Kind = Literal["realtime", "transcription"]
Configuration = dict[str, Any]

LOGPROBS = "item.input_audio_transcription.logprobs"
PARTIALS = "tinyvoice.partials"
"""In ``include``: word times, and partials with their unstable tail, as events of our own."""
INCLUDABLE = (LOGPROBS, PARTIALS)

DEFAULT_INSTRUCTIONS = (
    "You are a helpful, friendly voice assistant. Answer briefly, in plain sentences that are easy "
    "to listen to."
)
DEFAULT_MODEL = "tinyvoice"
DEFAULT_VOICE = "alloy"
EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
DELAYS = ("minimal", "low", "medium", "high", "xhigh")
EAGERNESS = ("low", "medium", "high", "auto")
MODALITIES = ("text", "audio")
FORMATS = {"audio/pcm": "pcm16", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}
FORMAT_ALIASES = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
PCM_RATE = 24_000
INPUT_RATES = (PCM_RATE, 16_000)
"""16 kHz is an extension; only a client that asked for it sees it."""
LONGEST_MS = 3_600_000
PAST_TRANSCRIPTION_ERROR = (
    "Passing a transcription session update event to a realtime session is not allowed."
)
PAST_REALTIME_ERROR = (
    "Passing a realtime session update event to a transcription session is not allowed."
)


def default_configuration(kind: Kind, model: str = DEFAULT_MODEL) -> Configuration:
    """What a session begins with; keys in the order in which the original sends them."""
    audio_input: dict[str, Any] = {
        "format": {"type": "audio/pcm", "rate": PCM_RATE},
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": default_turn_detection(kind, "server_vad"),
    }
    if kind == "transcription":
        return {"type": kind, "audio": {"input": audio_input}, "include": None}
    return {
        "type": kind,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": DEFAULT_INSTRUCTIONS,
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "audio": {
            "input": audio_input,
            "output": {
                "format": {"type": "audio/pcm", "rate": PCM_RATE},
                "voice": DEFAULT_VOICE,
                "speed": 1.0,
            },
        },
        "include": None,
    }


def default_turn_detection(kind: Kind, which: str) -> dict[str, Any]:
    """A turn detection object with every field that the kind of session has."""
    if which == "semantic_vad":
        detection: dict[str, Any] = {"type": which, "eagerness": "auto"}
    else:
        detection = {
            "type": which,
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
        }
    if kind == "realtime":
        if which == "server_vad":
            detection["idle_timeout_ms"] = None
        detection |= {"create_response": True, "interrupt_response": True}
    return detection


def updated(current: Configuration, change: Any, limits: SessionLimits) -> Configuration:
    """The configuration after a ``session.update`` with this ``session``.

    Present fields are merged deeply, lists are replaced, null clears what can be cleared.

    Raises:
        ProtocolError: a value cannot be used.
    """
    change = an_object(change, "session")
    kind: Kind = current["type"]
    check_type(kind, change)
    new = copy.deepcopy(current)
    fields = SESSION_FIELDS if kind == "realtime" else TRANSCRIPTION_FIELDS
    for name, read in fields.items():
        if name in change:
            value = read(change[name], f"session.{name}", limits)
            if value is None and name in OPTIONAL_FIELDS:
                new.pop(name, None)
            else:
                new[name] = value
    if change.get("audio") is not None:
        audio = an_object(change["audio"], "session.audio")
        if audio.get("input") is not None:
            heard = an_object(audio["input"], "session.audio.input")
            new["audio"]["input"] = audio_input(new["audio"]["input"], heard, kind, limits)
        if audio.get("output") is not None and kind == "realtime":
            spoken = an_object(audio["output"], "session.audio.output")
            new["audio"]["output"] = audio_output(new["audio"]["output"], spoken, "session")
    return new


def check_type(kind: Kind, change: Mapping[str, Any]) -> None:
    """Refuse an update for the other kind of session; a missing type is inferred."""
    if change.get("type") is None:
        return
    named = one_of(change["type"], "session.type", ("realtime", "transcription"))
    if named != kind:
        message = PAST_TRANSCRIPTION_ERROR if kind == "realtime" else PAST_REALTIME_ERROR
        raise ProtocolError("invalid_parameter", message, "session.type")


# --- fields of a session --------------------------------------------------------------------------


def instructions(value: Any, path: str, limits: SessionLimits) -> str:
    """A system prompt; null is none."""
    return "" if value is None else a_string(value, path, limits.instruction_characters)


def output_modalities(value: Any, path: str) -> list[str]:
    """``["audio"]`` or ``["text"]``; both together were the older way to say audio."""
    if value is None:
        return ["audio"]
    wanted = [
        one_of(entry, f"{path}[{i}]", MODALITIES)
        for i, entry in enumerate(an_array(value, path, 8))
    ]
    if not wanted:
        raise wrong_value(path, f"Invalid '{path}': expected ['audio'] or ['text'].")
    return ["audio"] if "audio" in wanted else ["text"]


def max_output_tokens(value: Any, path: str) -> int | str:
    """A number of tokens, or ``"inf"``."""
    if value is None or value == "inf":
        return "inf"
    if isinstance(value, str):
        raise unsupported(path, value, ["inf"])
    return an_integer(value, path, 1)


def tools(value: Any, path: str, limits: SessionLimits) -> list[dict[str, Any]]:
    """Function tools in the flat form. Tools of other kinds are left out: nobody would run them."""
    if value is None:
        return []
    entries = an_array(value, path, limits.tools)
    if len(json.dumps(entries)) > limits.tools_bytes:
        raise wrong_value(path, f"Invalid '{path}': more than {limits.tools_bytes} bytes.")
    found = [tool(entry, f"{path}[{index}]") for index, entry in enumerate(entries)]
    return [entry for entry in found if entry is not None]


def has_mcp_tools(given: Any) -> bool:
    """Whether a client's session or response names tools that are left out."""
    entries = given.get("tools") if isinstance(given, dict) else None
    return isinstance(entries, list) and any(
        isinstance(entry, dict) and entry.get("type") == "mcp" for entry in entries
    )


def tool(value: Any, path: str) -> dict[str, Any] | None:
    """One tool; the nested form of chat completions is taken as well."""
    entry = dict(an_object(value, path))
    kind = a_string(entry.get("type", "function"), f"{path}.type", LONGEST_NAME)
    if kind != "function":
        if kind != "mcp":
            raise unsupported(f"{path}.type", kind, ["function", "mcp"])
        return None
    if isinstance(entry.get("function"), dict):
        entry = {**entry["function"], "type": "function"}
    clean: dict[str, Any] = {
        "type": "function",
        "name": an_identifier(required(entry, "name", f"{path}.name"), f"{path}.name"),
    }
    if entry.get("description") is not None:
        clean["description"] = a_string(entry["description"], f"{path}.description")
    if entry.get("parameters") is not None:
        clean["parameters"] = dict(an_object(entry["parameters"], f"{path}.parameters"))
    return clean


def tool_choice(value: Any, path: str) -> str | dict[str, Any]:
    """``auto``, ``none``, ``required``, or a function by its name."""
    if value is None:
        return "auto"
    if isinstance(value, str):
        return one_of(value, path, ("auto", "none", "required"))
    choice = an_object(value, path)
    kind = one_of(required(choice, "type", f"{path}.type"), f"{path}.type", ("function", "mcp"))
    if kind == "mcp":
        return "auto"
    if isinstance(choice.get("function"), dict):
        choice = choice["function"]
    name = an_identifier(required(choice, "name", f"{path}.name"), f"{path}.name")
    return {"type": "function", "name": name}


def optional_boolean(value: Any, path: str) -> bool | None:
    """A boolean; null is not set."""
    return None if value is None else a_boolean(value, path)


def tracing(value: Any, path: str) -> Any:
    """Taken and sent back; there is nothing to trace to."""
    if value is None:
        return None
    if isinstance(value, str):
        return one_of(value, path, ("auto",))
    traced = an_object(value, path)
    clean: dict[str, Any] = {}
    for name in ("workflow_name", "group_id"):
        if traced.get(name) is not None:
            clean[name] = a_string(traced[name], f"{path}.{name}", LONGEST_NAME)
    if traced.get("metadata") is not None:
        clean["metadata"] = dict(an_object(traced["metadata"], f"{path}.metadata"))
    return clean


def truncation(value: Any, path: str) -> Any:
    """Taken and sent back; the language model's backend decides what fits."""
    if value is None:
        return "auto"
    if isinstance(value, str):
        return one_of(value, path, ("auto", "disabled"))
    given = an_object(value, path)
    one_of(required(given, "type", f"{path}.type"), f"{path}.type", ("retention_ratio",))
    ratio = required(given, "retention_ratio", f"{path}.retention_ratio")
    clean: dict[str, Any] = {
        "type": "retention_ratio",
        "retention_ratio": a_number(ratio, f"{path}.retention_ratio", 0, 1),
    }
    if given.get("token_limits") is not None:
        most = an_object(given["token_limits"], f"{path}.token_limits")
        if most.get("post_instructions") is not None:
            where = f"{path}.token_limits.post_instructions"
            clean["token_limits"] = {
                "post_instructions": an_integer(most["post_instructions"], where)
            }
    return clean


def prompt(value: Any, path: str, limits: SessionLimits) -> Any:
    """A stored prompt by its id; taken and sent back, there is no store."""
    if value is None:
        return None
    given = an_object(value, path)
    clean: dict[str, Any] = {"id": an_identifier(required(given, "id", f"{path}.id"), f"{path}.id")}
    if given.get("version") is not None:
        clean["version"] = a_string(given["version"], f"{path}.version", LONGEST_NAME)
    if given.get("variables") is not None:
        variables = an_object(given["variables"], f"{path}.variables")
        clean["variables"] = {
            name: a_string(text, f"{path}.variables.{name}", limits.instruction_characters)
            for name, text in variables.items()
        }
    return clean


def reasoning(value: Any, path: str) -> Any:
    """How much a model thinks; sent back, and left to the backend."""
    if value is None:
        return None
    given = an_object(value, path)
    if given.get("effort") is None:
        return None
    return {"effort": one_of(given["effort"], f"{path}.effort", EFFORTS)}


def include(value: Any, path: str) -> list[str] | None:
    """What events carry beyond the usual; what is not known is left out."""
    if value is None:
        return None
    names = [
        a_string(v, f"{path}[{i}]", LONGEST_NAME) for i, v in enumerate(an_array(value, path, 64))
    ]
    return [name for name in INCLUDABLE if name in names] or None


def temperature(value: Any, path: str) -> float | None:
    """Of the older dialect, which sends it back; nothing uses it."""
    return None if value is None else a_number(value, path, 0, 2)


Reader = Callable[[Any, str, SessionLimits], Any]


def without_limits(read: Callable[[Any, str], Any]) -> Reader:
    """A reader to which the session's limits do not matter."""
    return lambda value, path, _: read(value, path)


TRANSCRIPTION_FIELDS: dict[str, Reader] = {"include": without_limits(include)}
SESSION_FIELDS: dict[str, Reader] = {
    "output_modalities": without_limits(output_modalities),
    "instructions": instructions,
    "tools": tools,
    "tool_choice": without_limits(tool_choice),
    "parallel_tool_calls": without_limits(optional_boolean),
    "max_output_tokens": without_limits(max_output_tokens),
    "tracing": without_limits(tracing),
    "truncation": without_limits(truncation),
    "prompt": prompt,
    "reasoning": without_limits(reasoning),
    "include": without_limits(include),
    "temperature": without_limits(temperature),
}
OPTIONAL_FIELDS = ("parallel_tool_calls", "reasoning", "temperature")
"""Not there unless a client sets them."""


# --- audio ----------------------------------------------------------------------------------------


def audio_input(
    current: Mapping[str, Any], change: Mapping[str, Any], kind: Kind, limits: SessionLimits
) -> dict[str, Any]:
    """``audio.input`` after a change."""
    path, new = "session.audio.input", dict(current)
    if change.get("format") is not None:
        new["format"] = audio_format(change["format"], f"{path}.format", INPUT_RATES)
    if "transcription" in change:
        new["transcription"] = transcription(
            new["transcription"], change["transcription"], f"{path}.transcription", limits
        )
    if "noise_reduction" in change:
        new["noise_reduction"] = noise_reduction(
            change["noise_reduction"], f"{path}.noise_reduction"
        )
    if "turn_detection" in change:
        new["turn_detection"] = turn_detection(
            new["turn_detection"], change["turn_detection"], f"{path}.turn_detection", kind
        )
    return new


def audio_output(
    current: Mapping[str, Any], change: Mapping[str, Any], begin: str
) -> dict[str, Any]:
    """``audio.output`` after a change."""
    path, new = f"{begin}.audio.output", dict(current)
    if change.get("format") is not None:
        new["format"] = audio_format(change["format"], f"{path}.format", (PCM_RATE,))
    if change.get("voice") is not None:
        new["voice"] = voice(change["voice"], f"{path}.voice")
    if change.get("speed") is not None:
        new["speed"] = a_number(change["speed"], f"{path}.speed", 0.25, 1.5)
    return new


def audio_format(value: Any, path: str, rates: tuple[int, ...]) -> dict[str, Any]:
    """A format object, or the older dialect's name of one."""
    if isinstance(value, str):
        value = {"type": FORMAT_ALIASES.get(value, value)}
    given = an_object(value, path)
    name = required(given, "type", f"{path}.type")
    if isinstance(name, str):
        name = FORMAT_ALIASES.get(name, name)
    name = one_of(name, f"{path}.type", tuple(FORMATS))
    if name != "audio/pcm":
        return {"type": name}
    rate = given.get("rate")
    rate = PCM_RATE if rate is None else an_integer(rate, f"{path}.rate", 1)
    if rate not in rates:
        raise unsupported(f"{path}.rate", rate, [str(r) for r in rates])
    return {"type": name, "rate": rate}


def voice(value: Any, path: str) -> str:
    """A voice's name; an object with its id is taken, strings are what is sent."""
    if isinstance(value, dict):
        value, path = required(value, "id", f"{path}.id"), f"{path}.id"
    return an_identifier(value, path)


def transcription(
    current: Mapping[str, Any] | None, value: Any, path: str, limits: SessionLimits
) -> dict[str, Any] | None:
    """How input audio is transcribed. Any model's name is taken: clients hard-code theirs."""
    if value is None:
        return None
    change = an_object(value, path)
    new = dict(current or {"model": DEFAULT_MODEL, "language": None, "prompt": None})
    most = limits.instruction_characters
    if change.get("model") is not None:
        new["model"] = a_string(change["model"], f"{path}.model", LONGEST_NAME)
    for name, longest in (("language", LONGEST_NAME), ("prompt", most)):
        if name in change:
            text = change[name]
            new[name] = None if text is None else a_string(text, f"{path}.{name}", longest)
    for name in ("languages", "keywords"):
        if name in change:
            new.pop(name, None)
            if change[name] is not None:
                new[name] = [
                    a_string(word, f"{path}.{name}[{index}]", LONGEST_NAME)
                    for index, word in enumerate(an_array(change[name], f"{path}.{name}", 1_000))
                ]
    if "delay" in change:
        new.pop("delay", None)
        if change["delay"] is not None:
            new["delay"] = one_of(change["delay"], f"{path}.delay", DELAYS)
    return new


def noise_reduction(value: Any, path: str) -> dict[str, Any] | None:
    """Taken and sent back; the model was trained with noise."""
    if value is None:
        return None
    given = an_object(value, path)
    kind = required(given, "type", f"{path}.type")
    if kind is None:
        return None
    clean: dict[str, Any] = {"type": one_of(kind, f"{path}.type", ("near_field", "far_field"))}
    if given.get("strength") is not None:
        clean["strength"] = a_number(given["strength"], f"{path}.strength", 0, 1)
    return clean


def turn_detection(
    current: Mapping[str, Any] | None, value: Any, path: str, kind: Kind
) -> dict[str, Any] | None:
    """How turns are found; null (or false, or the type "none") leaves that to the client."""
    if value is None or value is False:
        return None
    change = an_object(value, path)
    named = change.get("type")
    if named is None:
        named = current["type"] if current is not None else "server_vad"
    named = one_of(named, f"{path}.type", ("server_vad", "semantic_vad", "none"))
    if named == "none":
        return None
    known = default_turn_detection(kind, named)
    same = current is not None and current["type"] == named
    new = dict(current) if same and current is not None else dict(known)
    for name, default in known.items():
        if name == "type" or name not in change:
            continue
        where = f"{path}.{name}"
        given = change[name]
        new[name] = default if given is None else DETECTION_FIELDS[name](given, where)
    return new


DETECTION_FIELDS: dict[str, Callable[[Any, str], Any]] = {
    "threshold": lambda value, path: a_number(value, path, 0, 1),
    "prefix_padding_ms": lambda value, path: an_integer(value, path, 0, LONGEST_MS),
    "silence_duration_ms": lambda value, path: an_integer(value, path, 0, LONGEST_MS),
    "idle_timeout_ms": lambda value, path: an_integer(value, path, 5_000, 30_000),
    "eagerness": lambda value, path: one_of(value, path, EAGERNESS),
    "create_response": a_boolean,
    "interrupt_response": a_boolean,
}


# --- what the engine is set to --------------------------------------------------------------------


def clamped(value: float, lowest: float, highest: float) -> float:
    """The nearest value between the bounds."""
    return min(max(value, lowest), highest)


def stream_changes(configuration: Configuration) -> dict[str, Any]:
    """Settings of the engine's stream: what the client said, within what the engine can do."""
    detection = configuration["audio"]["input"]["turn_detection"]
    changes: dict[str, Any] = {
        "endpointing": "manual",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_ms": 500,
        "eagerness": "auto",
        "word_times": wants(configuration, PARTIALS),
    }
    if detection is None:
        return changes
    if detection["type"] == "semantic_vad":
        return changes | {"endpointing": "semantic", "eagerness": detection["eagerness"]}
    return changes | {
        "endpointing": "vad",
        "threshold": clamped(detection["threshold"], 0.01, 0.99),
        "prefix_padding_ms": int(clamped(detection["prefix_padding_ms"], 0, 2_000)),
        "silence_ms": int(clamped(detection["silence_duration_ms"], 32, 10_000)),
    }


def input_format(configuration: Configuration) -> tuple[str, int]:
    """Encoding and sample rate of the client's audio, as `SetFormat` takes them."""
    given = configuration["audio"]["input"]["format"]
    return FORMATS[given["type"]], given.get("rate", 8_000)


def wants(configuration: Configuration, name: str) -> bool:
    """Whether ``include`` asks for something."""
    return name in (configuration["include"] or ())


# --- responses ------------------------------------------------------------------------------------

MOST_METADATA, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512


@dataclass(frozen=True)
class ResponseParameters:
    """What one response is made with: the session's values, and what its request overrides."""

    instructions: str
    output_modalities: list[str]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    max_output_tokens: int | str
    format: dict[str, Any]
    voice: str
    speed: float
    out_of_band: bool = False
    metadata: dict[str, str] | None = None
    input: list[Any] | None = None
    """Items as the client sent them, None for the conversation."""


def response_parameters(
    configuration: Configuration, request: Any, limits: SessionLimits
) -> ResponseParameters:
    """The parameters of a ``response.create``; ``request`` None overrides nothing.

    Raises:
        ProtocolError: a value cannot be used.
    """
    given = {} if request is None else an_object(request, "response")
    values: dict[str, Any] = {name: configuration.get(name) for name in RESPONSE_FIELDS}
    for name, read in RESPONSE_FIELDS.items():
        if given.get(name) is not None:
            values[name] = read(given[name], f"response.{name}", limits)
    output = configuration["audio"]["output"]
    if given.get("audio") is not None:
        audio = an_object(given["audio"], "response.audio")
        if audio.get("output") is not None:
            change = an_object(audio["output"], "response.audio.output")
            output = audio_output(output, change, "response")
    conversation = "auto"
    if given.get("conversation") is not None:
        conversation = a_string(given["conversation"], "response.conversation", LONGEST_NAME)
        if not conversation.startswith("conv_"):
            one_of(conversation, "response.conversation", ("auto", "none"))
    items = (
        None
        if given.get("input") is None
        else an_array(given["input"], "response.input", limits.items)
    )
    parallel = values.pop("parallel_tool_calls")
    return ResponseParameters(
        **values,
        parallel_tool_calls=True if parallel is None else parallel,
        format=output["format"],
        voice=output["voice"],
        speed=output["speed"],
        out_of_band=conversation == "none",
        metadata=metadata(given.get("metadata")),
        input=items,
    )


RESPONSE_FIELDS: dict[str, Reader] = {
    "instructions": instructions,
    "output_modalities": without_limits(output_modalities),
    "tools": tools,
    "tool_choice": without_limits(tool_choice),
    "parallel_tool_calls": without_limits(optional_boolean),
    "max_output_tokens": without_limits(max_output_tokens),
}


def metadata(value: Any) -> dict[str, str] | None:
    """A few words that a client finds again in its response."""
    if value is None:
        return None
    given, path = an_object(value, "response.metadata"), "response.metadata"
    if len(given) > MOST_METADATA:
        raise wrong_value(path, f"Invalid '{path}': expected at most {MOST_METADATA} keys.")
    for name, text in given.items():
        if len(name) > LONGEST_KEY:
            raise wrong_value(path, f"Invalid '{path}': a key exceeds {LONGEST_KEY} characters.")
        a_string(text, f"{path}.{name}", LONGEST_VALUE)
    return dict(given)
