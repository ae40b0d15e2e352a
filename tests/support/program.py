"""Programs that run to their end, mostly the binary, also by its other names."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from support.daemon import binary, clean_environment

Done = subprocess.CompletedProcess[str]
Companion = Callable[..., Done]


def run(
    *command: str | Path,
    cwd: Path | None = None,
    given: str = "",
    environment: dict[str, str] | None = None,
    executable: Path | None = None,
    libraries: Path | None = None,
) -> Done:
    """Runs a command with `given` as its standard input and `environment` beside the usual variables.

    Shared libraries are looked for in the folder `libraries` first.
    """
    more = environment or {}
    if libraries:
        more = {**more, "LD_LIBRARY_PATH": str(libraries)}
    return subprocess.run(
        [str(word) for word in command],
        executable=executable,
        cwd=cwd,
        env={**clean_environment(), **more},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def by_link(name: str, folder: Path) -> Companion:
    """Runs the binary through a link of that name, in `folder`."""
    link = folder / "bin" / name
    link.parent.mkdir()
    link.symlink_to(binary().resolve())
    return lambda *arguments, **settings: run(link, *arguments, cwd=folder, **settings)
