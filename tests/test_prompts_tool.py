"""`rtpproxy prompts`, and the same as `makeann`: sounds to files that `P` plays."""

from __future__ import annotations

import array
import itertools
import os
import wave
from pathlib import Path

import pytest

from support import g711
from support.codecs import BLOCK, LIKENESS, SAMPLES, decoded, encoded, filled, likeness, sound
from support.daemon import Daemon, binary
from support.phone import MakeCall
from support.program import Companion, by_link, run
from support.rtp import Rtp

CODECS = (0, 3, 8, 9, 18)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The sound as `makeann` takes it."""
    path = tmp_path / "in.raw"
    path.write_bytes(array.array("h", sound()).tobytes())
    return path


@pytest.fixture
def makeann(tmp_path: Path) -> Companion:
    """Runs the binary by that name, in the folder of the test."""
    return by_link("makeann", tmp_path)


def prompts(folder: Path, *arguments: str | Path, libraries: Path | None = None) -> str:
    """What `rtpproxy prompts` says when all goes well."""
    done = run(binary(), "prompts", *arguments, cwd=folder, libraries=libraries)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def files(template: Path) -> dict[int, bytes]:
    """The files of a prompt by payload type."""
    found = template.parent.glob(f"{template.name}.*")
    return {int(path.suffix[1:]): path.read_bytes() for path in found if path.suffix[1:].isdigit()}


def test_makeann_encodes_for_every_codec(makeann: Companion, raw: Path) -> None:
    done = makeann(raw.name, "announcement")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made = files(raw.with_name("announcement"))
    assert made == encoded(sound())
    sizes = {payload_type: len(content) for payload_type, content in made.items()}
    assert sizes == {0: SAMPLES, 3: 41 * 33, 8: SAMPLES, 9: 41 * BLOCK, 18: 41 * 20}


def test_every_sample_has_the_codes_of_g711(makeann: Companion, tmp_path: Path) -> None:
    samples = list(range(-(2**15), 2**15))
    (tmp_path / "all").write_bytes(array.array("h", samples).tobytes())
    assert makeann("all").returncode == 0
    made = files(tmp_path / "all")
    assert made[0] == g711.to_mu_law(samples)
    assert made[8] == g711.to_a_law(samples)


def test_files_are_called_after_the_sound(makeann: Companion, raw: Path) -> None:
    raw.with_name("in.raw.0").write_text("an older one that is longer" * SAMPLES)
    assert makeann("in.raw").returncode == 0
    assert files(raw) == encoded(sound())


@pytest.mark.parametrize("limit", [1, BLOCK, BLOCK + 1, SAMPLES - 1, SAMPLES + 1])
def test_l_stops_after_so_many_samples(makeann: Companion, raw: Path, limit: int) -> None:
    assert makeann("-l", str(limit), "in.raw").returncode == 0
    assert files(raw) == encoded(sound()[:limit])


def test_l_ends_what_has_no_end(makeann: Companion, tmp_path: Path) -> None:
    assert makeann("-l", "1000", "/dev/zero", "silence").returncode == 0
    assert files(tmp_path / "silence") == encoded([0] * 1000)


def test_capital_l_repeats_the_sound(makeann: Companion, tmp_path: Path) -> None:
    samples = sound(10 * BLOCK)
    (tmp_path / "short").write_bytes(array.array("h", samples).tobytes())
    assert makeann("short", "-Ll4000").returncode == 0
    assert files(tmp_path / "short") == encoded([*samples, *samples, *samples[:800]])


def test_each_pass_ends_with_a_block_of_its_own(makeann: Companion, raw: Path) -> None:
    assert makeann("-L", "-l", str(SAMPLES + 20), raw).returncode == 0
    made = files(raw)
    assert made[0] == g711.to_mu_law(sound() + sound()[:20])
    assert made[9] == encoded(filled(sound()) + sound()[:20])[9]


def test_v_leaves_silence_out_and_warns(makeann: Companion, tmp_path: Path) -> None:
    (tmp_path / "silence").write_bytes(bytes(2 * 8000))
    done = makeann("-v", "silence")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("makeann: warning: with -v ")
    made = files(tmp_path / "silence")
    assert 0 < len(made[18]) < 100 * 10
    assert len(made[0]) == 8000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Usage: makeann "),
        (["in.raw", "out", "more"], "Usage: makeann "),
        (["-x", "in.raw"], "Usage: makeann "),
        (["-h"], "Usage: makeann "),
        (["-l"], "-l <LIMIT>"),
        (["none"], "makeann: none: No such file or directory"),
        (["."], "makeann: .: Is a directory"),
        (["-l", "0", "in.raw"], "makeann: 0: the limit is a number of samples, 1 or more"),
        (["-l", "-5", "in.raw"], "makeann: -5: the limit is"),
        (["-l", "5s", "in.raw"], "makeann: 5s: the limit is"),
        (["-l", "-L", "in.raw"], "makeann: -L: the limit is"),
        (["-L", "in.raw"], "makeann: -L needs a limit, by -l"),
        (["-L", "-l", "5", "/dev/null", "out"], "makeann: /dev/null: there is no sound in it"),
        (["in.raw", "none/out"], "makeann: none/out.0: No such file or directory"),
    ],
)
def test_makeann_says_what_is_wrong(
    makeann: Companion, raw: Path, arguments: list[str], complaint: str
) -> None:
    done = makeann(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert not files(raw.with_name("out"))


def test_a_full_disk_is_told(makeann: Companion, raw: Path) -> None:
    raw.with_name("out.8").symlink_to("/dev/full")
    done = makeann("in.raw", "out")
    assert done.returncode == 1
    assert "makeann: out.8: No space left on device" in done.stderr


def test_an_empty_sound_makes_empty_files(makeann: Companion, tmp_path: Path) -> None:
    assert makeann("/dev/null", "empty").returncode == 0
    assert files(tmp_path / "empty") == dict.fromkeys(CODECS, b"")


def test_the_name_of_the_program_decides(raw: Path) -> None:
    by_exec = run("/somewhere/makeann", "in.raw", "out", cwd=raw.parent, executable=binary())
    assert (by_exec.returncode, by_exec.stderr) == (0, "")
    assert files(raw.with_name("out")) == encoded(sound())
    as_argument = run(binary(), "makeann", "in.raw", cwd=raw.parent)
    assert as_argument.returncode == 1
    assert "2 extra unhandled argument(s)" in as_argument.stderr
    as_option = run(binary(), "-f", "prompts", "in.raw", cwd=raw.parent)
    assert as_option.returncode == 1


@pytest.fixture
def no_libraries(tmp_path: Path) -> Path:
    """A folder whose libraries hide those of the machine, and are none."""
    folder = tmp_path / "lib"
    folder.mkdir()
    for name in ("libgsm.so.1", "libbcg729.so.0"):
        (folder / name).write_text("not a library")
    return folder


def test_makeann_leaves_out_what_it_has_no_library_for(
    makeann: Companion, raw: Path, no_libraries: Path
) -> None:
    done = makeann("in.raw", libraries=no_libraries)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(files(raw)) == [0, 8, 9]


def test_prompts_names_the_package_of_a_missing_library(raw: Path, no_libraries: Path) -> None:
    arguments = (binary(), "prompts", "--raw", raw.name)
    for chosen, status in (((), 0), (("-c", "0,3,18"), 1)):
        done = run(*arguments, *chosen, cwd=raw.parent, libraries=no_libraries)
        assert done.returncode == status
        for line, payload_type, package in zip(
            done.stderr.splitlines(), (3, 18), ("libgsm1", "libbcg729-0"), strict=True
        ):
            assert line.startswith(f"rtpproxy: prompts: in.raw.{payload_type} is not made: ")
            assert f"(Debian: apt-get install {package})" in line
        assert 0 in files(raw)


@pytest.mark.parametrize("payload_type", CODECS)
def test_a_phone_hears_the_sound(
    makeann: Companion, raw: Path, daemon: Daemon, make_call: MakeCall, payload_type: int
) -> None:
    assert makeann("in.raw", "announcement").returncode == 0
    made = files(raw.with_name("announcement"))[payload_type]
    size = {3: 33, 18: 10}.get(payload_type, 80)
    call = make_call(daemon)
    name = raw.with_name("announcement")
    assert daemon.command(f"P {call.call_id} {name} {payload_type} from to") == "0"
    packets = [Rtp.parse(packet) for packet in call.caller.hear(len(made) // size)]
    assert {packet.payload_type for packet in packets} == {payload_type}
    heard = b"".join(packet.payload for packet in packets)
    assert heard == made[: len(made) // size * size]
    assert likeness(sound(), decoded(payload_type, heard)) > LIKENESS[payload_type]


def write_wav(path: Path, rate: int, channels: list[list[int]], width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((len(channels), width, rate, 0, "NONE", ""))
        samples = itertools.chain.from_iterable(zip(*channels, strict=True))
        file.writeframes(
            b"".join((s << 8 * (width - 2)).to_bytes(width, "little", signed=True) for s in samples)
        )


def test_a_wav_file_becomes_a_prompt(tmp_path: Path) -> None:
    write_wav(tmp_path / "hello.wav", 8000, [sound()])
    said = prompts(tmp_path, "hello.wav")
    assert files(tmp_path / "hello") == encoded(sound())
    assert said.splitlines() == [
        "hello.wav: 0.81 s, 8000 Hz, one channel",
        "  hello.0: G.711 µ-law, 6450 bytes",
        "  hello.3: GSM 06.10, 1353 bytes",
        "  hello.8: G.711 A-law, 6450 bytes",
        "  hello.9: G.722, 6560 bytes",
        "  hello.18: G.729, 820 bytes",
    ]


@pytest.mark.parametrize(("rate", "width"), [(16000, 2), (48000, 3)])
def test_other_rates_and_channels_are_brought_to_8000_hz(tmp_path: Path, rate: int, width: int) -> None:
    step = rate // 8000
    rising = [s for pair in itertools.pairwise([*sound(4000), 0]) for s in stairs(pair, step)]
    write_wav(tmp_path / "Loud.WAV", rate, [rising, rising], width)
    said = prompts(tmp_path, "Loud.WAV", "-c", "8")
    assert f"0.50 s, {rate} Hz brought to 8000, 2 channels mixed" in said
    made = files(tmp_path / "Loud")
    assert sorted(made) == [8]
    assert len(made[8]) == 4000
    # The filter may bring the sound a sample early.
    assert likeness(g711.from_a_law(made[8]), sound(4000)) > 0.99


def stairs(pair: tuple[int, int], steps: int) -> list[int]:
    return [pair[0] + (pair[1] - pair[0]) * step // steps for step in range(steps)]


def test_several_sounds_in_one_go(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_wav(tmp_path / f"{name}.wav", 8000, [sound(BLOCK)])
    done = run(binary(), "prompts", "-c", "0", "one.wav", "none.wav", "two.wav", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "rtpproxy: prompts: none.wav: No such file or directory (os error 2)\n"
    assert files(tmp_path / "one") == files(tmp_path / "two") == {0: g711.to_mu_law(sound(BLOCK))}


def test_a_loop_has_no_seam(raw: Path) -> None:
    prompts(raw.parent, "--raw", "in.raw", "-o", "music", "--loop", "--limit", "2.5", "--codecs", "0,9,0")
    looped = list(itertools.islice(itertools.cycle(sound()), 20000))
    made = encoded(looped)
    assert files(raw.with_name("music")) == {0: made[0], 9: made[9]}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "<SOUND>"),
        (
            ["in.raw"],
            "in.raw: not a WAV file that can be read: no RIFF tag found; if it has no header, say --raw",
        ),
        (["-c", "4", "hello.wav"], "the payload types with a codec are 0, 3, 8, 9 and 18"),
        (["-c", "0,x", "hello.wav"], "the payload types with a codec are 0, 3, 8, 9 and 18"),
        (["-L", "hello.wav"], "--limit"),
        (["-l", "0", "hello.wav"], "a number of seconds up to 86400"),
        (["-l", "nan", "hello.wav"], "a number of seconds up to 86400"),
        (["-o", "out", "hello.wav", "hello.wav"], "--output is for one sound"),
        (["-o", "none/out", "hello.wav"], "none/out.0: No such file or directory"),
        (["--raw", "/dev/null", "-o", "out"], "/dev/null: there is no sound in it"),
        (["coded.wav"], "coded.wav: the samples of this WAV file are coded"),
        (["cut.wav"], "cut.wav: not a WAV file that can be read: it ends before its sound does"),
        (["--raw", "in.0", "-o", "in"], "in.0: this is the file that the sound comes from"),
    ],
)
def test_prompts_says_what_is_wrong(raw: Path, arguments: list[str], complaint: str) -> None:
    write_wav(raw.with_name("hello.wav"), 8000, [sound()])
    whole = raw.with_name("hello.wav").read_bytes()
    raw.with_name("coded.wav").write_bytes(whole[:20] + b"\7\0" + whole[22:])
    raw.with_name("cut.wav").write_bytes(whole[:1000])
    os.link(raw, raw.with_name("in.0"))
    done = run(binary(), "prompts", *arguments, cwd=raw.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert not files(raw.with_name("out"))
    assert files(raw.with_name("in")) == {0: raw.read_bytes()}
