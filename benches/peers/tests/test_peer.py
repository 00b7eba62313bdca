"""The driver and a worker process understand each other, also when something goes wrong."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from cells import SMOLLM2
from contenders import Failed
from contenders.peer import Peer, _Worker


class Workers(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        # A worker needs no environment to say that it knows no such engine.
        for patch in (
            mock.patch.dict(os.environ, {"PITH_HOME": folder.name}),
            mock.patch("install.python", return_value=Path(sys.executable)),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def test_what_goes_wrong_inside_is_told(self) -> None:
        peer = Peer("nobody", "Nobody", threads=1, kv="f16", timeout_s=30)
        with self.assertRaisesRegex(Failed, "no engine is called nobody"):
            peer.load(SMOLLM2, "a file")

    def test_a_worker_that_dies_is_told_with_its_signal(self) -> None:
        worker = _Worker("nobody")
        self.addCleanup(worker.end)
        with self.assertRaises(Failed):
            worker.ask("load", 30)
        worker._process.kill()
        worker._process.wait()
        with self.assertRaisesRegex(Failed, "SIGKILL"):
            worker.ask("load", 30)

    def test_a_worker_that_hangs_is_killed(self) -> None:
        worker = _Worker("nobody")
        self.addCleanup(worker.end)
        with self.assertRaisesRegex(Failed, "no answer within 0 s"):
            worker.ask("load", 0)
        self.assertLess(worker._process.wait(timeout=30), 0)
