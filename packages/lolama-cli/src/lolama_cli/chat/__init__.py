"""``lolama chat``: a conversation (`session`, without any terminal), and the terminal around it (`loop`)."""
