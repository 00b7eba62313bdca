"""What `pith models` prints is understood."""

from __future__ import annotations

import unittest

from models import listed_paths

_LISTED = """\
NAME     KIND      SIZE      PRESENT  LICENCE             PATH
smollm2  chat      98.4 MB   yes      Apache-2.0          /a folder/one.gguf
gemma3   chat      253.3 MB  yes      Gemma Terms of Use  /a folder/two.gguf
"""


class Listed(unittest.TestCase):
    def test_the_last_column_is_the_file_spaces_and_all(self) -> None:
        expected = {"smollm2": "/a folder/one.gguf", "gemma3": "/a folder/two.gguf"}
        self.assertEqual(listed_paths(_LISTED), expected)

    def test_anything_else_names_no_file(self) -> None:
        self.assertEqual(listed_paths(""), {})
        self.assertEqual(listed_paths("no such table\nhere"), {})
