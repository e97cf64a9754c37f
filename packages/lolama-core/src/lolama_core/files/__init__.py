"""Reading and writing the files of models."""
