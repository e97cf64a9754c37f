"""What a LLaMA is: plain modules of torch over plain tensors."""
