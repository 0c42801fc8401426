import unittest

from plugin import branch_name, merge_order
from pointsman.workflow import Task, Waiting


class Flow(unittest.TestCase):
    def test_branches_carry_the_kind(self):
        task = Task("T-12", "Sort the inbox", kind="fix")
        self.assertEqual(branch_name(task, 0, {}), "fix/t-12-sort-the-inbox")

    def test_the_urgent_land_first(self):
        queue = [Waiting("T-1", waited_ms=1), Waiting("T-2", priority=9), Waiting("T-3", waited_ms=2)]
        self.assertEqual(merge_order(queue, {}), [1, 2, 0])
