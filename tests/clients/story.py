"""A real Python client tells a story; the test plays the rest of the world.

    story.py STORY CLIENT ERA URL TOKEN [FOLDER]

STORY   work: list, start, send, wait, ack, hear of a change, cancel, outlive the host's death;  elicit: be asked by a tool
CLIENT  mcp, or fastmcp, which knows the legacy era and what it negotiates;  stdio: mcp through `pointsman mcp`, whose path is in BRIDGE
ERA     modern (2026-07-28, pinned), auto (negotiated), legacy (initialize)
FOLDER  not looked at: the npm clients' stories are given one

What only the test can do is asked for by a line `{"ask": …}`; a line on standard input says that it is done. The last line is the
outcome: `{"ok": true, …}`, or exit 1 and what was wrong on standard error.
"""

import asyncio
import contextlib
import json
import os
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import fastmcp
import httpx2
import mcp_types as types
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import listen
from fastmcp.client.transports import StreamableHttpTransport

MODES = {"modern": "2026-07-28", "auto": "auto", "legacy": "legacy"}
CLIENTS = ("mcp", "fastmcp", "stdio")
STORY_S = 120
"""Seconds for a whole story, a restart of the host among it."""
STEP_S = 30
"""Seconds after which what should come is given up."""
WAITS = 10
TASKS = "pointsman://tasks"


class Wrong(Exception):
    """The host did something else than the story says."""


def check(holds: bool, what: str, shown: Any = None) -> None:
    if not holds:
        raise Wrong(what if shown is None else f"{what}: {json.dumps(shown, default=str)}")


async def ask(what: str) -> None:
    """Asks the test for something and waits until it is done."""
    print(json.dumps({"ask": what}), flush=True)
    check(await asyncio.to_thread(sys.stdin.readline) != "", f"the test did not {what}")


