"""GGUF files, the format of llama.cpp: what their metadata and blocks of weights mean."""
