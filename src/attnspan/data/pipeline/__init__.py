"""From a corpus to batches: prepare once, tokenise, batch, load."""
