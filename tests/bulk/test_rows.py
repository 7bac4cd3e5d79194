"""Every kind of file gives the same rows, from any place on, and a row that cannot be read is one that says why."""

import csv as csv_module
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxfuse.bulk import lines
from onnxfuse.bulk import rows as reading
from onnxfuse.bulk.data import Place, open_data
from onnxfuse.errors import UsageError

TEXTS = ["one", "zwei é", "a, b", "drei 😀", "五", "six"]


def jsonl(path):
    path.write_text("\n\n".join(json.dumps({"text": text, "n": at}) for at, text in enumerate(TEXTS)) + "\n")


def txt(path):
    path.write_text("\n".join(TEXTS))  # no end of the last line


def csv(path):
    path.write_bytes(
        b"\xef\xbb\xbf\n"
        + "".join(f'"{text}",{at}\r\n' for at, text in enumerate(["text", *TEXTS])).encode().replace(b",0", b",n", 1)
    )


def tsv(path):
    path.write_text("".join(f"{text}\t{at}\n" for at, text in enumerate(["text", *TEXTS])).replace("\t0", "\tn", 1))


def parquet(path):
    pq.write_table(pa.table({"text": TEXTS, "n": range(len(TEXTS))}), path, row_group_size=2)


WRITERS = {".jsonl": jsonl, ".txt": txt, ".csv": csv, ".tsv": tsv, ".parquet": parquet}


@pytest.fixture(params=WRITERS)
def two(request, tmp_path):
    """Two files of one kind."""
    for name in ("a", "b"):
        WRITERS[request.param](tmp_path / f"{name}{request.param}")
    return open_data(str(tmp_path))


def test_rows_are_those_of_the_files_in_order(two):
    found = [row for row, _ in two.rows(Place(0, 0, 0), ("text",))]
    assert [row.values["text"] for row in found] == 2 * TEXTS
    assert [row.number for row in found] == list(range(12)) and not any(row.wrong for row in found)
    assert "text" in two.columns


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 12, 100])
def test_parts_hold_each_row_once_and_are_read_by_themselves(two, size):
    parts = list(two.parts(size))
    assert [part.number for part in parts] == list(range(-(-12 // size)))
    assert all(part.rows == size for part in parts[:-1]) and sum(part.rows for part in parts) == 12
    found = []
    for part in reversed(parts):  # in any order
        rows = two.rows(part.begin, ("text",))
        found = [next(rows)[0] for _ in range(part.rows)] + found
    assert [row.values["text"] for row in found] == 2 * TEXTS and [row.number for row in found] == list(range(12))
    for part in parts:  # and cut again from any of them on
        assert next(two.parts(size, part.begin, part.number)) == part
    assert [two.share(part.end) for part in parts] == sorted(two.share(part.end) for part in parts)
    assert (two.share(parts[0].begin), two.share(parts[-1].end)) == (0, 1)


BAD = [
    (".jsonl", b'{"text": "a"}\nnot json\n[1]\n{"text": "\xff"}\n{"text": "b"}\n', ["", "is not JSON", "is a JSON list, wanted an object", "is not UTF-8 (byte 11 of its line)", ""]),
    (".txt", b"a\n\xff\nb\n", ["", "is not UTF-8 (byte 1 of its line)", ""]),
    (".csv", b'text,n\na,1\nb\nc,1,2\n\xff,1\n"d\ne",2\n', ["", "has 1 columns, the first line 2", "has 3 columns, the first line 2", "is not UTF-8", ""]),
    (".tsv", b'text\tn\n"a\t1\nb\n', ["", "has 1 columns, the first line 2"]),
]  # fmt: skip


@pytest.mark.parametrize(("ending", "content", "reasons"), BAD)
def test_a_row_that_cannot_be_read_says_why_and_the_next_is_read(tmp_path, ending, content, reasons):
    (tmp_path / f"a{ending}").write_bytes(content)
    found = [row for row, _ in open_data(str(tmp_path)).rows(Place(0, 0, 0), ("text",))]
    assert [row.wrong for row in found] == reasons


def test_a_line_without_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LINE", 1000)
    (tmp_path / "a.txt").write_text("a\n" + "x" * 5000 + "\nb\n" + "y" * 5000)
    found = [row for row, _ in open_data(str(tmp_path / "a.txt")).rows(Place(0, 0, 0), ())]
    assert [row.wrong[:22] for row in found] == ["", "a line of more than 16", "", "a line of more than 16"]


def test_images_of_a_folder_and_of_those_below_it(tmp_path):
    for name in ("b/2.png", "a/1.JPG", "3.webp", "a/no.txt", ".hidden/4.png", "_tmp/5.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    data = open_data(str(tmp_path))
    assert [row.values["path"] for row, _ in data.rows(Place(0, 0, 0), ())] == ["3.webp", "a/1.JPG", "b/2.png"]
    assert [part.rows for part in data.parts(2)] == [2, 1]


def test_a_pattern_and_its_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.csv"):
        (tmp_path / name).write_text("x\n")
    assert [path.name for path in open_data(str(tmp_path / "*.txt")).files] == ["a.txt", "b.txt"]
    (tmp_path / "[x].txt").write_text("y\n")  # a file of that name is itself
    assert [path.name for path in open_data(str(tmp_path / "[x].txt")).files] == ["[x].txt"]


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        ([], "", "holds no file; give .parquet"),
        ([], "none.csv", "none.csv is not there; give the path of a file"),
        ([], "*.csv", "holds no file"),
        (["a.doc"], "a.doc", ".doc is no kind that is read"),
        (["a"], "a", "a file without an ending is no kind that is read"),
        (
            ["a.csv", "b.jsonl"],
            "",
            "holds files of several kinds (.csv, .jsonl); take the others away, or give those of one, by a pattern as '*.csv'",
        ),
        (
            ["a.png", "b.jsonl"],
            "",
            "holds files of several kinds (.jsonl, .png); take the others away, or give those of one, by a pattern as '*.jsonl'",
        ),
    ],
)
def test_what_is_no_data(tmp_path, names, asked, said):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(UsageError) as caught:
        open_data(str(tmp_path / asked))
    assert said in str(caught.value)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(UsageError, match="is a named pipe, not a file"):
        open_data(str(tmp_path / "a.txt"))


def test_broken_parquet_is_one_line(tmp_path):
    parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:100])
    with pytest.raises(UsageError, match=r"a\.parquet cannot be read as a \.parquet file"):
        list(open_data(str(tmp_path)).parts(5))


