"""From published weights to models that lolama can run: aliases, layouts, tokenizers."""
