"""write_aside: a file is whole or as it was before."""

import pytest

from data.files import write_aside


def test_the_file_is_written_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "folder" / "facts.json"
    write_aside(path, lambda file: file.write(b"{}"))
    write_aside(str(path), lambda file: file.write(b"[1]"))
    assert path.read_bytes() == b"[1]"
    assert [p.name for p in path.parent.iterdir()] == ["facts.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_midway_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "facts.json"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        assert path.read_bytes() == b"old" and (tmp_path / "facts.json.tmp").exists()
        raise error("stopped")

    with pytest.raises(error, match="stopped"):
        write_aside(path, write)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]
