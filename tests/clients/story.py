"""A real Python client tells one story: list tools, start, send, wait, ack.

    story.py URL TOKEN ERA          ERA is `modern` (2026-07-28, pinned) or `legacy` (initialize)

Prints one JSON line and exits 0, or says what was wrong and exits 1.
"""

import asyncio
import json
import sys
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

MODES = {"modern": "2026-07-28", "legacy": "legacy"}


class Wrong(Exception):
    """The host did something else than the story says."""


def check(holds: bool, what: str, shown: Any = None) -> None:
    if not holds:
        raise Wrong(what if shown is None else f"{what}: {json.dumps(shown)}")


class Host:
    """The host as an agent sees it. In the modern era nothing but the handle says which agent calls."""

    def __init__(self, client: Client, tools: list[Any], era: str) -> None:
        self.client = client
        self.schemas = {tool.name: tool.input_schema for tool in tools}
        self.era = era
        self.handle: str | None = None

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        check(tool in self.schemas, f"there is no tool `{tool}`", sorted(self.schemas))
        takes_agent = "agent" in self.schemas[tool].get("properties", {})
        if self.handle and self.era == "modern" and takes_agent:
            arguments["agent"] = self.handle
        answer = await self.client.call_tool(tool, arguments)
        text = "".join(part.text for part in answer.content if part.type == "text")
        check(not answer.is_error, f"`{tool}` was refused", text)
        structured = answer.structured_content
        check(isinstance(structured, dict), f"`{tool}` has no structured content", text)
        check(json.loads(text) == structured, f"the text of `{tool}` is not its structured content", text)
        return structured


def messages(answer: dict[str, Any]) -> list[dict[str, Any]]:
    delivered = answer.get("result", {}).get("messages")
    check(isinstance(delivered, list), "`wait_for_events` has no `result.messages`", answer)
    return delivered


async def story(url: str, token: str, era: str) -> list[str]:
    # A name of its own for each era: stories may run one after another on one host.
    name = f"echo-py-{era}"
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60)
    async with http, Client(streamable_http_client(url, http_client=http), mode=MODES[era]) as client:
        if era == "modern":
            check(client.protocol_version == "2026-07-28", "another version was negotiated", client.protocol_version)
        tools = (await client.list_tools()).tools
        check(len(tools) > 0, "the host lists no tools")
        host = Host(client, tools, era)

        started = await host.call("start", name=name, capabilities=["echo"])
        host.handle = started.get("result", {}).get("handle")
        check(isinstance(host.handle, str), "`start` has no `result.handle`", started)
        sent = await host.call(
            "send_message", to=[f"agent:{name}"], kind="note", subject="hello", body=f"from Python, {era}"
        )
        check("result" in sent, "`send_message` has no result", sent)

        waited = await host.call("wait_for_events", max_s=5)
        ours = [message for message in messages(waited) if message.get("subject") == "hello"]
        check(len(ours) == 1, "the message was not delivered once", waited)
        check(ours[0].get("body") == f"from Python, {era}", "the body changed on its way", ours)

        again = await host.call("wait_for_events", ack=[ours[0]["id"]], max_s=0)
        check(all(message["id"] != ours[0]["id"] for message in messages(again)), "an acked message came again", again)
        return [tool.name for tool in tools]


def reasons(error: BaseException) -> list[str]:
    """Returns the errors inside the groups that task groups wrap them in."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in reasons(inner)]
    return [str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"]


def main() -> int:
    if len(sys.argv) != 4 or sys.argv[3] not in MODES:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        tools = asyncio.run(asyncio.wait_for(story(*sys.argv[1:]), timeout=60))
    except Exception as error:  # The one place where any failure becomes the driver's answer.
        print(f"story.py {sys.argv[3]}: {'; '.join(reasons(error))}", file=sys.stderr)
        return 1
    print(json.dumps({"tools": tools, "ok": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
