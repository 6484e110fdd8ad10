import pytest

from cfii.training.files import DataError, read_list, reading, require_files, writing


def test_writing_replaces_whole_or_not_at_all(tmp_path):
    file = tmp_path / "inner" / "a.txt"
    with writing(file) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), writing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and [p.name for p in file.parent.iterdir()] == ["a.txt"]


def test_reading_names_the_file(tmp_path):
    message = r"a\.png: expected an image, but ZeroDivisionError: division by zero"
    with pytest.raises(DataError, match=message), reading(tmp_path / "a.png", "an image"):
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one name, found an empty list"),
        ("\n  \n", "empty list"),
        ("a\nb\na\n", "expected every name once, found a twice"),
        ("a\n../b\n", r"expected plain file names, found '\.\./b'"),
        ("/etc/passwd\n", "expected plain file names"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"train\.txt: .*{message}"):
        read_list(tmp_path / "train.txt")


def test_lists(tmp_path):
    (tmp_path / "train.txt").write_text("a.npz\r\nb\n\n")
    assert read_list(tmp_path / "train.txt", ".npz") == ["a", "b"]
    with pytest.raises(DataError, match=r"missing\.txt: expected a text file"):
        read_list(tmp_path / "missing.txt")
    with pytest.raises(DataError, match=r"a\.h5: expected this file, as train\.txt lists it"):
        require_files(["a"], tmp_path, ".h5", "train.txt")
