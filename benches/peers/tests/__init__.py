"""Tests of the parts that need no engine: `python3 -m unittest` in the folder above."""