def test_names_sizes_and_times_tell_whether_files_are_the_same(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x\n")
    before = open_data(str(tmp_path)).stamp()
    assert open_data(str(path)).stamp() == before  # however it is named
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert open_data(str(path)).stamp() != before


def test_a_folder_is_read_with_those_below_but_for_what_map_wrote(tmp_path):
    for name in ("b.txt", "in/a.txt", "in/deep/c.txt", ".hidden/d.txt", "_more/e.txt", "made/part-000000.txt", "made/more/f.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    (tmp_path / "made" / reading.RECORD).write_text("{}")
    found = [path.relative_to(tmp_path).as_posix() for path in open_data(str(tmp_path)).files]
    assert found == ["b.txt", "in/a.txt", "in/deep/c.txt"]


@pytest.mark.parametrize("ending", [".txt", ".csv", ".jsonl"])
def test_another_encoding_of_the_whole_file_is_named(tmp_path, ending):
    (tmp_path / f"a{ending}").write_text("text\nx\n", encoding="utf-16")
    data = open_data(str(tmp_path))
    with pytest.raises(UsageError, match=rf"a\{ending} is in UTF-16; save it as UTF-8"):
        list(data.rows(Place(0, 0, 0), data.columns))


OPEN = "cannot be split into columns (a quote is never closed)"
LETTERS = "cannot be split into columns (',' expected after '\"')"

SPLIT = {
    "a stray quote in the middle": ('a,0\n"hello" she said,1\nb,2\nc,3\n', ["a", LETTERS, "b", "c"]),
    "two stray quotes some lines apart": ('a,0\n"open,1\nb,2\n\nc,3\n"open,4\nd,5\n', ["a", LETTERS, "b", "c", OPEN, "d"]),
    "a stray quote that a proper one ends": ('"open,0\nb,1\n"c",2\nd,3\n', [LETTERS, "b", "c", "d"]),
    "three quotes left open": ('"open,0\nx","y\nz","1\nlast,2\n', [OPEN, OPEN, OPEN, "last"]),
    "one left open in the first row": ('"open,0\n' + "b,1\n" * 50, [OPEN, *50 * ["b"]]),
    "one left open in the last row": ('a,0\nb,"open\n', ["a", OPEN]),
    "one that is all of the last row, which has no end": ('a,0\n"', ["a", OPEN]),
    "line breaks in quotes": ('"a\nb",0\n"c\r\n\n""d""",1\ne,"2\n"\n', ["a\nb", 'c\r\n\n"d"', "e"]),
    "line breaks in quotes behind one left open": ('"open,0\na,"1\n2"\nb,3\n', [LETTERS, "a", "b"]),
    "a carriage return": ("a\rb,0\nc,1\n", ["cannot be split into columns (a carriage return inside a line)", "c"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SPLIT)
@pytest.mark.parametrize("before", [0, 3, 5000])
def test_a_record_that_cannot_be_split_costs_its_first_line_alone(tmp_path, before, case):
    """Python's csv would take in the lines behind it, and lose good rows without a word."""
    path, (content, wanted) = tmp_path / "a.csv", SPLIT[case]
    path.write_bytes(("\ufefftext,n\n" + "".join(f"row {at},{at}\n" for at in range(before)) + content).encode())
    data, limit = open_data(str(path)), csv_module.field_size_limit()
    found = list(data.rows(Place(0, 0, 0), data.columns))
    assert csv_module.field_size_limit() == limit
    assert not any(row.wrong for row, _ in found[:before])
    last = [row.wrong or row.values["text"] for row, _ in found[before:]]
    assert [each[: len(said)] for each, said in zip(last, wanted, strict=True)] == wanted
    for at, (_, place) in list(enumerate(found, 1))[-60:]:
        assert list(data.rows(place, data.columns)) == found[at:]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('text,"n\na,1\n', f"(a quote is never closed); {reading.WAYS['']}"),
        ('\ntext,"n\na,"1\n', f"(',' expected after '\"'); {reading.WAYS['']}"),
        ("text,n\ra,1\rb,2\r", f"({lines.CARRIAGE}); end its lines with line feeds"),
        (f"text,{'x' * lines.LINE}\na,1\n", f"({lines.TOO_LONG}); it is to hold the names of the columns"),
    ],
)
def test_a_line_of_names_that_cannot_be_split_is_refused(tmp_path, content, said):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    data = open_data(str(path))
    for read in (lambda: data.columns, lambda: list(data.rows(Place(0, 0, 0), ()))):
        with pytest.raises(UsageError) as caught:
            read()
        told = str(caught.value)
        assert told.startswith(f"{path}: its first line cannot be split into columns (") and told.endswith(said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "café,n\na,1\n".encode("latin-1"), "its first line is not UTF-8; save the file as UTF-8"),
        ("a.tsv", "n\tcafé\n1\ta\n".encode("latin-1"), "its first line is not UTF-8; save the file as UTF-8"),
        ("a.csv", b"text,,\na,1,2\n", "has two columns of one name (an empty one)"),
        ("a.csv", b"text,n,n\na,1,2\n", "has two columns of one name (n)"),
        *(("a.csv", "text\na\n".encode(f"utf-16{end}"), "is in UTF-16; save it as UTF-8") for end in ("", "-le", "-be")),
        ("a.tsv", "text\na\n".encode("utf-32"), "is in UTF-32; save it as UTF-8"),
    ],
)
def test_names_that_cannot_be_read_are_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        assert open_data(str(tmp_path / name)).columns
    assert said in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused_where_nothing_is_named(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("hi there\nyou\n".encode(encoding))
    with pytest.raises(UsageError, match=rf"is in {encoding[:6].upper()}; save it as UTF-8"):
        list(open_data(str(tmp_path / "a.txt")).rows(Place(0, 0, 0), ()))


def test_columns_of_objects_are_those_of_the_first_rows_together(tmp_path):
    """The first may lack one; a key of which UTF-8 has no name is none."""
    (tmp_path / "a.jsonl").write_text('{"k": 1}\n[]\n{"\\ud800": 1, "text": "a"}\n{"k": 2, "n": 3}\n')
    assert open_data(str(tmp_path / "a.jsonl")).columns == ("k", "text", "n")


def slowly(content, limit):
    """Rows as ``records`` reads them, each with a reader of its own and all that follows."""
    text, place, found = content.decode(), 0, []
    while place < len(text):
        rest = io.StringIO(text[place:], newline="\n").readlines()
        reader = csv_module.reader(iter(rest), strict=True)
        try:
            fields = next(reader)
            size = sum(map(len, rest[: reader.line_num]))
            split = reader.line_num == 1 or size <= limit
        except csv_module.Error:
            split = False
        place += size if split else len(rest[0])
        found.append((place, fields if split else []))
    return found


STRAY = ['"', '""', 'x","y', 'x"', '"z"', ',"w', "a,b", "c\rd", ""]


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(STRAY), max_size=20), st.integers(6, 30))
def test_lines_that_are_skipped_change_no_row(tmp_path_factory, some, limit):
    content = "\n".join(some).encode()
    path = tmp_path_factory.getbasetemp() / "skipped.csv"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "LINE", limit)
        found = list(lines.records(path, 0, ",", csv_module.QUOTE_MINIMAL))
    assert [(after, fields) for after, fields, _ in found] == slowly(content, limit)


