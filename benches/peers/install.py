"""Installs the peers, each once, into a virtual environment of their own.

Everything is pinned by version (`requirements/`). A marker file holds what an installation was made of, this CPU
included (llama.cpp is compiled for it), so that a change of any of it installs anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import machine
from home import HERE, home

LLAMA = "llama-cpp-python==0.3.36"

# OpenMP is off because a clang seldom brings its own and gcc's would be mixed in; ggml's thread pool takes its place.
LLAMA_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DGGML_OPENMP=OFF",
    "-DGGML_CCACHE=OFF",
    "-DLLAVA_BUILD=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
BUILD_JOBS = 2

# Says the compiler's version, by way of its C++ library.
_TRIAL = """\
#include <cstdio>
#include <string>
int main() { std::string version = __VERSION__; std::puts(version.c_str()); }
"""


class CannotInstall(Exception):
    """Says in one line what could not be installed, why, and what would help."""


@dataclass(frozen=True)
class Clang:
    """A C and a C++ compiler, and what they call themselves."""

    c: str
    cxx: str
    version: str


def python() -> Path:
    """The interpreter of the peers' environment."""
    return home() / "venv" / "bin" / "python"


def openvino() -> None:
    """OpenVINO GenAI from its wheels."""
    wanted = {"requirements": _text("openvino.txt"), "python": sys.version}
    if not _installed("openvino", wanted):
        _say("installing OpenVINO GenAI")
        _environment()
        _pip("openvino", "-r", str(HERE / "requirements" / "openvino.txt"))
        _mark("openvino", wanted)


def llama() -> None:
    """llama-cpp-python, compiled by clang for this CPU.

    gcc 12 drops the stores to the tile configuration in ggml's AMX kernels, so that they die; hence clang.
    """
    wanted = {
        "package": LLAMA,
        "flags": list(LLAMA_FLAGS),
        "requirements": _text("llama.txt") + _text("clang.txt"),
        "python": sys.version,
        "cpu": [machine.cpu_name(), *sorted(machine.cpu_flags())],
    }
    if _installed("llama", wanted):
        return
    _environment()
    _pip("llama", "-r", str(HERE / "requirements" / "llama.txt"))
    clang = _clang()
    _say(f"compiling {LLAMA} with {clang.version}: this takes minutes, once")
    environment = {
        "CC": clang.c,
        "CXX": clang.cxx,
        "CMAKE_ARGS": " ".join(LLAMA_FLAGS),
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(BUILD_JOBS),
    }
    # pip's cache might hold a wheel that another compiler made.
    build = ["--no-cache-dir", "--no-deps", "--no-build-isolation", "--force-reinstall"]
    _pip("llama", *build, "--no-binary", "llama-cpp-python", LLAMA, environment=environment)
    _mark("llama", wanted | {"compiler": clang.version})


def compiler() -> str:
    """What compiled llama.cpp."""
    return str(_marked("llama").get("compiler", "unknown"))


def _clang() -> Clang:
    """The system's clang if it works, else the one in Zig's wheel."""
    c, cxx = shutil.which("clang"), shutil.which("clang++")
    if c and cxx and (found := _working(c, cxx)):
        return found
    _say("the system has no working clang: taking the one in Zig's wheel")
    _pip("llama", "-r", str(HERE / "requirements" / "clang.txt"))
    wrappers = [home() / "venv" / "bin" / name for name in ("clang-of-zig", "clang++-of-zig")]
    for wrapper, command in zip(wrappers, ("cc", "c++")):
        # Zig checks undefined behaviour unless told not to, which would slow the peer down.
        call = f'exec "{python()}" -m ziglang {command} -fno-sanitize=undefined "$@"'
        wrapper.write_text(f"#!/bin/sh\n{call}\n")
        wrapper.chmod(0o755)
    if found := _working(str(wrappers[0]), str(wrappers[1])):
        return found
    raise CannotInstall(
        "no clang: neither the system's nor the one of Zig's wheel compiles a program"
        f" (see {_log('llama')}); install clang (on Debian: apt-get install clang) and run again"
    )


def _working(c: str, cxx: str) -> Clang | None:
    """The pair, if both compile a program that runs."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder) / "try.cpp", Path(folder) / "try"
        source.write_text(_TRIAL)
        compile_ = [cxx, "-O2", "-march=native", str(source), "-o", str(program)]
        if _logged("llama", compile_) != 0 or _logged("llama", [c, "--version"]) != 0:
            return None
        ran = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    return Clang(c, cxx, ran.stdout.strip()) if ran.returncode == 0 else None


def _environment() -> None:
    """Makes the virtual environment. It has no pip: the caller's installs into it, so that Debian's python3 will do."""
    if not python().exists():
        _say(f"making {home() / 'venv'}")
        made = [sys.executable, "-m", "venv", "--without-pip", str(home() / "venv")]
        if _logged("venv", made) != 0:
            raise CannotInstall(f"python3 -m venv failed: {_last_line('venv')}")


def _pip(name: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python()), "--disable-pip-version-check"]
    if _logged(name, ["nice", *command, "install", "-v", *arguments], environment) != 0:
        raise CannotInstall(f"pip failed: {_last_line(name)} (all of it: {_log(name)})")


def _logged(name: str, command: list[str], environment: dict[str, str] | None = None) -> int:
    """Runs a command with its output in the log, the environment's tools first on the path."""
    path = f"{home() / 'venv' / 'bin'}:{os.environ.get('PATH', '')}"
    zig_cache = {"ZIG_GLOBAL_CACHE_DIR": str(home() / "zig"), "ZIG_LOCAL_CACHE_DIR": str(home() / "zig")}
    log = _log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | zig_cache | {"PATH": path} | (environment or {}),
                check=False,
            ).returncode
        except OSError as error:
            out.write(f"{error}\n")
            return 127


def _log(name: str) -> Path:
    return home() / "log" / f"install-{name}.log"


def _last_line(name: str) -> str:
    """The last line that speaks of an error, else the last one."""
    lines = [line.strip() for line in _log(name).read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error") and "exited with" not in line]
    return (errors or lines or ["nothing was logged"])[-1]


def _text(requirements: str) -> str:
    return (HERE / "requirements" / requirements).read_text()


def _marker(name: str) -> Path:
    return home() / f"installed-{name}.json"


def _marked(name: str) -> dict[str, object]:
    try:
        return json.loads(_marker(name).read_text())
    except (OSError, ValueError):
        return {}


def _installed(name: str, wanted: dict[str, object]) -> bool:
    marked = _marked(name)
    return python().exists() and all(marked.get(key) == value for key, value in wanted.items())


def _mark(name: str, made_of: dict[str, object]) -> None:
    _marker(name).write_text(json.dumps(made_of, indent=1) + "\n")


def _say(what: str) -> None:
    print(f"peers: {what}", file=sys.stderr, flush=True)
