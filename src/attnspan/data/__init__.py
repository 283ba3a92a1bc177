"""From a Hugging Face dataset to batches of token ids."""
