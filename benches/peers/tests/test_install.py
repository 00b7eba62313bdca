"""Nothing is installed twice, and a change of a pin installs anew."""

from __future__ import annotations

import os
import re
import tempfile
import unittest
from unittest import mock

import install
from home import HERE


class Installed(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        patch = mock.patch.dict(os.environ, {"PITH_HOME": folder.name})
        patch.start()
        self.addCleanup(patch.stop)
        install.python().parent.mkdir(parents=True)
        install.python().touch()

    def test_once_is_enough_until_a_pin_changes(self) -> None:
        pip = mock.patch("install._pip").start()
        say = mock.patch("install._say").start()
        self.addCleanup(mock.patch.stopall)
        install.openvino()
        install.openvino()
        self.assertEqual((pip.call_count, say.call_count), (1, 1))
        with mock.patch("install._text", return_value="openvino-genai==0\n"):
            install.openvino()
        self.assertEqual(pip.call_count, 2)

    def test_an_environment_that_is_gone_is_made_again(self) -> None:
        install._mark("openvino", {})
        self.assertTrue(install._installed("openvino", {}))
        install.python().unlink()
        self.assertFalse(install._installed("openvino", {}))

    def test_what_failed_is_named_by_its_error(self) -> None:
        install._log("venv").parent.mkdir()
        install._log("venv").write_text("building\nERROR: no matching distribution\n\ntook 3 s\n")
        self.assertEqual(install._last_line("venv"), "ERROR: no matching distribution")


class Pins(unittest.TestCase):
    def test_every_requirement_names_one_version(self) -> None:
        lines = [
            line
            for file in (HERE / "requirements").iterdir()
            for line in file.read_text().splitlines()
            if line and not line.startswith("#")
        ]
        self.assertGreater(len(lines), 10)
        for line in [*lines, install.LLAMA]:
            self.assertRegex(line, re.compile(r"^[a-z0-9-]+==[0-9][0-9.]*(; python_version .*)?$"))
