"""From the Hub to this disk: what a repository holds, which files of it, and their bytes."""