class Player:
    """A client with what the stories need of it, whichever library it is."""

    def __init__(self, client: Any, era: str) -> None:
        self.client = client
        self.updates: asyncio.Queue[str] = asyncio.Queue()
        self.is_modern = era != "legacy"
        self.handle: str | None = None
        self.schemas: dict[str, Any] = {}

    async def list_tools(self) -> list[str]:
        listed = await self.client.list_tools()
        tools = getattr(listed, "tools", listed)
        check(len(tools) > 0, "the host lists no tools")
        self.schemas = {tool.name: getattr(tool, "input_schema", None) or tool.inputSchema for tool in tools}
        return list(self.schemas)

    async def plain(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Calls a tool; returns the result as the protocol has it."""
        if isinstance(self.client, fastmcp.Client):
            return await self.client.call_tool_mcp(tool, arguments)
        return await self.client.call_tool(tool, arguments)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Calls a tool of the host's own; returns its `result`. In the modern era only the handle says which agent calls."""
        check(tool in self.schemas, f"there is no tool `{tool}`", sorted(self.schemas))
        if self.handle and self.is_modern and "agent" in self.schemas[tool].get("properties", {}):
            arguments["agent"] = self.handle
        answer = await self.plain(tool, arguments)
        text = "".join(part.text for part in answer.content if part.type == "text")
        check(not answer.is_error, f"`{tool}` was refused", text)
        structured = answer.structured_content
        check(isinstance(structured, dict), f"`{tool}` has no structured content", text)
        check(json.loads(text) == structured, f"the text of `{tool}` is not its structured content", text)
        return structured["result"]

    async def messages(self, **arguments: Any) -> list[dict[str, Any]]:
        delivered = (await self.call("wait_for_events", **arguments)).get("messages")
        check(isinstance(delivered, list), "`wait_for_events` has no `result.messages`")
        return delivered

    async def heard(self, message: Any) -> None:
        """Takes what the client's message handler is given."""
        inner = getattr(message, "root", message)
        if isinstance(inner, types.ResourceUpdatedNotification):
            self.updates.put_nowait(str(inner.params.uri))

    @contextlib.asynccontextmanager
    async def subscribed(self, uri: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Subscribes to a resource; gives what waits for its next change."""
        if self.is_modern:
            async with listen(self.client.session, resource_subscriptions=[uri]) as subscription:
                check(subscription.honored.resource_subscriptions == [uri], "the subscription was not honoured")

                async def told() -> None:
                    event = await asyncio.wait_for(anext(subscription), STEP_S)
                    check(str(event.uri) == uri, "another resource changed", event)

                yield told
            return
        while not self.updates.empty():
            self.updates.get_nowait()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The library warns of what the latest revision dropped.
            await self.client.session.subscribe_resource(uri)

        async def updated() -> None:
            told = await asyncio.wait_for(self.updates.get(), STEP_S)
            check(told == uri, "another resource changed", told)

        yield updated


async def work(player: Player, name: str) -> dict[str, Any]:
    tools = await player.list_tools()
    player.handle = (await player.call("start", name=name, capabilities=["echo"])).get("handle")
    check(isinstance(player.handle, str), "`start` has no `result.handle`")
    await exchange(player, name, "hello")
    async with player.subscribed(TASKS) as told:
        await ask("change")
        await told()
    await cancelled(player, name)

    await ask("restart")
    # What was under way when the host died is lost; what is asked from now on is answered.
    check(await player.list_tools() == tools, "other tools after the restart")
    await exchange(player, name, "hello again")
    async with player.subscribed(TASKS) as told:
        await ask("change")
        await told()
    return {"tools": tools}


async def exchange(player: Player, name: str, subject: str) -> None:
    """Sends the agent itself a message, takes it, acks it."""
    await player.call("send_message", to=[f"agent:{name}"], kind="note", subject=subject, body=f"from {name}")
    waited = await player.messages(max_s=5)
    ours = [message for message in waited if message.get("subject") == subject]
    check(len(ours) == 1, "the message was not delivered once", waited)
    check(ours[0].get("body") == f"from {name}", "the body changed on its way", ours)
    left = await player.messages(ack=[ours[0]["id"]], max_s=0)
    check(all(message["id"] != ours[0]["id"] for message in left), "an acked message came again", left)


async def cancelled(player: Player, name: str) -> None:
    """Gives up long waits: the host notices, and hands what comes next to who still waits.

    Waits that nobody gave up would take most messages; one may be taken while the host notices.
    """
    waits = [asyncio.create_task(player.call("wait_for_events", max_s=50)) for _ in range(WAITS)]
    await player.call("lookup", uri="agents")
    for wait in waits:
        wait.cancel()
    await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), STEP_S)
    missed = 0
    for n in range(WAITS // 2):
        subject = f"after cancelled waits, {n}"
        await player.call("send_message", to=[f"agent:{name}"], kind="note", subject=subject, body="")
        came = await player.messages(max_s=2)
        await player.messages(ack=[message["id"] for message in came], max_s=0)
        missed += all(message.get("subject") != subject for message in came)
    check(missed <= 1, "cancelled waits took messages", missed)


async def elicit(player: Player) -> dict[str, Any]:
    asking, said = ("test_input_required_result_elicitation", "Hello, Alice!") if player.is_modern else ("test_elicitation", "accept")
    check(asking in await player.list_tools(), f"there is no tool `{asking}`", sorted(player.schemas))
    answer = await player.plain(asking, {} if player.is_modern else {"message": "Who are you?"})
    text = "".join(part.text for part in answer.content if part.type == "text")
    check(not answer.is_error and said in text, "the tool did not hear the answer", text)
    return {"said": text}


def form(schema: Any) -> dict[str, Any]:
    """Fills in a form: `Alice` wherever a text is asked for."""
    properties = (schema or {}).get("properties", {})
    return {name: "alice@example.invalid" if kind.get("format") == "email" else "Alice" for name, kind in properties.items()}


@contextlib.asynccontextmanager
async def opened(library: str, era: str, url: str, token: str) -> AsyncIterator[Player]:
    """Gives a connected player."""
    players: list[Player] = []

    async def heard(message: Any) -> None:
        for player in players:
            await player.heard(message)

    async def answered(_context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=form(getattr(params, "requested_schema", None)))

    async def answered_fast(_message: str, _kind: Any, params: Any, _context: Any) -> types.ElicitResult:
        return await answered(None, params)

    headers = {"Authorization": f"Bearer {token}"}
    async with contextlib.AsyncExitStack() as stack:
        if library == "fastmcp":
            transport = StreamableHttpTransport(url, headers=headers)
            client = fastmcp.Client(transport, mode=MODES[era], message_handler=heard, elicitation_handler=answered_fast)
        elif library == "stdio":
            bridge = StdioServerParameters(command=os.environ["BRIDGE"], args=["mcp", "--url", url], env={"POINTSMAN_TOKEN": token})
            client = Client(stdio_client(bridge), mode=MODES[era], message_handler=heard, elicitation_callback=answered)
        else:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
            transport = streamable_http_client(url, http_client=http)
            client = Client(transport, mode=MODES[era], message_handler=heard, elicitation_callback=answered)
        await stack.enter_async_context(client)
        version = client.session.protocol_version
        check((version == "2026-07-28") == (era != "legacy"), "another version was negotiated", version)
        players.append(Player(client, era))
        yield players[0]


async def story(which: str, library: str, era: str, url: str, token: str) -> dict[str, Any]:
    async with opened(library, era, url, token) as player:
        return await (elicit(player) if which == "elicit" else work(player, f"echo-{library}-{era}"))


def reasons(error: BaseException) -> list[str]:
    """Returns the errors inside the groups that task groups wrap them in."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in reasons(inner)]
    return [str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"]


def main() -> int:
    arguments = sys.argv[1:]
    if len(arguments) < 5 or arguments[0] not in ("work", "elicit") or arguments[1] not in CLIENTS or arguments[2] not in MODES:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        told = asyncio.run(asyncio.wait_for(story(*arguments[:5]), timeout=STORY_S))
    except Exception as error:  # The one place where any failure becomes the driver's answer.
        print(f"story.py {' '.join(arguments[:3])}: {'; '.join(reasons(error))}", file=sys.stderr)
        return 1
    print(json.dumps({**told, "ok": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
