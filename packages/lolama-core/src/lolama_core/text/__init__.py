"""Text and ids: the tokenizer and chat templates, both of files that nobody trusts."""
