"""Looking at a model while it runs: what each part of it computes, and what it does without a part."""
