import unittest

from plugin import reconcile
from pointsman.reconciler import Declined, Edits, Merged


class Reconciling(unittest.TestCase):
    def test_additions_of_both_stand_and_removals_hold(self):
        edits = Edits("text/x-list", b"a\nb\n", b"b\nc\n", b"a\nb\nd\n")
        self.assertEqual(reconcile(edits, {}), Merged(b"b\nc\nd\n"))

    def test_other_documents_are_declined(self):
        self.assertIsInstance(reconcile(Edits("text/plain", b"", b"", b""), {}), Declined)
