"""Images as sources: read, kept in the cache, batched; and the regions that their outputs belong to."""
