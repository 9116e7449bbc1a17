"""A small agent on the official SDKs, unmodified apart from their base URLs.

usage: agent.py OPENAI_BASE_URL MCP_URL MODE     (MODE: auto or legacy)

Streams a chat completion with tools, calls the tool that it asks for over MCP, streams the answer, and prints what it
received as one JSON object.
"""

import asyncio
import json
import sys

from mcp.client.client import Client
from openai import AsyncOpenAI

# Looks like a provider's key; must be found nowhere on disk, neither from the header nor from the body.
PLANTED = "sk-planted0123456789abcdefghijklmnopqrstuvwxyzABCDEFGH"

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says what the weather is.",
        "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
    },
}


async def stream(openai: AsyncOpenAI, messages: list) -> tuple[str, list]:
    text, calls = "", {}
    chunks = await openai.chat.completions.create(model="any", messages=messages, tools=[TOOL], stream=True)
    async for chunk in chunks:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += part.id or ""
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    return text, list(calls.values())


async def main() -> None:
    base_url, mcp_url, mode = sys.argv[1:4]
    openai = AsyncOpenAI(base_url=base_url, api_key=PLANTED)
    messages = [{"role": "user", "content": f"My key is {PLANTED}. What is the weather in San Francisco?"}]
    text, calls = await stream(openai, messages)
    results = []
    async with Client(mcp_url, mode=mode) as mcp:
        tools = [tool.name for tool in (await mcp.list_tools()).tools]
        for call in calls:
            result = await mcp.call_tool(call["name"], json.loads(call["arguments"]))
            results.append(result.content[0].text)
    asked = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in calls
    ]
    messages.append({"role": "assistant", "content": text or None, "tool_calls": asked})
    for call, result in zip(calls, results):
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    answer, _ = await stream(openai, messages)
    print(json.dumps({"calls": calls, "tools": tools, "results": results, "answer": answer}))


asyncio.run(main())
