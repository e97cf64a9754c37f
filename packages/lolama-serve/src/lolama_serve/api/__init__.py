"""Each API that the server speaks, in a module of its own: its requests, and its answers."""
