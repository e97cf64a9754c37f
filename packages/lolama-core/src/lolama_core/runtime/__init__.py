"""How a model is run: what makes it fast, derived from it and beside it. No model knows of this."""
