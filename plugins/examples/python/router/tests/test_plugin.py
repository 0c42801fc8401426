import unittest

from plugin import configure, route
from pointsman.router import Candidate, Message


class Routing(unittest.TestCase):
    def test_the_least_busy_comes_first_the_author_never(self):
        candidates = [Candidate(0, "ana"), Candidate(1, "bob", load=3), Candidate(2, "cleo", open_reviews=1)]
        verdict = route(Message(author="ana"), candidates, configure({}))
        self.assertEqual((verdict.decision, verdict.value), ("Ranked", [2, 1]))

    def test_a_configuration_that_does_not_fit_is_refused(self):
        with self.assertRaisesRegex(ValueError, "list of kinds"):
            configure({"broadcast_kinds": "notice"})
