"""Speed and memory of lolama beside its peers, on one machine, in one interleaved run."""
