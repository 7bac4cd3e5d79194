"""What is found by being there: in a package's modules, in files that a variable names, and by entry points."""

import importlib
import importlib.metadata
import sys
from dataclasses import dataclass

import pytest

from onnxfuse import plugins
from onnxfuse.errors import UsageError

THING = "from tests.test_plugins import Thing\n"


@dataclass(frozen=True)
class Thing:
    name: str
    size: int = 0


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, which are not in the order of the alphabet on disk."""
    folder = tmp_path / "things_of_ours"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "b.py").write_text(f"{THING}LAST = Thing('b')\n")
    (folder / "a.py").write_text(
        f"{THING}SECOND, FIRST = Thing('z'), Thing('y')\nMORE = (Thing('x'), 'no thing')\n_LIST = [Thing('w')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    plugins._own.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.fixture
def bring(tmp_path, monkeypatch):
    """Write a file and name it in the variable, behind those before."""
    paths = []

    def call(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        paths.append(str(path))
        monkeypatch.setenv(plugins.VARIABLE, ":".join(paths))
        return path

    return call


def test_modules_by_name_then_what_they_define_in_order(package, bring):
    """A tuple is looked into, a list is not; what others bring comes last."""
    assert list(plugins.find(Thing, package)) == ["z", "y", "x", "b"]
    bring("later.py", f"{THING}A = Thing('a')\n")
    assert list(plugins.find(Thing, package)) == ["z", "y", "x", "b", "a"]


def test_only_the_kind_that_is_asked_for(package):
    assert plugins.find(int, package) == {}


def test_two_of_one_name(package, bring):
    path = bring("again.py", f"{THING}A = Thing('b', size=2)\n")
    with pytest.raises(UsageError, match=rf"^{path} brings a Thing named 'b', and there is one; give it another name$"):
        plugins.find(Thing, package)


def test_one_that_is_imported_is_not_two(package, bring):
    bring("reads.py", f"from {package}.b import LAST\n")
    assert plugins.find(Thing, package)["b"] == Thing("b")


def test_files_of_one_name_in_two_folders(package, bring):
    bring("one/mine.py", f"{THING}A = Thing('one')\n")
    bring("two/mine.py", f"{THING}A = Thing('two')\n")
    assert [*plugins.find(Thing, package)][-2:] == ["one", "two"]


def test_a_file_is_run_once(package, bring):
    path = bring(
        "counts.py", f"import pathlib\n{THING}A = Thing('a')\nwith open(__file__ + '.runs', 'a') as file:\n    file.write('x')\n"
    )
    assert plugins.find(Thing, package)["a"] is plugins.find(Thing, package)["a"]
    assert path.with_name("counts.py.runs").read_text() == "x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_broken_file(package, bring, text, why):
    path = bring("broken.py", text)
    before = set(sys.modules)
    with pytest.raises(UsageError, match=rf"^the plugin {path} cannot be imported: {why}"):
        plugins.find(Thing, package)
    assert set(sys.modules) - before <= {package, f"{package}.a", f"{package}.b"}
    path.write_text(f"{THING}A = Thing('mended')\n")
    assert "mended" in plugins.find(Thing, package)


@pytest.mark.parametrize(("name", "why"), [("gone.py", "is not there"), ("x.txt", "is no .py file and no folder")])
def test_a_path_that_is_no_python_file(package, tmp_path, monkeypatch, name, why):
    (tmp_path / "x.txt").touch()
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / name))
    with pytest.raises(UsageError, match=rf"^the plugin {tmp_path / name} {why}; correct ONNXFUSE_PLUGINS$"):
        plugins.find(Thing, package)


@pytest.mark.parametrize("value", ["things_installed", "things_installed:THING"])
def test_an_entry_point(package, tmp_path, monkeypatch, value):
    """One that names an object brings its module too."""
    (tmp_path / "things_installed.py").write_text(f"{THING}THING = Thing('installed')\nOTHER = Thing('beside')\n")
    info = tmp_path / "things-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: things\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nthings = {value}\n")
    importlib.invalidate_caches()
    plugins._installed.cache_clear()
    try:
        assert [*plugins.find(Thing, package)][-2:] == ["installed", "beside"]
    finally:
        plugins._installed.cache_clear()
        sys.modules.pop("things_installed", None)


def test_an_entry_point_of_what_is_gone(package, monkeypatch):
    entry = importlib.metadata.EntryPoint("x", "no_such_module:THING", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    plugins._installed.cache_clear()
    with pytest.raises(UsageError, match=r"^the plugin no_such_module:THING cannot be imported: ModuleNotFoundError"):
        plugins.find(Thing, package)


def test_a_folder_brings_its_files_and_libraries(package, tmp_path, monkeypatch):
    """Inside the block alone, beside what was brought before; a folder that is named twice is looked into once."""
    folder = tmp_path / "brought"
    folder.mkdir()
    (folder / "b.py").write_text(f"{THING}B = Thing('second')\n")
    (folder / "a.py").write_text(f"{THING}A = Thing('first')\n")
    (folder / f"own{plugins.SHARED}").touch()
    (folder / "readme.txt").touch()
    monkeypatch.setenv(plugins.VARIABLE, str(folder / "a.py"))
    with plugins.using(folder), plugins.using(folder):
        assert [*plugins.find(Thing, package)][-2:] == ["first", "second"]
        assert (plugins.folders(), plugins.libraries()) == ([folder], [folder / f"own{plugins.SHARED}"])
    assert [*plugins.find(Thing, package)][-1] == "first"
    assert plugins.libraries() == []
    monkeypatch.delenv(plugins.VARIABLE)
    with pytest.raises(KeyError), plugins.using(folder):
        raise KeyError
    assert "first" not in plugins.find(Thing, package)
