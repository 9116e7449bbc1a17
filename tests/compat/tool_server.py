"""A tool server on the official MCP SDK: one tool, streamable HTTP on an ephemeral loopback port.

Prints its port on the first line of stdout and serves until it is killed.
"""

import socket
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("weather")


@server.tool()
def weather(location: str) -> str:
    """Says what the weather is."""
    return f"18 °C and fog in {location}"


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
