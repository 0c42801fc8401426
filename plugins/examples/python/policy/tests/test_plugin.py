import unittest

from plugin import check
from pointsman.policy import Actor, Allow, Approval, Facts, Need


class Gates(unittest.TestCase):
    def test_large_changes_need_more_approvals(self):
        def facts(lines_changed, *by):
            return Facts(owner="ana", lines_changed=lines_changed, approvals=[Approval(Actor(agent)) for agent in by])

        self.assertEqual(check("land", facts(10, "bob"), {}), Allow())
        self.assertIsInstance(check("land", facts(401, "bob", "ana"), {}), Need)
        self.assertEqual(check("claim", facts(0), {}), Allow())
