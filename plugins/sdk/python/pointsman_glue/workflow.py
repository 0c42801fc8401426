"""The world `workflow`. Its facts are handed on as they come: their names are those of the WIT."""

from pointsman import workflow as plain
from wit_world.exports import flow

from . import Connected, told


def component(plugin):
    """Returns the classes that the world exports."""
    connected = Connected(plugin)

    class Flow:
        def branch_name(self, task, attempt):
            return connected.call("branch_name", task, attempt, otherwise=plain.branch_name)

        def commit_message(self, facts):
            return connected.call("commit_message", facts, otherwise=plain.commit_message)

        def merge_message(self, facts):
            return connected.call("merge_message", facts, otherwise=plain.merge_message)

        def write_pull_request(self, facts):
            return told(lambda both: flow.PullRequest(*both), connected.call("pull_request", facts, otherwise=plain.pull_request))

        def merge_order(self, queue):
            return connected.call("merge_order", queue, otherwise=plain.merge_order)

    return connected.setup(), Flow
