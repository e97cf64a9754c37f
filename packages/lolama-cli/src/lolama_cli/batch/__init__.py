"""``lolama generate --batch``: many prompts in, an answer for each out, in their order.

`prompts` reads them, `answers` knows where the answers go and which are there already, `run` makes the rest.
"""