@pytest.mark.parametrize("limit", [5000, 1 << 20])
def test_any_number_of_stray_quotes_is_read_in_one_go(tmp_path, monkeypatch, limit):
    path, count, read = tmp_path / "a.csv", 3000, []
    path.write_text("text,n\n" + 'Rows whose outer quotes are lost","1\nx\ry\n' * count)
    whole = lines.lines
    monkeypatch.setattr(lines, "lines", lambda file: (read.append(1) or each for each in whole(file)))
    monkeypatch.setattr(lines, "LINE", limit)
    found = list(open_data(str(path)).rows(Place(0, 0, 0), ()))
    assert len(found) == 2 * count and all("a quote is " in row.wrong for row, _ in found[::2])
    assert len(read) < 8 * count


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.txt"])
def test_a_line_that_is_too_long_is_a_bad_row(tmp_path, monkeypatch, name):
    monkeypatch.setattr(lines, "LINE", 50)
    path = tmp_path / name
    row = '{"text": "%s"}' if name.endswith("l") else "%s"
    head = [] if name.endswith(("l", "txt")) else ["text"]
    path.write_text("\n".join([*head, row % "one", row % ("x" * 99), row % "two"]) + "\n")
    read = list(reading.FORMATS[path.suffix].rows(path, 0, ["text"]))
    assert [values.get("text") for _, values, wrong in read if not wrong] == ["one", "two"]
    assert ["a line of more than" in wrong for _, _, wrong in read] == [False, True, False]
