import unittest

from plugin import merge_hunk
from pointsman.merger import Hunk, Place, Resolved


class Merging(unittest.TestCase):
    def test_what_both_sides_added_stands_in_order(self):
        hunk = Hunk(b"b\nd\n", b"a\nb\nd\n", b"b\nc\nd\n")
        self.assertEqual(merge_hunk(Place("a.words"), hunk, {}), Resolved(b"a\nb\nc\nd\n"))
