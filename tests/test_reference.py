"""What is made from the table of options: man pages and shell completions."""

from __future__ import annotations

import os
import pty
import re
import select
import time
from pathlib import Path

import pytest

from support.daemon import binary
from support.program import run
from support.tools import need

SHELLS = ("bash", "fish", "zsh")


def output(*command: str | Path) -> str:
    done = run(*command)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    assert done.stderr == "", f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, Path]:
    """All man pages by their names."""
    folder = tmp_path / "new" / "man"
    assert output(binary(), "man", folder) == ""
    return {page.stem: page for page in folder.iterdir()}


def rendered(page: Path) -> str:
    """A page as plain text; warnings fail."""
    need("groff")
    text = output("groff", "-K", "utf8", "-man", "-ww", "-T", "utf8", "-P", "-cbou", "-rLL=300n", page)
    # Words are spread to fill lines, and a minus of roff is one of typography.
    return re.sub(r"\s+", " ", text.replace("\N{HYPHEN}", "-").replace("\N{MINUS SIGN}", "-"))


def options_of_help(name: str, folder: Path) -> list[str]:
    """The options at the beginnings of the lines of a program's help."""
    program, _, sub_command = name.partition("-")
    link = folder / program
    if not link.exists():
        link.symlink_to(binary())
    options: list[str] = []
    for line in output(link, *sub_command.split(), "--help").splitlines():
        if found := re.match(r"\s{2,6}(-\w)?(?:, |\s*)(--[\w-]+)?", line):
            options += [option for option in found.groups() if option]
    return options


def test_pages_tell_every_option_of_the_help(pages: dict[str, Path], tmp_path: Path) -> None:
    assert {
        "rtpproxy",
        "rtpproxy-ctl",
        "rtpproxy-demo",
        "rtpproxy-ls",
        "rtpproxy-prompts",
        "rtpproxy-repair",
        "rtpproxy-verify",
        "extractaudio",
        "makeann",
    } <= pages.keys()
    for name, page in pages.items():
        text = rendered(page)
        assert text.startswith(f"{name}(1)"), text[:80]
        assert f" NAME {name} - " in text
        listed = options_of_help(name, tmp_path)
        assert len(listed) > 2, name
        options = text.partition(" DESCRIPTION ")[2]
        for option in listed:
            if option not in ("-h", "--help"):
                assert re.search(rf"(?<!\S){option}(?=[\s,\[=])", options), f"{option} in {name}(1)"


def test_pages_refer_to_each_other(pages: dict[str, Path]) -> None:
    for name, page in pages.items():
        others = rendered(page).partition(" SEE ALSO ")[2]
        assert set(re.findall(r"([\w-]+)\(1\)", others)) == pages.keys(), name


def test_one_page_goes_to_standard_output(pages: dict[str, Path]) -> None:
    assert output(binary(), "man") == pages["rtpproxy"].read_text()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = run(binary(), "man", file / "x")
    assert done.returncode == 1
    assert done.stderr.startswith(f"rtpproxy: man: {file / 'x'}: ")


def test_another_shell_is_refused() -> None:
    done = run(binary(), "completions", "tcsh")
    assert done.returncode == 1
    assert "bash, fish, zsh" in done.stderr


@pytest.fixture
def scripts(tmp_path: Path) -> dict[str, Path]:
    """The completions of each shell."""
    found = {shell: tmp_path / shell for shell in SHELLS}
    for shell, script in found.items():
        script.write_text(output(binary(), "completions", shell))
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_read_their_completions(scripts: dict[str, Path], shell: str) -> None:
    need(shell)
    assert output(shell, "-n", scripts[shell]) == ""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["rtpproxy", "--record-fo"], ["--record-format"]),
        (["rtpproxy", "-f", "--no_res"], ["--no_resolve"]),
        (["rtpproxy", "dem"], ["demo"]),
        (["rtpproxy", "--latch", "n"], ["nat"]),
        (["rtpproxy", "demo", "--sec"], ["--seconds"]),
    ],
)
def test_bash_completes(scripts: dict[str, Path], words: list[str], completed: list[str]) -> None:
    need("bash")
    line = (
        f"source {scripts['bash']}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
        f"_rtpproxy rtpproxy {words[-1]} {words[-2]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    assert output("bash", "--norc", "-c", line).split() == completed


@pytest.mark.parametrize(
    ("line", "completed"),
    [("rtpproxy --record-fo", "--record-format"), ("rtpproxy demo --sec", "--seconds")],
)
def test_fish_completes(scripts: dict[str, Path], line: str, completed: str) -> None:
    need("fish")
    text = output("fish", "--no-config", "-c", f"source {scripts['fish']}; complete -C '{line}'")
    assert [candidate.split("\t")[0] for candidate in text.splitlines()] == [completed]


def test_zsh_completes(scripts: dict[str, Path]) -> None:
    need("zsh")
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb", "PS1": "> "})
    try:
        start = f"autoload -U compinit; compinit -u -D; source {scripts['zsh']}; echo rea''dy\n"
        os.write(terminal, start.encode())
        await_text(terminal, "ready")
        os.write(terminal, b"rtpproxy --record-fo\t")
        await_text(terminal, "--record-format")
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def await_text(terminal: int, wanted: str) -> None:
    """Reads what a program writes to its terminal until `wanted` is among it."""
    seen = b""
    deadline = time.monotonic() + 20
    while wanted.encode() not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"waited in vain for {wanted}: {seen.decode(errors='replace')}"
        seen += os.read(terminal, 4096)
