"""Files and folders that are written aside."""

import os
import time

from fer.system.files import written_aside


def test_what_a_killed_process_left_is_removed_after_two_days(tmp_path):
    folder = tmp_path / "entries"
    folder.mkdir()
    for name, days in (("old", 3), ("young", 1)):
        left = folder / f".part-{name}"
        left.mkdir()
        (left / "entry").write_bytes(b"half")
        os.utime(left, (time.time() - days * 24 * 3600,) * 2)
    with written_aside(folder / "entry") as part:
        part.write_bytes(b"whole")
    assert sorted(file.name for file in folder.iterdir()) == [".part-young", "entry"]
    assert (folder / "entry").read_bytes() == b"whole"
