"""What follows the pages sees what they promise, and what they do not keep."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests import pages

PAGE = """# A page

    $ indented
Words.

<!-- not run: it would end the world -->
```sh
exit 3
```

<!-- newcomer: it changes the shell -->
```sh
there=here
mkdir folder
```

```console
$ echo "$there, 24 layers, 1.5 MB in 3 threads"; echo; echo more
here, 24 layers, 90.3 MB in 16 threads
...
$ cd folder; ls nowhere  # exit code 2
```

```python
a = 1
print("a is", a)  # prints: a is 1
```

```python
print(a + 1)  # prints: 2
```
"""


@pytest.fixture
def followed(tmp_path, monkeypatch):
    """Follows a page, and gives what was done and what went otherwise."""
    script = Path(__file__).resolve().parents[2] / "scripts" / "newcomer.py"
    spec = importlib.util.spec_from_file_location("newcomer", script)
    newcomer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(newcomer)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setattr(newcomer, "variables", lambda home: {"PATH": path, "HOME": str(home)})

    def follow(text: str) -> list[tuple[str, str]]:
        (tmp_path / "page.md").write_text(text)
        one = newcomer.Newcomer(tmp_path, tmp_path)
        done = list(one.follow("page.md"))
        one.shell.close()
        return done

    return follow


def test_a_page_that_keeps_its_word(followed):
    done = followed(PAGE)
    assert [otherwise for _, otherwise in done] == [""] * 7, done
    assert pages.indented(PAGE) == ["    $ indented"]
    assert done[0][0] == "page.md:6: passed over, not run: it would end the world"


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        (
            "\nhere, 24 layers",
            "\nhere, 25 layers",
            "the page shows 'here, 25 layers, 90.3 MB in 16 threads', printed is 'here, 24 layers",
        ),
        ("...\n$", "$", "the page ends, and there is 'more'"),
        ("  # exit code 2", "", "exit code 2"),
        ("# prints: 2", "# prints: 3", "the page shows '3', printed is '2'"),
        ("print(a + 1)", "print(b)", "NameError: name 'b' is not defined"),
    ],
)
def test_a_page_that_does_not(followed, old, new, wrong):
    (told,) = [otherwise for _, otherwise in followed(PAGE.replace(old, new)) if otherwise]
    assert wrong in told


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["a 1.5 MB", "┃ b ┃ …"], ["a   7.25 MB", "┏━━━┓", "┃ b  ┃ 12 ┃"]),
        (["...", "last"], ["first", "last"]),
        (["versions 1.2.3, 4e-07", "on 2 threads"], ["versions 3.2.1, 1.5e-06", "on 16 threads"]),
    ],
)
def test_what_machines_may_print_otherwise(shown, printed):
    assert pages.difference(shown, printed) == ""


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (["6 layers"], ["7 layers"]),
        (["a"], ["a", "b"]),
        (["a", "b"], ["a"]),
        (["...", "a"], ["b"]),
        (["a …"], ["b c"]),
        (["1.5 MB"], ["1.5 GB"]),
    ],
)
def test_what_no_machine_may(shown, printed):
    assert pages.difference(shown, printed)


def test_without_exactness_whole_numbers_are_the_models():
    assert pages.difference(["6 layers of 1.5 MB"], ["2 layers of 12 MB"], exact=False) == ""
    assert pages.difference(["6 layers"], ["6 heads"], exact=False)
