"""Piper's voices. The published networks cannot be had without a network, so this one is made
here: of their form, read by the real package, but it hums where they speak."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("piper")

from tinyvoice.errors import ConfigurationError  # noqa: E402
from tinyvoice.realtime.backends.piper import PiperVoice  # noqa: E402

SAMPLES_PER_SYMBOL = 256


def write_voice(folder: Path, name: str, sample_rate: int = 22_050, speakers: int = 1) -> Path:
    """A network that holds each phoneme for 256 samples times the length scale."""
    from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP

    helper, kinds = onnx.helper, onnx.TensorProto
    inputs = [("input", kinds.INT64, [1, "t"]), ("input_lengths", kinds.INT64, [1])]
    inputs += [("scales", kinds.FLOAT, [3])] + ([("sid", kinds.INT64, [1])] * (speakers > 1))
    constants = {"one": [1], "ones": [1, 1], "flat": [1, 1, -1], "two": [2]}
    initial = [helper.make_tensor(k, kinds.INT64, [len(v)], v) for k, v in constants.items()]
    initial.append(helper.make_tensor("hop", kinds.FLOAT, [1], [SAMPLES_PER_SYMBOL]))
    nodes = [
        helper.make_node("Cast", ["input"], ["symbols"], to=kinds.FLOAT),
        helper.make_node("Sin", ["symbols"], ["levels"]),
        helper.make_node("Unsqueeze", ["levels", "two"], ["columns"]),
        helper.make_node("Gather", ["scales", "one"], ["scale"]),
        helper.make_node("Mul", ["scale", "hop"], ["length"]),
        helper.make_node("Cast", ["length"], ["whole"], to=kinds.INT64),
        helper.make_node("Concat", ["ones", "whole"], ["repeats"], axis=0),
        helper.make_node("Tile", ["columns", "repeats"], ["tiled"]),
        helper.make_node("Reshape", ["tiled", "flat"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "voice",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info("output", kinds.FLOAT, [1, 1, "n"])],
        initial,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / f"{name}.onnx")
    settings: dict[str, Any] = {
        "audio": {"sample_rate": sample_rate},
        "espeak": {"voice": "en-us"},
        "num_symbols": 256,
        "num_speakers": speakers,
        "speaker_id_map": {f"s{n}": n for n in range(speakers)} if speakers > 1 else {},
        "phoneme_id_map": DEFAULT_PHONEME_ID_MAP,
    }
    (folder / f"{name}.onnx.json").write_text(json.dumps(settings))
    return folder / f"{name}.onnx"


async def spoken(voice: PiperVoice, text: str, name: str = "", speed: float = 1.0) -> list[bytes]:
    return [stretch.pcm16 async for stretch in voice.speak(text, name, speed)]


async def test_a_voice_speaks_sentence_by_sentence(tmp_path: Path) -> None:
    voice = PiperVoice(write_voice(tmp_path, "hum"))
    await voice.open()
    first, second = await spoken(voice, "Good morning. How are you?")
    await voice.close()
    samples = np.frombuffer(first, "<i2")
    assert len(samples) % SAMPLES_PER_SYMBOL == 0
    assert len(samples) > 10 * SAMPLES_PER_SYMBOL
    assert np.abs(samples).max() > 30_000
    assert second


async def test_speed_changes_the_length(tmp_path: Path) -> None:
    voice = PiperVoice(write_voice(tmp_path, "hum"))
    await voice.open()
    lengths = [len(b"".join(await spoken(voice, "hello", speed=s))) for s in (0.5, 1.0, 2.0, 9.0)]
    await voice.close()
    assert lengths[0] == 2 * lengths[1] == 4 * lengths[2] == 4 * lengths[3]


async def test_a_folder_holds_several_voices_at_one_rate(tmp_path: Path) -> None:
    write_voice(tmp_path, "a", 22_050)
    write_voice(tmp_path, "b", 11_025)
    voice = PiperVoice(tmp_path)
    await voice.open()
    assert voice.sample_rate == 22_050
    a, b = [len(b"".join(await spoken(voice, "hello", name))) for name in "ab"]
    await voice.close()
    assert b == pytest.approx(2 * a, rel=0.01)


async def test_speakers_of_one_file_have_names(tmp_path: Path) -> None:
    voice = PiperVoice(write_voice(tmp_path, "many", speakers=3))
    await voice.open()
    chosen = {name: voice._speaker(name).number for name in ("many#s2", "many", "alloy", "nobody")}
    assert chosen == {"many#s2": 2, "many": 0, "alloy": 0, "nobody": 0}
    assert voice._speaker("ash").number == 1
    assert await spoken(voice, "hello", "many#s1")
    await voice.close()


async def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone.onnx").write_bytes(b"x")
    (tmp_path / "broken.onnx").write_bytes(b"x")
    (tmp_path / "broken.onnx.json").write_text((write_voice(tmp_path, "v")).name)
    cases = {
        "": "needs a voice",
        "nowhere.onnx": "no file .*nowhere.onnx",
        "empty": "holds no .onnx",
        "alone.onnx": "no file .*alone.onnx.json",
        "broken.onnx": "broken.onnx.json cannot be read",
    }
    for name, words in cases.items():
        with pytest.raises(ConfigurationError, match=words) as raised:
            await PiperVoice(tmp_path / name if name else "").open()
        assert raised.value.key == "tts_model"


async def test_a_broken_network_is_named(tmp_path: Path) -> None:
    file = write_voice(tmp_path, "voice")
    file.write_bytes(b"x" * 100)
    with pytest.raises(ConfigurationError, match=r"voice.onnx cannot be read"):
        await PiperVoice(file).open()
