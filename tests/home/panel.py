"""docs/frame/waveshare-7.5-v2.c, compiled with every warning as an error, in front of a display that is not there
(panel_fake.c): what reaches the display is the picture that the device packs for it, between the controller's commands.

    DIFFUSED_PROGRAM=target/release/diffused python3 tests/home/panel.py
"""

import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE, FAKE = ROOT / "docs/frame/waveshare-7.5-v2.c", ROOT / "tests/home/panel_fake.c"
STRICT = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
WRAPPED = [f"-Wl,--wrap={name}" for name in ["open", "close", "ioctl", "write", "usleep"]]
PICTURE = '{"panel": "waveshare-7.5-v2", "format": "packed"}'


def run(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, **more)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([*STRICT, "-Wconversion", "-o", folder / "show-pictures", SOURCE], check=True)
        shown = folder / "shown"
        subprocess.run([*STRICT, "-o", shown, SOURCE, FAKE, *WRAPPED], check=True)
        words = ["a large red house at night with a moon", "--steps", "2", "--seed", "7", "--panel", PICTURE]
        run(os.environ["DIFFUSED_PROGRAM"], "generate", *words, "-o", folder / "house.png", check=True)
        picture = (folder / "house-panel.bin").read_bytes()
        # A message of another length between two pictures.
        message = b"48000 " + picture
        result = run(shown, input=message + b"3 abc" + message)
        assert result.returncode == 0 and result.stderr.count(b"3 bytes instead of 48000") == 1, result.stderr
        log = [line for line in result.stdout.decode().split("\n") if line]
        assert log[: len(log) // 2] == log[len(log) // 2 :], "the second picture is shown otherwise"
        check_log(log[: len(log) // 2], picture)
        for broken in [b"", b"48000", message[:-1], b"x" + message, b"99999999 abc"]:
            result = run(shown, input=broken)
            assert result.returncode == 0 and not result.stdout.strip(), result
        absent = run(folder / "show-pictures", "/dev/no-spi", input=message)
        assert absent.returncode == 1 and b"/dev/no-spi: No such file" in absent.stderr, absent
    print("the display got the picture, 48,000 bytes, twice, and went to sleep")


def check_log(log, picture):
    commands, sent = [], {}
    for line in log:
        kind, *values = line.split(" ")
        values = bytes.fromhex("".join(values))
        if kind == "C":
            commands.append(values[0])
        else:
            sent.setdefault(commands[-1], b"")
            sent[commands[-1]] += values
    # Voltages, booster, on; kind, size, SPI, border, gaps; old and new picture, refresh; border, off, deep sleep.
    expected = [0x01, 0x06, 0x04, 0x00, 0x61, 0x15, 0x50, 0x60, 0x10, 0x13, 0x12, 0x50, 0x02, 0x07]
    assert commands == expected, [hex(code) for code in commands]
    assert sent[0x61] == bytes([800 >> 8, 800 & 255, 480 >> 8, 480 & 255]) and sent[0x07] == b"\xa5", sent
    assert sent[0x13] == picture, "the picture is another"
    assert sent[0x10] == bytes(255 - byte for byte in picture), "what was there is not the opposite"
    assert 0 < picture.count(0) < len(picture) // 2, "the picture says nothing"


main()
