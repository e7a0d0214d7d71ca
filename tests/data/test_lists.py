"""List files of images and of class names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squeezenet_paddle.data.lists import (
    ImageList,
    class_sizes,
    describe_empty_classes,
    imagenet_class_names,
    read_list,
    read_names,
)
from squeezenet_paddle.errors import InputError


def written(folder: Path, data: str | bytes) -> Path:
    """A file in `folder` with this content."""
    path = folder / "list.txt"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def entries_of(images: ImageList) -> list[tuple[str, int]]:
    return [(images.name(i), int(images.labels[i])) for i in range(len(images))]


# List files


@pytest.mark.parametrize(
    ("data", "entries"),
    [
        ("a.jpg 0\nb/c.jpg 9\n", [("a.jpg", 0), ("b/c.jpg", 9)]),
        ("a.jpg 0\nb.jpg 1", [("a.jpg", 0), ("b.jpg", 1)]),
        ("my cat 7.jpg 3\n", [("my cat 7.jpg", 3)]),
        ("größe 猫.jpg 3\n", [("größe 猫.jpg", 3)]),
        ("a.jpg 1\r\nb.jpg 2\r\n", [("a.jpg", 1), ("b.jpg", 2)]),
        ("\ufeffa.jpg 1\n", [("a.jpg", 1)]),
        ("a.jpg 1\n\n  \n\r\n", [("a.jpg", 1)]),
        ("a.jpg 1  \n", [("a.jpg", 1)]),
        ("a.jpg 007\n", [("a.jpg", 7)]),
        ("a.jpg  1\nb c.jpg   2\n", [("a.jpg", 1), ("b c.jpg", 2)]),
        ("a.jpg\t1\nb c.jpg \t 2 \t\n", [("a.jpg", 1), ("b c.jpg", 2)]),
        ("a.jpg 1\rb.jpg 2\r", [("a.jpg", 1), ("b.jpg", 2)]),
        ("a.jpg, 1\nb c.jpg,2\nd,e.jpg , 3\n", [("a.jpg", 1), ("b c.jpg", 2), ("d,e.jpg", 3)]),
        ('"a, b.jpg",1\r\nc.jpg,2\r\n', [("a, b.jpg", 1), ("c.jpg", 2)]),
        ("a, b.jpg 1\nc,d.jpg 2\n", [("a, b.jpg", 1), ("c,d.jpg", 2)]),
    ],
)
def test_list_is_read(tmp_path: Path, data: str, entries: list[tuple[str, int]]) -> None:
    result = read_list(written(tmp_path, data), None, 10)
    assert entries_of(result) == entries
    assert result.path(0) == tmp_path / entries[0][0]
    assert result.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "'path label' was expected, found ''"),
        ("a.jpg", "'path label' was expected, found 'a.jpg'"),
        (" 3", "'path label' was expected, found ' 3'"),
        ("\t3", r"'path label' was expected, found '\\t3'"),
        ("a.jpg,cat", "'path label' was expected, or 'image,label' as the first .* 'a.jpg,cat'"),
        ("a.jpg -1", "the label must be at least 0, found '-1'"),
        ("a.jpg 10", "the label must lie in 0..9, found 10"),
        ("a.jpg cat", "a class id was expected as label, found 'cat'"),
        ("a.jpg 1.0", "a class id was expected as label, found '1.0'"),
        ("a.jpg １", "a class id was expected as label, found '１'"),
        ("a.jpg ²", "a class id was expected as label, found '²'"),
        ("a.jpg -", "a class id was expected as label, found '-'"),
        ("a.jpg --5", "a class id was expected as label, found '--5'"),
        ("a.jpg 1_0", "a class id was expected as label, found '1_0'"),
    ],
)
def test_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=f"list.txt: .*line 2: {message}"):
        read_list(written(tmp_path, f"a.jpg 1\n{line}\nb.jpg 2\n"), None, 10)


def test_label_of_any_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: "):
        read_list(written(tmp_path, f"a.jpg {'1' * 5000}\n"), None, 10)


def one_by_one(text: str) -> tuple[list[tuple[str, int]], list[int]]:
    """What a list holds, and the numbers of its wrong lines, the plain way; ten classes."""
    entries, wrong = [], []
    for number, line in enumerate(re.split("\r\n|\r|\n", text.rstrip()), 1):
        line = line.rstrip(" \t")
        gap = max(line.rfind(" "), line.rfind("\t"))
        name, label = line[: max(gap, 0)].rstrip(" \t"), line[gap + 1 :]
        if name and re.fullmatch("[0-9]{1,9}", label) and int(label) < 10:
            entries.append((name, int(label)))
        else:
            wrong.append(number)
    return entries, wrong


def assert_read_as(path: Path, entries: list[tuple[str, int]], wrong: list[int]) -> None:
    """`read_list` gives these entries of ten classes, or names the wrong lines."""
    if wrong:
        with pytest.raises(InputError) as error:
            read_list(path, None, 10)
        assert re.findall(r"line (\d+): ", str(error.value)) == [str(n) for n in wrong[:10]]
    else:
        assert entries_of(read_list(path, None, 10)) == entries


words = st.text(st.sampled_from("aé猫19０-, \t\r\n"), max_size=6)
lines = st.sampled_from(["a 1", "é b 09\r", "  1", "a 19", "a -1", "a,\t \t2 "]) | words


@settings(max_examples=300)
@given(st.lists(lines, min_size=1).map("\n".join))
def test_any_text_is_read_as_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    text = f"first 0\n{text}"  # so that it is no CSV file
    assert_read_as(written(tmp_path_factory.getbasetemp(), text), *one_by_one(text))


gaps = st.text(" \t", min_size=1, max_size=3)
names = st.text(st.sampled_from("aé猫1, \t"), min_size=1).filter(
    lambda name: name[-1] not in " \t,"
)
labels = st.integers(0, 9)


@given(st.lists(st.tuples(names, gaps, labels), min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], line_end: str
) -> None:
    text = line_end.join(f"{name}{gap}{label}" for name, gap, label in rows)
    path = written(tmp_path_factory.getbasetemp(), text)
    assert_read_as(path, [(name, label) for name, _, label in rows], [])


csv_names = st.text(st.sampled_from('aé猫1," ')).map(str.strip).filter(bool)


@given(st.lists(st.tuples(csv_names, st.sampled_from(["", " ", "\t"]), labels), min_size=1))
def test_csv_without_a_header_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]]
) -> None:
    quoted = [(name.replace('"', '""'), gap, label) for name, gap, label in rows]
    text = "\n".join(f'"{name}",{gap}{label}' for name, gap, label in quoted)
    path = written(tmp_path_factory.getbasetemp(), text)
    assert_read_as(path, [(name, label) for name, _, label in rows], [])


def test_ten_wrong_lines_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_list(written(tmp_path, "good.jpg 1\n" + "bad\n" * 13), None, 10)
    message = str(error.value)
    assert "13 bad lines" in message
    assert [f"line {n}:" in message for n in range(1, 15)] == [False, *[True] * 10, *[False] * 3]
    assert message.endswith("and 3 more.")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "list.txt: cannot read this list file .No such file"),
        (b"", "list.txt: the list file is empty"),
        (b"\n\n", "list.txt: the list file is empty"),
        (b"a.jpg 1\nh\xfctte.jpg 2\n", "list.txt: .*line 2: UTF-8 text was expected"),
    ],
)
def test_unusable_list_is_named(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "list.txt" if data is None else written(tmp_path, data)
    with pytest.raises(InputError, match=message):
        read_list(path, None, 10)


def test_paths_start_from_data_dir(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = written(tmp_path, "a.jpg 1\n/abs/b.jpg 2\n")
    result = read_list(path, tmp_path / "images", 10)
    assert [result.path(i) for i in (0, 1)] == [
        tmp_path / "images" / "a.jpg",
        Path("/abs/b.jpg"),
    ]
    with pytest.raises(InputError, match=r"`data_dir` .*missing: no such folder"):
        read_list(path, tmp_path / "missing", 10)


NAMES = ["n01 tench, Tinca", "n02 goldfish", "7", "cat one", "cat two"]


def test_labels_may_be_names_whole_or_their_first_word(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jpg n02\nb.jpg n01\nc.jpg 3\n")
    assert read_list(path, None, 5, NAMES).labels.tolist() == [1, 0, 3]
    with pytest.raises(InputError, match="line 1: .* or a name of the list of names was expected"):
        read_list(written(tmp_path, "a.jpg cat\n"), None, 5, NAMES)


def test_a_number_is_a_class_id_even_where_a_class_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: the label must lie in 0..4, found 7"):
        read_list(written(tmp_path, "a.jpg 7\n"), None, 5, NAMES)


def test_csv_is_read_by_its_header(tmp_path: Path) -> None:
    data = '\ufefflabel,Image,note\r\n1,a b.jpg,x\r\n"n01 tench, Tinca","c,d.jpg",\r\n\r\n'
    result = read_list(written(tmp_path, data), None, 5, NAMES)
    assert entries_of(result) == [("a b.jpg", 1), ("c,d.jpg", 0)]
    assert result.where(1) == f"{tmp_path / 'list.txt'}, line 3: "


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg", "2 columns were expected, found 1"),
        (",1", "the path of an image was expected"),
        ("a.jpg,dog", "a class id was expected as label, found 'dog'"),
        ("a.jpg,5", "the label must lie in 0..4, found 5"),
    ],
)
def test_wrong_csv_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=f"list.txt: .*line 3: {message}"):
        read_list(written(tmp_path, f"image,label\nok.jpg,1\n{row}\n"), None, 5)


# Class names


def test_names_are_read_in_order(tmp_path: Path) -> None:
    path = written(tmp_path, "n01 tench, Tinca\r\nn02 größe\n\n")
    assert read_names(path, 2) == ["n01 tench, Tinca", "n02 größe"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\nb\n", "list.txt: 3 class names were expected, one on each line; found 2"),
        ("a\nb\nc\nd\n", "list.txt: 3 class names were expected, one on each line; found 4"),
        ("", "found 0"),
        ("a\n \nc\n", "list.txt, line 2: the name of a class is blank"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_names(written(tmp_path, data), 3)


def test_names_of_imagenet_come_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = read_names("imagenet", 1000)
    assert names == imagenet_class_names()
    assert names[0] == "n01440764 tench, Tinca tinca"
    assert names[999] == "n15075141 toilet tissue, toilet paper, bathroom tissue"
    ids = [name.split()[0] for name in names]
    assert ids == sorted(set(ids))  # the challenge's class ids are in the order of WordNet's
    (tmp_path / "imagenet").mkdir()  # a folder of images, most likely
    assert len(read_names("imagenet")) == 1000
    (tmp_path / "imagenet").rmdir()
    (tmp_path / "imagenet").write_text("one\ntwo\n")
    assert read_names("imagenet") == ["one", "two"]


def test_names_of_imagenet_are_those_of_ilsvrc(assets: Path) -> None:
    assert imagenet_class_names() == read_names(assets / "caffe/synset_words.txt", 1000)


# Classes


def listed(tmp_path: Path, labels: list[int]) -> ImageList:
    return read_list(written(tmp_path, "".join(f"{i}.jpg {n}\n" for i, n in enumerate(labels))))


def test_sizes_of_classes(tmp_path: Path) -> None:
    images = listed(tmp_path, [2, 0, 2, 1])
    assert class_sizes(images).tolist() == [1, 1, 2]
    assert class_sizes(images, 5).tolist() == [1, 1, 2, 0, 0]
    assert describe_empty_classes(class_sizes(images)) == ""
    assert describe_empty_classes(class_sizes(images, 5)) == "2 of 5 classes have no images: 3, 4"


def test_labels_that_start_at_1_are_told(tmp_path: Path) -> None:
    note = describe_empty_classes(class_sizes(listed(tmp_path, [1, 2, 3, 2])))
    assert note == "class 0 has no images: the labels start at 1, and class ids at 0"


def test_many_empty_classes_are_counted() -> None:
    note = describe_empty_classes(np.array([1, *[0] * 30, 1]))
    assert note == "30 of 32 classes have no images: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."


def test_a_label_that_is_no_class_id_is_named(tmp_path: Path) -> None:
    images = listed(tmp_path, [0, 20240131, 1])
    message = r"list\.txt, line 2: the largest label is 20240131, .* 20240132 classes of 3 images"
    with pytest.raises(InputError, match=message):
        class_sizes(images)
    assert class_sizes(listed(tmp_path, [0, 9, 1]), 10).tolist() == [1, 1, *[0] * 7, 1]


@pytest.mark.parametrize("num_classes", [None, 10])
def test_a_list_of_one_class_is_refused(tmp_path: Path, num_classes: int | None) -> None:
    with pytest.raises(InputError, match=r"list\.txt: .*at least two classes .* the label 0"):
        class_sizes(listed(tmp_path, [0, 0, 0]), num_classes)
